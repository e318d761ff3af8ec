"""A failure in words: the sentence that a person reads, and the code that a command ends with."""

from __future__ import annotations

from workspace import storage
from workspace.settings import SettingsError
from workspace.storage import CheckFailed


def in_words(problem: Exception) -> tuple[str, int] | None:
    """A failure as a sentence and an exit code; None for a fault of the program."""
    if isinstance(problem, SettingsError):
        return str(problem), 2
    if isinstance(problem, CheckFailed):
        return str(problem), 1
    if storage.is_full(problem):
        return f"the disk is full: {str(problem).splitlines()[0]}; free some space and run again", 1
    if {"MlflowException", "OperationalError"} & {kind.__name__ for kind in type(problem).__mro__}:
        said = str(problem).splitlines()[0]
        return f"MLflow, or its database, does not do as it is asked: {said}; run again when it does, all else stays", 1
    if isinstance(problem, OSError):
        where = f": {problem.filename}" if problem.filename else ""
        return f"{problem.strerror or problem}{where}; nothing was left half-written", 1
    return None
