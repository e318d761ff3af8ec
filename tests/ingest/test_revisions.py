"""Orders that come again in a later source: said with their money, or replaced, whenever sources are taken in."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import NOW, accepted, quarantined, take_in
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingest import events, intake
from ingest.events import Event
from workspace import settings, storage
from workspace.storage import CheckFailed

HEADER = "transaction_id,customer_id,occurred_at,amount,product_id,status\n"
# An order, its customer, day, amount, product and status.
Line = tuple[str, str, str, str, str, str]
REPLACE = "tables.transactions.revision=replace"


def line(order: str, customer: str = "ann", amount: object = 50, day: str = "2024-01-05", *, product: str = "x",
         status: str = "paid") -> Line:  # fmt: skip
    return (order, customer, day, str(amount), product, status)


def shop(folder: Path, exports: Mapping[str, Sequence[Line]], **keys: Any) -> Path:
    """A workspace whose transactions are just these exports, in the order of their names."""
    for name, lines in exports.items():
        (folder / f"{name}.csv").write_text(HEADER + "".join(f"{','.join(one)}\n" for one in lines), encoding="utf-8")
    paths = [str(folder / f"{name}.csv") for name in sorted(exports)]
    table = {"path": paths, "where": "status <> 'refunded'", **keys}
    path = folder / "shop.yaml"
    whole = {"name": "shop", "home": str(folder / "home"), "max_quarantined": 1, "tables": {"transactions": table}}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    return path


def counted(path: Path) -> list[tuple[str, str, float]]:
    """What counts: order, customer, amount."""
    lines = accepted(path)[["transaction_id", "customer_id", "amount"]]
    return sorted(lines.itertuples(index=False, name=None))


AMENDED = {
    "amount": ([line("o1")], [line("o1", amount=45), line("o2", "bob", 10)]),
    "customer": ([line("o1", "ann2"), line("o2", amount=10)], [line("o1"), line("o2", amount=10)]),
    "product": ([line("o1")], [line("o1", product="x-renamed")]),
    "precision": ([line("o1", day="2024-01-05 10:00:00")], [line("o1")]),
    "status": ([line("o1"), line("o2", amount=1)], [line("o1", status="refunded"), line("o2", amount=1)]),
    "line gone": ([line("o1"), line("o1", amount=20)], [line("o1")]),
    "no number": ([line("o1"), line("o2", amount=1)], [line("o1", amount="?"), line("o2", amount=1)]),
}


@pytest.mark.parametrize("what", AMENDED)
def test_an_order_that_comes_again_amended_is_said(tmp_path: Path, what: str) -> None:
    """Which order, how many of its earlier lines and how much money count beside the later ones, and what to do."""
    first, second = AMENDED[what]
    returning = take_in(shop(tmp_path, {"1": first, "2": second}))["transactions"].returning
    assert returning is not None
    at_stake = 20 if what == "line gone" else 50
    assert (returning.orders, returning.lines, returning.money, returning.examples) == (1, 1, at_stake, ("o1",))
    assert returning.dropped == (what in ("status", "no number"))
    assert "(o1): 1 line(s) of the earlier sources, " in returning.told("EUR")
    assert "set `tables.transactions.revision: replace`" in returning.told("EUR")


@pytest.mark.parametrize("what", AMENDED)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_an_amended_order_replaces_the_former(tmp_path: Path, what: str, one_by_one: bool) -> None:
    """With `replace` the order is as the last export has it, nothing if that drops it; the account adds up."""
    first, second = AMENDED[what]
    if one_by_one:
        take_in(shop(tmp_path, {"1": first}, revision="replace"))
    path = shop(tmp_path, {"1": first, "2": second}, revision="replace")
    account = take_in(path)["transactions"]
    assert account.money is not None
    good = [one for one in second if one[5] == "paid" and one[3] != "?"]
    assert counted(path) == sorted((one[0], one[1], float(one[3])) for one in good)
    assert account.accepted == len(good)
    assert account.quarantined["replaced by a later source"] == len(first)
    assert account.read == account.accepted + sum(account.quarantined.values())
    assert account.money.accepted == sum(float(one[3]) for one in good)
    assert account.money.quarantined["replaced by a later source"] == sum(float(one[3]) for one in first)
    assert account.returning is None


def test_an_amended_order_alone_may_leave_nothing(tmp_path: Path) -> None:
    """The only order of a shop, refunded in the next export, is gone."""
    take_in(shop(tmp_path, {"1": [line("o1")]}, revision="replace"))
    account = take_in(shop(tmp_path, {"1": [line("o1")], "2": [line("o1", status="refunded")]}, revision="replace"))
    assert account["transactions"].accepted == 0


CONTINUED = {
    "the same": ([line("o1")], [line("o1"), line("o2")]),
    "a return": ([line("o1"), line("o2")], [line("o1", amount=-20, day="2024-02-01")]),
    "a return first": ([line("o1", amount=-20, day="2024-02-01")], [line("o1"), line("o2")]),
    "repeated and returned": ([line("o1")], [line("o1"), line("o1", amount=-20, day="2024-02-01")]),
    "repeated and added to": ([line("o1")], [line("o1"), line("o1", amount=7, product="y")]),
    "a return that is dropped": ([line("o1")], [line("o1", amount=-20, status="refunded"), line("o2")]),
    "a draft before": ([line("o1", status="refunded"), line("o2")], [line("o1")]),
    "a dropped line beside": ([line("o1")], [line("o1"), line("o1", amount=4, status="refunded")]),
    "in one file": ([line("o1"), line("o1", amount=45)], [line("o2")]),
}


@pytest.mark.parametrize("what", CONTINUED)
@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
def test_an_order_that_goes_on_is_no_remark(tmp_path: Path, what: str, order: tuple[str, str]) -> None:
    """Returns in a later export, repeated lines and further lines beside them are what they seem."""
    exports = dict(zip("12", CONTINUED[what], strict=True))
    take_in(shop(tmp_path, {order[0]: exports[order[0]]}))
    assert take_in(shop(tmp_path, exports))["transactions"].returning is None


def test_the_remark_has_both_readings_the_largest_examples_and_is_printed(tmp_path: Path) -> None:
    """Five ids of seven, those with most money, and all the money."""
    first = [line(f"o{number}", amount=10 * number) for number in range(1, 8)]
    second = [line(one[0], amount=1) for one in first]
    path = shop(tmp_path, {"1": first, "2": second})
    said: list[str] = []
    for _ in range(2):
        said.clear()
        intake.ingest(settings.read(path), NOW, said.append)
        assert said[-1] == (
            "transactions: 7 order(s) come again in a later source with other lines (o3, o4, o5, o6, o7, ...): 7"
            " line(s) of the earlier sources, 280.00 EUR, count as well. If a later export gives such an order anew,"
            " whole, set `tables.transactions.revision: replace`; if it gives only what is new of it, nothing is wrong"
        )


def test_later_is_what_the_settings_name_later(tmp_path: Path) -> None:
    """The order of `path`, and names within a glob, decide; a changed order of paths counts at once."""
    exports = {"1": [line("o1")], "2": [line("o1", amount=45)]}
    path = shop(tmp_path, exports, revision="replace")
    take_in(path)
    turned = f"tables.transactions.path=[{tmp_path}/2.csv, {tmp_path}/1.csv]"
    take_in(path, NOW, turned)
    assert counted(path) == [("o1", "ann", 50.0)]
    take_in(path, NOW, f"tables.transactions.path={tmp_path}/[12].csv")
    assert counted(path) == [("o1", "ann", 45.0)]
    (tmp_path / "2.csv").rename(tmp_path / "0.csv")
    take_in(path, NOW, f"tables.transactions.path={tmp_path}/[0-9].csv")
    assert counted(path) == [("o1", "ann", 50.0)]


def test_a_revision_stands_when_its_file_is_cleared_away(tmp_path: Path) -> None:
    """Rows of files that are gone stay, in their place among those that come."""
    path = shop(tmp_path, {"2": [line("o1", amount=45), line("o2", status="refunded")]}, revision="replace")
    glob = f"tables.transactions.path={tmp_path}/*.csv"
    take_in(path, NOW, glob)
    (tmp_path / "2.csv").unlink()
    (tmp_path / "1.csv").write_text(HEADER + ",".join(line("o1")) + "\n" + ",".join(line("o2")) + "\n")
    (tmp_path / "3.csv").write_text(HEADER + ",".join(line("o3")) + "\n")
    take_in(path, NOW, glob)
    assert counted(path) == [("o1", "ann", 45.0), ("o3", "ann", 50.0)]


def test_changing_the_setting_changes_what_was_taken_in(tmp_path: Path) -> None:
    """Also of files that are gone: with `replace` their repeated lines are theirs again; back needs the files."""
    both = [line("o1"), line("o1", amount=20, product="y")]
    path = shop(tmp_path, {"1": both, "2": [both[0], line("o1", amount=7, product="z")]})
    glob = f"tables.transactions.path={tmp_path}/*.csv"
    account = take_in(path, NOW, glob)["transactions"]
    assert account.quarantined == {"already in another source": 1}
    (tmp_path / "2.csv").unlink()
    account = take_in(path, NOW, glob, REPLACE)["transactions"]
    assert counted(path) == [("o1", "ann", 7.0), ("o1", "ann", 50.0)]
    assert account.quarantined == {"replaced by a later source": 2}
    assert account.money is not None
    assert (account.read, account.money.read, account.money.lost) == (4, 127, 70)
    assert take_in(path, NOW, glob)["transactions"].accepted == 3
    take_in(path, NOW, glob, REPLACE)
    (tmp_path / "3.csv").write_text(HEADER + ",".join(line("o1", amount=1)) + "\n")
    take_in(path, NOW, glob, REPLACE)
    with pytest.raises(CheckFailed, match=r"2\.csv is gone, .*left 2 of its rows to later sources: bring it back, or"):
        take_in(path, NOW, glob)
    assert counted(path) == [("o1", "ann", 1.0)]


def test_a_table_comes_after_events(tmp_path: Path) -> None:
    """With `replace` the shop's own export has the last word on a purchase that came over HTTP, whichever was first."""
    for place, early in (("a", True), ("b", False)):
        folder = tmp_path / place
        folder.mkdir()
        path = shop(folder, {"1": [line("o1", amount=45), line("o2", status="refunded")]}, revision="replace")
        if early:
            take_in(path)
        workspace = settings.read(path)
        store = events.open_store(workspace)
        row = {"customer_id": "ann", "occurred_at": "2024-01-05T09:00:00+00:00", "amount": 50.0}
        told = [
            Event("transactions", o, "ann", date(2024, 1, 5), (row | {"transaction_id": o},))
            for o in ("o1", "o2", "o3")
        ]
        store.add(told, NOW)
        store.close()
        for _ in range(2):
            account = take_in(path)["transactions"]
            assert counted(path) == [("o1", "ann", 45.0), ("o3", "ann", 50.0)]
        assert account.quarantined == {"replaced by a later source": 2}


def test_nothing_but_a_change_writes_anew(tmp_path: Path) -> None:
    """Ingested twice, every byte stays; a new export writes only the parts whose orders it amends."""
    exports = {"1": [line("o1"), line("o2")], "2": [line("o3")]}
    take_in(shop(tmp_path, exports, revision="replace"))
    table = storage.tables_folder(tmp_path / "home", "transactions")

    def parts() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in storage.parts(table)}

    before = parts()
    exports["3"] = [line("o3", amount=1)]
    path = shop(tmp_path, exports, revision="replace")
    take_in(path)
    after = parts()
    assert len(before.items() & after.items()) == 1
    take_in(path)
    assert parts() == after


ORDERS, CUSTOMERS = st.sampled_from(["o1", "o2", "o3"]), st.sampled_from(["x", "y"])
LINES = st.tuples(ORDERS, CUSTOMERS, st.just("2024-01-05"), st.sampled_from(["1", "2.5", "-1", "?"]), st.just("p"),
                  st.sampled_from(["paid", "paid", "refunded"]))  # fmt: skip
EXPORTS = st.lists(LINES, max_size=4)
# What happens to one export on a day: it comes or changes, or is no longer named.
STEPS = st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), EXPORTS)), min_size=2, max_size=4)


def expected(exports: Mapping[str, Sequence[Line]]) -> list[tuple[str, str, float]]:
    """The second implementation: the lines of each order in the last export that names it, equal ones once."""
    last = {one[0]: name for name in sorted(exports) for one in exports[name]}
    kept = {one for name, lines in exports.items() for one in lines
            if last[one[0]] == name and one[5] == "paid" and one[3] != "?"}  # fmt: skip
    return sorted((one[0], one[1], float(one[3])) for one in kept)


@hypothesis_settings(deadline=None, database=None, derandomize=True, max_examples=10)
@given(steps=STEPS)
def test_the_last_export_decides_in_whatever_order_they_come(steps: list[tuple[str, list[Line] | None]]) -> None:
    """Exports that come, change and go day by day, one ingest of them cut off, end as those taken in at once."""
    with tempfile.TemporaryDirectory() as name:
        folder, exports = Path(name), {}
        for day, (export, lines) in enumerate(steps):
            exports.pop(export, None)
            if lines is not None:
                exports[export] = [*lines, line(f"own-{export}")]
            if not exports:
                continue
            path = shop(folder, exports, revision="replace")
            if day == 1:
                _cut_off(path)
            account = take_in(path)["transactions"]
            assert counted(path) == expected(exports)
            assert account.read == account.accepted + sum(account.quarantined.values())
            assert len(quarantined(path)) == sum(account.quarantined.values())
        if exports:
            at_once = take_in(path, NOW, f"home={folder / 'at once'}")["transactions"]
            assert at_once == account


def _cut_off(path: Path) -> None:
    """An ingest that ends just before it counts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write_json", _killed)
        with suppress(CheckFailed):
            take_in(path)


def _killed(*_: object) -> None:
    raise OSError("killed")


@pytest.mark.parametrize("path", [".", "export-*.csv", "**/export-*.csv"])
@pytest.mark.parametrize("later_first", [False, True])
def test_the_tenth_export_is_later_than_the_ninth(tmp_path: Path, path: str, later_first: bool) -> None:
    """Names go by their numbers, in a folder as in a glob, whenever each was taken in."""
    exports = {"export-9": [line("o1")], "export-10": [line("o1", amount=45), line("o2", "bob", 10)]}
    config = shop(tmp_path, exports, path=str(tmp_path / path), revision="replace")
    other = tmp_path / ("export-9.csv" if later_first else "export-10.csv")
    other.rename(tmp_path / "away")
    take_in(config)
    (tmp_path / "away").rename(other)
    take_in(config)
    assert counted(config) == [("o1", "ann", 45.0), ("o2", "bob", 10.0)]
