"""The page that every run leaves."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from monitoring.alerts import Alert
from monitoring.summary import Decision, Summary
from perennial import storage


def summary(folder: Path, said: list[str] | None = None) -> Summary:
    started = datetime(2025, 1, 1, 4, 0, 7, tzinfo=UTC)
    heard = said if said is not None else []
    return Summary("shop", date(2025, 1, 1), started, folder / "reports", heard.append, of=2)


def test_what_a_stage_says_reaches_the_terminal_and_the_page(tmp_path: Path) -> None:
    """Numbered among so many, in order, and with its seconds."""
    said: list[str] = []
    run = summary(tmp_path, said)
    with run.stage("ingest") as say:
        say("3 rows <read>")
    with run.stage("score"):
        pass
    assert said == ["[1/2] ingest", "3 rows <read>", "[2/2] score"]
    assert [(stage.name, stage.said) for stage in run.stages] == [("ingest", ["3 rows <read>"]), ("score", [])]
    assert all(stage.seconds >= 0 for stage in run.stages)
    page = run.write().read_text()
    assert "3 rows &lt;read&gt;" in page
    assert "Done in 0 s; nothing needs a look" in page


def test_a_stage_that_breaks_off_is_on_the_page(tmp_path: Path) -> None:
    """The error goes on its way; the page says where it broke off and why, and so does the JSON."""
    run = summary(tmp_path)
    with pytest.raises(ValueError, match="no such column"), run.stage("ingest"):
        raise ValueError("no such column")
    page = run.write()
    assert "Broke off in ingest: no such column" in page.read_text()
    record = storage.read_json(page.with_suffix(".json"))
    assert record["done"] is False
    assert record["stages"][0]["failed"] == "no such column"


def test_the_page_has_what_a_person_needs(tmp_path: Path) -> None:
    """Alerts with the next command, the gate's reasons, the notes, who was told, links that move with the folder."""
    run = summary(tmp_path)
    run.alerts.append(Alert("churn version 3 was refused", "auc is lower", "perennial promote churn --version 3"))
    run.decisions.append(Decision("churn", "3", "it is old", "refused", ("auc is lower", "it is as quick")))
    run.notes["Drift"] = "no drift"
    run.told.append("1 alert(s) told: ann@example.org")
    run.links |= {"drift": tmp_path / "reports" / "drift.html", "scores": tmp_path / "scores.parquet"}
    page = run.write()
    text = page.read_text()
    for words in (
        "1 thing needs a look", "<code>perennial promote churn --version 3</code>", "churn, version 3: refused",
        "it is old", "<li>auc is lower</li><li>it is as quick</li>", "<h2>Drift</h2><pre>no drift</pre>",
        "told: ann@example.org", '<a href="drift.html">', f"<code>{tmp_path}/scores.parquet</code>",
    ):  # fmt: skip
        assert words in text, words
    assert page == tmp_path / "reports" / "run-2025-01-01-20250101T040007000000.html"


def test_the_record_has_the_same(tmp_path: Path) -> None:
    """As data, for a script that follows runs."""
    run = summary(tmp_path)
    with run.stage("train") as say:
        say("churn: version 3")
    run.decisions.append(Decision("churn", "3", "it is old", "promoted"))
    record = storage.read_json(run.write().with_suffix(".json"))
    assert (record["workspace"], record["as_of"], record["done"]) == ("shop", "2025-01-01", True)
    assert record["stages"][0]["said"] == ["churn: version 3"]
    assert record["decisions"][0] == {
        "kind": "churn", "version": "3", "due": "it is old", "outcome": "promoted", "reasons": [],
    }  # fmt: skip
