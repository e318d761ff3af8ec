"""A benchmark's figures as text: what it prints as it runs, and what `docs/results.md` shows.

Each function takes a benchmark's parts, as `benchmarks/figures.py` keeps them, and the name of the one to show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from benchmarks.figures import Parts

Rows = Mapping[str, Mapping[str, float]]

LOW_IS_GOOD = ("dec_wape", "bias")
TOLERANCE = 0.03
"""How far from the stated share the share of values within their bounds may be."""


def grid(rows: Rows, digits: int = 4) -> str:
    """A line for each row; blank where it has no such figure."""
    return _trimmed(pd.DataFrame(rows).T.to_string(float_format=lambda figure: f"{figure:.{digits}f}", na_rep=""))


def listed(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    head, *lines = (f"| {' | '.join(line)} |".replace("  |", " |") for line in (heads, *rows))
    return "\n".join([head, f"{'|---' * len(heads)}|", *lines])


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


# Lifetime value


def value(parts: Parts, window: str) -> str:
    """A window: every contender, our interval, what is to be reached, and how often values lay within their bounds."""
    part = parts[window]
    run_in = f"run in {part['seconds']:.0f} s, " if part["seconds"] else ""
    title = f"{window}, {part['horizon']} days: {part['customers']:,} customers, {run_in}{part['gigabytes']:.1f} GB"
    lines = [title, _contenders(part), _coverage(part["coverage"], part["stated"])]
    if "regret" in part:
        regret, most = part["regret"], part["regret_at_most"]
        lines.append(f"regret in ngini against the truth: {regret:.4f}{_mark(regret <= most)} (at most {most})")
    return _trimmed("\n".join(lines))


def _contenders(part: Mapping[str, Any]) -> str:
    ours, to_reach, names = part["figures"]["Perennial"], part["to_reach"], [*part["low"]]
    table = pd.DataFrame({title: {name: _shown(row.get(name)) for name in names}
                          for title, row in part["figures"].items()}).T  # fmt: skip
    table.loc["Perennial"] = [
        _shown(ours[name]) + _mark(name not in to_reach or _reached(name, ours[name], to_reach[name])) for name in names
    ]
    table.loc["  95 % from"] = [_shown(part["low"][name]) for name in names]
    table.loc["  to"] = [_shown(part["high"][name]) for name in names]
    table.loc["to reach"] = [_aim(name, to_reach) for name in names]
    return table.to_string()


def _coverage(shares: Sequence[float], stated: float) -> str:
    shown = " ".join(f"{share:.2f}{_mark(abs(share - stated) <= TOLERANCE)}" for share in shares[1:])
    return (
        f"value within its {100 * stated:g} % bounds: {shares[0]:.3f}; from the lowest tenth of predictions to the"
        f" highest: {shown}"
    )


def _reached(name: str, figure: float, aim: float) -> bool:
    return abs(figure) <= aim if name in LOW_IS_GOOD else figure >= aim


def _aim(name: str, to_reach: Mapping[str, float]) -> str:
    if name not in to_reach:
        return ""
    return f"{'±' if name == 'bias' else '<' if name in LOW_IS_GOOD else '>'}{to_reach[name]:.4f}"


def _shown(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4f}"


def _mark(reached: bool) -> str:
    return " " if reached else "!"


def rolling(parts: Parts, shop: str) -> str:
    """By how much totals are off at rolling cutoffs."""
    part = parts[shop]
    aim = part["mean_bias_at_most"]
    title = f"{shop}, total off by, at cutoffs of {part['horizon']} days (mean |bias| at most {aim})"
    return f"{title}\n{grid(part['figures'], 3)}"


# Churn


def churn(parts: Parts, window: str) -> str:
    """A shop's window: every contender."""
    part = parts[window]
    title = (
        f"{window}, {part['horizon']} days: {part['customers']:,} can leave, {part['left']:.3f} did;"
        f" {part['cutoffs']} cutoffs"
    )
    return f"{title}\n{grid(part['figures'])}"


def horizons(parts: Parts, shop: str) -> str:
    """What was said and what happened within other horizons."""
    return f"{shop}, without training again\n{grid(parts[shop])}"


def contracts(parts: Parts, shop: str) -> str:
    """The telephone company: what training refuses, then the mean of its folds."""
    part = parts[shop]
    refused = f"{shop} with {', '.join(part['leaking'])}: training refuses {', '.join(part['refused'])}"
    return f"{refused}\n\n{shop}: {part['contracts']:,} contracts, five stratified folds, mean\n{grid(part['mean'])}"


# Cross-sell


def baskets(parts: Parts, shop: str) -> str:
    """Next baskets by item: every method on whole baskets, repeats and new items; and what all of it took."""
    part = parts[shop]
    shown = [f"{shop}, {what}: mean of the five folds' test users\n{grid(rows)}"
             for what, rows in part["tables"].items()]  # fmt: skip
    took = f"{part['seconds']:.0f} s, peak {part['gigabytes']:.1f} GB"
    return "\n\n".join(shown) + f"\nitem level end to end, from lines to everybody's offers: {took}"


def ranked(parts: Parts, shop: str) -> str:
    """What ranking the categories of many customers took."""
    part = parts[shop]
    what = f"{part['customers']:,} customers x {part['categories']} categories"
    return f"{what} ranked: {part['seconds']:.0f} s, {part['gigabytes']:.1f} GB, {part['offers']:,} offers"


def offers(parts: Parts, window: str) -> str:
    """A shop's window by category: ours beside the rule, and what the first offers were said to bring."""
    part = parts[window]
    said = ", ".join(f"{what} {figure:.4g}" for what, figure in part["first offers"].items())
    title = f"{window}: {part['bought']:,} bought; {part['cutoffs']} cutoffs taught"
    return f"{title}\n{grid(part['figures'])}\nthe first {part['top']} offers: {said}"


# Purchase models


def fits(parts: Parts, histories: str) -> str:
    """A line for each package's fit of each model."""
    part = parts[histories]
    title = f"{histories}: {part['customers']:,} customers, {part['came back']:,} came back"
    return "\n".join([title, *map(fit, part["fits"])])


def fit(row: Mapping[str, Any]) -> str:
    """Parameters, and how far apart they are from ours."""
    title = f"{row['model']:12} {row['package']:15}"
    if "failed" in row:
        return f"{title} {row['failed']}"
    shown = "  ".join(f"{name} {value:.5g}" for name, value in row["parameters"].items())
    return f"{title} {row['seconds']:7.1f} s {row['gigabytes']:6.2f} GB   {shown}   apart {row['apart']:.0e}"


# The service

_SERVICE = {
    "ours-redis": "Perennial, Redis",
    "ours-sqlite": "Perennial, SQLite",
    "empty": "an empty BentoML endpoint",
    "fastapi": "FastAPI, same reads and models, nothing else",
    "mlflow": "`mlflow models serve` (churn alone) and Feast's `get_online_features`",
}


def service(parts: Parts) -> str:
    """Every contender: milliseconds by what is asked, and the most answers a second."""
    heads = ["", "1 customer: p50, p99", "with reasons", "100 customers", "with reasons", "p99 at 100/s",
             "most a second"]  # fmt: skip
    return listed(heads, [[title, *_answers(parts[name])] for name, title in _SERVICE.items()])


def _answers(asked: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[str]:
    one, alone = asked["1 customer"], "1 connections"
    yield f"{_milliseconds(one[alone]['p50, ms'])}, {_milliseconds(one[alone]['p99, ms'])}"
    for what in ("1 customer, reasons", "100 customers", "100 customers, reasons"):
        yield _milliseconds(asked[what][alone]["p50, ms"]) if what in asked else ""
    yield f"{one['100/s, open']['p99, ms']:.0f}" if "100/s, open" in one else ""
    yield f"{most_a_second(asked):.0f}"


def most_a_second(asked: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
    return max(load["requests/s"] for load in asked["1 customer"].values() if "requests/s" in load)


def _milliseconds(figure: float) -> str:
    return f"{figure:.1f}" if figure < 100 else f"{figure:.0f}"


# Drift


def false_alarms(part: Rows) -> str:
    """A line for every shop: ordinary months, and those of them that were called drift, or drift that matters."""
    lines = [f"{'ordinary months':<20}{'months':>8}{'drift':>8}{'matters':>9}  what moved"]
    for shop, said in part.items():
        moved = f"{said['drift'] / said['months']:.1%} false alarms" if shop == "all" else said["moved"]
        lines.append(f"{shop:<20}{said['months']:>8}{said['drift']:>8}{said['matters']:>9}  {moved}".rstrip())
    return "\n".join(lines)


def moved(part: Mapping[str, str]) -> str:
    """The months of a shop that moved by itself, and what was said of them."""
    return "\n".join(f"{month}: {said}" for month, said in part.items())


def power(part: Mapping[str, Any]) -> str:
    """A line for every fault: of how many planted months it was called drift, by shop; and drift that matters."""
    months = part["months"]
    lines = [f"{'planted fault':<38}{''.join(f'{shop:>18}' for shop in months)}{'caught':>10}{'matters':>10}"]
    for fault, said in part["faults"].items():
        caught = said["caught"]
        cells = "".join(f"{f'{caught[shop]} of {n}':>18}" for shop, n in months.items())
        shares = (count / sum(months.values()) for count in (sum(caught.values()), said["matters"]))
        lines.append(f"{fault:<38}{cells}{''.join(f'{share:>10.0%}' for share in shares)}")
    return "\n".join(lines)


# Speed


def month(part: Mapping[str, Any]) -> str:
    """A month's run by stage."""
    lines = [f"{'':10}{'clock':>10}{'processor':>12}{'memory':>10}"]
    for used in part["stages"]:
        lines.append(
            f"{used['stage']:10}{used['seconds']:8.1f} s{used['processor']:10.1f} s{used['gigabytes']:7.2f} GB"
        )
    return "\n".join([*lines, f"to reach: {part['to_reach']}"])


def growth(parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A first run's stages, three columns for each size of shop: on the clock, of the processor, memory."""
    sizes = list(parts)
    lines = ["customers " + "".join(f"{size:>30}" for size in sizes)]
    for place, used in enumerate(parts[sizes[0]]):
        cells = (
            f"{of[place]['seconds']:8.1f} s {of[place]['processor']:8.1f} s {of[place]['gigabytes']:5.2f} GB"
            for of in parts.values()
        )
        lines.append(f"{used['stage']:10}" + "".join(f"{cell:>30}" for cell in cells))
    return "\n".join(lines)


def features(parts: Parts, shop: str) -> str:
    """A shop's snapshots beside the floor, and where it was measured, the next day and pandas."""
    return _trimmed("\n".join(_features(parts[shop])))


def _features(part: Mapping[str, Any]) -> Iterator[str]:
    rows = part["rows"]
    yield f"{rows['transactions']:,} lines, {rows['interactions']:,} interactions, {rows['customers']:,} customers"
    base: tuple[float, ...] = ()
    if "floor" in part:
        base = part["floor"]["transactions"], sum(part["floor"].values())
        yield _took("count, sum, max by customer: lines (the floor)", base[0])
        yield _took("the same, lines and interactions", base[1])
    yield _took("whole catalogue, one as_of", *part["one"], *base)
    if "many" in part:
        yield _took(f"whole catalogue, {part['dates']} as_of dates", *part["many"], *base)
        yield f"{part['dates']} as_of dates cost {part['many'][0] / part['one'][0]:.1f} times one"
    if "next day" in part:
        whole, following = part["next day from scratch"], part["next day"]
        yield _took("the next day, from scratch", *whole)
        yield _took("the next day, after one day of new data", *following)
        yield f"the next day costs {following[0] / whole[0]:.2f} of starting over, and is equal to it"
    yield from _beside_others(part) if "pandas" in part else ()


def _beside_others(part: Mapping[str, Any]) -> Iterator[str]:
    ours, pandas = part["ours"], part["pandas"]
    yield _took("ours, one as_of", *ours)
    yield _took("pandas, one as_of", *pandas)
    yield f"ours is {pandas[0] / ours[0]:.0f} times faster; values agree in {part['agree']} features"
    if "spark" in part:
        yield _took("ours on Spark, one as_of (without Java's memory)", *part["spark"])


def _took(what: str, seconds: float, gigabytes: float | None = None, *floors: float) -> str:
    memory = f"{gigabytes:6.1f} GB" if gigabytes is not None else ""
    times = "".join(f"  {seconds / floor:5.1f} x" for floor in floors)
    return f"{what:50} {seconds:8.1f} s {memory}{times}"


def ablation(parts: Parts, window: str) -> str:
    """A shop's window: the models without each family, and with each alone."""
    return "\n\n".join(f"{window}: families {families}\n{grid(rows)}" for families, rows in parts[window].items())


_STORES, _LAYOUTS = {"sqlite": "SQLite", "redis": "Redis"}, {"packed": "packed", "columns": "a column each"}


def online(parts: Parts) -> str:
    """A line for each layout and store: writing, size, and milliseconds of reads."""
    heads = ["layout", "store", "customers", "seconds", "rows/s", "MB", "1 customer", "100 customers"]
    return listed(heads, [[
        _LAYOUTS[part["layout"]], _STORES[part["store"]], f"{part['customers']:,}",
        f"{part['seconds']:.0f}", f"{part['rows/s']:,.0f}", f"{part['MB']:,.0f}",
        *(f"{_short(part[f'{n} p50, ms'])} / {_short(part[f'{n} p99, ms'])}" for n in (1, 100)),
    ] for part in parts["figures"]])  # fmt: skip


def _short(figure: float) -> str:
    return f"{figure:.{2 if figure < 2 else 1 if figure < 20 else 0}f}"


def join(parts: Parts, way: str) -> str:
    """Rows and columns of a training set, and what it took to get them."""
    part = parts[way]
    return f"{part['rows']:,} rows x {part['columns']} columns: {part['seconds']:.1f} s, {part['gigabytes']:.1f} GB"
