"""Who the customers at risk are: a few groups that a person can recognise, with what is at stake in each."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeRegressor

from features.snapshot import attribute_codes
from serving.consent import REFUSED_PROFILING, Consents
from serving.lists import churn_risk
from serving.lists.churn_risk import graded
from serving.predictor import Predictor
from serving.reasons import as_written
from serving.terms import Terms
from workspace import storage
from workspace.settings import Workspace
from workspace.storage import quoted

COLUMNS = (
    "who", "customers", "share", "churn_probability", "churn_grade", "lifetime_value", "lifetime_value_grade",
    "value_at_risk", "value_at_risk_grade", "churn_period_days", "lifetime_value_period_days", "lifetime_value_measure",
    "currency", "withheld",
)  # fmt: skip
MOST_GROUPS = 8
_LEAST_SHARE = 0.02
_LEAST_CUSTOMERS = 20
# What a marketer can see of a customer; `{}` is a bound.
_WORDS = {
    "days_since_last_purchase": ("silent for {} days or less", "silent for more than {} days"),
    "silence_vs_gap": ("silent for at most {} times the usual gap", "silent for over {} times the usual gap"),
    "n_purchases": ("{} purchases or fewer", "more than {} purchases"),
    "n_purchases_365d": ("{} purchases or fewer in a year", "more than {} purchases in a year"),
    "spend_365d": ("spent {} or less in a year", "spent over {} in a year"),
    "tenure_days": ("a customer for {} days or less", "a customer for over {} days"),
    "n_visit_30d": ("{} visits or fewer in 30 days", "more than {} visits in 30 days"),
    "n_open_complaints": ("{} open complaints or fewer", "more than {} open complaints"),
    "n_complaint_365d": ("{} complaints or fewer in a year", "more than {} complaints in a year"),
    "satisfaction_last": ("last rating {} or less", "last rating over {}"),
    "return_share_365d": ("returned {} or less", "returned over {}"),
}


def risk_groups(predictor: Predictor, as_of: date | None = None, band: str | None = None) -> pd.DataFrame:
    """The scored customers of an as_of (the latest unless named) in up to `MOST_GROUPS` groups, most at stake first.

    A shallow tree on what a person can see of a customer, towards the churn probability; each group has at least 2 % of
    the customers. `customers` counts, `share` is theirs of all scored, the rest are the group's means, except
    `value_at_risk`, its sum; beside each number its grade, as in lists.

    Raises:
        CheckFailed: nothing is scored yet, no probability is shown, or too few customers to group.
    """
    workspace = predictor.workspace
    as_of = as_of or storage.latest_scored(workspace.home_path)
    terms = Terms.at(predictor, as_of)
    if why := terms.standing("churn").withheld:
        raise storage.CheckFailed(f"nobody can be grouped by their risk, which is not shown: {why}")
    scores = _scores(workspace, as_of, band)
    if len(scores) < 2 * _LEAST_CUSTOMERS:
        raise storage.CheckFailed(
            f"{len(scores)} customers of {as_of} are scored{f' {band}' if band else ''}; at least"
            f" {2 * _LEAST_CUSTOMERS} are needed to group them"
        )
    names = [*_WORDS, *(f"attribute_{name}" for name in workspace.attributes)]
    seen = _seen(workspace, names, churn_risk.vectors(workspace, as_of, scores["customer_id"].tolist(), names))
    least = max(_LEAST_CUSTOMERS, int(_LEAST_SHARE * len(scores)))
    tree = DecisionTreeRegressor(max_leaf_nodes=MOST_GROUPS, max_depth=3, min_samples_leaf=least, random_state=0)
    leaves = tree.fit(seen, scores["churn_probability"]).apply(seen)
    groups = scores.groupby(leaves).agg(
        customers=("customer_id", "count"), churn_probability=("churn_probability", "mean"),
        lifetime_value=("lifetime_value", "mean"), value_at_risk=("value_at_risk", lambda own: own.sum(min_count=1)),
    )  # fmt: skip
    who = {leaf: _in_words(steps, workspace.currency) for leaf, steps in _paths(tree, list(seen.columns)).items()}
    groups = groups.assign(who=groups.index.map(who), share=groups["customers"] / len(scores), **terms.columns())
    order = ["value_at_risk", "churn_probability"]
    return groups.sort_values(order, ascending=False, ignore_index=True)[list(COLUMNS)]


@storage.read_again
def _scores(workspace: Workspace, as_of: date, band: str | None) -> pd.DataFrame:
    path = storage.scores_path(workspace.home_path, as_of)
    if not path.exists():
        raise storage.CheckFailed(f"{workspace.name} has no scores of {as_of}; run `perennial score --as-of {as_of}`")
    with storage.connect(workspace.home_path, workspace.timezone) as connection:
        Consents(workspace.home_path).tell(connection)
        return connection.execute(
            f"""SELECT customer_id, churn_probability, lifetime_value, value_at_risk
            FROM read_parquet({quoted(path)})
            WHERE not_scored_reason IS NULL AND NOT {REFUSED_PROFILING} AND ($band IS NULL OR churn_band = $band)
            ORDER BY customer_id""",
            {"band": band},
        ).df()


def _seen(workspace: Workspace, names: list[str], vectors: NDArray[np.float32]) -> pd.DataFrame:
    """What the tree may ask about: known for most customers; of a text attribute, each frequent value apart."""
    columns = {name: vectors[:, names.index(name)] for name in _WORDS}
    codes = attribute_codes(workspace) if workspace.attributes else {}
    for name in workspace.attributes:
        values = vectors[:, names.index(f"attribute_{name}")]
        if name not in codes:
            columns[name] = values
        for value, code in codes.get(name, {}).items():
            columns[f"{name} is {value}"] = (values == code).astype(np.float32)
    questions = pd.DataFrame(columns)
    return questions.loc[:, (questions.notna().mean() > 0.9) & (questions.max() > questions.min())]


def _paths(tree: DecisionTreeRegressor, names: list[str]) -> dict[int, dict[tuple[str, bool], float]]:
    """By leaf the bounds on the way to it: (feature, whether above) -> the narrowest bound."""
    nodes = tree.tree_
    bounds_of: dict[int, dict[tuple[str, bool], float]] = {}

    def walk(node: int, bounds: dict[tuple[str, bool], float]) -> None:
        if nodes.children_left[node] < 0:
            bounds_of[node] = bounds
            return
        name, bound = names[nodes.feature[node]], float(nodes.threshold[node])
        walk(nodes.children_left[node], bounds | {(name, False): bound})
        walk(nodes.children_right[node], bounds | {(name, True): bound})

    walk(0, {})
    return bounds_of


def _in_words(bounds: dict[tuple[str, bool], float], currency: str) -> str:
    return ", ".join(_bound(name, above, bound, currency) for (name, above), bound in bounds.items()) or "everybody"


def _bound(name: str, above: bool, bound: float, currency: str) -> str:
    if " is " in name:
        return name if above else name.replace(" is ", " is not ", 1)
    if name not in _WORDS:
        return f"{name} {'over' if above else 'up to'} {as_written(bound)}"
    if name == "spend_365d":
        shown = f"{bound:,.0f} {currency}"
    elif name == "return_share_365d":
        shown = f"{bound:.0%}"
    else:
        shown = f"{bound:.1f}" if name in ("silence_vs_gap", "satisfaction_last") else f"{np.floor(bound):,.0f}"
    return _WORDS[name][above].format(shown)


def as_text(groups: pd.DataFrame) -> str:
    """The groups for a terminal, most at stake first."""
    lines = [f"{'customers':>10}{'share':>7}{'risk':>10}{'value':>16}{'at risk':>18}  who"]
    row: Any
    for row in groups.itertuples():
        numbers = (
            graded(row.churn_probability, ".0%", row.churn_grade, 10),
            graded(row.lifetime_value, ",.0f", row.lifetime_value_grade, 16),
            graded(row.value_at_risk, ",.0f", row.value_at_risk_grade, 18),
        )
        lines.append(f"{row.customers:>10,}{row.share:>7.0%}{''.join(numbers)}  {row.who}")
    return "\n".join(lines)
