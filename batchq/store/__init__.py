"""What lasts: run folders and the catalog."""
