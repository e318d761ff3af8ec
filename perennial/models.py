"""Models without a shop: the purchase models of the field on data frames, and the service's own as scikit-learn's.

The purchase models are fitted on purchases or histories, and asked for a horizon in days. The mathematics is that of
`training/models/`, which the lifetime-value model is made of too. `transactions` in the examples are the purchases of
2,357 customers of CDNOW (columns `customer_id`, `occurred_at`, `amount`), on which the models were published.
`ChurnClassifier`, `LifetimeValueRegressor` and `CutoffSplit` are loaded when they are asked for.
"""

from __future__ import annotations

from datetime import date
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pandas as pd

from training.models import bg_nbd, gamma_gamma, mbg_nbd, pareto_nbd

if TYPE_CHECKING:
    from perennial.cutoff_split import CutoffSplit as CutoffSplit
    from perennial.estimators import ChurnClassifier as ChurnClassifier
    from perennial.estimators import LifetimeValueRegressor as LifetimeValueRegressor

_WHERE = {
    **dict.fromkeys(("ChurnClassifier", "LifetimeValueRegressor"), "perennial.estimators"),
    "CutoffSplit": "perennial.cutoff_split",
}  # fmt: skip
__all__ = [
    "BGNBD", "MBGNBD", "ChurnClassifier", "CutoffSplit", "GammaGamma", "LifetimeValueRegressor", "ParetoNBD",
    "histories",
]  # fmt: skip

_HISTORY = ["frequency", "recency", "T"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'perennial.models' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def histories(transactions: pd.DataFrame, as_of: date | str) -> pd.DataFrame:
    """A row per customer with a purchase before `as_of`, by `customer_id`, times in days.

    `transactions` have `customer_id`, `occurred_at` and, where money matters, `amount`; days are those of the zone that
    the times are in. Purchases of one customer on one day count once; a negative amount, a return, is none, and lessens
    the amount of its day. `frequency` counts repeat purchase days, `recency` is the last minus the first, `T` is
    `as_of` minus the first, `monetary_value` is the mean per repeat purchase day, null without one.

    >>> lines = [("c1", "2024-01-05", 10.0), ("c1", "2024-02-05", 12.0), ("c2", "2024-02-07", 3.0)]
    >>> rows = pd.DataFrame(lines, columns=["customer_id", "occurred_at", "amount"])
    >>> histories(rows, "2024-03-01").loc["c1"].to_dict()
    {'frequency': 1.0, 'recency': 31.0, 'T': 56.0, 'monetary_value': 12.0}
    """
    until, amounts = pd.Timestamp(as_of), "amount" in transactions
    times = pd.to_datetime(transactions["occurred_at"], format="ISO8601").dt.tz_localize(None)
    amount = transactions["amount"] if amounts else 1.0
    lines = pd.DataFrame({"customer_id": transactions["customer_id"], "day": times.dt.normalize(), "amount": amount})
    lines = lines[lines["day"] < until].assign(bought=lines["amount"] >= 0)
    days = lines.groupby(["customer_id", "day"], as_index=False).agg(amount=("amount", "sum"), bought=("bought", "any"))
    days = days[days["bought"]]
    of = days.groupby("customer_id")
    first, last, frequency = of["day"].min(), of["day"].max(), of.size() - 1.0
    recency, age = ((end - first).dt.days.astype(float) for end in (last, until))
    summary = pd.DataFrame({"frequency": frequency, "recency": recency, "T": age})
    if amounts:
        repeat = days[days["day"] > days["customer_id"].map(first)]
        summary["monetary_value"] = repeat.groupby("customer_id")["amount"].mean()
    return summary


def _given(purchases: pd.DataFrame, as_of: date | str | None) -> pd.DataFrame:
    """Histories as they are, or of transactions.

    Raises:
        ValueError: transactions without the day they are known at, or columns of neither.
    """
    if {*_HISTORY} <= {*purchases}:
        return purchases
    if not {"customer_id", "occurred_at"} <= {*purchases}:
        wanted = "frequency, recency, T (histories) nor customer_id, occurred_at (transactions)"
        raise ValueError(f"the columns are {', '.join(map(str, purchases))}: neither {wanted}")
    if as_of is None:
        raise ValueError("transactions need a day that they are known at: fit(transactions, as_of='2024-07-01')")
    return histories(purchases, as_of)


class BGNBD:
    """BG/NBD (Fader, Hardie, Lee 2005): purchases at a customer's own rate, until the customer leaves after one.

    `parameters` has what was fitted, `histories` what it was fitted on. With too few customers who came back, or where
    the data do not determine the parameters, `fit` raises `NotIdentified`.

    >>> model = BGNBD().fit(transactions, as_of="1997-10-01")
    >>> {name: round(value, 2) for name, value in model.parameters.items()}
    {'r': 0.24, 'alpha': 30.76, 'a': 0.81, 'b': 2.48, 'log_likelihood': -14370.99}
    >>> model.predict(273).round(3).loc[[1, 2]].to_dict("list")
    {'p_alive': [0.723, 0.21], 'expected_purchases': [1.213, 0.201]}
    """

    _model: ClassVar[Any] = bg_nbd.BGNBD

    def fit(self, purchases: pd.DataFrame, as_of: date | str | None = None) -> Self:
        """Maximum likelihood on histories, or on transactions known before `as_of`; times in days.

        Raises:
            ValueError: the columns are of neither, or a history is impossible.
            NotIdentified: the data do not determine the parameters.
        """
        self.histories = _given(purchases, as_of)
        self._fitted = self._model.fit(*(self.histories[name] for name in _HISTORY))
        return self

    @property
    def parameters(self) -> dict[str, float]:
        """By the papers' names, in days, beside `log_likelihood`."""
        return dict(vars(self._fitted))

    def p_alive(self, histories: pd.DataFrame | None = None) -> pd.Series:
        """Probability that each customer has not left, of those fitted on unless others are given."""
        of = self.histories if histories is None else histories
        alive = self._fitted.p_alive(*(of[name] for name in _HISTORY))
        return pd.Series(alive, index=of.index, name="p_alive")

    def expected_purchases(self, days: float, histories: pd.DataFrame | None = None) -> pd.Series:
        """Purchase days to expect of each customer in so many days from the end of the history on."""
        of = self.histories if histories is None else histories
        expected = self._fitted.expected_purchases(*(of[name] for name in _HISTORY), days)
        return pd.Series(expected, index=of.index, name="expected_purchases")

    def predict(self, days: float, histories: pd.DataFrame | None = None) -> pd.DataFrame:
        """Both, a row per customer."""
        return pd.concat([self.p_alive(histories), self.expected_purchases(days, histories)], axis=1)


class MBGNBD(BGNBD):
    """MBG/NBD (Batislam, Denizel, Filiztekin 2007): as BG/NBD, but a customer may leave after the first purchase too.

    >>> MBGNBD().fit(transactions, as_of="1997-10-01").p_alive().round(3)[[1, 2]].tolist()
    [0.702, 0.168]
    """

    _model: ClassVar[Any] = mbg_nbd.MBGNBD


class ParetoNBD(BGNBD):
    """Pareto/NBD (Schmittlein, Morrison, Colombo 1987): as BG/NBD, but a customer may leave at any moment.

    >>> ParetoNBD().fit(transactions, as_of="1997-10-01").expected_purchases(273).round(3)[[1, 2]].tolist()
    [1.427, 0.166]
    """

    _model: ClassVar[Any] = pareto_nbd.ParetoNBD


class GammaGamma:
    """Gamma-Gamma (Fader, Hardie 2013): what a customer spends per purchase, the shop's mean where little is known.

    Fitted on who came back and spent something.

    >>> model = GammaGamma().fit(transactions, as_of="1997-10-01")
    >>> {name: round(value, 2) for name, value in model.parameters.items()}
    {'p': 6.25, 'q': 3.74, 'v': 15.44, 'log_likelihood': -4055.92}
    >>> model.predict().round(2)[[1, 2]].tolist()
    [24.65, 18.91]
    """

    def fit(self, purchases: pd.DataFrame, as_of: date | str | None = None) -> Self:
        """Maximum likelihood on histories with `monetary_value`, or on transactions with `amount`.

        Raises:
            ValueError: the columns are of neither, or a history is impossible.
            NotIdentified: the data do not determine the parameters.
        """
        self.histories = _given(purchases, as_of)
        spent = self.histories[(self.histories["frequency"] > 0) & (self.histories["monetary_value"] > 0)]
        self._fitted = gamma_gamma.GammaGamma.fit(spent["frequency"], spent["monetary_value"])
        return self

    @property
    def parameters(self) -> dict[str, float]:
        """By the paper's names, beside `log_likelihood`."""
        return dict(vars(self._fitted))

    def predict(self, histories: pd.DataFrame | None = None) -> pd.Series:
        """Expected spend per future purchase of each customer, of those fitted on unless others are given."""
        of = self.histories if histories is None else histories
        spend = self._fitted.expected_spend(of["frequency"], of["monetary_value"])
        return pd.Series(spend, index=of.index, name="expected_spend")
