"""The probability that a customer buys nothing (or cancels) in the outcome window, or within any other horizon."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from training.models.buy_till_you_die import BuyTillYouDie, History, Outlook
from training.models.customer_model import MOST_ROWS, Inputs, Lessons, PyFunc, Stored, logit, predicted, sigmoid
from training.models.leaving import Leaving
from training.models.rule import HISTORIES, OURS, Rule
from workspace.settings import Boosting

Floats = NDArray[np.floating]
Vectors = NDArray[np.float32]

# Small trees on few columns at a time: a shop has thousands of customers and a hundred correlated features.
PARAMETERS: dict[str, Any] = {
    "objective": "binary", "learning_rate": 0.03, "num_leaves": 7, "min_child_samples": 100, "feature_fraction": 0.3,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0,
}  # fmt: skip
ROUNDS = 200

_OUTLOOK_NAMES = ("btyd_log_p_alive", "btyd_log_expected_purchases", "btyd_no_purchase_logit", "btyd_log_spend")
# As `Inputs.directions` of the features: what the history says of silence, and of activity.
_OUTLOOK_DIRECTIONS = {"btyd_no_purchase_logit": 1, "btyd_log_p_alive": -1, "btyd_log_expected_purchases": -1}


def inputs_of(inputs: Inputs, leaving: Leaving) -> Inputs:
    """What the booster is shown: all that models may see, and for inactivity nothing that silence moves both ways."""
    if leaving.is_event:
        return inputs
    return replace(inputs, used=tuple(name for name in inputs.used if name not in inputs.restless))


@dataclass(frozen=True)
class SeasonCorrection:
    """How the coming window differs from those calibrated on, by last year's: in log-odds, and in the mean probability.

    `before` and `after` are the mean probability of those who can leave without and with it; equal where there is no
    last year.
    """

    log_odds: float = 0.0
    before: float = float("nan")
    after: float = float("nan")

    def __str__(self) -> str:
        if not self.log_odds:
            return "season: no cutoff a year ago to correct the base rate by"
        return (
            f"season: by last year's, {self.log_odds:+.2f} in log-odds against the windows calibrated on;"
            f" mean probability {self.before:.3f} -> {self.after:.3f}"
        )


@dataclass(frozen=True)
class ChurnModel:
    """A booster and the history's own silence, averaged in log-odds, calibrated by a line and moved by the season.

    Averaging the two ranks better than either on every earlier cutoff of the real sets, and than weights fitted on one
    calibration date (see docs/decisions). For event churn the history says nothing of cancelling, and only the booster
    counts, `history_model` being null where too few came back. Without a booster the history stands alone, calibrated
    by a line of its own, or a `rule` answers in place of both. `learnt` are the days of the windows that taught it,
    `longest` those that a probability may be asked for; `remarks` what the training says of itself.
    """

    inputs: Inputs
    history_model: BuyTillYouDie | None
    leaving: Leaving
    learnt: int
    longest: int
    booster: lgb.Booster | None = None
    rule: Rule | None = None
    slope: float = 1.0
    intercept: float = 0.0
    correction: SeasonCorrection = SeasonCorrection()
    remarks: tuple[str, ...] = ()

    @property
    def horizon(self) -> int:
        return self.leaving.horizon

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a row that it is asked about, in order."""
        return self.inputs.packed

    @property
    def answers_by(self) -> str:
        """The plain name of what it answers by."""
        return self.rule.name if self.rule else OURS if self.booster is not None else HISTORIES

    def predict(self, rows: Vectors) -> Floats:
        return self.probability(rows)

    @property
    def has_order(self) -> bool:
        """Whether it tells customers apart at all: one rate for everybody does not."""
        return self.rule is None or self.rule.feature is not None

    def can_churn(self, vectors: Vectors) -> NDArray[np.bool_]:
        """Who has not left already, and has bought often enough to be asked about."""
        return self.leaving.can_leave(self.inputs, vectors)

    def probability(self, vectors: Vectors, horizon: int | None = None, outlook: Outlook | None = None) -> Floats:
        """Of leaving, per row of packed feature vectors; nan for who never bought (event churn asks about them too).

        Of inactivity it is P(no purchase within the horizon), which never rises with the horizon; of an event
        P(cancelled within the horizon), which never falls. Without `horizon` it is that of the workspace. `outlook`
        is what `history_model` says of the learnt windows, where the caller has it.

        Raises:
            ValueError: the horizon is less than a day, or longer than the history that was learnt from.
        """
        asked = self._asked(vectors, horizon)
        if self.rule is not None:
            learnt = np.where(self._can_be_asked(vectors), self.rule(self.inputs, vectors), np.nan)
        else:
            outlook = self.outlook_by(self.history_model, vectors) if outlook is None else outlook
            learnt = self._learnt(vectors, outlook)
        taught = self.leaving.within(self.learnt).days(self.inputs, vectors)
        return (
            learnt if np.array_equal(asked, taught, equal_nan=True) else self._carried(vectors, learnt, taught, asked)
        )

    def _learnt(self, vectors: Vectors, outlook: Outlook) -> Floats:
        """Of the learnt windows; the history as it is where no line calibrates it."""
        if self.booster is None and (self.slope, self.intercept) == (1.0, 0.0):
            return np.exp(-hazard(outlook))
        return sigmoid(self.slope * self.score(vectors, outlook) + self.intercept + self.correction.log_odds)

    def _can_be_asked(self, vectors: Vectors) -> NDArray[np.bool_]:
        return self.inputs.bought(vectors) | self.leaving.is_event

    def _asked(self, vectors: Vectors, horizon: int | None) -> Floats:
        if horizon is None:
            return self.leaving.days(self.inputs, vectors)
        if not 1 <= horizon <= self.longest:
            raise ValueError(
                f"a horizon of {horizon} days cannot be answered: the model knows {self.longest} days of history;"
                f" ask for 1 to {self.longest}"
            )
        return np.full(len(vectors), float(horizon))

    def _carried(self, vectors: Vectors, learnt: Floats, taught: Floats, asked: Floats) -> Floats:
        """The probability within `asked` days of whom the booster gives `learnt` within `taught` days.

        Hazards stay in proportion: the history's cumulated hazard of a purchase, or for an event and without a history
        the same hazard every day, is multiplied for each customer by what gives `learnt`.
        """
        if self.leaving.is_event:
            return -np.expm1(asked / taught * np.log1p(-np.minimum(learnt, 1 - 1e-12)))
        if self.history_model is None:
            return learnt ** (asked / taught)
        history = self.inputs.history(vectors)
        by_days = [hazard(self.history_model.outlook(history, days, self.leaving.gap)) for days in (asked, taught)]
        return learnt ** (np.maximum(by_days[0], 1e-12) / np.maximum(by_days[1], 1e-12))

    def carried(self, probability: float, horizon: int) -> float:
        """What a probability at the trained horizon is within `horizon` days for a newcomer: one answer for everybody.

        By hazards in proportion, as `_carried` carries each customer's own. Who is a newcomer has bought once, today.
        """
        if self.leaving.is_event:
            return float(-np.expm1(horizon / self.horizon * np.log1p(-probability)))
        assert self.history_model is not None
        today = History(*np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [np.nan, np.nan], [np.nan, np.nan]]))
        days = np.array([horizon, self.horizon], dtype=float)
        asked, own = hazard(self.history_model.outlook(today, days, self.leaving.gap))
        return float(probability ** (asked / own))

    def outlook_by(self, history_model: BuyTillYouDie | None, vectors: Vectors) -> Outlook:
        """What the histories say of the learnt windows, by the model of any cutoff; nan where it has none."""
        days = self.leaving.within(self.learnt).days(self.inputs, vectors)
        return self.inputs.outlook(history_model, vectors, days, self.leaving.gap)

    def score(self, vectors: Vectors, outlook: Outlook) -> Floats:
        """Log-odds before the line, given the outlook over the learnt window."""
        if self.booster is None:
            return silence(outlook)
        raw = predicted(self.booster, design(self.inputs, vectors, outlook), raw_score=True)
        return raw if self.leaving.is_event else (raw + silence(outlook)) / 2

    @property
    def explained(self) -> tuple[str, ...]:
        """The features that `contributions` has a column of: those of the booster, and what the outlook counts for."""
        return tuple(dict.fromkeys((*self.inputs.used, "silence_vs_gap", "days_since_last_purchase")))

    def contributions(self, vectors: Vectors) -> tuple[tuple[str, ...], Floats]:
        """Names and SHAP values, in the booster's log-odds, of the `explained` for each row; zeros without booster.

        What the booster takes from the history's outlook is silence measured by the customer's own rhythm: it counts
        for `silence_vs_gap`, or for `days_since_last_purchase` where one purchase gives no rhythm.
        """
        names, count = self.explained, len(self.inputs.used)
        own = np.zeros((len(vectors), len(names)))
        if self.booster is None:
            return names, own
        outlook = self.outlook_by(self.history_model, vectors)
        shap = predicted(self.booster, design(self.inputs, vectors, outlook), pred_contrib=True)
        own[:, :count], by_outlook = shap[:, :count], shap[:, count:-1].sum(axis=1)
        rhythm = ~np.isnan(self.inputs.column(vectors, "silence_vs_gap"))
        own[:, names.index("silence_vs_gap")] += np.where(rhythm, by_outlook, 0)
        own[:, names.index("days_since_last_purchase")] += np.where(rhythm, 0, by_outlook)
        return names, own

    def calibrated(self, vectors: Vectors, churned: Floats, outlook: Outlook) -> Self:
        """The same model with slope and intercept fitted on a later cutoff (Platt 1999, with his smoothed targets)."""
        from scipy.optimize import minimize  # only to fit, and slow to load

        score = self.score(vectors, outlook)
        positive, negative = churned.sum(), (1 - churned).sum()
        target = np.where(churned > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))

        def loss(line: Floats) -> tuple[float, Floats]:
            z = line[0] * score + line[1]
            error = sigmoid(z) - target
            return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([np.mean(error * score), np.mean(error)])

        # A falling line would turn the order round, and with it what silence means.
        bounds = [(1e-3, None), (None, None)]
        slope, intercept = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds).x
        return replace(self, slope=float(slope), intercept=float(intercept))

    def save(self, folder: Path) -> None:
        history = self.history_model and self.history_model.to_json()
        parameters = {
            "packed": self.inputs.packed, "used": self.inputs.used, "history_model": history,
            "leaving": self.leaving.to_json(), "learnt": self.learnt, "longest": self.longest, "slope": self.slope,
            "intercept": self.intercept, "season": asdict(self.correction), "remarks": self.remarks,
            "rule": self.rule and self.rule.to_json(),
        }  # fmt: skip
        Stored(parameters, {} if self.booster is None else {"booster": self.booster}).write(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        stored = Stored.read(folder)
        p = stored.parameters
        history = p["history_model"] and BuyTillYouDie.from_json(p["history_model"])
        rule = p.get("rule")  # which models written before rules could answer do not name
        return cls(
            Inputs(tuple(p["packed"]), tuple(p["used"])), history,
            Leaving(**p["leaving"]), p["learnt"], p["longest"], stored.boosters.get("booster"),
            rule and Rule.from_json(rule), p["slope"], p["intercept"], SeasonCorrection(**p["season"]),
            tuple(p["remarks"]),
        )  # fmt: skip


def hazard(outlook: Outlook) -> Floats:
    """The history's cumulated hazard of a purchase, -log of the probability of none; never falls with the horizon.

    Half way between that of the model's own probability of no purchase and the expected purchases: the former is
    calibrated, the latter, which leaves out how uncertain a customer's pace is, ranks better where most bought once.
    """
    return (outlook.expected_purchases - np.log(np.clip(outlook.no_purchase, 1e-9, 1.0))) / 2


def silence(outlook: Outlook) -> Floats:
    """Log-odds of no purchase, by the history alone."""
    return logit(np.exp(-hazard(outlook)))


def design(inputs: Inputs, vectors: Vectors, outlook: Outlook) -> Floats:
    """The booster's input: the used features beside what the history alone predicts, counts and money as logarithms."""
    chosen = vectors[:, inputs.used_places]
    logs = (np.log(np.maximum(column, 1e-9)) for column in (outlook.p_alive, outlook.expected_purchases))
    spend = np.log(np.maximum(outlook.expected_spend, 1e-9))
    return np.column_stack([chosen, *logs, logit(outlook.no_purchase), spend])


def lessons_of(inputs: Inputs, rows: Floats, leaving: Leaving, boosting: Boosting, seed: int) -> Lessons:
    """Rows of several cutoffs, the oldest first, each with the outlook of the history model of its own cutoff.

    Of inactivity, silence never lowers the risk and activity never raises it; of an event neither direction is known.
    """
    names = (*inputs.used, *_OUTLOOK_NAMES)
    directions = {**inputs.directions, **_OUTLOOK_DIRECTIONS}
    limits = {} if leaving.is_event else {"monotone_constraints": [directions.get(name, 0) for name in names]}
    return Lessons.of(rows, names, inputs.coded, PARAMETERS | limits, boosting, seed)


def fit_booster(lessons: Lessons, churned: Floats) -> lgb.Booster:
    """On as many of the rows as have an outcome."""
    return lessons.boosted(churned, ROUNDS, most=MOST_ROWS)


def _load_pyfunc(path: str) -> PyFunc:
    """MLflow's entry: `predict` takes packed vectors."""
    return PyFunc(ChurnModel.load(Path(path)).probability)
