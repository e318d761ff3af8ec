"""A customer's own page, at `/own/<link>`: what is held of them, what is computed, and what they can ask for."""
