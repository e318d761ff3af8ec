"""The data check: what is in the tables, which models it suffices for, what looks wrong."""
