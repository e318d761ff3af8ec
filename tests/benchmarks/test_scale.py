"""A shop laid beside itself is as many more customers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from benchmarks.scale import lay_beside


def test_copies_are_other_customers_behind_the_first(tmp_path: Path) -> None:
    """Sorted by id, the first ones as they were, each of the others with the same numbers."""
    rows = pd.DataFrame({"customer_id": ["c01", "c1", "z"], "spend_365d": [1.0, None, 3.0]})
    rows.to_parquet(tmp_path / "part.parquet", index=False)
    lay_beside(tmp_path, 3)
    copies = pd.read_parquet(tmp_path / "part.parquet")
    assert copies["customer_id"].is_monotonic_increasing
    assert copies["customer_id"].is_unique
    pd.testing.assert_frame_equal(copies.iloc[:3], rows)
    for start in (3, 6):
        pd.testing.assert_series_equal(
            copies["spend_365d"].iloc[start : start + 3].reset_index(drop=True), rows["spend_365d"]
        )
    assert {path.name for path in tmp_path.iterdir()} == {"part.parquet", "_stamp"}
