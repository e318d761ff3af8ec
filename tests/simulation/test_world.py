"""The simulation can be relied upon: the same seed, the same bytes; what was there before is safe."""

import filecmp
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from simulation import world
from simulation.truth import truth
from simulation.world import simulate
from tests.simulation.conftest import ENDS


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def assert_same(one: Path, other: Path, names: list[Path]) -> None:
    assert filecmp.cmpfiles(one, other, names, shallow=False) == ([str(name) for name in names], [], [])


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Two runs with one seed agree byte for byte; another seed does not."""
    for out, seed in (("a", 3), ("b", 3), ("c", 4)):
        simulate(tmp_path / out, customers=300, years=1, seed=seed)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert_same(tmp_path / "a", tmp_path / "b", [str(name) for name in files(tmp_path / "a")])
    part = "transactions/part-00000.parquet"
    assert not filecmp.cmp(tmp_path / "a" / part, tmp_path / "c" / part, shallow=False)


def test_parts_are_independent_of_how_many_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part of a large shop is the small shop of that size, and ids differ across parts."""
    monkeypatch.setattr(world, "BLOCK", 100)
    simulate(tmp_path / "small", customers=100, years=1, seed=3)
    simulate(tmp_path / "large", customers=250, years=1, seed=3)
    parts = ["transactions/part-00000.parquet", "interactions/part-00000.parquet", "products.parquet"]
    assert_same(tmp_path / "small", tmp_path / "large", parts)
    assert len(truth(tmp_path / "large", ENDS, 30)) == 250
    for table, key in (("transactions", "transaction_id"), ("interactions", "interaction_id")):
        rows = [pd.read_parquet(path)[[key, "customer_id"]] for path in sorted((tmp_path / "large" / table).iterdir())]
        assert len(rows) == 3
        ids = [set(part[key]) for part in rows]
        assert not ids[0] & ids[1] | ids[0] & ids[2] | ids[1] & ids[2]
    assert pd.read_parquet(tmp_path / "large/customers.parquet")["customer_id"].is_unique


def test_the_shortest_shops_can_be_played(tmp_path: Path) -> None:
    """A day of one customer, and a month without campaigns, give tables and truth."""
    for seed in range(6):
        simulate(tmp_path / "shop", customers=1, years=0.001, seed=seed)
        assert len(truth(tmp_path / "shop", ENDS, 1)) == 1
    simulate(tmp_path / "shop", customers=50, years=0.08, seed=1)
    assert pd.read_parquet(tmp_path / "shop/campaigns.parquet")["kind"].tolist() == ["newsletter"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"customers": 0}, "customers is 0; a shop needs at least 1"),
        ({"years": 0}, "years is 0; it must be more than 0"),
        ({"years": float("nan")}, "years is nan; it must be more than 0"),
        ({"seed": -1}, "seed is -1; it must be 0 or more"),
        ({"ends": date(1970, 1, 1)}, "ends is 1970-01-01; with 1 years it must lie between 1976 and 2099"),
        ({"lines_per_purchase": 0.5}, "lines_per_purchase is 0.5; it must be between 1 and 100"),
    ],
)
def test_arguments_that_make_no_shop_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    """The error names the argument, its value and what it may be; nothing is written."""
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "shop", **{"customers": 10, "years": 1, "seed": 1, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_content_is_refused_untouched(tmp_path: Path) -> None:
    """Only an empty folder or an earlier simulation is written over."""
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(ValueError, match=r"what no simulation wrote \(thesis.txt\); give a new or empty folder"):
        simulate(tmp_path, customers=10, years=1, seed=1)
    assert files(tmp_path) == [Path("thesis.txt")]


def test_an_earlier_simulation_is_replaced_whole(tmp_path: Path) -> None:
    """A second run leaves nothing of the first, whatever their sizes."""
    simulate(tmp_path / "shop", customers=60, years=1, seed=1)
    simulate(tmp_path / "shop", customers=40, years=1, seed=2)
    assert len(pd.read_parquet(tmp_path / "shop/customers.parquet")) == 40
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_a_run_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    """Interrupted, it removes its half-written folder and keeps the earlier simulation."""

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    simulate(tmp_path / "shop", customers=60, years=1, seed=1)
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "shop", customers=40, years=1, seed=2, progress=interrupt)
    assert len(pd.read_parquet(tmp_path / "shop/customers.parquet")) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
