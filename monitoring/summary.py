"""What one run did, stage by stage, as a page to read and as JSON; written also when the run broke off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from html import escape
from pathlib import Path
from typing import Any

from monitoring.alerts import Alert
from perennial import storage

_SHOWN = 4


@dataclass
class Stage:
    """One step: how long it took, what it said, and the sentence that it failed with."""

    name: str
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    failed: str | None = None


@dataclass(frozen=True)
class Decision:
    """About one kind of model: why it was trained, or that it need not be, and what the gate said of the version."""

    kind: str
    version: str | None
    due: str
    outcome: str
    reasons: tuple[str, ...] = ()


@dataclass
class Summary:
    """A run under way: its `of` stages are entered one after the other, and `write` leaves the page in `folder`.

    `notes` are texts by their titles, `links` files by what they are.
    """

    workspace: str
    as_of: date
    started: datetime
    folder: Path
    say: Callable[[str], None]
    of: int
    stages: list[Stage] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    links: dict[str, Path] = field(default_factory=dict)

    @property
    def page(self) -> Path:
        return self.folder / f"run-{self.as_of}-{self.started:%Y%m%dT%H%M%S%f}.html"

    @property
    def failed(self) -> Stage | None:
        return next((stage for stage in self.stages if stage.failed is not None), None)

    @property
    def complete(self) -> bool:
        """Every stage was gone through."""
        return len(self.stages) == self.of and self.failed is None

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[str], None]]:
        """Times the block, and gives it what to say its progress with: it reaches the terminal and the page."""
        stage, start = Stage(name), time.monotonic()
        self.stages.append(stage)
        self.say(f"[{len(self.stages)}/{self.of}] {name}")

        def say(line: str) -> None:
            stage.said.append(line)
            self.say(line)

        try:
            yield say
        except BaseException as problem:
            stage.failed = str(problem) or type(problem).__name__
            raise
        finally:
            stage.seconds = time.monotonic() - start

    def write(self) -> Path:
        """Writes the page and, beside it, the same as JSON; returns the page's path."""
        storage.write_json(self.page.with_suffix(".json"), self._data())
        with storage.replacing(self.page) as draft:
            draft.write_text(_html(self), encoding="utf-8")
        return self.page

    def _data(self) -> dict[str, Any]:
        listed = {name: [asdict(item) for item in getattr(self, name)] for name in ("stages", "decisions", "alerts")}
        return {
            "workspace": self.workspace, "as_of": self.as_of, "started": self.started.isoformat(),
            "done": self.failed is None, "notes": self.notes, "told": self.told, "links": self.links,
        } | listed  # fmt: skip


def _html(run: Summary) -> str:
    title = f"{run.workspace} at {run.as_of}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="answer {"bad" if run.failed else "look" if run.alerts else "good"}">{escape(_answer(run))}</p>',
        _section("What needs a look", [_alert(alert) for alert in run.alerts]),
        _section("Models", [_decision(decision) for decision in run.decisions]),
        *(f"<section><h2>{escape(name)}</h2><pre>{escape(text)}</pre></section>" for name, text in run.notes.items()),
        _section("Stages", [_stages(run.stages)]),
        _section("Told", [f"<p>{escape(line)}</p>" for line in run.told]),
        _section("Where it lies", [_links(run)]),
    ]
    return _PAGE.format(
        title=escape(title), style=_STYLE, started=f"{run.started:%Y-%m-%d %H:%M} UTC", body="\n".join(body)
    )


def _answer(run: Summary) -> str:
    seconds = sum(stage.seconds for stage in run.stages)
    if run.failed:
        return f"Broke off in {run.failed.name}: {run.failed.failed}"
    looks = (
        "1 thing needs a look"
        if len(run.alerts) == 1
        else f"{len(run.alerts) or 'nothing'} need{'s' * (not run.alerts)} a look"
    )
    return f"Done in {seconds:,.0f} s; {looks}"


def _section(title: str, parts: Iterable[str]) -> str:
    inside = "".join(parts)
    return f"<section><h2>{title}</h2>{inside}</section>" if inside else ""


def _alert(alert: Alert) -> str:
    says, command = escape(alert.says), escape(alert.command)
    return f"<h3>{escape(alert.about)}</h3><p class=said>{says}</p><p>Next: <code>{command}</code></p>"


def _decision(decision: Decision) -> str:
    version = f", version {decision.version}" if decision.version else ""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in decision.reasons)
    return (
        f"<h3>{escape(decision.kind + version)}: {escape(decision.outcome)}</h3><p>{escape(decision.due)}</p>"
        f"<ul>{reasons}</ul>"
    )


def _stages(stages: Iterable[Stage]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(stage.name)}</th><td>{stage.seconds:,.1f} s</td><td>{_told_by(stage)}</td></tr>"
        for stage in stages
    )
    heads = "<tr><th scope=col>stage</th><th scope=col>took</th><th scope=col>said</th></tr>"
    return f"<table><thead>{heads}</thead><tbody>{rows}</tbody></table>"


def _told_by(stage: Stage) -> str:
    """What a stage said; where that is long, its last line, and the rest on request."""
    said = [*stage.said, *([f"failed: {stage.failed}"] if stage.failed else [])]
    lines = [f"<div>{escape(line)}</div>" for line in said]
    if len(lines) <= _SHOWN:
        return "".join(lines)
    return f"<details><summary>{escape(said[-1])}</summary>{''.join(lines)}</details>"


def _links(run: Summary) -> str:
    """Those below the reports' folder as links that hold wherever the folder is opened, the others as paths."""
    items = []
    for name, path in run.links.items():
        near = path.parent == run.folder
        shown = (
            f'<a href="{escape(path.name)}">{escape(path.name)}</a>' if near else f"<code>{escape(str(path))}</code>"
        )
        items.append(f"<dt>{escape(name)}</dt><dd>{shown}</dd>")
    return f"<dl>{''.join(items)}</dl>" if items else ""


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{body}
<footer>Made by <code>perennial run</code>, started {started}; the JSON file beside this page has the same.</footer>
</main></body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #56616d; --paper: #fff; --card: #f4f6f8; --line: #d5dbe1;
  --accent: #2563a8; --good: #17703c; --look: #8a5a00; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #a3afbb; --paper: #14181c; --card: #1f252b;
  --line: #38424c; --accent: #79b0ea; --good: #74cf96; --look: #e8b657; --bad: #ff9d94; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
h3 { font-size: 1.05rem; margin: 1rem 0 .25rem; }
p, ul { margin: .3rem 0; }
.answer { font-weight: 700; font-size: 1.15rem; background: var(--card); border-left: .3rem solid;
  padding: .6rem 1rem; }
.good { color: var(--good); } .look { color: var(--look); } .bad { color: var(--bad); }
.said { white-space: pre-line; }
pre, code { background: var(--card); border-radius: .25rem; font-size: .88rem; }
pre { padding: .75rem 1rem; overflow-x: auto; } code { padding: .1rem .3rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; font-weight: 400; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td:nth-child(2) { text-align: right; white-space: nowrap; }
thead th { color: var(--soft); font-size: .8rem; } tbody th { font-weight: 600; }
summary { cursor: pointer; } a { color: var(--accent); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; } dd { margin: 0; }
footer { margin: 3rem 0 1rem; color: var(--soft); font-size: .85rem; }
"""
