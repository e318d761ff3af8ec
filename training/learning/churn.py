"""Learning who leaves: a booster on several cutoffs, calibrated on a later one, beside what the history alone says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from training.learning import datasets
from training.learning.datasets import Cutoff, Dataset, TooFewReturned
from training.learning.deciles import decile_table
from training.learning.leaks import givens_away
from training.learning.season import YEAR
from training.models.buy_till_you_die import Outlook
from training.models.churn_model import (
    ChurnModel,
    SeasonCorrection,
    design,
    fit_booster,
    inputs_of,
    lessons_of,
    silence,
)  # fmt: skip
from training.models.customer_model import logit, sigmoid
from training.models.histories import MINIMUM_REPEAT_BUYERS
from training.models.leaving import Leaving
from training.models.rule import HISTORIES, Rule
from workspace.settings import Boosting, Workspace
from workspace.storage import CheckFailed

Floats = NDArray[np.floating]

MIN_OUTCOMES = 100
"""Of either kind; with fewer, a booster learns the accidents of the sample."""

SILENCE = "silence, at last window's rates"
NEVER = 1e6
"""Days of silence of who never bought."""
_SILENT = "days_since_last_purchase"
FEWEST = 10
"""Who could leave in the window that a rule is learnt from."""


def train(data: Dataset, workspace: Workspace) -> ChurnModel:
    """The model for `data.current`, once no column gives the outcome away.

    Raises:
        CheckFailed: such a column, by its name, or as in `fit`.
    """
    told = _leaks(data, workspace)
    model = fit(data, workspace, data.closed, data.current)
    return replace(model, remarks=(*told, *model.remarks))


def _leaks(data: Dataset, workspace: Workspace) -> tuple[str, ...]:
    """What the run says of columns that give the outcome away, where `churn.allow_leaks` lets it go on."""
    suspects = givens_away(data, workspace)
    if suspects and not workspace.churn.allow_leaks:
        raise CheckFailed(
            f"churn is not trained at {data.current.as_of}: {'. '.join(suspects)}. If you know better, set"
            " churn.allow_leaks: true"
        )
    return tuple(f"trained although {sentence}" for sentence in suspects)


def fit(data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> ChurnModel:
    """The model for `current`, from `closed` cutoffs alone; the latest of them calibrates, the earlier ones teach.

    The booster is then taught again by all of them, under the line that the calibration found, and the base rate is
    moved half way to last year's. Windows shorter than the horizon teach too: the history carries what they taught.

    Raises:
        CheckFailed: neither a labelled window nor enough returning customers to learn from.
    """
    leaving, learnt = Leaving.of(workspace.churn), data.taught.churn.horizon
    plain = _without_booster(data, workspace, current)
    refused = too_little(closed, leaving, MIN_OUTCOMES)
    if refused is not None:
        if leaving.is_event:
            raise CheckFailed(f"event churn cannot be learnt at {current.as_of}: {refused}")
        return replace(plain, remarks=(f"learnt from purchase histories alone: {refused}",))
    model = learn(plain, closed, workspace.churn.boosting, workspace.training.seed)
    correction = _season_correction(model, closed, current, workspace.training.spacing)
    short = (f"learnt on windows of {learnt} days, carried to {leaving.horizon}",) if learnt != leaving.horizon else ()
    return replace(model, correction=correction, remarks=(*short, str(correction)))


def learn(plain: ChurnModel, closed: Sequence[Cutoff], boosting: Boosting, seed: int) -> ChurnModel:
    """With a booster taught by all `closed` cutoffs, under the line that the latest found for one taught by the earlier
    ones."""
    *earlier, latest = closed
    rows, churned = labelled(plain, closed)
    lessons = lessons_of(plain.inputs, rows, plain.leaving, boosting, seed)
    by_earlier = fit_booster(lessons, churned[: sum(int(_known(plain, cutoff).sum()) for cutoff in earlier)])
    judged = ~np.isnan(latest.churned)
    line = replace(plain, booster=by_earlier).calibrated(
        latest.vectors[judged], latest.churned[judged], _outlook(plain, latest).of(judged)
    )
    return replace(line, booster=fit_booster(lessons, churned))


def simpler(data: Dataset, workspace: Workspace, closed: Sequence[Cutoff], current: Cutoff) -> dict[str, ChurnModel]:
    """The simpler models for `current`, by name: purchase histories alone, and rules by the latest closed cutoff.

    The history is calibrated by a line on that cutoff where `MIN_OUTCOMES` of either kind are known of it. Of events it
    says nothing.
    """
    plain = _plain(data, workspace, current)
    rules = _rules(plain, closed[-1]) if closed else []
    by_name = {rule.name: replace(plain, rule=rule, remarks=(_by(rule, closed[-1]),)) for rule in rules}
    if plain.history_model is not None and not plain.leaving.is_event:
        by_name[HISTORIES] = calibrated_history(plain, closed)
    return by_name


def _by(rule: Rule, latest: Cutoff) -> str:
    return f"the {rule.name} by what followed {latest.as_of}"


def calibrated_history(plain: ChurnModel, closed: Sequence[Cutoff]) -> ChurnModel:
    """Purchase histories alone, by a line on the latest closed cutoff where enough outcomes are known of it."""
    if not closed or closed[-1].history_model is None:
        return plain
    latest, known = closed[-1], ~np.isnan(closed[-1].churned)
    churned = latest.churned[known]
    if min(churned.sum(), (1 - churned).sum()) < MIN_OUTCOMES:
        return plain
    told = (f"calibrated on what followed {latest.as_of}",)
    return replace(plain.calibrated(latest.vectors[known], churned, _outlook(plain, latest).of(known)), remarks=told)


def _rules(plain: ChurnModel, latest: Cutoff) -> list[Rule]:
    """The rates at which tenths by silence left, made to rise with it, and the rate of all; smoothed as by one more
    of either kind. None where fewer than ten could leave."""
    known = ~np.isnan(latest.churned)
    vectors, churned = latest.vectors[known], latest.churned[known]
    if len(churned) < FEWEST:
        return []
    days = np.nan_to_num(plain.inputs.column(vectors, _SILENT), nan=NEVER)
    tenths = decile_table(churned, days)
    rates = np.maximum.accumulate((tenths.actual * tenths.count + 1) / (tenths.count + 2))
    x, first = np.unique(tenths.predicted[::-1], return_index=True)
    by_silence = Rule(SILENCE, _SILENT, tuple(x.tolist()), tuple(rates[::-1][first].tolist()), NEVER)
    everybody = Rule.for_everybody(float((churned.sum() + 1) / (len(churned) + 2)))
    return [by_silence, everybody] if len(x) > 1 else [everybody]


def _without_booster(data: Dataset, workspace: Workspace, current: Cutoff) -> ChurnModel:
    plain = _plain(data, workspace, current)
    if current.history_model is None and not plain.leaving.is_event:
        raise TooFewReturned(
            f"churn cannot be learnt at {current.as_of}: too few customers came back for a second purchase"
            f" (at least {MINIMUM_REPEAT_BUYERS} are needed), and for a base rate no window has closed that {FEWEST}"
            " customers could leave in; collect a longer history"
        )
    return plain


def _plain(data: Dataset, workspace: Workspace, current: Cutoff) -> ChurnModel:
    leaving, learnt = Leaving.of(workspace.churn), data.taught.churn.horizon
    inputs = inputs_of(data.inputs, leaving)
    inputs = replace(inputs, used=datasets.chosen(workspace, inputs.used, workspace.churn.features))
    longest = int(np.nanmax(inputs.column(current.vectors, "T"), initial=0))
    return ChurnModel(inputs, current.history_model, leaving, learnt, max(longest, leaving.horizon))


class _Closed(Protocol):
    @property
    def has_history(self) -> bool: ...


_AnyClosed = TypeVar("_AnyClosed", bound=_Closed)


def teaching(closed: Sequence[_AnyClosed], is_event: bool) -> list[_AnyClosed]:
    """Those of the closed cutoffs that teach: all but the latest, which calibrates; without histories only events."""
    return [cutoff for cutoff in closed[:-1] if is_event or cutoff.has_history]


def too_little(closed: Sequence[Cutoff], leaving: Leaving, least: int) -> str | None:
    """Why a booster cannot be taught, in words; null where it can."""
    if len(closed) < 2 or (closed[-1].history_model is None and not leaving.is_event):
        return "there are not two cutoffs with closed windows, one to teach and one to calibrate"
    taught = teaching(closed, leaving.is_event)
    left, stayed = (sum(int((cutoff.churned == outcome).sum()) for cutoff in taught) for outcome in (1, 0))
    if min(left, stayed) >= least:
        return None
    gone = "cancellations" if leaving.is_event else "customers who left"
    return (
        f"{left:,} {gone} and {stayed:,} customers who stayed in the closed windows that teach; with fewer than"
        f" {least} of either nothing can be learnt"
    )


def too_few(closed: Sequence[Cutoff]) -> str:
    """What closed windows hold, where that teaches no booster."""
    happened = np.concatenate([cutoff.churned for cutoff in closed])
    left, stayed = int((happened > 0).sum()), int((happened <= 0).sum())
    return (
        f"{left:,} left and {stayed:,} stayed in {len(closed)} closed windows, too few: at least"
        f" {MIN_OUTCOMES} of either kind are needed in those that teach"
    )


def labelled(model: ChurnModel, cutoffs: Sequence[Cutoff]) -> tuple[Floats, Floats]:
    """Design and outcome of all labelled rows, each with the outlook of its own cutoff's history model."""
    rows, outcomes = [], []
    for cutoff in cutoffs:
        known = _known(model, cutoff)
        if known.any():
            rows.append(design(model.inputs, cutoff.vectors[known], _outlook(model, cutoff).of(known)))
            outcomes.append(cutoff.churned[known])
    return np.concatenate(rows), np.concatenate(outcomes)


def _known(model: ChurnModel, cutoff: Cutoff) -> NDArray[np.bool_]:
    """Whose outcome teaches: without histories only of events."""
    return ~np.isnan(cutoff.churned) & (cutoff.has_history or model.leaving.is_event)


def _outlook(model: ChurnModel, cutoff: Cutoff) -> Outlook:
    return cutoff.outlook((model.leaving, model.learnt), model.outlook_by)


def _season_correction(model: ChurnModel, closed: Sequence[Cutoff], current: Cutoff, spacing: int) -> SeasonCorrection:
    """The correction by last year's season, and what it does to the customers of `current`."""
    able = model.can_churn(current.vectors)
    before = float(np.mean(model.probability(current.vectors[able]))) if able.any() else float("nan")
    log_odds = seasonal_log_odds(model, closed, current.as_of, spacing)
    if not log_odds:
        return SeasonCorrection(before=before, after=before)
    moved = replace(model, correction=SeasonCorrection(log_odds)).probability(current.vectors[able])
    return SeasonCorrection(log_odds, before, float(np.mean(moved)))


def seasonal_log_odds(model: ChurnModel, closed: Sequence[Cutoff], as_of: date, spacing: int) -> float:
    """Half of what lay, last year, between the window coming at `as_of` and how the calibrating one turned out.

    Half, since the calibrating window is the latest news of the shop and last year's the only news of the season: on
    the made-up shops that was nearer than either alone, and no worse where there is no season. 0 without a last year.
    """
    then = min(closed, key=lambda cutoff: abs((as_of - cutoff.as_of).days - YEAR))
    if abs((as_of - then.as_of).days - YEAR) > spacing / 2 or then is closed[-1]:
        return 0.0
    offsets = [_offset(model, cutoff) for cutoff in (then, closed[-1])]
    return (offsets[0] - offsets[1]) / 2


def _offset(model: ChurnModel, cutoff: Cutoff) -> float:
    """Log-odds to add to what the histories of a cutoff said, to get the rate that followed; of events, that rate."""
    judged = ~np.isnan(cutoff.churned)
    rate = float(np.clip(cutoff.churned[judged].mean(), 1e-3, 1 - 1e-3))
    if model.leaving.is_event or cutoff.history_model is None:
        return float(logit(np.array(rate)))
    said = silence(_outlook(model, cutoff).of(judged))
    return float(brentq(lambda shift: float(np.mean(sigmoid(said + shift))) - rate, -30, 30))
