"""The page that every run leaves."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from markup import HOSTILE, section, sound, tables

from ingest.intake import Account
from monitoring.alerts import Alert
from monitoring.batch import Batch, Change
from perennial.month_page import Decision, Stage, Summary
from workspace import storage
from workspace.money import Money

DAY = date(2025, 1, 1)
ASKED = {"currency": "EUR", "measure": "revenue", "churn_days": 90, "value_days": 60}
BATCH = Batch(DAY, 1_200, 1_000, 150, 60_000.0, 12_345.6, 9_000.4, {"no purchase yet": 140, "no consent": 60},
              ("shop.churn/2", "shop.lifetime_value/1"), ASKED)  # fmt: skip
BEFORE = replace(BATCH, as_of=date(2024, 12, 1), customers=1_150, scored=990, high=160, at_risk=13_000.0,
                 models=("shop.churn/1", "shop.lifetime_value/1"))  # fmt: skip


def summary(folder: Path, said: list[str] | None = None) -> Summary:
    started = datetime(2025, 1, 1, 4, 0, 7, tzinfo=UTC)
    heard = said if said is not None else []
    return Summary("shop", DAY, started, folder / "reports", heard.append, of=2)


def scored(folder: Path, batch: Batch = BATCH, change: Change | None = None) -> Summary:
    run = summary(folder)
    run.batch, run.change, run.grades = batch, change, {"churn": "A", "value_at_risk": "B"}
    return run


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
    assert "Done in 0 s. Nothing needs a look." in page


def test_a_run_says_what_is_left_by_the_last_whole_one(tmp_path: Path) -> None:
    """Its seconds from this stage on; not those of one that broke off, nor where next to nothing is left."""
    whole = summary(tmp_path)
    whole.stages = [Stage("ingest", 20.4), Stage("score", 130.0)]
    whole.write()
    broken = replace(summary(tmp_path), started=datetime(2025, 1, 2, tzinfo=UTC))
    broken.stages = [Stage("ingest", 999.0), Stage("score", 0.1, failed="full")]
    broken.write()
    said: list[str] = []
    run = summary(tmp_path, said)
    with run.stage("ingest"):
        pass
    whole.stages[1].seconds = 9.0
    whole.write()
    with run.stage("score"):
        pass
    assert said == ["[1/2] ingest, about 3 min left", "[2/2] score"]


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
        "1 thing needs a look",
        "<h3>Churn version 3 was refused</h3>", "<code>perennial promote churn --version 3</code>",
        "Churn, version 3: refused",
        "It is old.", "<li>Auc is lower.</li><li>It is as quick.</li>", "<h3>Drift</h3><pre>no drift</pre>",
        "<li>1 alert(s) told: ann@example.org</li>", '<a href="drift.html">', f"<code>{tmp_path}/scores.parquet</code>",
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
    assert (record["customers"], record["change"], record["tables"]) == (None, None, [])
    assert record["decisions"][0] == {
        "kind": "churn", "version": "3", "due": "it is old", "outcome": "promoted", "reasons": [],
        "against": [],
    }  # fmt: skip


def test_the_page_leads_with_customers_and_money(tmp_path: Path) -> None:
    """How many, how much, how many at high risk, each with how far it is proven; the log comes last."""
    run = scored(tmp_path)
    run.list_command = "perennial list churn-risk -c shop.yaml --as-of 2025-01-01"
    html = sound(run.write().read_text())
    customers, money, high = (card.text for card in html.all("article"))
    assert "1,200" in customers
    assert "1,000 are scored, 200 are not." in customers
    assert "12,346 EUR" in money
    assert "The scored customers are expected to bring 60,000 EUR as revenue in the next 60 days." in money
    assert money.rstrip().endswith("Grade B.")
    assert "150 customers" in high
    assert "9,000 EUR of the money at risk is theirs. Grade A." in high
    assert [tag.text for tag in html.all("h2")] == [
        "Customers", "Money at risk", "At high risk", "What changed", "What needs a look", "The list",
        "What is left out", "Log",
    ]  # fmt: skip
    assert run.list_command in section(html, "The list").text
    assert tables(section(html, "What is left out")) == [
        [["reason", "customers"], ["no purchase yet", "140"], ["no consent", "60"]]
    ]


def test_the_page_says_what_changed(tmp_path: Path) -> None:
    """Beside the figures of the as_of before, who came, went and moved, and that another model answers."""
    changed = section(sound(scored(tmp_path, change=Change(BEFORE, 70, 20, 30, 40, 50)).write().read_text()),
                      "What changed")  # fmt: skip
    assert tables(changed) == [[
        ["", "then", "now", "change"],
        ["customers known", "1,150", "1,200", "+50"],
        ["scored", "990", "1,000", "+10"],
        ["not scored", "160", "200", "+40"],
        ["at high risk", "160", "150", "-10"],
        ["money at risk, EUR", "13,000", "12,346", "-654"],
    ]]  # fmt: skip
    for words in (
        "The scores before these are of 2024-12-01.",
        "70 customers are new since 2024-12-01.",
        "20 customers known then are not known any more.",
        "30 customers scored then are not scored now",
        "40 customers moved up into the high band.",
        "50 customers moved down out of it.",
        "Another model answers now: shop.churn/2.",
    ):
        assert words in changed.text


def test_a_first_run_has_nothing_to_compare(tmp_path: Path) -> None:
    """It says so, where later ones have a table."""
    changed = section(sound(scored(tmp_path).write().read_text()), "What changed")
    assert "First run by as_of: 2025-01-01 is the earliest with scores." in changed.text
    assert tables(changed) == []


def test_another_question_is_not_compared(tmp_path: Path) -> None:
    """Risk within 90 days and within 30 are two things, and so are two currencies."""
    before = replace(BEFORE, question=ASKED | {"churn_days": 30})
    changed = section(sound(scored(tmp_path, change=Change(before, 0, 0, 0, 40, 50)).write().read_text()),
                      "What changed")  # fmt: skip
    assert [row[0] for row in tables(changed)[0]] == ["", "customers known", "scored", "not scored"]
    assert "risk and money are not compared" in changed.text
    assert "high band" not in changed.text


def test_what_is_withheld_is_not_on_the_page(tmp_path: Path) -> None:
    """No amount stands for an amount that is too far off to be shown, and none is compared."""
    hidden = replace(BATCH, high=None, value=None, at_risk=None, at_risk_high=None)
    html = sound(scored(tmp_path, hidden, Change(BEFORE, 0, 0, 0, 0, 0)).write().read_text())
    _, money, high = (card.text for card in html.all("article"))
    for card in (money, high):
        assert "not shown" in card
        assert "Why stands under" in card
    assert [row[0] for row in tables(section(html, "What changed"))[0]][1:] == [
        "customers known",
        "scored",
        "not scored",
    ]


def test_a_run_that_wrote_no_scores_shows_none(tmp_path: Path) -> None:
    """Broken off before: no figures of another run."""
    run = summary(tmp_path)
    with pytest.raises(ValueError, match="no such column"), run.stage("ingest"):
        raise ValueError("no such column")
    html = sound(run.write().read_text())
    assert "This run wrote no scores." in section(html, "No new scores").text
    assert list(html.all("article")) == []


def test_refused_rows_are_counted_in_rows_and_money(tmp_path: Path) -> None:
    """Of each table that has any, with the reasons."""
    run = scored(tmp_path)
    lost = Money(Decimal("90.00"), quarantined={"future": Decimal("1234.50")})
    run.accounts = [Account("customers", 9, 0, 9, {}),
                    Account("transactions", 1_100, 0, 1_000, {"future": 60, "absurd amount": 40}, lost)]  # fmt: skip
    assert tables(section(sound(run.write().read_text()), "What is left out"))[1] == [
        ["table", "rows read", "refused", "amount refused", "why"],
        ["transactions", "1,100", "100", "1,234.50", "40 absurd amount; 60 future"],
    ]


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_run_speaks_of_is_text(name: str, tmp_path: Path) -> None:
    """A campaign, an item, a table, a file or an error that is called like markup stays words."""
    run = scored(tmp_path, replace(BATCH, not_scored={name: 1}), Change(BEFORE, 1, 1, 1, 1, 1))
    with run.stage(name) as say:
        say(name)
    run.alerts.append(Alert(name, name, name))
    run.decisions.append(Decision(name, name, name, name, (name,)))
    run.accounts, run.about, run.list_command = [Account(name, 1, 0, 0, {name: 1})], [name], name
    run.notes[name], run.links[name], run.told = name, tmp_path / "scores.parquet", [name]
    html = sound(run.write().read_text())
    assert html.text.count(name) >= 18
    assert tables(section(html, "What is left out"))[0][1] == [name, "1"]
