"""From what a benchmark measures to what the pages say of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, results_page, tables

KEPT = results_page.read_kept(Path(__file__).resolve().parents[2] / figures.KEPT)
WINDOW = "cdnow at 1997-10-01"


@pytest.fixture
def kept() -> dict[str, Any]:
    """The figures of the pages, to be changed."""
    return copy.deepcopy(KEPT)


def test_a_run_replaces_the_kept_parts_that_it_measured_and_no_others(tmp_path: Path) -> None:
    """A benchmark of one window leaves the other windows as they were; figures are kept to six digits."""
    figures.write("value", {"a": {"ngini": 0.5}, "b": {"ngini": 0.6}}, tmp_path / "kept")
    figures.write("value", {"b": {"ngini": 0.712345678, "customers": 1234567, "each": [1 / 3]}}, tmp_path / "measured")
    figures.keep("value", tmp_path / "measured", tmp_path / "kept")
    found = figures.read("value", tmp_path / "kept")
    assert found == {"a": {"ngini": 0.5}, "b": {"ngini": 0.712346, "customers": 1234567, "each": [0.333333]}}


def test_a_benchmark_that_was_not_run_says_how_to_run_it(tmp_path: Path) -> None:
    """Nothing is kept of it."""
    with pytest.raises(FileNotFoundError, match=r"run python -m benchmarks\.value first"):
        figures.keep("value", tmp_path, tmp_path / "kept")


def test_the_pages_show_a_figure_that_has_changed(kept: dict[str, Any]) -> None:
    """In the table of the window, and in the README's."""
    kept["value"][WINDOW]["figures"]["Perennial"]["ngini"] = 0.6543
    assert "0.6543!" in results_page.page(kept)
    assert "| CDNOW at 1997-10-01, 273 days | ngini, total off by | .654, 17 % |" in results_page.readme_table(kept)


@pytest.mark.parametrize(
    ("name", "figure", "missed"),
    [("ngini", 0.7, False), ("ngini", 0.6999, True), ("bias", -0.08, False), ("bias", -0.0801, True),
     ("dec_wape", 0.12, False), ("dec_wape", 0.1201, True), ("spearman", 0.01, False)],
)  # fmt: skip
def test_a_figure_that_misses_its_aim_is_marked(kept: dict[str, Any], name: str, figure: float, missed: bool) -> None:
    """At least the aim, or at most where low is good, a bias either way; without an aim nothing is missed."""
    part = kept["value"][WINDOW]
    part["to_reach"], part["figures"]["Perennial"][name] = {"ngini": 0.7, "dec_wape": 0.12, "bias": 0.08}, figure
    (ours,) = (line for line in tables.value(kept["value"], WINDOW).splitlines() if line.startswith("Perennial"))
    assert (f"{figure:.4f}!" in ours) == missed


def test_the_readme_names_whichever_peer_was_best(kept: dict[str, Any]) -> None:
    """A peer that has become better takes the place; the total's peer is named where it is another one."""
    contenders = kept["value"][WINDOW]["figures"]
    contenders["Perennial"] |= {"ngini": 0.724, "bias": -0.17}
    contenders["BGNBD + Gamma-Gamma"] |= {"ngini": 0.71, "bias": -0.1}
    contenders["last year's rate"]["bias"] = 0.05
    assert "| .724, 17 % | .710 (BG/NBD), 5 % (last year's rate) |" in results_page.readme_table(kept)


def test_what_is_ours_is_no_peer_of_ours(kept: dict[str, Any]) -> None:
    """The history model that a training may choose, and one rate for everybody, stand in the page alone."""
    for name in ("purchase histories alone", "base rate"):
        kept["churn"][WINDOW]["figures"][name] = {"auc": 0.99, "ece": 0.0}
        assert name in results_page.page(kept)
    assert results_page.readme_table(kept) == results_page.readme_table(KEPT)


def test_only_the_table_of_the_readme_is_written_anew(kept: dict[str, Any]) -> None:
    """What stands around it stays."""
    readme = "# A\n\n| a | b |\n|---|---|\n\n## Results\n\n| | window | | x |\n| old | row |\n\nAfter.\n"
    found = results_page.with_table(readme, kept)
    assert found == readme.replace("| | window | | x |\n| old | row |", results_page.readme_table(kept))
