"""The probability that a customer buys an item (a category or a product) within the horizon."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.models.customer_model import Lessons, PyFunc, Stored, predicted, sigmoid
from training.models.rule import BASE_RATE, OURS
from workspace.settings import CrossSell

Floats = NDArray[np.floating]
Rows = NDArray[np.float32]

PARAMETERS: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.07, "num_leaves": 15, "min_child_samples": 300, "feature_fraction": 0.5,
    "bagging_fraction": 0.5, "bagging_freq": 1, "lambda_l2": 5.0,
}  # fmt: skip
ROUNDS = 100

# What the plain score of a new category looks at, in logarithms: how popular it is, how well it goes with what the
# customer bought, and how widely this customer buys.
PLAIN = ("item_buyers_365d", "item_co_purchase", "n_categories_365d")
_SMALL = 1e-3


# What a rule's score is taken for at the least, so that it has a logarithm, and how much it counts for.
_NOTHING, _LEAST_SLOPE = 1e-9, 1e-3


def personal_frequency(rows: Rows, names: tuple[str, ...]) -> Floats:
    """What the customer bought most often in a year, ties by recency, then what is popular."""
    column = {name: np.nan_to_num(rows[:, names.index(name)]) for name in (
        "item_n_purchases", "item_n_purchases_365d", "item_days_since_last")}  # fmt: skip
    recency = np.where(column["item_n_purchases"] > 0, 1 / (1 + column["item_days_since_last"]), 0.0)
    return column["item_n_purchases_365d"] + 0.5 * recency + 1e-3 * popularity(rows, names)


def popularity(rows: Rows, names: tuple[str, ...]) -> Floats:
    """The share of a year's buyers who bought the item: the same for everybody."""
    return np.nan_to_num(rows[:, names.index("item_buyers_365d")])


FREQUENCY = "personal frequency"
RULES = {FREQUENCY: personal_frequency, BASE_RATE: popularity}
"""The order that a rule gives (customer, item) rows, by its name."""


class Line(NamedTuple):
    """From a score's log-odds to calibrated ones."""

    slope: float
    intercept: float


AS_IT_IS = Line(1.0, 0.0)


@dataclass(frozen=True)
class OfferModel:
    """A booster over (customer, item) rows whose columns are `names`, in order, calibrated apart for each kind.

    It sees the columns in `used`.

    The log-odds of a new category are the mean of the booster's and of a plain score's: an intercept and a weight for
    each of `PLAIN`. What a booster learns of last season's new categories has often passed by the next one; that what
    is popular is bought has not. Items are too many for that: there the booster stands alone, and `plain` is null.

    Or one of `RULES` answers, and the booster is null: then one line holds for repeats and new items alike.

    `newcomer_rate`: purchases of an item by who has never bought, per share of their segment who bought it in a year.
    `launch_rate`: purchases of an item that nobody had bought, per share of a customer's purchases in its category.
    """

    names: tuple[str, ...]
    used: tuple[str, ...]
    horizon: int
    level: str
    booster: lgb.Booster | None
    plain: tuple[float, ...] | None = None
    repeat: Line = AS_IT_IS
    new: Line = AS_IT_IS
    newcomer_rate: float = 0.0
    launch_rate: float = 0.0
    rule: str | None = None
    remarks: ClassVar[tuple[str, ...]] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a row that it is asked about, in order."""
        return self.names

    @property
    def answers_by(self) -> str:
        """The plain name of what it answers by."""
        return self.rule or OURS

    def predict(self, rows: Rows) -> Floats:
        return self.probability(rows)

    def probability(self, rows: Rows) -> Floats:
        """Per (customer, item) row of float32 features in the order of `names`."""
        lines = np.where(self.owned(rows)[:, None], self.repeat, self.new)
        return sigmoid(lines[:, 0] * self._score(rows) + lines[:, 1])

    def newcomer_probability(self, shares: Floats) -> Floats:
        """For who has never bought: from each item's share of the buyers of their segment."""
        return np.minimum(self.newcomer_rate * shares, 1.0)

    def launch_probability(self, shares: Floats) -> Floats:
        """For an item that nobody has bought: from the share of each customer's purchases that is of its category."""
        return np.minimum(self.launch_rate * shares, 1.0)

    def calibrated(self, rows: Rows, bought: Floats) -> Self:
        """The same model with a line for repeats and one for new items, fitted on these rows (Platt 1999)."""
        score, owned = self._score(rows), self.owned(rows)
        if self.rule is not None:
            line = _line(score, bought)
            line = Line(max(line.slope, _LEAST_SLOPE), line.intercept)
            return replace(self, repeat=line, new=line)
        return replace(self, repeat=_line(score[owned], bought[owned]), new=_line(score[~owned], bought[~owned]))

    def owned(self, rows: Rows) -> NDArray[np.bool_]:
        """Whether the customer has bought the item before."""
        return rows[:, self.names.index("item_n_purchases")] > 0

    def _score(self, rows: Rows) -> Floats:
        if len(rows) == 0:  # which LightGBM 4.7 refuses
            return np.empty(0)
        if self.rule is not None:
            return np.log(np.maximum(RULES[self.rule](rows, self.names), _NOTHING))
        assert self.booster is not None
        score = predicted(self.booster, _columns(rows, self.names, self.used), raw_score=True)
        if self.plain is not None:
            new, (intercept, *weights) = ~self.owned(rows), self.plain
            score[new] = (score[new] + _logarithms(rows[new], self.names) @ np.array(weights) + intercept) / 2
        return score

    def save(self, folder: Path) -> None:
        parameters = {
            "names": self.names, "used": self.used, "horizon": self.horizon, "level": self.level,
            "repeat": self.repeat, "new": self.new, "newcomer_rate": self.newcomer_rate,
            "launch_rate": self.launch_rate, "plain": self.plain, "rule": self.rule,
        }  # fmt: skip
        Stored(parameters, {} if self.booster is None else {"booster": self.booster}).write(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = Stored.read(folder)
        p = stored.parameters
        return cls(
            tuple(p["names"]), tuple(p["used"]), p["horizon"], p["level"], stored.boosters.get("booster"),
            p["plain"] and tuple(p["plain"]), Line(*p["repeat"]), Line(*p["new"]), p["newcomer_rate"], p["launch_rate"],
            p.get("rule"),  # which models written before rules could answer do not name
        )  # fmt: skip


def fit(
    rows: Rows, bought: Floats, names: tuple[str, ...], used: tuple[str, ...], sell: CrossSell, seed: int
) -> OfferModel:
    """Fitted on (customer, item) rows of several cutoffs; `bought` is 1 where the item was bought in the horizon."""
    from sklearn.linear_model import LogisticRegression  # not needed to answer, and slow to load

    lessons = Lessons.of(_columns(rows, names, used), used, (), PARAMETERS, sell.boosting, seed)
    booster = lessons.boosted(bought, ROUNDS)
    model = OfferModel(names, used, sell.horizon, sell.level, booster)
    new = ~model.owned(rows)
    if sell.level == "item" or not 0 < bought[new].sum() < new.sum():
        return model
    fitted = LogisticRegression(max_iter=200).fit(_logarithms(rows[new], names), bought[new])
    return replace(model, plain=(float(fitted.intercept_[0]), *map(float, fitted.coef_[0])))


def _columns(rows: Rows, names: tuple[str, ...], used: tuple[str, ...]) -> Rows:
    return rows if used == names else rows[:, [names.index(name) for name in used]]


def _logarithms(rows: Rows, names: tuple[str, ...]) -> Floats:
    """Of the columns `PLAIN`; what is unknown or below nothing counts as nothing."""
    chosen = np.nan_to_num(rows[:, [names.index(name) for name in PLAIN]].astype(np.float64)).clip(min=0)
    shares = np.array([name.startswith("item_") for name in PLAIN])
    return np.log(chosen + np.where(shares, _SMALL, 1.0))


def _line(score: Floats, bought: Floats) -> Line:
    """The line of least log loss; none of either outcome, and the score stands as it is."""
    from scipy.optimize import minimize  # only to fit, and slow to load

    if not 0 < bought.sum() < len(bought):
        return AS_IT_IS

    def loss(line: Floats) -> tuple[float, Floats]:
        z = line[0] * score + line[1]
        error = sigmoid(z) - bought
        return float(np.mean(np.logaddexp(0, z) - bought * z)), np.array([np.mean(error * score), np.mean(error)])

    return Line(*map(float, minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B").x))


def _load_pyfunc(path: str) -> PyFunc:
    """MLflow's entry: `predict` takes (customer, item) rows."""
    return PyFunc(OfferModel.load(Path(path)).probability)
