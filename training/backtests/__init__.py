"""Judging at earlier dates: metrics, baselines, grades, who answers, reports."""
