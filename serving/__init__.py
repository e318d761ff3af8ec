"""Answers: batch scores, lists, HTTP."""
