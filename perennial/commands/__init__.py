"""The command line, a module for each who uses it."""
