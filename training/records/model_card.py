"""A version's card: what it learnt from, how right it would have been and for whom, what drives it, its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.items.candidates import BESIDE
from features.snapshot import customer_features, features_of
from pages.page import Table, render
from training.backtests import backtest_page
from training.backtests.evaluation import Evaluation
from training.learning.datasets import Dataset
from workspace import storage
from workspace.registry import model_name
from workspace.settings import Workspace

if TYPE_CHECKING:
    import lightgbm as lgb

_SHOWN_DRIVERS = 15
_EXPLAINED = 1_000  # customers whose answers are taken apart

Weights = tuple[Sequence[str], NDArray[np.floating]]
"""Features, and how much each of them moves the answers."""


@dataclass(frozen=True)
class Driver:
    """A feature and its share of what moves the answers, all features together being 1."""

    feature: str
    meaning: str
    share: float


@dataclass(frozen=True)
class Card:
    """`question` and `made_by` are settings; `answers_by` names the contender that answers; `figures` by cutoff,
    `segments` means over them, both by metric."""

    model: str
    as_of: date
    currency: str
    evaluation: Evaluation
    tables: Mapping[str, int]
    fingerprint: str
    question: Mapping[str, Any]
    made_by: Mapping[str, Any]
    learnt_from: Sequence[date]
    figures: Mapping[str, Mapping[str, float]]
    segments: Mapping[str, Mapping[str, float]]
    limits: Sequence[str]
    drivers: Sequence[Driver]
    consent: str
    answers_by: str

    @cached_property
    def page(self) -> str:
        """HTML, with pictures; drawn once, though MLflow and the home have a copy each."""
        return as_html(self)

    def write(self, folder: Path) -> None:
        """`card.html`, for people, and `card.json`."""
        with storage.replacing(folder / "card.html") as draft:
            draft.write_text(self.page, encoding="utf-8")
        names = {field.name for field in fields(self)} - {"evaluation", "drivers"}
        told = {name: getattr(self, name) for name in names}
        told |= {"grade": asdict(self.evaluation.grade), "drivers": [asdict(driver) for driver in self.drivers]}
        storage.write_json(folder / "card.json", told)


def card(
    workspace: Workspace, evaluation: Evaluation, as_of: date, learnt_from: Sequence[date], data: str, weights: Weights,
    remarks: Sequence[str], answers_by: str,
) -> Card:  # fmt: skip
    """Of the model that was found to answer."""
    settings = evaluation.subject.settings(workspace).model_dump(mode="json")
    made_by = {name: settings.pop(name) for name in ("features", "boosting")} | {"seed": workspace.training.seed}
    board, grade = evaluation.board, evaluation.grade
    figures = {
        str(day): {name: spread.each[place] for name, spread in board.ours.figures.items()}
        for place, day in enumerate(board.as_of)
    } if board else {}  # fmt: skip
    segments = {
        name: {metric: spread.mean for metric, spread in contenders[0].figures.items()}
        for name, contenders in (board.segments if board else {}).items()
    }
    return Card(
        model_name(workspace, evaluation.kind), as_of, workspace.currency, evaluation, _counted(workspace), data,
        settings, made_by, learnt_from, figures, segments, (f"Grade {grade.letter}: {grade.reason}.", *_told(remarks),
        *evaluation.subject.limits), _drivers(workspace, *weights), _consent(workspace.home_path, as_of), answers_by,
    )  # fmt: skip


def _told(remarks: Sequence[str]) -> list[str]:
    return [f"{remark[:1].upper()}{remark[1:]}." for remark in remarks]


def _counted(workspace: Workspace) -> dict[str, int]:
    """Accepted rows of each table."""
    return {
        name: sum(source["accepted"] for source in storage.sources_of(storage.tables_folder(workspace.home_path, name)))
        for name in workspace.tables.given()
    }


class Explained(Protocol):
    """A model that takes its answers apart, row by row."""

    def contributions(self, vectors: NDArray[np.float32]) -> tuple[tuple[str, ...], NDArray[np.floating]]: ...


def by_contributions(model: Explained, data: Dataset) -> Weights:
    """Mean absolute SHAP values over a sample of the customers who have bought."""
    vectors = data.current.vectors
    bought = np.flatnonzero(~np.isnan(data.inputs.column(vectors, "T")))
    names, parts = model.contributions(vectors[bought[:: max(1, len(bought) // _EXPLAINED)]])
    return names, np.abs(parts).mean(axis=0)


def by_gain(names: Sequence[str], booster: lgb.Booster | None) -> Weights:
    """The gain of the trees' splits; nothing without trees."""
    return names, np.zeros(len(names)) if booster is None else booster.feature_importance("gain")


def _drivers(workspace: Workspace, names: Sequence[str], weights: NDArray[np.floating]) -> list[Driver]:
    """Those that move the answers most."""
    total = float(weights.sum())
    if not total:
        return []
    of_items = (*features_of("product_affinity", workspace), *features_of("popularity", workspace))
    meanings = {feature.name: feature.meaning for feature in (*customer_features(workspace), *of_items)} | BESIDE
    order = np.argsort(-weights, kind="stable")[:_SHOWN_DRIVERS]
    return [Driver(names[i], meanings.get(names[i], ""), float(weights[i]) / total) for i in order if weights[i]]


def _consent(home: Path, as_of: date) -> str:
    part = storage.snapshot_part(home, "profile", as_of)
    granted = pd.read_parquet(part, columns=["profiling_consent"])["profiling_consent"]
    if granted.isna().all():
        return (
            f"The shop records no consent to profiling: all {len(granted):,} customers known are scored, on a basis"
            " that is the shop's to state."
        )
    refused = int((granted == 0).sum())
    return (
        f"{len(granted) - refused:,} of {len(granted):,} customers known consented to profiling. The {refused:,} who"
        " did not, or of whom it is not recorded, are never scored, and nothing is learnt from what they bought."
        " Consents are not shown to the model, nor are contacts by the marketer."
    )


def as_html(card: Card) -> str:
    """What it answers and from what it learnt, the backtest, its limits, its drivers, the consent."""
    return render(
        "model_card.html",
        title=f"{card.model}, {card.as_of}",
        card=card,
        grade=backtest_page.card(card.evaluation),
        windows=_windows(card),
        rows=Table(("table", "rows"), [[name, f"{count:,}"] for name, count in card.tables.items()], "Rows accepted"),
        judged=backtest_page.section(card.evaluation) if card.evaluation.judged else None,
        figures=_figures("cutoff", card.figures) + _figures("segment", card.segments),
        drivers=Table(
            ("feature", "what it is", "share"), [[d.feature, d.meaning, f"{d.share:.1%}"] for d in card.drivers]
        ),
    )


def _windows(card: Card) -> dict[str, str]:
    return {
        "asked": ", ".join(f"{name} {value}" for name, value in card.question.items()),
        "learnt from": ", ".join(map(str, card.learnt_from)) or "purchase histories alone",
        "judged at": ", ".join(card.figures) or "no earlier date",
        "answers by": card.answers_by,
        "made by": _made_by(card.made_by),
        "data": card.fingerprint,
    }


def _made_by(made_by: Mapping[str, Any]) -> str:
    """What the settings name, and nothing of what they leave as it is."""
    boosting = {name: value for name, value in made_by["boosting"].items() if value is not None}
    named = {"features": ", ".join(made_by["features"]), **boosting, "seed": made_by["seed"]}
    return ", ".join(f"{name} {value}" for name, value in named.items() if value != "")


def _figures(by: str, figures: Mapping[str, Mapping[str, float]]) -> list[Table]:
    if not figures:
        return []
    names = [*next(iter(figures.values()))]
    rows = [[row, *(f"{values.get(name, math.nan):.3f}" for name in names)] for row, values in figures.items()]
    return [Table((by, *names), rows, f"Figures by {by}")]
