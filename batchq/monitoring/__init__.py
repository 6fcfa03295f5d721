"""How runs and the fleet stand, and who is told of it."""
