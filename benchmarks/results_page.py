"""Writes `docs/results.md`, and the table of results in the README, from the figures in `docs/results`.

    python -m benchmarks.results_page               # both pages, from the figures that are kept
    python -m benchmarks.results_page value churn   # keeps what the last runs of these benchmarks measured, then writes

What a run measured takes the place of the kept parts of the same name; look at the difference before it is committed.
The words of `docs/results.md` are in `benchmarks/results_page.md`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import figures, tables
from benchmarks.figures import Parts

PAGE, README = Path("docs/results.md"), Path("README.md")
_ROWS = re.compile(r"(?<=\n\n)\| \| window \| \|.*?(?=\n\n)", re.DOTALL)
_SHOPS = {"online_retail": "Online Retail II", "complete_journey": "Complete Journey", "cdnow": "CDNOW"}
_WINDOWS = ("online_retail at 2011-03-01", "online_retail at 2011-06-01", "complete_journey at 2017-10-01",
            "cdnow at 1997-10-01")  # fmt: skip
# As the README calls the peers.
_PEERS = {
    "BGNBD + Gamma-Gamma": "BG/NBD",
    "ParetoNBD + Gamma-Gamma": "Pareto/NBD",
    "BG/NBD, no purchase": "BG/NBD",
    "BG/NBD, exp(-purchases)": "BG/NBD",
    "Pareto/NBD, exp(-purchases)": "Pareto/NBD",
    "Pareto/NBD, no purchase": "Pareto/NBD",
    "plain LightGBM, tweedie": "LightGBM",
    "plain LightGBM, log1p": "LightGBM",
    "plain LightGBM": "LightGBM",
    "silence, at last window's rates": "last window's rates",
    "personal frequency, recency, popular": "personal frequency",
}

# What is ours without its boosters, and what puts nobody in order, is no peer.
_NO_PEERS = ("Perennial", "purchase histories alone", "base rate")

Kept = Mapping[str, Parts]


def main() -> None:
    for benchmark in sys.argv[1:]:
        figures.keep(benchmark)
    kept = read_kept()
    PAGE.write_text(page(kept))
    README.write_text(with_table(README.read_text(), kept))


def read_kept(folder: Path = figures.KEPT) -> dict[str, Parts]:
    """Every benchmark's kept figures."""
    return {path.stem: figures.read(path.stem, folder) for path in sorted(folder.glob("*.json"))}


def page(kept: Kept) -> str:
    """The text of `docs/results.md`.

    Raises:
        jinja2.UndefinedError: a figure that the page shows is not kept.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "places": _places, "whole": lambda figure: f"{figure:.0f}"}
    return environment.get_template("results_page.md").render(kept, tables=tables)


def with_table(readme: str, kept: Kept) -> str:
    """The README with its table of results written anew."""
    return _ROWS.sub(lambda _: readme_table(kept), readme, count=1)


def readme_table(kept: Kept) -> str:
    """The results in short: a row for each window, ours beside whichever peer was best."""
    heads = ["", "window", "", "Perennial", "best peer"]
    rows = [*_churn_rows(kept["churn"]), *_value_rows(kept["value"]), *_offer_rows(kept["cross_sell"]),
            _service_row(kept["service"])]  # fmt: skip
    first = [row[0] for row in rows]
    shown = [["" if place and first[place - 1] == row[0] else row[0], *row[1:]] for place, row in enumerate(rows)]
    return tables.listed(heads, shown)


def _churn_rows(parts: Parts) -> Iterator[list[str]]:
    windows = {_titled(window, parts[window]): parts[window]["figures"] for window in _WINDOWS}
    for title, contenders in (windows | {"IBM Telco, five folds": parts["ibm_telco"]["mean"]}).items():
        ours, peers = _apart(contenders)
        best = _named(_best(peers, "auc", max), _best(peers, "ece", min), _places)
        yield ["churn", title, "auc, `ece`", f"{_places(ours['auc'])}, {_places(ours['ece'])}", best]


def _value_rows(parts: Parts) -> Iterator[list[str]]:
    for window in _WINDOWS:
        ours, peers = _apart(parts[window]["figures"])
        best = _named(_best(peers, "ngini", max), _best(peers, "bias", min), _percent)
        shown = f"{_places(ours['ngini'])}, {_percent(ours['bias'])}"
        yield ["value", _titled(window, parts[window]), "ngini, total off by", shown, best]


def _offer_rows(parts: Parts) -> Iterator[list[str]]:
    ours, peers = _apart(parts["tafeng"]["tables"]["all items"])
    name, recall = _best(peers, "recall10", max)
    yield [
        "offers",
        "Ta-Feng, items, five folds",
        "recall@10",
        _places(ours["recall10"]),
        f"{_places(recall)} ({name})",
    ]
    both = [parts[window]["figures"]["ndcg5"] for window in _WINDOWS[:2]]
    rule = "personal frequency, recency, popular"
    shown, beside = (", ".join(_places(one[name]) for one in both) for name in ("Perennial", rule))
    yield ["offers", "Online Retail II, categories, two windows", "ndcg@5", shown, f"{beside} ({_PEERS[rule]})"]


def _service_row(parts: Parts) -> list[str]:
    ours, plain = (
        f"{parts[name]['1 customer']['1 connections']['p50, ms']:.1f} ms, {tables.most_a_second(parts[name]):.0f}"
        for name in ("ours-sqlite", "fastapi")
    )
    window = "100,000 customers, one worker, slow cores"
    return ["service", window, "median, most a second", ours, f"{plain} (FastAPI, same models, nothing else)"]


def _titled(window: str, part: Mapping[str, Any]) -> str:
    shop, _, as_of = window.partition(" at ")
    return f"{_SHOPS[shop]} at {as_of}, {part['horizon']} days"


def _apart(contenders: tables.Rows) -> tuple[Mapping[str, float], tables.Rows]:
    peers = {name: row for name, row in contenders.items() if name not in _NO_PEERS}
    return contenders["Perennial"], peers


def _best(peers: tables.Rows, figure: str, of: Any) -> tuple[str, float]:
    """The peer whose figure is best, and the figure; a bias counts by its size."""
    sizes = {name: abs(row[figure]) for name, row in peers.items() if figure in row}
    name = of(sizes, key=sizes.__getitem__)
    return _PEERS.get(name, name), sizes[name]


def _named(first: tuple[str, float], second: tuple[str, float], shown: Any) -> str:
    """Both figures with the peer of each, which is named once where it is the same."""
    other = "" if first[0] == second[0] else f" ({second[0]})"
    return f"{_places(first[1])} ({first[0]}), {shown(second[1])}{other}"


def _places(figure: float, digits: int = 3) -> str:
    """Without the zero in front; a half goes up, as in school."""
    return str(Decimal(str(figure)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)).removeprefix("0")


def _percent(figure: float) -> str:
    return f"{abs(figure):.0%}".replace("%", " %")


if __name__ == "__main__":
    main()
