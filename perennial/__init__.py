"""Which customers are about to leave, what each will be worth, and what each will buy next."""

__version__ = "0.1.0"
