"""What customers with a like taste buy: nearest neighbours over what each has bought, lately above all.

After TIFU-KNN (Hu, He, Gao, Zhang, 'Modeling Personalized Item Frequency Information for Next-basket Recommendation',
SIGIR 2020), with days in place of the position of a basket and the angle between customers as their distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array

NEIGHBOURS = 300
# Against so many customers everybody is compared.
POOL = 20_000


@dataclass(frozen=True)
class SimilarCustomers:
    """Who may be a neighbour: customer_ids, and a row of purchases by item for each, of length 1."""

    customer_ids: pd.Index
    vectors: csr_array

    @classmethod
    def among(cls, customer_ids: pd.Index, purchases: csr_array) -> Self:
        return cls(customer_ids, _of_length_one(purchases))

    def purchases(self, customer_ids: pd.Index, purchases: csr_array) -> csr_array:
        """Of each customer the mean row of the `NEIGHBOURS` nearest others; nothing for who has bought nothing."""
        near = (_of_length_one(purchases) @ self.vectors.T).toarray()
        themselves = self.customer_ids.get_indexer(customer_ids)
        near[themselves >= 0, themselves[themselves >= 0]] = 0
        return self._weights(near) @ self.vectors

    def _weights(self, near: NDArray[np.floating]) -> csr_array:
        k = min(NEIGHBOURS, near.shape[1])
        chosen = np.argpartition(-near, k - 1, axis=1)[:, :k]
        rows = np.repeat(np.arange(len(near)), k)
        alike = np.take_along_axis(near, chosen, axis=1).ravel() > 0
        weights = np.full(alike.sum(), 1 / k, dtype=np.float32)
        return csr_array((weights, (rows[alike], chosen.ravel()[alike])), near.shape)


def _of_length_one(rows: csr_array) -> csr_array:
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
    scaled = rows.astype(np.float32)
    scaled.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(rows.indptr))
    return scaled
