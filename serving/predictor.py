"""The answers about a customer, from a packed feature vector: one implementation for the batch and the service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.items import candidates
from features.publications import FeatureMismatch
from features.snapshot import customer_features
from serving import champions
from serving.champions import Answering, Registered
from training.models.buy_till_you_die import Outlook
from training.models.churn_model import ChurnModel
from training.models.customer_model import read_model
from training.models.leaving import NO_PURCHASE
from training.models.offer_model import OfferModel
from training.models.value_model import ValueModel
from workspace import registry
from workspace.registry import KINDS
from workspace.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

Floats = NDArray[np.floating]
Names = tuple[str, ...]

NO_CONSENT = "no consent to profiling"
_SHOWN = 5  # names in a sentence, at most

SCORE_COLUMNS = (
    "customer_id", "as_of", "churn_probability", "churn_percentile", "churn_band", "p_alive", "expected_purchases",
    "lifetime_value", "lifetime_value_low", "lifetime_value_high", "value_at_risk", "not_scored_reason", "churn_model",
    "lifetime_value_model", "cross_sell_model",
)  # fmt: skip
# What no score shows where the backtest of a kind was too far off; the order is another matter.
AMOUNTS: Mapping[str, tuple[str, ...]] = {
    "churn": ("churn_probability", "churn_band", "value_at_risk"),
    "lifetime_value": (
        "lifetime_value", "lifetime_value_low", "lifetime_value_high", "expected_purchases", "value_at_risk",
    ),
    "cross_sell": (),
}  # fmt: skip
# What a score says of the customer, rather than where it comes from.
NUMBERS = SCORE_COLUMNS[2 : SCORE_COLUMNS.index("not_scored_reason")]


def _refuse_other_features(kind: str, trained: Names, expected: Names) -> None:
    """A vector has no names: in another order, or with one more, every number in it would mean something else."""
    if trained == expected:
        return
    more, gone = (sorted({*one} - {*other})[:_SHOWN] for one, other in ((expected, trained), (trained, expected)))
    apart = [f"{what} {', '.join(names)}" for what, names in (("now also", more), ("no more", gone)) if names]
    raise FeatureMismatch(
        f"the {kind} champion was trained on other features than this workspace has"
        f" ({'; '.join(apart) or 'in another order'}): `perennial run -c FILE --as-of DATE` trains another one"
    )


@dataclass(frozen=True)
class Predictor:
    """The models that answer for a workspace.

    `percentile_edges`: churn probabilities at the 0th, 0.1th ... 100th percentile. `remarks` say what cannot answer.
    """

    workspace: Workspace
    churn: ChurnModel
    value: ValueModel
    offers: OfferModel | None
    versions: Mapping[str, str]
    percentile_edges: Floats | None = None
    registered: Mapping[str, Registered] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @classmethod
    def load(cls, workspace: Workspace, tracker: MlflowClient, as_of: date | None = None) -> Predictor:
        """The versions that answer about `as_of`: the champions, or those before them that had not seen later days.

        Without `as_of` the day is not looked at: nobody is to be answered about yet.

        Raises:
            NoChampion: churn or lifetime value has none. Cross-sell may have none, or none that was trained by
                `as_of`, or the workspace no products (any more): then nothing is offered.
            Unfit: there are champions, and nothing that was ever promoted may answer about `as_of`.
            FeatureMismatch: a champion was trained on other features than this code defines.
            CheckFailed: the files of one are such as this code cannot read.
        """
        versions, remarks = champions.versions_answering(workspace, tracker, as_of)
        return replace(cls._of(workspace, champions.answering(tracker, versions)), remarks=remarks)

    @classmethod
    def shadow(
        cls, workspace: Workspace, tracker: MlflowClient, as_of: date | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> Predictor | None:  # fmt: skip
        """The challengers, what answers in the place of a kind that has none; None where no kind has one.

        One that may not answer about `as_of` is none; `say` gets the reason.

        Raises:
            FileNotFoundError: the files of one are gone.
            Unfit, FeatureMismatch, CheckFailed: as in `load`.
        """
        challengers = {}
        for kind in champions.kinds(workspace):
            version = registry.challenger(tracker, workspace, kind)
            why = registry.misfit(tracker, workspace, kind, version, as_of) if version else ""
            if version and why:
                say(f"a challenger is not scored: {version.name}/{version.version} {why}")
            elif version:
                challengers[kind] = version
        if not challengers:
            return None
        beside, _ = champions.versions_answering(workspace, tracker, as_of)
        return cls._of(workspace, champions.answering(tracker, beside | challengers))

    @classmethod
    def that_scored(cls, workspace: Workspace, tracker: Callable[[], MlflowClient], as_of: date) -> Predictor:
        """The versions that made the scores of `as_of`: of these are the lists that are read from them.

        A version that was promoted since has made none of them, one that was rolled back since all. `tracker` is
        asked for only where the registry has changed since it was asked last.

        Raises:
            CheckFailed: there are no such scores, or they were made by what may not answer about `as_of`.
        """
        return cls._of(workspace, champions.that_scored(workspace, tracker, as_of))

    @classmethod
    def _of(cls, workspace: Workspace, answering: Mapping[str, Answering]) -> Predictor:
        folders = {kind: of_kind.folder for kind, of_kind in answering.items()}
        churn, value = read_model(ChurnModel, folders["churn"]), read_model(ValueModel, folders["lifetime_value"])
        expected = tuple(feature.name for feature in customer_features(workspace))
        _refuse_other_features("churn", churn.inputs.packed, expected)
        _refuse_other_features("lifetime_value", value.inputs.packed, expected)
        offers = read_model(OfferModel, folders["cross_sell"]) if "cross_sell" in folders else None
        if offers is not None:
            _refuse_other_features("cross_sell", offers.names, candidates.names(workspace))
        registered = {kind: of_kind.registered for kind, of_kind in answering.items()}
        versions = {kind: of_kind.title for kind, of_kind in registered.items()}
        return cls(workspace, churn, value, offers, versions, registered=registered)

    @property
    def trained(self) -> dict[str, str | None]:
        """The as_of of each kind's training, as the log of predictions names it."""
        return {f"{kind}_trained": of_kind.trained_as_of for kind, of_kind in self.registered.items()}

    @property
    def horizons(self) -> tuple[int, int]:
        """The days that the churn probability is about, and those of purchases and value, where no others are asked."""
        return self.churn.horizon, self.value.horizon

    def is_own(self, horizon: int | None) -> bool:
        """Whether an asked horizon is that of the models, for all customers and numbers."""
        fixed = self.churn.leaving.patience is None
        return horizon is None or (fixed and self.horizons == (horizon, horizon))

    def is_beside(self, other: Predictor, kind: str) -> bool:
        """Whether this one answers by another version of a kind."""
        return self.versions.get(kind) != other.versions.get(kind)

    def ranking_among(self, probability: Floats) -> Predictor:
        """The same predictor with percentiles that rank a customer among these churn probabilities; nan for none."""
        probability = probability[~np.isnan(probability)]
        edges = np.quantile(probability, np.linspace(0, 1, 1001)) if len(probability) else None
        return replace(self, percentile_edges=edges)

    def score(
        self,
        customer_ids: Sequence[str],
        as_of: date | NDArray[np.object_],
        vectors: NDArray[np.float32],
        horizon: int | None = None,
        withhold: bool = True,
    ) -> dict[str, Any]:
        """The FIXED columns of `scores`, an array or a constant each, in the order of `customer_ids`.

        `horizon` is that of the models unless told; over another one nobody can be ranked by percentile, and bands
        begin at what the settings' thresholds are worth over it (`ChurnModel.carried`).

        `value_at_risk` is churn_probability x lifetime_value. Who has already left keeps p_alive and a lifetime value
        (what winning back is worth) beside the reason; who never bought or refused profiling gets no number at all.
        The `withheld_columns` are null unless `withhold` is false.
        """
        why_not = self._why_not(vectors)
        asked = ~np.isin(why_not, (NO_CONSENT, NO_PURCHASE))
        another = None if self.is_own(horizon) else horizon
        numbers = self._numbers(vectors[asked], another)
        columns: dict[str, Any] = {name: _among(asked, column) for name, column in numbers.items()}
        columns |= {
            "customer_id": np.asarray(customer_ids, dtype=object),
            "as_of": as_of,
            "churn_band": self._band(columns["churn_probability"], another),
            "not_scored_reason": why_not,
            **{f"{kind}_model": self.versions.get(kind) for kind in KINDS},
        }
        hidden = self.withheld_columns if withhold else ()
        return {
            name: np.full(len(vectors), None if name == "churn_band" else np.nan) if name in hidden else columns[name]
            for name in SCORE_COLUMNS
        }

    def withheld(self, kind: str) -> str | None:
        """Why no amount of a kind is shown; none where amounts are."""
        return self.registered[kind].withheld if kind in self.registered else None

    @property
    def withheld_columns(self) -> tuple[str, ...]:
        """Columns of `scores` that are null for everybody, since a backtest showed that they are too far off."""
        return tuple(dict.fromkeys(name for kind in KINDS if self.withheld(kind) for name in AMOUNTS[kind]))

    def _numbers(self, vectors: NDArray[np.float32], horizon: int | None) -> dict[str, Floats]:
        """Of who has bought and may be asked about; `churn_probability` is null for who cannot leave."""
        outlook = self.value.outlook(vectors, self.value.taught_horizon)
        forecast, probability = self.value.forecast(vectors, horizon, outlook), np.full(len(vectors), np.nan)
        if (can_leave := self.churn.can_churn(vectors)).any():
            leaving = Outlook(*(column[can_leave] for column in outlook)) if self._share_an_outlook else None
            probability[can_leave] = self.churn.probability(vectors[can_leave], horizon, leaving)
        return {
            "churn_probability": probability,
            "churn_percentile": self.percentile(probability if horizon is None else np.full_like(probability, np.nan)),
            "p_alive": forecast.p_alive,
            "expected_purchases": forecast.expected_purchases,
            "lifetime_value": forecast.value,
            "lifetime_value_low": forecast.low,
            "lifetime_value_high": forecast.high,
            "value_at_risk": probability * forecast.value,
        }

    @cached_property
    def _share_an_outlook(self) -> bool:
        """Whether both models learnt from the same histories, about the same days: one outlook does for both."""
        churn, value = self.churn, self.value
        same_days = churn.learnt == value.taught_horizon and not churn.leaving.gap and churn.leaving.patience is None
        return same_days and churn.history_model == value.history_model

    def _why_not(self, vectors: NDArray[np.float32]) -> NDArray[np.object_]:
        inputs = self.churn.inputs
        why_not = self.churn.leaving.refusals(inputs, vectors)
        why_not[np.isnan(inputs.column(vectors, "T"))] = NO_PURCHASE
        why_not[inputs.column(vectors, "profiling_consent") == 0] = NO_CONSENT
        return why_not

    def percentile(self, probability: Floats) -> Floats:
        """From 0 to 100 among whom this one ranks; nan where it ranks nobody, or claims no order."""
        if self.percentile_edges is None or not self.churn.has_order:
            return np.full_like(probability, np.nan)
        below = np.searchsorted(self.percentile_edges, probability, side="right") - 1
        return np.where(np.isnan(probability), np.nan, np.clip(below, 0, 1000) / 10)

    def _band(self, probability: Floats, horizon: int | None) -> NDArray[np.object_]:
        """By the settings' thresholds; over another horizon by what these are worth there."""
        edges = self.workspace.bands.medium, self.workspace.bands.high
        medium, high = edges if horizon is None else (self.churn.carried(edge, horizon) for edge in edges)
        names = np.where(probability >= high, "high", np.where(probability >= medium, "medium", "low"))
        bands = names.astype(object)
        bands[np.isnan(probability)] = None
        return bands


def _among(asked: NDArray[np.bool_], column: Floats) -> Floats:
    """A column of everybody from one of those who were asked about; null for the others."""
    whole = np.full(len(asked), np.nan)
    whole[asked] = column
    return whole
