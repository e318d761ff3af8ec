"""The feature dictionary keeps up with the features."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from features import snapshot
from features.families.catalogue import Feature
from features.families.dictionary import describe
from workspace.settings import Workspace

ROOT = Path(__file__).resolve().parents[3]
SHOP = Workspace.model_validate({"name": "shop", "tables": {"transactions": {"path": "x.csv"}}})


def test_the_page_is_current() -> None:
    """docs/features.md is what the definitions say; its second line tells how to write it anew."""
    assert (ROOT / "docs" / "features.md").read_text() == describe()


def test_the_page_has_every_feature_once() -> None:
    """No family and no feature of a snapshot is missing."""
    listed = re.findall(r"^\| `(\w+)` \|", describe(), flags=re.MULTILINE)
    assert sorted(listed) == sorted(f.name for family in snapshot.KEYS for f in snapshot.features_of(family, SHOP))


def test_the_catalogue_is_as_large_as_it_should_be() -> None:
    """Enough to say what is known, few enough to read: 100 to 150 features of customers, 10 to 30 of items."""
    items = [f for family in snapshot.ITEM_FAMILIES for f in snapshot.features_of(family, SHOP)]
    assert 100 <= len(snapshot.customer_features(SHOP)) <= 150
    assert 10 <= len(items) <= 30


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("n_purchases_90d", "90 days"),
        ("spend", "ever"),
        ("spend_decayed_30d", "ever"),
        ("spend_90d_share_of_year", "90 days"),
        ("n_purchases_next_30d_last_year", "365 days"),
        ("attribute_city", "ever"),
    ],
)
def test_a_features_window_is_in_its_name(name: str, window: str) -> None:
    """The days before as_of that it looks at, or `ever`."""
    assert Feature(name, "count", "").window == window
