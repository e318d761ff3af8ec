"""The rows that scores are answered with: computed from vectors, or as they were published beside them.

`publish` computes the answer about every customer once, from the same vectors by the same code as the service would;
the service passes it on as it is, and computes itself for whom an event came since, who said something of profiling,
or where another horizon is asked about. What answers hang on beside the vector - versions, percentiles, norms,
settings, offers, this code - has a stamp; where the service's own is another one, it computes everything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from features import online, publications
from features.publications import FeatureMismatch
from serving import champions
from serving.batch_files import Filed
from serving.champions import NoChampion
from serving.consent import Consents
from serving.norms import Norms
from serving.predictor import Predictor
from serving.reasons import Explainer
from serving.terms import norms_of
from training import models
from workspace import registry, storage
from workspace.settings import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

Row = dict[str, Any]
_SCORED = b'"not_scored_reason":null'  # no text of an answer holds this: there quotes are escaped
_PARTS = b"\n"  # between the row, its reasons and its offers, each JSON of one line


def explainer_at(workspace: Workspace, tracker: Callable[[], MlflowClient], as_of: date) -> Explainer:
    """What answers about a scored as_of: the versions that scored it, ranking customers as they did, and their reasons.

    Raises:
        NoChampion, Unfit: nothing was promoted, or nothing that may answer about `as_of`.
        CheckFailed: there are no such scores, or they were made by what may not answer about `as_of`.
    """
    champions.refuse_without(workspace, tracker, as_of)
    predictor = Predictor.that_scored(workspace, tracker, as_of)
    edges = storage.read_json(storage.percentiles_path(workspace.home_path, as_of))
    ranking = replace(predictor, percentile_edges=np.array(edges) if edges else None)
    return Explainer(ranking, norms_of(workspace.home_path, as_of))


def computed(
    explainer: Explainer, customer_ids: Sequence[str], as_of: date | NDArray[np.object_], vectors: NDArray[np.float32],
    explain: bool = False, horizon: int | None = None,
) -> list[Row]:  # fmt: skip
    """A row for each vector, in the words of `bodies.AskedScore`, without offers.

    Who has no churn probability gets no reasons: there is nothing to explain, or no consent to look.
    """
    columns = explainer.predictor.score(customer_ids, as_of, vectors, horizon)
    values = zip(*(_json_values(column, len(vectors)) for column in columns.values()), strict=True)
    beside = {"stale": False, **horizons(explainer.predictor, horizon)}
    rows = [dict(zip(columns, row, strict=True)) | beside for row in values]
    if explain:
        scored = ~np.isnan(columns["churn_probability"])
        told = iter(explainer(vectors[scored]))
        rows = [row | {"reasons": next(told) if is_scored else []} for row, is_scored in zip(rows, scored, strict=True)]
    return rows


def horizons(predictor: Predictor, asked: int | None = None) -> dict[str, int]:
    """The days that the numbers of an answer are about."""
    churn, value = predictor.horizons if asked is None else (asked, asked)
    return {"horizon": churn, "lifetime_value_horizon": value}


def beside_vectors_of(workspace: Workspace, tracker: Callable[[], MlflowClient], as_of: date) -> online.Answers | None:
    """`beside_vectors` of an as_of; none where no scores and offers are, or such as the service would not answer by."""
    if not storage.offers_path(workspace.home_path, as_of).exists():
        return None
    try:
        return beside_vectors(explainer_at(workspace, tracker, as_of), as_of)
    except (NoChampion, registry.Unfit, storage.CheckFailed, FeatureMismatch):
        return None


def beside_vectors(explainer: Explainer, as_of: date) -> online.Answers:
    """What is published beside the vectors of `as_of`; nothing of who said whether they want to be profiled."""
    said = Consents(explainer.predictor.workspace.home_path).everybody("profiling")
    return online.Answers(stamp(explainer, as_of), _Texts(explainer.predictor, explainer.norms, as_of, {*said}))


@dataclass(frozen=True)
class _Texts:
    """The answers about customers as they are published; of who `said` whether they want to be profiled none.

    To another process goes what it is made of: neither an explainer nor a connection can be sent.
    """

    predictor: Predictor
    norms: Norms
    as_of: date
    said: set[str]

    def __call__(self, customers: online.Customers) -> list[bytes]:
        customer_ids, vectors = customers
        offers = self._filed.offers(customer_ids)
        rows = computed(self._explainer, customer_ids, self.as_of, vectors, explain=True)
        return [b"" if (one := row["customer_id"]) in self.said else _text(row, offers.get(one, [])) for row in rows]

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.predictor, self.norms, self.as_of, self.said)

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self.predictor, self.norms)

    @cached_property
    def _filed(self) -> Filed:
        return Filed(self.predictor.workspace, self.as_of)


def _text(row: Row, offers: Sequence[Row]) -> bytes:
    scores = {name: value for name, value in row.items() if name != "reasons"}
    return _PARTS.join(map(to_json, (scores, row["reasons"], offers)))


def stamp(explainer: Explainer, as_of: date) -> str:
    """Of all that published answers hang on beside the vector, the code included."""
    predictor = explainer.predictor
    workspace, edges = predictor.workspace, predictor.percentile_edges
    asked = {"bands", "churn", "lifetime_value", "cross_sell", "currency", "attributes"}
    parts = [
        publications.scores_stamp(workspace.home_path, as_of), sorted(predictor.registered.items()),
        [] if edges is None else edges.tolist(), explainer.norms.to_json(),
        workspace.model_dump(mode="json", include=asked), _code(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@cache
def _code() -> str:
    """The digest of the modules that answers are made by, as they were when the process began with it."""
    here, mathematics = Path(__file__).parent, Path(str(models.__file__)).parent
    files = [
        *(here / f"{name}.py" for name in ("predictor", "reasons", "score_rows")),
        *sorted(mathematics.glob("*.py")),
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def answered(text: bytes, explain: bool, offers: bool) -> bytes:
    """A published answer as JSON, with what is asked for beside the scores."""
    row, reasons, ranked = text.split(_PARTS)
    told = b',"reasons":' + reasons if explain else b""
    return row[:-1] + told + (b',"offers":' + ranked if offers else b"") + b"}"


def reasons(text: bytes) -> list[str]:
    """Those of a published answer."""
    told: list[str] = from_json(text.split(_PARTS)[1])
    return told


def why_not(text: bytes) -> str | None:
    """The `not_scored_reason` of a published answer."""
    if _SCORED in text:
        return None
    why: str = from_json(text.partition(_PARTS)[0])["not_scored_reason"]
    return why


def _json_values(column: Any, count: int) -> list[Any]:
    """A column of `Predictor.score`, an array or a constant, as values that JSON knows; nan is null."""
    if not isinstance(column, np.ndarray):
        return [column.isoformat() if isinstance(column, date) else column] * count
    if len(column) and isinstance(column[0], date):
        return [day.isoformat() for day in column]
    return [None if value != value else value for value in column.tolist()]
