"""The backtest's page and text, from answers made by hand: every row says of how many, and the counts add up."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import markup
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from training.backtests import backtest_page, backtest_report, evaluation, plots
from training.backtests.backtest import Bounds, Judged
from training.backtests.backtest_report import Report
from training.backtests.baselines import Answer
from training.backtests.evaluation import Evaluation
from training.backtests.grade import RULES
from training.backtests.offer_backtest import JudgedOffers
from training.backtests.scoreboard import scoreboard
from training.kinds import CHURN, kind_of
from workspace import settings
from workspace.storage import CheckFailed

SHOP = settings.parse({"name": "shop", "tables": {"transactions": {"path": "none.parquet"}}}, "the tests")


DAYS = (date(2024, 1, 1), date(2024, 4, 1))
ROWS = 200


def segments() -> dict[str, np.ndarray]:
    """Three that everybody but the last twenty is in one of, and one that lies across them."""
    place = np.arange(ROWS)
    return {"new": place < 60, "one-time": (place >= 60) & (place < 110), "repeat": (place >= 110) & (place < 180),
            "top decile": place % 10 == 0}  # fmt: skip


def judged(day: date, bias: float | None = None, interval: float = 0.8) -> Judged:
    """Churn, or with a bias the spend, of 200 customers, all of whom spend within their bounds but one in four."""
    place = np.arange(ROWS)
    ids = np.array([f"c{number:03}" for number in place], dtype=object)
    actual = (place % 3 == 0).astype(float) if bias is None else 1.0 + place
    said = 0.2 + 0.4 * (place % 3 == 0) if bias is None else (1 + bias) * actual
    answers = (Answer("Perennial", "ours", said), Answer("rule", "naive", np.full(ROWS, actual.mean())))
    if bias is None:
        return Judged(day, (day,), ids, actual, answers, segments())
    high = np.where(place % 4 == 0, 0.0, np.inf)
    bounds = Bounds(np.zeros(ROWS), np.where(np.isinf(high), 1e6, 0.0), interval)
    return Judged(day, (day,), ids, actual, answers, segments(), (), bounds, (actual, said))


def offered(day: date) -> JudgedOffers:
    """Half of the customers bought again, two in three something new."""
    made, place = judged(day), np.arange(ROWS)
    again, new = np.where(place % 2 == 0, 0.5, np.nan), np.where(place % 3 == 0, np.nan, 0.4)
    figures = {f"{name}{kind}": values for kind, values in (("", np.full(ROWS, 0.6)), ("_repeat", again), ("_new", new))
               for name in ("ndcg5", "recall5", "hit5")}  # fmt: skip
    answers = (Answer("Perennial", "ours", np.full(ROWS, 0.4)), Answer("usual", "naive", np.full(ROWS, 0.1)))
    return JudgedOffers(
        day, (day,), made.customer_ids, made.actual, answers, made.segments, {"Perennial": figures, "usual": figures}
    )


def evaluated(kind: str, cutoffs: Sequence[Judged | JudgedOffers]) -> Evaluation:
    of = kind_of(kind)
    return Evaluation(
        of, 90, tuple(cutoffs), scoreboard(cutoffs), evaluation.grade(of.measures, cutoffs), currency="EUR"
    )


OFF = (0.3, -0.3)


@pytest.fixture(scope="module")
def report() -> Report:
    return Report("shop", date(2024, 7, 1), "EUR", (
        evaluated("churn", [judged(day) for day in DAYS]),
        evaluated("lifetime_value", [judged(day, off, 0.5) for day, off in zip(DAYS, OFF, strict=True)]),
        evaluated("cross_sell", [offered(day) for day in DAYS]),
    ))  # fmt: skip


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return backtest_page.as_html(report)


def tables(page: str, title: str = "") -> list[list[list[str]]]:
    """Of the page, or of the section of a title; the heads first."""
    html = markup.sound(page)
    return markup.tables(markup.section(html, title) if title else html)


def counts(table: list[list[str]]) -> dict[str, int]:
    place = table[0].index("customers")
    return {row[0]: int(row[place].replace(",", "")) for row in table[1:]}


@pytest.mark.parametrize("title", ["Who will leave", "What customers will spend"])
def test_the_counts_of_a_table_add_up(title: str, page: str) -> None:
    """By date to all dates, by segment to everyone; who is in another segment too is named last, as of these."""
    by_date, by_segment, beside, ours = tables(page, title)
    assert counts(by_date) == {"2024-01-01": ROWS, "2024-04-01": ROWS, "all dates": 2 * ROWS}
    for table in (by_segment, ours):
        assert counts(table) == {"new": 120, "one-time": 100, "repeat": 140, "never bought": 40, "all": 400,
                                 "of these, top decile": 40}  # fmt: skip
        *apart, everyone, _ = counts(table).values()
        assert sum(apart) == everyone
    assert counts(beside) == {"Perennial": 400, "rule": 400}
    expected = [float(row[2].replace(",", "")) for row in by_segment[1:]]
    assert sum(expected[:-2]) == pytest.approx(expected[-2], abs=4)


def test_offers_are_told_apart_by_what_they_are_of(report: Report, page: str) -> None:
    """Repeats are of those who bought again, new items of those who bought something new: a table each."""
    shown = tables(page, "What to offer")
    wholes = [400, 200, 2 * 133]
    for (beside, ours), whole in zip(zip(shown[::2], shown[1::2], strict=True), wholes, strict=True):
        assert counts(beside) == {"Perennial": whole, "usual": whole}
        *apart, everyone, _ = counts(ours).values()
        assert sum(apart) == everyone == whole
    text = backtest_report.as_text(report)
    for title, whole in zip(("", "of repeats", "of new items"), wholes, strict=True):
        assert re.search(rf"^  {title} +customers +ndcg5.*\n  Perennial +{whole:,} ", text, re.MULTILINE)


def test_totals_that_are_off_either_way_do_not_cancel(report: Report, page: str) -> None:
    """30 % too much and then 30 % too little is off by 30 %, of everyone and of each segment, and never by nothing."""
    by_date, by_segment, beside, _ = tables(page, "What customers will spend")
    assert [row[4] for row in by_date[1:]] == ["+30.0%", "-30.0%", "30.0%"]
    assert [row[4] for row in by_segment[1:]] == ["30.0%"] * 6
    assert beside[1][beside[0].index("total off by")] == "0.300"
    assert "the total was off by 30% on average over 2 dates, at the worst by 30%" in page
    data = backtest_report.as_data(report)["models"]["lifetime_value"]["contenders"]["Perennial"]["figures"]["bias"]
    assert (data["mean"], data["each"]) == (pytest.approx(0.3), pytest.approx([0.3, -0.3]))
    assert re.search(r"^  Perennial +400 .* 0\.300 \((-?)0\.300\)", backtest_report.as_text(report), re.MULTILINE)


def test_bounds_are_shown_beside_what_they_state(report: Report, page: str) -> None:
    """A workspace that asks for half has half on its page and in its picture, and nowhere 80 %."""
    heads, *rows = tables(page, "What customers will spend")[0]
    assert heads[-1] == "within bounds, 50% stated"
    assert [row[-1] for row in rows] == ["75.0%"] * 3
    assert "75% of the customers spent within their bounds, which should hold 50%." in page
    axes = plots.of_amounts(report.models[1].judged, "EUR")["coverage"].axes[0]
    line = next(line for line in axes.lines if str(line.get_label()).startswith("as stated"))
    assert (line.get_label(), list(line.get_ydata())) == ("as stated, 50 %", [0.5, 0.5])
    assert not re.search("80 ?%", re.sub("<table>.*?</table>", "", page, flags=re.DOTALL))


def test_differences_of_probabilities_are_points(report: Report, page: str) -> None:
    """In the grade's sentence, on its card and in the table of what grades ask for; money stays in per cent."""
    error = report.models[0].board.ours.figures["ece"].mean  # type: ignore[union-attr]
    assert f"probabilities are off by {100 * error:.0f} points on average" in page
    assert f"Probabilities are off by {100 * error:.1f} points on average" in page
    asked = tables(page)[-1]
    assert [row[5] for row in asked[1:]] == ["5 points, 10 points", "8 points, 15 points", "12 points, 20 points"]
    assert [row[6] for row in asked[1:]] == ["10%, 25%", "20%, 40%", "35%, 60%"]
    assert [row[7] for row in asked[1:]] == [f"{100 * rule.shortfall:.0f} points" for rule in RULES.values()]


def test_what_never_happened_is_off_by_nothing_that_can_be_told() -> None:
    """Nobody spent anything at a date: a dash there, and the other dates' size for all of them."""
    first, second = judged(DAYS[0], 0.3), judged(DAYS[1], 0.2)
    nothing = replace(second, actual=np.zeros(ROWS))
    graded = evaluated("lifetime_value", [first, nothing])
    assert [backtest_page._off(total) for total in backtest_report.totals(graded)] == ["+30.0%", "–"]
    assert backtest_page._off(backtest_report.parts(graded)[-1]) == "30.0%"


@pytest.mark.parametrize("name", markup.HOSTILE)
def test_whatever_a_shop_is_called_is_text(name: str, report: Report) -> None:
    """A workspace's name, and why a model could not be judged."""
    refused = evaluation.refused(CHURN, SHOP, CheckFailed(name))
    text = markup.sound(backtest_page.as_html(replace(report, name=name, models=(refused,)))).text
    assert text.count(name) >= 2
    assert name[1:] in text.partition("Why this grade")[2]


def test_every_picture_has_its_meaning_in_words(report: Report, page: str) -> None:
    """All kinds of pictures of all models, their legends whole."""
    html = markup.sound(page)
    assert len([*html.all("img")]) == 4 + 2 + 2
    assert [tag.attributes["alt"] for tag in html.all("img")] == [tag.text for tag in html.all("figcaption")]
    for graded in report.models:
        for figure in graded.subject.pictures(graded.judged, "EUR").values():
            FigureCanvasAgg(figure).draw()
            legend = figure.axes[0].get_legend()
            assert legend is not None
            assert figure.bbox.x1 >= legend.get_window_extent().x1
            assert legend.get_window_extent().y0 >= figure.axes[0].get_window_extent().y1


def test_the_frame_has_the_figures_of_the_json(report: Report) -> None:
    """A row per kind, contender and figure, every number to the last digit; the grades beside them."""
    frame, models = backtest_report.as_frame(report), backtest_report.as_data(report)["models"]
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert len(rows) > 30
    for row in rows:
        figure = models[row["kind"]]["contenders"][row["contender"]]["figures"][row["figure"]]
        assert all(row[name] == figure[name] for name in ("mean", "sd", "worst", "low", "high")), row
    assert frame.attrs["grades"] == {kind: model["grade"] for kind, model in models.items()}
