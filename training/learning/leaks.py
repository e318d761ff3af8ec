"""Columns that look like leaks: they know what happened after the cutoff, and will not know it when it counts.

An attribute is a column of `customers` as it is today. One that was filled in after a customer left (`closed_at`) or
is updated with every order (`last_order_date`) makes a model look perfect on the past and useless on the future. Here
each attribute is held against who left after the latest closed cutoff; before a training every feature is, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import duckdb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.learning.datasets import Cutoff, Dataset
from training.models.customer_model import Inputs
from workspace import storage
from workspace.settings import Workspace

Floats = NDArray[np.floating]

LEAK_AUC = 0.9
"""An attribute that ranks who left this well is suspicious, unless days since the last purchase explain it."""
UNEXPLAINED_AUC = 0.8
"""... that is, unless it ranks customers who have been silent equally long worse than this."""
MIN_JUDGED = 50
"""Customers who left, and who stayed, without which attributes are not judged."""
_MIN_FILLED = 30
_LATE = 0.01
# A value tells the outcome when at most so small a part of the exceptions to be expected, at least twenty, is there.
_HARDLY = 0.05
_EXCEPTIONS = 20
_BINS = 20
# So many customers of the usual kind are added to those of a level: a few say little.
_PRIOR = 10
_STRATA = 10
_EMPTY = "(empty)"

_RECORDED_AFTER = "recorded after the outcome"
_ALMOST_ALONE = "separates who left from who stayed almost alone"
_FILLED_IN = "filled in, or left empty, according to the outcome"
_TELLING = "has a value that tells the outcome"
IDENTIFIES = "identifies customers"
_OR_ELSE = {
    _RECORDED_AFTER: ", or give it as interactions with their times",
    _ALMOST_ALONE: ", unless you know that it was on record before the cutoff",
    _FILLED_IN: ", or give it as interactions with their times",
    _TELLING: ", or give it as interactions with their times",
    IDENTIFIES: ": what it says of one customer holds for no other",
}


@dataclass(frozen=True)
class Attribute:
    """One attribute against the outcome at the cutoff.

    kind: `number`, `text` or `time`; filled: share of the customers judged; distinct: values among them; auc: how well
    it alone ranks who left (0.5 by chance), like_auc: the same among customers equally long silent; both null where
    not judged. `suspicion` is null for a harmless one; `figure` and `remedy` go with it.
    """

    name: str
    kind: str
    filled: float
    distinct: int
    auc: float | None
    like_auc: float | None
    suspicion: str | None = None
    figure: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Leaks:
    """All attributes, held against who left after `cutoff`; `not_judged` says why they could not be.

    left, stayed: customers judged, not scaled up; silence_auc: how well days since the last purchase alone rank them.
    """

    cutoff: date | None
    left: int
    stayed: int
    silence_auc: float | None
    attributes: tuple[Attribute, ...]
    not_judged: str | None = None

    @property
    def suspects(self) -> tuple[Attribute, ...]:
        return tuple(attribute for attribute in self.attributes if attribute.suspicion is not None)


def givens_away(data: Dataset, workspace: Workspace) -> list[str]:
    """Sentences about the attributes and features that give away who left at the latest closed cutoff of a training.

    Columns that merely identify customers are not among them.
    """
    if not data.closed:
        return []
    latest = data.closed[-1]
    silence = data.inputs.column(latest.vectors, "days_since_last_purchase")
    outcomes = pd.DataFrame({"customer_id": latest.customer_ids, "churned": latest.churned, "silence": silence})
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        leaking = leaks(connection, workspace, latest.as_of, outcomes)
    suspects = [a for a in leaking.suspects if a.suspicion != IDENTIFIES] if leaking else []
    sentences = [f"attribute `{a.name}` is {a.suspicion}: {a.figure}; {a.remedy}" if a.suspicion == _RECORDED_AFTER
                 else f"attribute `{a.name}` {a.suspicion}: {a.figure}; {a.remedy}" for a in suspects]  # fmt: skip
    named = {f"attribute_{name}" for name in workspace.attributes}
    return sentences + _telling_features(data.inputs, latest, named)


def _telling_features(inputs: Inputs, cutoff: Cutoff, left_out: set[str]) -> list[str]:
    """Features other than attributes that separate almost alone, in told."""
    judged = ~np.isnan(cutoff.churned)
    churned, vectors = cutoff.churned[judged], cutoff.vectors[judged]
    if min(churned.sum(), (1 - churned).sum()) < MIN_JUDGED:
        return []
    silence = pd.Series(inputs.column(vectors, "days_since_last_purchase")).rank(pct=True, na_option="bottom")
    stratum = np.ceil(silence.to_numpy() * _STRATA).astype(int)
    told = []
    for name in inputs.used:
        values = inputs.column(vectors, name)
        groups = pd.DataFrame({"stratum": stratum, "n": 1.0, "n_left": churned})
        scores = np.where(np.isnan(values), np.nanmin(values, initial=0) - 1, values)
        auc = _auc(groups, scores)
        scores = scores if auc is None or auc >= 0.5 else -scores
        auc = None if auc is None else max(auc, 1 - auc)
        if auc is not None and auc >= LEAK_AUC and name not in left_out:
            like_auc = _auc_within(groups, scores)
            if like_auc is not None and like_auc >= UNEXPLAINED_AUC:
                told.append(f"feature `{name}` {_ALMOST_ALONE}: AUC {auc:.2f} alone, {like_auc:.2f} among customers"
                             f" equally long silent; leave out the interactions or columns it is made of")  # fmt: skip
    return told


def leaks(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, cutoff: date | None, outcomes: pd.DataFrame | None
) -> Leaks | None:
    """Judges the workspace's attributes at the latest closed cutoff; None where it names none.

    `outcomes` are of its customers: customer_id, `churned` (1 left, 0 stayed, nan who could not leave) and `silence`
    (days since the last purchase); none where no cutoff has closed.
    """
    if not workspace.attributes:
        return None
    if cutoff is None or outcomes is None:
        return Leaks(None, 0, 0, None, (), "no outcome window has closed: there is nothing to hold attributes against")
    _create_judged(connection, workspace, cutoff, outcomes)
    left, stayed = connection.execute(
        "SELECT count(*) FILTER (churned = 1), count(*) FILTER (churned = 0) FROM judged"
    ).fetchall()[0]
    if min(left, stayed) < MIN_JUDGED:
        counts = f"{left:,} customers left and {stayed:,} stayed after {cutoff}"
        why = f"{counts}; at least {MIN_JUDGED} of each are needed"
        return Leaks(cutoff, left, stayed, None, (), why)
    silence = connection.execute("""
        SELECT coalesce(silence, 1e6) AS level, 0 AS half, 0 AS stratum, count(*) AS n, sum(churned) AS n_left
        FROM judged GROUP BY ALL""").df()
    attributes = tuple(_judged(connection, name, cutoff) for name in workspace.attributes)
    return Leaks(cutoff, left, stayed, _auc(silence, silence["level"].to_numpy(dtype=float)), attributes)


def _create_judged(
    connection: duckdb.DuckDBPyConnection, workspace: Workspace, cutoff: date, outcomes: pd.DataFrame
) -> None:
    """A table `judged`: who could leave at the cutoff, whether they did, and their attributes as features would be.

    `half` is drawn by a hash of the id; `stratum` is the tenth of days since the last purchase. As for the features,
    who signed up later had no attributes yet.
    """
    rows = storage.rows_of(workspace.home_path, "customers")
    described = f"customers.signed_up_day IS NULL OR customers.signed_up_day < DATE '{cutoff}'"
    values = ", ".join(
        f'CASE WHEN {described} THEN {_number_or_text(connection, rows, name)} END AS "value_{name}"'
        for name in workspace.attributes
    )
    judged = outcomes[outcomes["churned"].notna()].astype({"churned": "Int8", "silence": "Int32"})
    connection.register("outcomes", judged)
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE judged AS
        SELECT hash(customer_id, 'half') % 2 AS half, outcomes.silence AS silence, outcomes.churned AS churned,
               {values},
               least({_STRATA - 1}, (rank() OVER (ORDER BY silence) - 1) * {_STRATA} // count(*) OVER ()) AS stratum
        FROM outcomes LEFT JOIN {rows} AS customers USING (customer_id)""")


def _number_or_text(connection: duckdb.DuckDBPyConnection, rows: str, name: str) -> str:
    """SQL for an attribute's value: numbers stay, consents and times, which are attributes too if named, are texts."""
    kind = connection.execute(f'DESCRIBE SELECT "{name}" FROM {rows}').fetchall()[0][1]
    value = f'customers."{name}"'
    return value if kind == "DOUBLE" else f"CAST({value} AS VARCHAR)"


def _judged(connection: duckdb.DuckDBPyConnection, name: str, cutoff: date) -> Attribute:
    groups = connection.execute(f"""
        SELECT "value_{name}" AS level, half, stratum, count(*) AS n, sum(churned) AS n_left
        FROM judged GROUP BY ALL ORDER BY ALL""").df()
    filled = groups["level"].notna()
    share = float(groups["n"][filled].sum() / groups["n"].sum())
    distinct = int(groups["level"].nunique())
    kind, numbers = _as_numbers(groups["level"])
    identifies = _identifies(kind, numbers, distinct, int(groups["n"][filled].sum()))
    values = groups["level"].astype(object).where(filled, _EMPTY) if numbers is None else _binned(numbers, groups["n"])
    rates = _rates_of_other_half(groups, values)
    auc, like_auc = _auc(groups, rates), _auc_within(groups, rates)
    late = _after(groups, numbers, cutoff) if kind == "time" and numbers is not None else None
    told = _telling(groups, values) if identifies is None else None
    filling = _telling(groups, filled.map({True: "a value", False: "none"}))
    suspicion, figure = _accusation(auc, like_auc, late, filling, told, identifies)
    remedy = f"drop `{name}` from `attributes`{_OR_ELSE[suspicion]}" if suspicion else None
    return Attribute(name, kind, share, distinct, auc, like_auc, suspicion, figure, remedy)


def _as_numbers(levels: pd.Series) -> tuple[str, Floats | None]:
    """What an attribute holds, and its values as numbers, times as days since 1970; none for texts."""
    if levels.dtype != object:
        return "number", levels.to_numpy(dtype=float)
    filled = levels.dropna()
    times = pd.to_datetime(
        filled.where(filled.str.match(r"\d{4}-\d\d-\d\d")), format="ISO8601", errors="coerce", utc=True
    )
    if len(filled) == 0 or times.notna().mean() < 0.9:
        return "text", None
    days = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(days=1)
    return "time", days.reindex(levels.index).to_numpy(dtype=float)


def _identifies(kind: str, numbers: Floats | None, distinct: int, filled: int) -> str | None:
    """Whether values name hardly more than one customer each: texts mostly, or whole numbers without exception."""
    if kind == "text" and filled >= _MIN_FILLED and distinct > filled / 2:
        return f"{distinct:,} values for {filled:,} customers"
    if kind == "number" and numbers is not None and filled >= 100 and distinct == filled:
        known = numbers[~np.isnan(numbers)]
        return f"{distinct:,} numbers for {filled:,} customers" if (known == np.floor(known)).all() else None
    return None


def _binned(numbers: Floats, n: pd.Series) -> pd.Series:
    """Twentieths of the customers by value, those without one apart; a frequent value is a bin of its own."""
    order = np.argsort(numbers, kind="stable")
    below = np.empty(len(numbers))
    below[order] = np.cumsum(n.to_numpy()[order]) - n.to_numpy()[order]
    known = ~np.isnan(numbers)
    share = pd.Series(below).groupby(numbers).transform("min") * _BINS / max(1, int(n[known].sum()))
    return pd.Series(np.where(known, np.floor(share.fillna(0)).astype(int).astype(str), _EMPTY), index=n.index)


def _rates_of_other_half(groups: pd.DataFrame, levels: pd.Series) -> Floats:
    """The share who left among the other half's customers with the same level: an id that names one customer says
    nothing about another. Drawn towards the share of all where there are few."""
    overall = groups["n_left"].sum() / groups["n"].sum()
    sums = groups.groupby([levels.rename("of"), "half"])[["n", "n_left"]].sum()
    other = pd.MultiIndex.from_arrays([levels, 1 - groups["half"].astype(int)])
    there = sums.reindex(other).fillna(0.0)
    return ((there["n_left"] + _PRIOR * overall) / (there["n"] + _PRIOR)).to_numpy(dtype=float)


def _pairs(groups: pd.DataFrame, scores: Floats) -> tuple[float, float]:
    """Of all pairs of one who left and one who stayed: those in which the former has the higher score, and how many."""
    known = ~np.isnan(scores)
    _, level = np.unique(scores[known], return_inverse=True)
    left, everybody = (np.bincount(level, weights=groups[of].to_numpy(dtype=float)[known]) for of in ("n_left", "n"))
    stayed = everybody - left
    return float(np.sum(left * (np.cumsum(stayed) - stayed / 2))), float(left.sum() * stayed.sum())


def _auc(groups: pd.DataFrame, scores: Floats) -> float | None:
    right, pairs = _pairs(groups, scores)
    return right / pairs if pairs else None


def _auc_within(groups: pd.DataFrame, scores: Floats) -> float | None:
    """The same over pairs of customers of one stratum only: what behaviour explains is left out."""
    counted = [
        _pairs(groups[here], scores[here])
        for here in (groups["stratum"].to_numpy() == stratum for stratum in groups["stratum"].unique())
    ]
    pairs = sum(pairs for _, pairs in counted)
    return sum(right for right, _ in counted) / pairs if pairs else None


def _after(groups: pd.DataFrame, days: Floats, cutoff: date) -> tuple[int, int]:
    """Customers whose time lies on or after the cutoff, and how many have one."""
    late = days >= (cutoff - date(1970, 1, 1)).days
    return int(groups["n"][late].sum()), int(groups["n"][~np.isnan(days)].sum())


def _accusation(
    auc: float | None, like_auc: float | None, late: tuple[int, int] | None, filling: str | None, told: str | None,
    identifies: str | None,
) -> tuple[str | None, str | None]:  # fmt: skip
    """The first suspicion that holds, the surest first, and its figure; none for a harmless attribute."""
    if late is not None and late[0] >= max(10, _LATE * late[1]):
        return _RECORDED_AFTER, f"{late[0]:,} of {late[1]:,} customers known at the cutoff have a time on or after it"
    if auc is not None and like_auc is not None and auc >= LEAK_AUC and like_auc >= UNEXPLAINED_AUC:
        return _ALMOST_ALONE, f"AUC {auc:.2f} alone, {like_auc:.2f} among customers equally long silent"
    if filling is not None:
        return _FILLED_IN, filling
    if told is not None:
        return _TELLING, told
    return (None, None) if identifies is None else (IDENTIFIES, identifies)


def _telling(groups: pd.DataFrame, levels: pd.Series) -> str | None:
    """A level with hardly an exception: nearly all its customers left, or stayed, where of as many others equally long
    silent at least twenty did not; in words. Of several the most frequent.
    """
    totals = groups.groupby("stratum")[["n", "n_left"]].sum()
    sums = groups.groupby([levels.rename("of"), "stratum"])[["n", "n_left"]].sum()
    all_of_stratum = totals.reindex(sums.index.get_level_values("stratum")).to_numpy(dtype=float)
    others = all_of_stratum - sums.to_numpy(dtype=float)
    of_all = all_of_stratum[:, 1] / all_of_stratum[:, 0]  # stands in where there are few others to compare with
    usual = (others[:, 1] + _PRIOR * of_all) / (others[:, 0] + _PRIOR)
    sums["expected"] = usual * sums["n"].to_numpy(dtype=float)
    for level, n, left, expected in sums.groupby(level=0).sum().sort_values("n", ascending=False).itertuples():
        for word, count, usually in (("left", left, expected), ("stayed", n - left, n - expected)):
            if n - usually >= _EXCEPTIONS and n - count <= _HARDLY * (n - usually):
                return f"{count:,.0f} of {n:,.0f} with {level} {word}; of others equally long silent {usually / n:.0%}"
    return None
