"""What was known of customers and items at an as_of."""

import typeguard

# Feast has its classes rewritten to check their arguments, which takes 3 of the 7 seconds of its import.
typeguard.typechecked = lambda target: target  # type: ignore[assignment]  # as under `python -O`
