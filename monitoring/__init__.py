"""Checking later: drift, outcomes, alerts."""
