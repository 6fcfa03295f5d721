"""What people ask for, from the command line, the pages and Python: submit, follow, stop."""
