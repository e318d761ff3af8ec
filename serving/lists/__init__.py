"""Lists to act on, and files of scores and offers."""
