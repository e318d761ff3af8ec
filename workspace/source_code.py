"""What a Python file says to the machine: the same whatever its comments, docstrings and formatting are."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


def hashed(files: Iterable[str | Path]) -> str:
    """A hash of what these files say, in this order. Another Python may parse, and so hash, them otherwise."""
    return hashlib.sha256(
        "\n".join(_parsed(Path(file).read_text(encoding="utf-8")) for file in files).encode()
    ).hexdigest()


@lru_cache(maxsize=512)
def _parsed(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for name, block in ast.iter_fields(node):
            if isinstance(block, list) and any(map(_is_remark, block)):
                setattr(node, name, [one for one in block if not _is_remark(one)])
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_remark(node: object) -> bool:
    """A text that stands by itself, as docstrings do: nothing is done with it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
