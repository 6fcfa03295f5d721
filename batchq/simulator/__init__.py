"""An HTTP server that stands in for paid providers."""
