"""MBG/NBD: the BG/NBD model in which a customer may also leave right after the first purchase.

Source: E. P. Batislam, M. Denizel, A. Filiztekin, 'Empirical Validation and Comparison of Models for Customer Base
Analysis', International Journal of Research in Marketing 24 (2007) 201-209. Against BG/NBD only the number of chances
to leave changes, x + 1 for x repeat purchases, so that customers who never came back are not all taken to be active.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.models.bg_nbd import BGNBD
from training.models.histories import Floats


@dataclass(frozen=True)
class MBGNBD(BGNBD):
    """Parameters of a fit: r, alpha of the purchase rates, a, b of the drop-out probabilities."""

    @staticmethod
    def _chances(x: Floats) -> Floats:
        """How often a customer with x repeat purchases may have left: after the first purchase and each repeat."""
        return x + 1
