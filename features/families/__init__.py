"""The families of customers' features, one module each."""
