"""A rule that anyone could apply: from one feature to an answer, or one answer for everybody."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.models.customer_model import Inputs

Floats = NDArray[np.floating]

OURS, HISTORIES, BASE_RATE = "Perennial", "purchase histories alone", "base rate"
"""What answers, in plain words: our full model, what it is without boosters, or one answer for everybody."""


@dataclass(frozen=True)
class Rule:
    """What it says at knots `x` of a feature is `y`, straight between them and level beyond.

    With a single knot the answer is in proportion to the feature, nothing at nothing; without a feature it is that
    knot's for everybody. `unknown` stands where the feature is not known.
    """

    name: str
    feature: str | None
    x: tuple[float, ...]
    y: tuple[float, ...]
    unknown: float = 0.0

    @classmethod
    def for_everybody(cls, answer: float) -> Self:
        return cls(BASE_RATE, None, (1.0,), (answer,))

    def __call__(self, inputs: Inputs, vectors: NDArray[np.float32]) -> Floats:
        """A row's answer, whatever the other rows are."""
        if self.feature is None:
            return np.full(len(vectors), self.y[0])
        column = np.nan_to_num(inputs.column(vectors, self.feature), nan=self.unknown)
        if len(self.x) == 1:
            return np.maximum(column, 0.0) * self.y[0] / self.x[0]
        return np.interp(column, self.x, self.y)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Self:
        return cls(stored["name"], stored["feature"], tuple(stored["x"]), tuple(stored["y"]), stored["unknown"])
