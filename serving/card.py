"""The card: all that a CRM's screen shows of one customer, in the words of `bodies.Card`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.consent import Purpose
from serving.predictor import NO_CONSENT, SCORE_COLUMNS
from serving.reasons import Explainer
from workspace.windows import days_after

_HABITS = {
    "usual_gap_days": "gap_mean", "purchases_per_year": "repurchase_frequency", "spend_per_purchase": "spend_mean",
    "lines_per_purchase": "lines_per_purchase_365d", "categories_last_year": "n_categories_365d",
    "favourite_category_share": "top_category_share_365d", "weekend_share": "weekend_share",
    "usual_hour": "hour_mean_365d", "discount_share": "discount_share_365d", "return_share": "return_share_365d",
}  # fmt: skip
_COUNTS = ("categories_last_year",)


def card(
    explainer: Explainer,
    row: Mapping[str, Any],
    vector: NDArray[np.float32] | None,
    offers: Sequence[Mapping[str, Any]],
    said: Mapping[Purpose, bool | None],
) -> dict[str, Any]:
    """The card of a customer whose score is `row`; without a `vector`, the online store being away, it says less.

    `said` are the consents that are known otherwise than by the vector.
    """
    predictor = explainer.predictor
    names = predictor.churn.inputs.packed
    values = {} if vector is None else dict(zip(names, map(_known, vector), strict=True))
    refused = row["not_scored_reason"] == NO_CONSENT
    shown = bool(values) and not refused
    as_of = date.fromisoformat(row["as_of"])
    granted = values.get("profiling_consent")
    return {
        "customer_id": row["customer_id"],
        "as_of": row["as_of"],
        "stale": row["stale"],
        "profile": _profile(explainer, values) if values else None,
        "habits": _habits(values) if shown else None,
        "history": _history(values, as_of) if shown else None,
        "scores": {name: row[name] for name in (*SCORE_COLUMNS, "stale", "horizon", "lifetime_value_horizon")},
        "reasons": row.get("reasons", []),
        "offers": [] if refused else list(offers),
        "consents": {"profiling": None if granted is None else granted == 1, **said},
    }


def _known(value: np.float32) -> float | None:
    """Without the digits that float32 does not have."""
    return None if np.isnan(value) else float(f"{value:.6g}")


def _plain(value: float | None) -> int | float | None:
    """18, not 18.0."""
    return int(value) if value is not None and value == round(value) else value


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _profile(explainer: Explainer, values: Mapping[str, float | None]) -> dict[str, Any]:
    attributes: dict[str, str | int | float | None] = {}
    for name in explainer.predictor.workspace.attributes:
        feature = f"attribute_{name}"
        value, texts = values[feature], explainer.attribute_names.get(feature)
        attributes[name] = _plain(value) if texts is None or value is None else texts.get(int(value))
    return {"tenure_days": _whole(values["tenure_days"]), "attributes": attributes}


def _habits(values: Mapping[str, float | None]) -> dict[str, Any]:
    habits = {name: values[feature] for name, feature in _HABITS.items()}
    return habits | {name: _whole(habits[name]) for name in _COUNTS}


def _history(values: Mapping[str, float | None], as_of: date) -> dict[str, Any]:
    return {
        "first_purchase": _days_before(as_of, values["T"]),
        "last_purchase": _days_before(as_of, values["days_since_last_purchase"]),
        "purchases": round(values["n_purchases"] or 0),
        "purchases_last_year": round(values["n_purchases_365d"] or 0),
        "spend": values["spend"] or 0.0,
        "spend_last_year": values["spend_365d"] or 0.0,
        "last_spend": values["spend_last"],
        "complaints_last_year": round(values["n_complaint_365d"] or 0),
        "open_complaints": _whole(values["n_open_complaints"]),
        "last_interaction": _days_before(as_of, values["days_since_interaction"]),
    }


def _days_before(as_of: date, days: float | None) -> str | None:
    return None if days is None else days_after(as_of, -round(days)).isoformat()
