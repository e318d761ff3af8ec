"""The page of settings, written from the settings themselves."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from workspace.settings import Table, Workspace, group_of

_PAGE = """# Settings

Every key of a workspace file. A key that is not here is refused; `--set key.path=value` overrides one on the command
line. `${NAME}` in a text is filled in from the environment.
`workspace/settings.py` holds them, and this page is written from it:
`python -c "from workspace.settings_page import describe; print(describe(), end='')" > docs/settings.md`
"""
_IN_WORDS: dict[Any, str] = {str: "text", SecretStr: "text", int: "whole number", float: "number",
             bool: "`true` or `false`", dict: "a map of texts", tuple: "text, or a list of texts"}  # fmt: skip
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def describe() -> str:
    """`docs/settings.md`: every key with its type, default and meaning, group by group."""
    groups = "".join(_described(prefix, model) for prefix, model in _groups(Workspace))
    return _PAGE + _described("", Workspace) + groups


def _groups(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The groups of settings below a model; the tables, which are all alike, once."""
    for name, info in model.model_fields.items():
        inner = group_of(info.annotation)
        if inner is not None and not (inner is Table and name != "transactions"):
            key = f"{prefix}<table>" if inner is Table else f"{prefix}{name}"
            yield f"{key}.", inner
            yield from _groups(inner, f"{key}.")


def _described(prefix: str, model: type[BaseModel]) -> str:
    title = f"\n## {prefix.rstrip('.') or 'The workspace'}\n\n| key | type | default | meaning |\n|---|---|---|---|\n"
    rows = [
        f"| `{prefix}{name}` | {_type_in_words(info)} | {_default_in_words(info)} | {info.description} |\n"
        for name, info in model.model_fields.items()
    ]
    return title + "".join(rows)


def _type_in_words(info: FieldInfo) -> str:
    annotation = info.annotation
    if isinstance(annotation, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    if group_of(annotation) is not None:
        return "a group"
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    bounds = [
        f"{words} {getattr(limit, bound)}"
        for limit in info.metadata
        for bound, words in _BOUNDS.items()
        if hasattr(limit, bound)
    ]
    return ", ".join([_IN_WORDS[get_origin(annotation) or annotation], *bounds])


def _default_in_words(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "the group's own"
    return (
        "none" if default in (None, (), {}) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )
