"""Why a customer is at risk, in a marketer's words and with the customer's own numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Feature
from features.snapshot import attribute_codes, customer_features
from perennial.settings import Workspace
from serving.predictor import Predictor
from training.models.buy_till_you_die import Outlook

MOST = 3
# What to say where there is no booster to ask: the silence itself, against the customer's own rhythm.
_OF_HISTORY = ("days_since_last_purchase", "gap_mean", "n_purchases_365d")


def reasons(predictor: Predictor, vectors: NDArray[np.float32]) -> list[list[str]]:
    """Up to three reasons per packed vector, strongest first: what raises the risk most by its SHAP contribution."""
    return Explainer(predictor)(vectors)


class Explainer:
    """Tells reasons for the risk that a predictor sees; what it knows of the features is looked up once.

    Only features that a person can check are told, one of each kind (not the 30, 90 and 365 days of the same count),
    and never one whose value is unknown.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        features = {feature.name: feature for feature in customer_features(predictor.workspace)}
        names = predictor.churn.inputs.used
        self.told = [place for place, name in enumerate(names) if features[name].says]
        self.features = [features[names[place]] for place in self.told]
        self.places = [predictor.churn.inputs.places[feature.name] for feature in self.features]
        self.say = _Words(predictor.workspace)

    @property
    def attribute_names(self) -> Mapping[str, Mapping[int, str]]:
        """The values of each text attribute's feature, by code."""
        return self.say.names

    def __call__(self, vectors: NDArray[np.float32], outlook: Outlook | None = None) -> list[list[str]]:
        """Per packed vector, strongest first; `outlook` is the predictor's, where it is known already."""
        if not len(vectors):
            return []
        _, contributions = self.predictor.contributions(vectors, outlook)
        return [
            _strongest(self.features, row, own, self.say)
            for row, own in zip(contributions[:, self.told], vectors[:, self.places], strict=True)
        ]


def _strongest(features: list[Feature], contributions: NDArray, values: NDArray, say: _Words) -> list[str]:
    if not contributions.any():
        order = [i for name in _OF_HISTORY for i, feature in enumerate(features) if feature.name == name]
    else:
        order = [int(i) for i in np.argsort(-contributions, kind="stable") if contributions[i] > 0]
    found: dict[str, str] = {}
    for index in order:
        kind = re.sub(r"_(\d+d|ever)", "", features[index].name)
        if kind not in found and not np.isnan(values[index]):
            found[kind] = say(features[index], float(values[index]))
        if len(found) == MOST:
            break
    return list(found.values())


class _Words:
    """A feature's sentence with the customer's value in it, in the workspace's currency and attribute names."""

    def __init__(self, workspace: Workspace) -> None:
        self.currency = workspace.currency
        codes = attribute_codes(workspace) if workspace.attributes else {}
        self.names = {f"attribute_{name}": {code: value for value, code in own.items()} for name, own in codes.items()}

    def __call__(self, feature: Feature, value: float) -> str:
        return feature.says.format(self._value(feature, value))

    def _value(self, feature: Feature, value: float) -> str:
        if feature.name in self.names:
            return self.names[feature.name].get(int(value), "unknown")
        match feature.unit:
            case "money":
                return f"{value:,.0f} {self.currency}" if abs(value) >= 100 else f"{value:,.2f} {self.currency}"
            case "share":
                return f"{value:.0%}"
            case "ratio" | "score":
                return f"{value:.1f}"
            case _:
                return f"{value:,.0f}"
