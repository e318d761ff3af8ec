"""Facts told one after another."""

from __future__ import annotations

from collections.abc import Iterable


def joined(facts: Iterable[str]) -> str:
    """A sentence for each fact; the first begins as it is, for it may follow a colon. No full stop at the end."""
    first, *others = [*facts] or [""]
    return ". ".join([first, *(f"{fact[:1].upper()}{fact[1:]}" for fact in others)])
