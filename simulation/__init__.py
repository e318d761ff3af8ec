"""A made-up shop whose truth is known: its customers, what they do, and what a perfect forecaster would say."""
