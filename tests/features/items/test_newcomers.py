"""What is offered to who has not bought yet: what sells, in their own segment first."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from builders import make_transactions

from features import retrieval, snapshot
from features.items.candidates import Shelf
from features.items.newcomers import Newcomers
from tests.features.shops import open_shop
from workspace.settings import SettingsError

AS_OF = date(2024, 7, 1)
# The north drinks tea, the south eats cake; n, s and u have signed up and not bought, r refuses profiling.
REGIONS = {"a": "north", "b": "north", "c": "south", "d": "south", "n": "north", "s": "south", "u": None, "r": "north"}
CUSTOMERS = pd.DataFrame(
    {"customer_id": list(REGIONS), "region": list(REGIONS.values()), "signed_up_at": pd.Timestamp("2024-01-01"),
     "profiling_consent": [who != "r" for who in REGIONS]}
)  # fmt: skip
LINES = make_transactions(
    [(who, "2024-05-01", 1.0) for who in "abcd"], product_id=["tea", "tea", "cake", "cake"]
)  # fmt: skip


def test_a_segments_shares_are_drawn_to_the_shops(tmp_path: Path) -> None:
    """Both of the north's two buyers had tea, and as by 50 more half of them; where no region is known it is half."""
    workspace = open_shop(
        tmp_path, {"transactions": LINES, "customers": CUSTOMERS}, attributes=["region"],
        cross_sell={"level": "item", "segment": "region"},
    )  # fmt: skip
    snapshot.snapshot(workspace, [AS_OF])
    shelf = Shelf.at(workspace, AS_OF)
    newcomers = Newcomers.at(shelf, retrieval.customer_rows(retrieval.apply(workspace), workspace, [AS_OF]))
    assert newcomers.customer_ids.tolist() == ["n", "s", "u"]
    tea = newcomers.shares[newcomers.segment, shelf.items.get_loc("tea")]
    assert tea == pytest.approx([27 / 52, 25 / 52, 0.5])


def test_a_segment_is_an_attribute(tmp_path: Path) -> None:
    """One that is not among the workspace's attributes is refused by name."""
    with pytest.raises(SettingsError, match=r"cross_sell.segment is region, which is none of the attributes"):
        open_shop(tmp_path, {"transactions": LINES, "customers": CUSTOMERS}, cross_sell={"segment": "region"})
