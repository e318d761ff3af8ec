"""The page of every command, docs/commands.md, written from the commands themselves."""

from __future__ import annotations

_PAGE = """# Commands

Every command, as its `--help` tells; this page is written from there:
`python -c "from perennial.commands.reference import describe; print(describe(), end='')" > docs/commands.md`

"""


def describe() -> str:
    """The whole page, in Markdown."""
    import typer
    from typer.cli import get_docs_for_click

    from perennial.cli import app

    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="perennial")
    told = text.partition("\n\n")[2].strip()
    return f"{_PAGE}{told}\n"
