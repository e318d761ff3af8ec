"""Features of a customer and an item, and of items."""
