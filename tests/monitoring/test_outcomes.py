"""Outcomes: predictions joined to what happened, told apart by contact, and never before their windows have closed."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import markup
import numpy as np
import pandas as pd
import pytest
from markup import HOSTILE, sound
from sklearn.metrics import roc_auc_score
from workspaces import CUSTOMERS, small_workspace

from features import snapshot
from ingest import intake
from monitoring import outcomes, outcomes_page
from monitoring.offer_outcomes import Offered
from monitoring.outcomes import Early, Group, Open, Outcomes
from workspace import predictions, storage
from workspace.settings import Workspace

DAY, HORIZON = date(2023, 3, 1), 60
CLOSES = DAY + timedelta(days=HORIZON)
EARLIER = [DAY - timedelta(days=60 * back) for back in (1, 2, 3, 4)]
KINDS = ["new", "repeat"]
NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The small shop with contacts and controls, and the snapshots of a few days; nothing is trained."""
    folder = tmp_path_factory.mktemp("outcomes")
    workspace = small_workspace(folder, f"tables.interactions.path={folder / 'interactions.csv'}")
    _interactions().to_csv(folder / "interactions.csv", index=False)
    intake.ingest(workspace, NOW)
    snapshot.snapshot(workspace, [*EARLIER, DAY])
    return workspace


def _interactions() -> pd.DataFrame:
    """A third is contacted ten days into the window, a third kept as control; some long before, which counts not."""
    numbers = np.arange(CUSTOMERS)
    kinds = np.select([numbers % 3 == 0, numbers % 3 == 1], ["campaign_contact", "campaign_control"], "visit")
    days = np.where(numbers % 7 == 0, DAY - timedelta(days=40), DAY + timedelta(days=10))
    return pd.DataFrame({
        "interaction_id": [f"i{number}" for number in numbers], "occurred_at": days, "kind": kinds,
        "customer_id": ["Zoë/7 & co", "007", *(f"c{number:04}" for number in numbers[2:])],
    })  # fmt: skip


@pytest.fixture
def workspace(taken_in: Workspace) -> Workspace:
    for path in (taken_in.home_path / "predictions").rglob("*.parquet"):
        path.unlink()
    return taken_in


def lines(workspace: Workspace) -> pd.DataFrame:
    (path,) = workspace.tables.transactions.path or ()
    return pd.read_parquet(path)


def bought(workspace: Workspace, day: date, days: int) -> pd.DataFrame:
    """The lines of so many days from `day`."""
    rows = lines(workspace)
    return rows[rows["occurred_at"].between(str(day), str(day + timedelta(days=days)), inclusive="left")]


def make_scores(
    workspace: Workspace, day: date = DAY, version: int = 1, seed: int = 3, trained: date | None = None
) -> pd.DataFrame:
    """Of everybody who bought before `day`: whoever was silent for longer is more likely to leave, more or less.

    By models trained at `day` unless told.
    """
    rows = lines(workspace)
    known = rows[rows["occurred_at"] < str(day)].groupby("customer_id")["occurred_at"].max()
    silent = (pd.Timestamp(day) - known).dt.days.to_numpy()
    noise = np.random.default_rng(seed).normal(size=len(known))
    probability = 1 / (1 + np.exp(2 - silent / 40 + noise))
    band = np.select([probability >= 0.7, probability >= 0.4], ["high", "medium"], "low")
    return pd.DataFrame({
        "customer_id": known.index, "as_of": day, "churn_probability": probability, "churn_band": band, "p_alive": 0.9,
        "expected_purchases": 1.5, "lifetime_value": 40.0 * (1 - probability), "churn_model": f"small.churn/{version}",
        "lifetime_value_model": f"small.lifetime_value/{version}", "churn_trained": trained or day,
        "lifetime_value_trained": trained or day,
    })  # fmt: skip


def what_happened(workspace: Workspace, scores: pd.DataFrame, horizon: int = HORIZON) -> pd.DataFrame:
    """Counted anew, straight from the file."""
    within = bought(workspace, scores["as_of"].iloc[0], horizon)
    spent = within.groupby("customer_id")["amount"].sum().reindex(scores["customer_id"], fill_value=0.0)
    return scores.assign(left=~scores["customer_id"].isin(within["customer_id"]), spent=spent.to_numpy())


def only(groups: tuple[Group, ...]) -> Group:
    (group,) = groups
    return group


def test_predictions_are_held_against_what_happened(workspace: Workspace) -> None:
    """Rates, auc, brier and bias are those of a count of the file; bands and tenths add up to all of them."""
    scores = make_scores(workspace)
    predictions.log_batch(workspace, scores)
    judged, happened = outcomes.outcomes(workspace, CLOSES), what_happened(workspace, scores)
    every = only(judged.of("all"))
    assert (every.asked, every.valued) == (len(scores), len(scores))
    assert every.expected == pytest.approx(scores["churn_probability"].mean())
    assert every.actual == pytest.approx(happened["left"].mean())
    assert every.auc == pytest.approx(roc_auc_score(happened["left"], happened["churn_probability"]))
    assert every.brier == pytest.approx(np.mean((happened["churn_probability"] - happened["left"]) ** 2))
    assert every.actual_value == pytest.approx(happened["spent"].mean())
    assert every.bias == pytest.approx(scores["lifetime_value"].sum() / happened["spent"].sum() - 1)
    for band in judged.of("band"):
        rows = happened[happened["churn_band"] == band.name]
        assert (band.asked, band.actual) == (len(rows), pytest.approx(rows["left"].mean()))
    tenths = judged.of("decile")
    assert [tenth.name for tenth in tenths] == [f"{number:02}" for number in range(1, 11)]
    assert sum(tenth.asked for tenth in tenths) == every.asked
    assert np.all(np.diff([tenth.expected or 0.0 for tenth in tenths]) > 0)
    assert only(judged.of("week")).name == "2023-02-27"
    assert [segment.name for segment in judged.of("segment")] == ["came back", "one purchase day"]


@pytest.mark.parametrize(("days", "judged"), [(HORIZON - 1, False), (HORIZON, True)])
def test_an_open_window_is_never_judged(workspace: Workspace, days: int, judged: bool) -> None:
    """The day before it closes nobody has left; the sentence says when it does."""
    predictions.log_batch(workspace, make_scores(workspace))
    unclosed = outcomes.outcomes(workspace, DAY + timedelta(days=days))
    assert bool(unclosed.groups) is judged
    if not judged:
        (waiting,) = unclosed.open
        assert (waiting.closes, waiting.model) == (CLOSES, "small.churn/1")
        text = outcomes_page.as_text(unclosed)
        assert "no prediction's window has closed yet" in text
        assert f"predictions of {DAY} by small.churn/1 (champion): its window closes on {CLOSES}" in text


def test_purchases_that_are_not_ingested_are_no_silence(workspace: Workspace) -> None:
    """The calendar says that the window closed, the data end before it: nobody is taken to have left."""
    later = date(2023, 6, 20)
    predictions.log_batch(workspace, make_scores(workspace, later))
    judged = outcomes.outcomes(workspace, date(2023, 12, 1))
    assert judged.groups == ()
    assert (
        judged.open[0].why == "its window closed on 2023-08-19, but the last purchase that is ingested is of 2023-06-30"
    )


def test_contacted_and_random_control_are_told_apart(workspace: Workspace) -> None:
    """By contact within the window; a contact long before it leaves a customer in neither group."""
    scores = make_scores(workspace)
    predictions.log_batch(workspace, scores)
    judged = outcomes.outcomes(workspace, CLOSES)
    happened = what_happened(workspace, scores).merge(_interactions(), on="customer_id")
    happened = happened[pd.to_datetime(happened["occurred_at"]) >= pd.Timestamp(DAY)]
    for name, kind in ((outcomes.CONTACTED, "campaign_contact"), (outcomes.CONTROL, "campaign_control")):
        rows = happened[happened["kind"] == kind]
        group = next(group for group in judged.of("contact") if group.name == name)
        assert (group.asked, group.actual) == (len(rows), pytest.approx(rows["left"].mean()))
    assert judged.has_control


def test_without_a_random_control_it_is_said(workspace: Workspace) -> None:
    """Nobody may read an effect of contact out of those whom a person chose."""
    without = workspace.model_copy(update={"tables": workspace.tables.model_copy(update={"interactions": None})})
    predictions.log_batch(without, make_scores(without))
    assert "no random control" in outcomes_page.as_text(outcomes.outcomes(without, CLOSES))


def test_versions_and_shadows_stand_apart(workspace: Workspace) -> None:
    """Each version is judged on its own; a shadow never mixes with what was shown."""
    predictions.log_batch(workspace, make_scores(workspace, version=1))
    predictions.log_batch(workspace, make_scores(workspace, version=2, seed=4))
    predictions.log_batch(workspace, make_scores(workspace, version=3, seed=5), role="shadow")
    judged = outcomes.outcomes(workspace, CLOSES)
    assert [group.name for group in judged.of("model")] == ["small.churn/1", "small.churn/2"]
    assert only(judged.of("model", "shadow")).name == "small.churn/3"
    assert only(judged.of("all")).asked == 2 * only(judged.of("all", "shadow")).asked


def test_a_customer_counts_once_however_often_answered(workspace: Workspace) -> None:
    """Scored, then served and listed: one prediction, and it is known that it was listed."""
    scores = make_scores(workspace)
    predictions.log_batch(workspace, scores)
    for via in ("scores", "card", "list"):
        predictions.log_served(workspace, scores.head(30).drop(columns="p_alive"), via, NOW)  # type: ignore[arg-type]
    judged = outcomes.outcomes(workspace, CLOSES)
    assert only(judged.of("all")).asked == len(scores)
    assert {group.name: group.asked for group in judged.of("shown")} == {"listed": 30, "scored only": len(scores) - 30}


def test_each_answer_is_judged_by_its_own_horizon(workspace: Workspace) -> None:
    """Asked about 30 days, it is judged after 30, on those 30, while the workspace's 60 are still open."""
    scores = make_scores(workspace)
    predictions.log_batch(workspace, scores)
    predictions.log_served(workspace, scores, "scores", NOW, horizon=30)
    judged = outcomes.outcomes(workspace, DAY + timedelta(days=30))
    asked = only(judged.of("horizon"))
    assert (asked.name, asked.asked) == ("30 days", len(scores))
    assert asked.actual == pytest.approx(what_happened(workspace, scores, 30)["left"].mean())
    assert [waiting.closes for waiting in judged.open] == [CLOSES]
    assert {group.by for group in judged.groups} == {"horizon"}
    predictions.log_served(workspace, scores, "scores", NOW, horizon=90)
    later = outcomes.outcomes(workspace, CLOSES)
    assert only(later.of("all")).asked == len(scores)
    assert only(later.of("all")).actual == pytest.approx(what_happened(workspace, scores)["left"].mean())
    assert only(later.of("horizon")) == asked
    assert f"predictions of {DAY} about 90 days by small.churn/1" in outcomes_page.as_text(later)
    assert "horizon: 30 days" in outcomes_page.as_text(later)


def test_who_had_seen_the_outcome_proves_nothing(workspace: Workspace) -> None:
    """Scores of old as_ofs by a model trained later are counted and left out; so are those of which nobody knows when
    their model was trained, unless the registry does."""
    honest, late = make_scores(workspace, version=1), DAY + timedelta(days=1)
    predictions.log_batch(workspace, honest)
    for day in (EARLIER[0], DAY):
        predictions.log_batch(workspace, make_scores(workspace, day, version=2, trained=late))
    unknown = make_scores(workspace, version=3).drop(columns=["churn_trained", "lifetime_value_trained"])
    predictions.log_batch(workspace, unknown)
    judged = outcomes.outcomes(workspace, CLOSES, {"small.lifetime_value/3": DAY})
    assert (only(judged.of("all")).asked, only(judged.of("all")).valued) == (len(honest), 2 * len(honest))
    assert [group.name for group in judged.of("model") if group.asked] == ["small.churn/1"]
    told = {one.model: (one.customers, one.days, one.trained) for one in judged.seen}
    both = len(honest) + len(make_scores(workspace, EARLIER[0]))
    assert told == {"small.churn/2": (both, 2, late), "small.lifetime_value/2": (both, 2, late),
                    "small.churn/3": (len(honest), 1, None)}  # fmt: skip
    text = outcomes_page.as_text(judged)
    assert f"left out: {both} predictions of 2 as_ofs from {EARLIER[0]} to {DAY} by small.churn/2 (champion):" in text
    assert f"it was trained at {late}, and had seen what happened" in text
    assert "by small.churn/3 (champion): nobody knows when it was trained" in text


def test_personal_windows_are_the_customers_own(workspace: Workspace) -> None:
    """Who takes longer than patience times the own gap has left, though they came back within the horizon."""
    scores = make_scores(workspace)
    churn = workspace.churn.model_copy(update={"inactivity": "personal", "patience": 1.0})
    predictions.log_batch(workspace.model_copy(update={"churn": churn}), scores)
    personal = only(outcomes.outcomes(workspace, CLOSES).of("all"))
    assert personal.actual is not None
    assert personal.actual > what_happened(workspace, scores)["left"].mean()


def test_while_a_window_is_open_purchases_so_far_are_compared(workspace: Workspace) -> None:
    """Three weeks in: as many purchase days as the file has, near what histories expect, beside earlier windows."""
    for day in (*EARLIER, DAY):
        predictions.log_batch(workspace, make_scores(workspace, day))
    judged = outcomes.outcomes(workspace, DAY + timedelta(days=21))
    early = judged.early[-1]
    assert (early.as_of, early.days, len(judged.early)) == (DAY, 21, 1)
    rows = bought(workspace, DAY, 21)
    rows = rows[rows["customer_id"].isin(make_scores(workspace)["customer_id"])]
    assert early.actual == len(rows.assign(day=rows["occurred_at"].dt.date)[["customer_id", "day"]].drop_duplicates())
    assert early.ratio == pytest.approx(1, abs=0.25)
    assert early.usual is not None
    assert not early.is_unusual
    assert f"so far: 21 days after {DAY}" in outcomes_page.as_text(judged)


@pytest.mark.parametrize(("actual", "unusual"), [(1000.0, False), (900.0, False), (700.0, True), (1300.0, True)])
def test_only_what_earlier_windows_never_showed_is_unusual(actual: float, unusual: bool) -> None:
    """A tenth less than expected happened before; three tenths did not."""
    assert Early(DAY, 21, 500, 1000.0, actual, (0.92, 1.05)).is_unusual is unusual
    assert not Early(DAY, 21, 500, 1000.0, actual, None).is_unusual


def test_text_page_and_data_agree(workspace: Workspace, tmp_path: Path) -> None:
    """The page needs nothing from elsewhere, holds the plots, and its figures are those of the terminal."""
    predictions.log_batch(workspace, make_scores(workspace))
    judged = outcomes.outcomes(workspace, CLOSES)
    text, page, data = outcomes_page.as_text(judged), outcomes_page.as_html(judged), outcomes.as_data(judged)
    every = only(judged.of("all"))
    for shown in (f"{every.actual:.1%}", f"{every.auc:.3f}", f"{every.bias:+.1%}"):
        assert shown in text
        assert shown in page
    assert len([*sound(page).all("img")]) == 4
    assert data["groups"][0]["actual"] == every.actual  # type: ignore[index]


def test_every_table_is_of_one_kind_of_prediction_and_adds_up(workspace: Workspace) -> None:
    """Who had left already was asked for a value only: leaving and value have tables, and counts, of their own."""
    scores = make_scores(workspace)
    gone = scores.index[:30]
    scores.loc[gone, "churn_probability"] = np.nan
    scores.loc[gone, "churn_band"] = None
    scores.loc[scores.index[-7:], "lifetime_value"] = np.nan
    predictions.log_batch(workspace, scores)
    judged = outcomes.outcomes(workspace, CLOSES)
    asked, valued = len(scores) - 30, len(scores) - 7
    page, text = outcomes_page.as_html(judged), outcomes_page.as_text(judged)
    html = sound(page)
    tables = list(zip([tag.text for tag in html.all("h3")], markup.tables(html), strict=True))
    assert {title.split(",")[0] for title, _ in tables} == {"Who leaves", "What is spent"}
    assert {title for title, _ in tables} >= {"Who leaves, by band of risk", "What is spent, by model version"}
    for title, (heads, *rows) in tables:
        assert heads[1] == "predictions", title
        total = sum(int(row[1].replace(",", "")) for row in rows)
        assert total == (asked if title.startswith("Who leaves") else valued), title
        if title == "What is spent, by model version":
            assert [row[0] for row in rows] == ["small.lifetime_value/1"]
    told = f"{asked:,} predictions of who leaves and {valued:,} predictions of what is spent, by the champions"
    assert told in page
    assert told in text
    assert re.search(rf"champion: who leaves .*\n  all +{asked:,} ", text)
    assert re.search(rf"champion: what is spent .*\n  all +{valued:,} ", text)


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_page_speaks_of_is_text(name: str, tmp_path: Path) -> None:
    """Roles, models, segments and kinds, in tables and notes."""
    groups = tuple(Group(name, by, name, 30, 30, 0.5, 0.4, 0.3, 0.6, 0.7, 0.2, 10.0, 9.0, 0.1)
                   for by in ("all", "model", "value_model", "segment"))  # fmt: skip
    offers = (Offered(name, DAY, name, name, 9, 5, 0.4, 0.3, 0.2, 0.5),)
    waiting = (Open(name, DAY, name, 3, CLOSES, name),)
    judged = Outcomes(CLOSES, DAY, groups, waiting, (), offers, False, tmp_path / "page.html", tmp_path / "page.json")
    html = sound(outcomes_page.as_html(judged))
    assert {rows[1][0] for rows in markup.tables(html)[:-1]} == {name}
    assert name in html.text.partition("Not judged")[2]


def make_offers(workspace: Workspace, model: str, at: Path, seed: int) -> pd.DataFrame:
    """Two categories for everybody, in files where a batch puts them."""
    random, (products,) = np.random.default_rng(seed), workspace.tables.products.path or ()  # type: ignore[union-attr]
    customers, items = make_scores(workspace)["customer_id"], pd.read_csv(products)["category"].unique()[:2]
    offers = pd.DataFrame({"customer_id": np.repeat(customers, 2), "item": np.tile(items, len(customers))})
    offers = offers.assign(probability=random.uniform(0.1, 0.3, len(offers)), kind=random.choice(KINDS, len(offers)))
    at.mkdir(parents=True)
    storage.write_json(at / "models.json", {"cross_sell_trained": str(DAY)})
    offers.to_parquet(at / "offers.parquet")
    pd.DataFrame({"customer_id": customers, "cross_sell_model": model}).to_parquet(at / "scores.parquet")
    return offers


def sold(workspace: Workspace, offers: pd.DataFrame) -> pd.DataFrame:
    """The offers of each kind, and the share that was bought, counted from the files."""
    (products,) = workspace.tables.products.path or ()  # type: ignore[union-attr]
    within = bought(workspace, DAY, HORIZON).merge(pd.read_csv(products), on="product_id")
    came = {*zip(within["customer_id"], within["category"], strict=True)}
    offered = [*zip(offers["customer_id"], offers["item"], strict=True)]
    return offers.assign(came=[one in came for one in offered]).groupby("kind")[["probability", "came"]].mean()


def test_offers_shown_and_unseen_are_held_against_what_was_bought(workspace: Workspace) -> None:
    """By kind, of the champion and of the shadow apart; one that is off is marked."""
    predictions.log_batch(workspace, make_scores(workspace))
    home = workspace.home_path
    shown = make_offers(workspace, "small.cross_sell/1", home / "scores" / str(DAY), 5)
    unseen = make_offers(workspace, "small.cross_sell/2", home / "shadow" / str(DAY), 6)
    assert outcomes.outcomes(workspace, CLOSES - timedelta(days=1)).offers == ()
    judged = outcomes.outcomes(workspace, CLOSES)
    assert [(one.role, one.model, one.kind) for one in judged.offers] == [
        (role, f"small.cross_sell/{version}", kind)
        for role, version in (("champion", 1), ("shadow", 2)) for kind in KINDS
    ]  # fmt: skip
    for made, own in ((shown, judged.offers[:2]), (unseen, judged.offers[2:])):
        counted = sold(workspace, made)
        assert [one.expected for one in own] == pytest.approx(counted["probability"].tolist())
        assert [one.actual for one in own] == pytest.approx(counted["came"].tolist())
        assert sum(one.offers for one in own) == len(made)
        assert all(one.low < one.actual < one.high for one in own)
    text, page = outcomes_page.as_text(judged), outcomes_page.as_html(judged)
    for one in judged.offers:
        assert f"{one.actual:.1%}" in text
        assert f"{one.actual:.1%}" in page
    (line,) = (line for line in text.splitlines() if "cross_sell/2 repeat, shadow" in line)
    assert line.endswith("off") is judged.offers[3].is_off
    without = workspace.model_copy(update={"tables": workspace.tables.model_copy(update={"products": None})})
    assert outcomes.outcomes(without, CLOSES).offers == ()
    for folder in ("scores", "shadow"):
        shutil.rmtree(home / folder)


def test_nothing_logged_is_nothing_to_judge(workspace: Workspace) -> None:
    """A new workspace gets a sentence, not an error."""
    judged = outcomes.outcomes(workspace, CLOSES)
    assert (judged.groups, judged.open, judged.early, judged.offers) == ((), (), (), ())
    assert outcomes_page.as_text(judged).startswith(f"outcomes at {CLOSES}: no prediction's window has closed yet")
