"""Predictions against what happened: who left, what was spent and whether offers sold, once their windows have closed.

Before they close: how many purchases there were so far, against what the customers' own histories let expect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.hindsight import Seen, without_hindsight
from monitoring.offer_outcomes import Offered, offered
from training.backtests import metrics
from training.learning import labels
from training.models.customer_model import Inputs
from training.models.histories import NotIdentified
from training.models.leaving import Leaving
from training.models.mbg_nbd import MBGNBD
from workspace import predictions, storage
from workspace.predictions import as_asked
from workspace.settings import Workspace
from workspace.windows import days_after

By = Literal["all", "model", "value_model", "segment", "week", "contact", "shown", "band", "decile", "horizon"]

CONTACTED, CONTROL, NEITHER = "contacted", "random control", "neither"
_NEW_DAYS = 90
_FEWEST = 20  # customers of whom a figure is worth telling
_EARLIEST_LOOK = 7  # days into a window
_EARLIER = 3  # closed windows that say what is usual


@dataclass(frozen=True)
class Group:
    """Predictions of one role whose windows have closed, and what happened: customers of `name`, among those `by`.

    Those by `horizon` were asked for over other days than the workspace's own, and are in no other group.
    `expected` is the mean probability of leaving and `actual` the share who left, `low` to `high` its 95 % interval, of
    `asked` predictions; values are means of `valued` predictions, `bias` the total expected over the total spent, less
    one. Where a figure is not defined, or of fewer than 20, it is null.
    """

    role: str
    by: By
    name: str
    asked: int
    valued: int
    expected: float | None = None
    actual: float | None = None
    low: float | None = None
    high: float | None = None
    auc: float | None = None
    brier: float | None = None
    expected_value: float | None = None
    actual_value: float | None = None
    bias: float | None = None

    @property
    def is_off(self) -> bool:
        """The expected rate lies outside what chance allows around the actual one."""
        return self.expected is not None and not (self.low or 0.0) <= self.expected <= (self.high or 1.0)


@dataclass(frozen=True)
class Open:
    """Predictions that nobody can judge yet, and why; `closes` is the first day on which their windows have closed.

    `horizon` are the days that were asked about, null for the workspace's own.
    """

    role: str
    as_of: date
    model: str
    customers: int
    closes: date
    why: str
    horizon: int | None = None


@dataclass(frozen=True)
class Early:
    """Purchase days so far in an open window, against what histories let expect of `days` days.

    `usual` are the smallest and the largest ratio of actual to expected over so many days of windows that have closed,
    null where there are fewer than three.
    """

    as_of: date
    days: int
    customers: int
    expected: float
    actual: float
    usual: tuple[float, float] | None

    @property
    def ratio(self) -> float:
        return self.actual / self.expected

    @property
    def is_unusual(self) -> bool:
        """Beyond what earlier windows showed, by more than the chance of a count (two standard deviations)."""
        if self.usual is None:
            return False
        chance = 2 * math.sqrt(max(self.actual, 1)) / self.expected
        return not self.usual[0] - chance <= self.ratio <= self.usual[1] + chance


@dataclass(frozen=True)
class Outcomes:
    """What is known at `as_of` of earlier predictions; `page` and `record` are where it is to be written.

    `last_purchase` is the last day of which a purchase is ingested.
    """

    as_of: date
    last_purchase: date | None
    groups: tuple[Group, ...]
    open: tuple[Open, ...]
    early: tuple[Early, ...]
    offers: tuple[Offered, ...]
    has_control: bool
    page: Path
    record: Path
    seen: tuple[Seen, ...] = ()

    def of(self, by: By, role: str = "champion") -> tuple[Group, ...]:
        return tuple(group for group in self.groups if (group.by, group.role) == (by, role))


def outcomes(workspace: Workspace, as_of: date, trainings: Mapping[str, date] | None = None) -> Outcomes:
    """Holds every logged prediction whose window has closed by `as_of` against what happened. Writes nothing.

    A window has closed when its days are over and the purchases that were ingested reach to its end, but for the
    longest pause the shop made in its last year: days that are not ingested yet are not days without a purchase. Each
    customer counts once for an as_of and model, by the batch's prediction where there is one.

    What a model trained after a prediction's as_of said is left out: it had seen what happened. `trainings` are the
    as_ofs of trainings by `name/version`, for what was logged without them.
    """
    known = labels.purchase_days(workspace, as_of)
    last, pause = (known[1], _longest_pause(workspace, as_of)) if known else (None, 0)
    logged = predictions.read(workspace)
    logged = _once(logged[logged["as_of"] < pd.Timestamp(as_of)])
    days = {day.date() for day in logged["as_of"]}
    early = tuple(_early(workspace, logged, as_of, last)) if last else ()
    logged, seen = without_hindsight(logged, trainings or {})
    waiting: list[Open] = []
    judged: list[pd.DataFrame] = []
    for (asked, day), rows in _parts(logged, ["question", "as_of"]):
        closes = days_after(day.date(), _days(as_asked(workspace, asked)))
        why = _why_open(closes, as_of, last, pause)
        if why:
            waiting += _open(rows, closes, why)
        else:
            judged.append(_joined(as_asked(workspace, asked), day.date(), rows, as_of))
    groups = tuple(_groups(pd.concat(judged, ignore_index=True))) if judged else ()

    def is_closed(day: date) -> bool:
        return not _why_open(days_after(day, workspace.cross_sell.horizon), as_of, last, pause)

    offers, more_seen = offered(workspace, days, as_of, is_closed, trainings or {})
    page = workspace.home_path / "reports" / f"outcomes-{as_of}.html"
    has_control = any(group.name == CONTROL for group in groups)
    return Outcomes(
        as_of, last, groups, tuple(waiting), early, tuple(offers), has_control, page, page.with_suffix(".json"),
        (*seen, *more_seen),
    )  # fmt: skip


def as_data(judged: Outcomes) -> dict[str, object]:
    """Every figure, for JSON."""
    return asdict(judged) | {"early": [asdict(one) | {"ratio": one.ratio} for one in judged.early]}


def _once(logged: pd.DataFrame) -> pd.DataFrame:
    """A row per customer, as_of, role, models and question: the batch's, or what was served last; `shown` says how."""
    key = ["role", "as_of", "churn_model", "lifetime_value_model", "question", "customer_id"]
    via = logged["via"].astype(str)
    shown = via.map({"batch": 0, "scores": 1, "card": 1, "list": 2}).rename("shown")
    rank = via.map({"batch": 2, "scores": 1, "card": 1, "list": 0}).rename("rank")
    farthest = shown.groupby([logged[name] for name in key], observed=True).transform("max")
    rows = logged.assign(shown=farthest.map(dict(enumerate(("scored only", "served", "listed")))), rank=rank)
    return rows.sort_values(["rank", "served_at"], na_position="first").drop_duplicates(key, keep="last")


def _parts(rows: pd.DataFrame, by: list[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The rows of each combination of values that there is; pandas' own type of the values is none to work with."""
    groups: Any = rows.groupby(by, sort=True, observed=True)
    return iter(groups)


def _days(workspace: Workspace) -> int:
    return max(workspace.churn.gap + workspace.churn.horizon, workspace.lifetime_value.horizon)


def _longest_pause(workspace: Workspace, as_of: date) -> int:
    """Days that the shop went without a purchase in the year before its last."""
    days = pd.to_datetime(labels.shop_days(workspace, as_of)["day"]).drop_duplicates()
    recent = days[days > days.max() - pd.Timedelta(days=365)]
    return int(recent.sort_values().diff().dt.days.max()) if len(recent) > 1 else 1


def _why_open(closes: date, as_of: date, last: date | None, pause: int) -> str:
    if closes > as_of:
        return f"its window closes on {closes}"
    if last is None or closes > days_after(last, pause):
        return f"its window closed on {closes}, but the last purchase that is ingested is of {last}"
    return ""


def _open(rows: pd.DataFrame, closes: date, why: str) -> Iterator[Open]:
    for (role, day, model, horizon), group in _parts(
        rows.assign(horizon=rows["horizon"].fillna(0).astype(int)), ["role", "as_of", "churn_model", "horizon"]
    ):
        yield Open(role, day.date(), model, len(group), closes, why, horizon or None)


def _joined(workspace: Workspace, day: date, rows: pd.DataFrame, known_by: date) -> pd.DataFrame:
    """Predictions of one as_of with `churned` and `spent`, null where nothing was predicted, and what to group by."""
    happened = labels.outcomes(workspace, [day], known_by).set_index("customer_id").reindex(rows["customer_id"])
    known = _known(workspace.home_path, day).reindex(rows["customer_id"])
    asked = rows["churn_probability"].notna().to_numpy()
    if workspace.churn.kind == "event":
        left = happened["cancelled"].eq(True).to_numpy()
    else:
        leaving, vectors = Leaving.of(workspace.churn), known[["gap_mean"]].to_numpy(dtype=np.float32)
        waited = happened["returned_after"].astype("float64").fillna(np.inf).to_numpy()
        left = ~(waited < leaving.gap + leaving.days(Inputs(("gap_mean",), ()), vectors))
    return rows.assign(
        churned=np.where(asked, left.astype(float), np.nan),
        spent=happened["value"].fillna(0.0).to_numpy(dtype=float),
        segment=_segment(known),
        contact=_contact(workspace, day, rows["customer_id"], known_by),
        week=str(day - timedelta(days=day.weekday())),
    )


def _known(home: Path, day: date) -> pd.DataFrame:
    """What the snapshot knew of the customers, by id; empty where it is gone."""
    part = storage.snapshot_part(home, "purchases", day)
    names = ["frequency", "recency", "T", "gap_mean"]
    if not any(part.glob("*.parquet")):
        return pd.DataFrame(columns=names, index=pd.Index([], name="customer_id"), dtype="float64")
    query = f"""SELECT customer_id, {", ".join(f'"{name}"' for name in names)} FROM {storage.rows_of_part(part)}"""
    with storage.connect(home) as connection:
        return connection.execute(query).df().set_index("customer_id")


def _segment(known: pd.DataFrame) -> NDArray[np.str_]:
    age, repeats = known["T"].to_numpy(dtype=float), known["frequency"].to_numpy(dtype=float)
    names = (f"customer for under {_NEW_DAYS} days", "one purchase day", "came back")
    return np.select([np.isnan(age), age < _NEW_DAYS, repeats == 0], ["unknown", *names[:2]], names[2])


def _contact(workspace: Workspace, day: date, customer_ids: pd.Series, known_by: date) -> NDArray[np.str_]:
    """Who was contacted in the window, and who was left alone by the draw (`campaign_control`) and by everyone else."""
    if workspace.tables.interactions is None or not storage.parts(
        storage.tables_folder(workspace.home_path, "interactions")
    ):
        return np.full(len(customer_ids), NEITHER)
    query = f"""
        SELECT customer_id, bool_or(kind = 'campaign_contact') AS contacted
        FROM {storage.rows_of(workspace.home_path, "interactions")}
        WHERE kind IN ('campaign_contact', 'campaign_control') AND known_day < DATE '{known_by}'
          AND day >= DATE '{day}' AND day < DATE '{days_after(day, _days(workspace))}' GROUP BY ALL"""
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        contacted = connection.execute(query).df().set_index("customer_id")["contacted"].reindex(customer_ids)
    return np.select([contacted.isna(), contacted.eq(True)], [NEITHER, CONTACTED], CONTROL)


def _groups(judged: pd.DataFrame) -> Iterator[Group]:
    versions = {"model": judged["churn_model"], "value_model": judged["lifetime_value_model"]}
    judged = judged.assign(all="all", band=judged["churn_band"], **versions)
    for (role, days), rows in _parts(judged[judged["horizon"].notna()], ["role", "horizon"]):
        yield _group(role, "horizon", f"{days:.0f} days", rows)
    for (role,), rows in _parts(judged[judged["horizon"].isna()], ["role"]):
        asked = rows[rows["churned"].notna()]
        rows = rows.assign(decile=_deciles(asked["churn_probability"]).reindex(rows.index))
        for by in (by for by in get_args(By) if by != "horizon"):
            for (name,), group in _parts(rows, [by]):
                yield _group(role, by, str(name), group)


def _deciles(probability: pd.Series) -> pd.Series:
    """1 for the tenth of predictions with the lowest probabilities, 10 for the highest; nobody where there are few."""
    if len(probability) < 10:
        return pd.Series(dtype="object")
    place = probability.rank(method="first") - 1
    return (1 + place * 10 // len(probability)).astype(int).map("{:02}".format)


def _group(role: str, by: By, name: str, rows: pd.DataFrame) -> Group:
    asked, valued = rows[rows["churned"].notna()], rows[rows["lifetime_value"].notna()]
    left, probability = asked["churned"].to_numpy(), asked["churn_probability"].to_numpy()
    spent, value = valued["spent"].to_numpy(), valued["lifetime_value"].to_numpy()
    figures: dict[str, float] = {}
    if len(asked) >= _FEWEST:
        figures = {"expected": probability.mean(), "actual": left.mean(), **_interval(left)}
        figures |= {"auc": metrics.auc(left, probability), "brier": metrics.brier(left, probability)}
    if len(valued) >= _FEWEST:
        bias = metrics.bias(spent, value)
        figures |= {"expected_value": value.mean(), "actual_value": spent.mean(), "bias": bias}
    defined = {name: float(figure) for name, figure in figures.items() if not math.isnan(figure)}
    return Group(role=role, by=by, name=name, asked=len(asked), valued=len(valued), **defined)


def _interval(left: NDArray[np.floating]) -> dict[str, float]:
    """Wilson's 95 % interval of a share (1927)."""
    z, n, rate = 1.959964, len(left), float(left.mean())
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return {"low": centre - half, "high": centre + half}


def _early(workspace: Workspace, logged: pd.DataFrame, as_of: date, last: date) -> Iterator[Early]:
    """Of the as_ofs that a batch of champions scored; the closed ones say what is usual."""
    of_batches = logged[(logged["via"] == "batch") & (logged["role"] == "champion")]
    scored = {day.date(): set(rows["customer_id"]) for (day,), rows in _parts(of_batches, ["as_of"])}
    for day, customers in scored.items():
        days = (days_after(last, 1) - day).days
        if days < _EARLIEST_LOOK or days >= workspace.lifetime_value.horizon:
            continue
        counts = _counts(workspace, day, days, customers, as_of)
        if counts is None:
            continue
        closed = [other for other in scored if days_after(other, _days(workspace)) <= day]
        before = [earlier for other in closed if (earlier := _counts(workspace, other, days, scored[other], as_of))]
        ratios = [actual / expected for expected, actual in before]
        usual = (min(ratios), max(ratios)) if len(ratios) >= _EARLIER else None
        yield Early(day, days, len(customers), *counts, usual)


def _counts(
    workspace: Workspace, day: date, days: int, customers: set[str], known_by: date
) -> tuple[float, float] | None:
    """Purchase days expected of these customers in so many days from `day`, by their histories, and how many came.

    None where the snapshot is gone, or too few customers had come back to fit anything.
    """
    known = _known(workspace.home_path, day)
    known = known[known.index.isin(customers) & known["T"].notna()].astype("float64")
    if known.empty:
        return None
    frequency, recency, age = (known[name].to_numpy() for name in ("frequency", "recency", "T"))
    try:
        model, _ = MBGNBD.fit_regardless(frequency, recency, age)
    except NotIdentified:
        return None
    expected = float(model.expected_purchases(frequency, recency, age, float(days)).sum())
    window = {"lifetime_value": workspace.lifetime_value.model_copy(update={"horizon": days}),
              "churn": workspace.churn.model_copy(update={"horizon": days, "gap": 0})}  # fmt: skip
    happened = labels.outcomes(workspace.model_copy(update=window), [day], known_by)
    return expected, float(happened.loc[happened["customer_id"].isin(known.index), "n_purchases"].sum())
