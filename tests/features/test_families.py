"""Every feature of every family equals a second implementation in SQLite, on random shops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features import snapshot
from tests.features.oracle import Oracle
from tests.features.shops import EDGES_AT, features_at, open_shop, random_tables


@pytest.mark.parametrize(("seed", "level"), [(1, "category"), (2, "item"), (3, "category")])
def test_features_equal_a_second_implementation(seed: int, level: str, tmp_path: Path) -> None:
    """Each family has the oracle's rows, columns and values at each as_of."""
    tables = random_tables(seed)
    workspace = open_shop(
        tmp_path, tables, timezone="Europe/Berlin", attributes=["city", "birth_year"], cross_sell={"level": level}
    )
    for as_of in EDGES_AT:
        features = features_at(workspace, as_of)
        with Oracle(tables, as_of, "category" if level == "category" else "product_id") as oracle:
            for family, rows in features.items():
                expected = oracle.rows(family)
                assert list(rows) == [feature.name for feature in snapshot.features_of(family, workspace)]
                assert set(rows) == set(expected)
                _assert_equal(rows, expected[list(rows)], f"{family} at {as_of}")


def _assert_equal(rows: pd.DataFrame, expected: pd.DataFrame, what: str) -> None:
    assert rows.index.tolist() == expected.index.tolist(), what
    for name in rows:
        np.testing.assert_allclose(
            rows[name].to_numpy(dtype=float), expected[name], rtol=1e-6, atol=1e-9, err_msg=f"{what}: {name}"
        )
