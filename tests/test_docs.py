"""The words keep up with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from benchmarks import figures, results_page
from perennial.cli import app
from perennial.commands import reference

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FOLDERS = ("workspace", "ingest", "simulation", "features", "training", "serving", "monitoring", "pages", "perennial")
# Everyday words, which no glossary explains.
PLAIN = """
access address after age allow amounts answers app block bodies buffer buy by campaigns certificate child cli code
columns commands complete currency data database databases datasets definitions demo dictionary die discount down
duplicates email evaluation exclude exports figures files filters fraction health high home host http identities ids
ingest interactions items json keep key keys leaves left level limit limits lines list lists lives loss matters max
measure medium memory min name num offer offers on operate out pages password path per perennial picture plots port
privacy problems processes products query queue read reasons repeat repo report reports requests routes run rounds
sample samples schedule security seed sender sentence serving set settings share shop size skip source sources space
spend storage strict table tables till timeout timezone to top training transactions user when where you
"""


def _commands() -> list[str]:
    lines = []
    for page in PAGES:
        if page.name == "commands.md":  # which has them as the program says
            continue
        for block in re.findall(r"```[a-z]*\n(.*?)```", page.read_text(), flags=re.DOTALL):
            lines += re.findall(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*perennial (.+?)(?:\s{2,}#.*)?$", block, flags=re.MULTILINE)
    return sorted(set(lines))


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


def _is_known(word: str, known: set[str]) -> bool:
    """In the singular or the plural."""
    return bool({word, f"{word}s", word.removesuffix("s"), word.removesuffix("es"), f"{word[:-3]}y"} & known)


def test_the_glossary_has_what_modules_and_settings_are_named_after() -> None:
    """Every word in a module's or a setting's name is an everyday one, or is explained."""
    rows = re.findall(r"^\| (.+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    explained = {word for row in rows for word in re.findall(r"[a-z]+", row.lower())}
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if path.stem.strip("_") == path.stem]
    keys = re.findall(r"^\| `([a-z_.<>]+)`", (ROOT / "docs" / "settings.md").read_text(), re.M)
    words = {word for name in (*FOLDERS, *(path.stem for path in paths), *keys) for word in re.findall(r"[a-z]+", name)}
    assert {word for word in words if not _is_known(word, explained) and not _is_known(word, {*PLAIN.split()})} == set()


def test_the_page_of_commands_is_what_they_say() -> None:
    """`docs/commands.md` is written from the commands themselves."""
    assert (ROOT / "docs" / "commands.md").read_text() == reference.describe()


def test_the_page_of_results_is_what_the_figures_say() -> None:
    """`make results` would write `docs/results.md` as it is: no figure in it is typed."""
    kept = results_page.read_kept(ROOT / figures.KEPT)
    assert (ROOT / "docs" / "results.md").read_text() == results_page.page(kept)


def test_the_readme_shows_the_figures_that_are_kept() -> None:
    """Its one table of results is made of the same figures."""
    kept = results_page.read_kept(ROOT / figures.KEPT)
    assert f"\n\n{results_page.readme_table(kept)}\n\n" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check", "fix", "docs", "results"])
def test_the_makefile_has_what_the_readme_promises(target: str) -> None:
    """The two commands of the quickstart, and the set-up they share, are there."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_every_decision_is_in_the_index_under_its_number() -> None:
    """Numbered without a gap, in order."""
    folder = ROOT / "docs" / "decisions"
    indexed = re.findall(
        r"^\| (\d+) \| \[[^]]+\]\((\d{4})-([a-z0-9-]+)\.md\)", (folder / "README.md").read_text(), re.M
    )
    assert [int(number) for number, *_ in indexed] == [*range(1, len(indexed) + 1)]
    assert [f"{number}-{name}.md" for _, number, name in indexed] == sorted(path.name for path in folder.glob("0*.md"))
