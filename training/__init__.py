"""What happened next, and learning it."""
