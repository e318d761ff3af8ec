"""The words keep up with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from perennial.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(), flags=re.DOTALL):
            found += re.findall(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*perennial (.+?)(?:\s{2,}#.*)?$", block, flags=re.MULTILINE)
    return sorted(set(found))


@pytest.mark.parametrize("line", _commands())
def test_every_command_in_the_docs_is_one_the_program_takes(line: str) -> None:
    """A reader who types what the pages show meets no usage error."""
    command, arguments = typer.main.get_command(app), shlex.split(line)
    context = command.make_context("perennial", arguments[:1] or ["--help"])
    while hasattr(command, "resolve_command"):
        _, command, arguments = command.resolve_command(context, arguments)
        if not hasattr(command, "resolve_command"):
            command.make_context(command.name, arguments, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """Links between the pages point at files that exist."""
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("target", ["setup", "demo", "test"])
def test_the_makefile_has_what_the_readme_promises(target: str) -> None:
    """The two commands of the quickstart, and the set-up they share, are there."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
