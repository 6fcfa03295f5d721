"""Where Redis is, a client of it, and the signing of what goes through it."""
