"""The manifest: its models, the reading of it, and all that can be wrong with it."""
