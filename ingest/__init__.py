"""Rows come in: sources, what they say, what is wrong with them, corrections, events."""
