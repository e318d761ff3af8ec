"""Commands that answer: score, publish, list, export."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perennial import month
from perennial.commands.app import (
    AsOf,
    BandOption,
    Config,
    CrossSellSort,
    Exported,
    Format,
    Home,
    OfferKind,
    Out,
    Set,
    Sort,
    UnprovenOffers,
    WinBackSort,
    alone,
    day_of,
    note,
    opened,
    shop_of,
    timed,
    today,
)
from perennial.shop import ShopAt, encode
from workspace import storage
from workspace.registry import client as _tracker
from workspace.settings import SettingsError, Workspace

if TYPE_CHECKING:
    import pandas as pd

TopOption = Annotated[int, typer.Option(min=1, help="So many customers at most.")]
MinValue = Annotated[float, typer.Option(help="Only customers worth at least this.")]
MaxValue = Annotated[float | None, typer.Option(help="Only customers worth at most this.")]
AttributeOption = Annotated[list[str], typer.Option(help="Only who has it, as name:value; repeated, all must hold.")]
CategoryOption = Annotated[str | None, typer.Option(help="Only who bought of it in the last 365 days.")]
FormatOption = Annotated[
    Format | None, typer.Option(case_sensitive=False, help="csv, xlsx or json; a table if absent.")
]
ContactsOption = Annotated[bool, typer.Option("--contacts", help="With the contact data under `pii`.")]
_LONGEST_NAME = 80  # characters of a file's name, without its ending


def score(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Score every customer known at as_of and rank offers for them, with the champions.

    Example: perennial score -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = opened(config, overrides, home)
    with alone(workspace):
        month.score(workspace, day_of(workspace.timezone, as_of), timed())


def publish(config: Config, overrides: Set = [], home: Home = None, as_of: AsOf = None) -> None:
    """Put the features of as_of into the online store, where the service reads them.

    Without --as-of it is today, or the latest day that was scored where today was not.
    Example: perennial publish -c configs/online_retail.yaml --as-of 2011-06-01
    """
    workspace = opened(config, overrides, home)
    with alone(workspace):
        month.publish(workspace, day_to_publish(workspace, as_of), timed())


def day_to_publish(workspace: Workspace, as_of: datetime | None) -> date:
    home, day = workspace.home_path, today(workspace.timezone)
    if as_of is not None or storage.scores_path(home, day).exists() or not storage.scored(home):
        return day_of(workspace.timezone, as_of)
    latest = storage.latest_scored(home)
    typer.echo(f"today, {day}, has no scores: as_of is the latest day that has, {latest}")
    return latest


def list_churn_risk(
    config: Config, top: TopOption = 100, band: BandOption = None, min_value: MinValue = 0.0,
    max_value: MaxValue = None, attribute: AttributeOption = [], category: CategoryOption = None,
    sort: Annotated[Sort, typer.Option(metavar="<column>", help=f"Highest first: {', '.join(Sort)}.")] = (
        Sort.value_at_risk
    ),
    unproven_offers: UnprovenOffers = False, format: FormatOption = None, contacts: ContactsOption = False,
    saved: Annotated[str | None, typer.Option(help="A list that was saved on the desk, by its name.")] = None,
    split_by: Annotated[
        str | None, typer.Option(help="A list, and a file in the folder --out, for each value of this attribute.")
    ] = None,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Who is about to leave, why, what they are worth, what to offer; highest value at risk first.

    Never lists who objected. Beside a number stands its grade where that is C or none. Filters take any case, and a
    value that no customer has is refused. `--split-by region --out lists` writes each region's own list.
    Example: perennial list churn-risk -c configs/demo.yaml --top 500 --out risk.xlsx
    """
    from serving.lists import churn_risk

    workspace = opened(config, overrides, home)
    there = _scored(workspace, as_of)
    asked = partial(
        there.churn_risk, top=top, min_value=min_value, max_value=max_value, band=band,
        category=category, sort=sort.value, unproven_offers=unproven_offers, contacts=contacts, saved=saved,
    )  # fmt: skip
    if split_by is not None:
        _split(there, asked, split_by, attribute, format or Format.xlsx, out)
        return
    _write(asked(attribute=attribute), churn_risk.as_text, format, out)


def _write(rows: pd.DataFrame, as_text: Callable[[pd.DataFrame], str], format: Format | None, out: Path | None) -> None:
    """As a table for a terminal where no format and no file is named."""
    if format is None and out is not None:
        format = _format_of(out)
    if format is None:
        typer.echo("\n".join([as_text(rows), "", *rows.attrs["about"]]))
    elif out is None:
        sys.stdout.buffer.write(encode(rows, format.value))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(encode(rows, format.value))
        typer.echo(f"{len(rows):,} customers in {out}")


def list_win_back(
    config: Config, top: TopOption = 100, min_value: MinValue = 0.0, max_value: MaxValue = None,
    attribute: AttributeOption = [],
    sort: Annotated[WinBackSort, typer.Option(metavar="<column>", help=f"First: {', '.join(WinBackSort)}.")] = (
        WinBackSort.lifetime_value
    ),
    format: FormatOption = None, contacts: ContactsOption = False,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Who left, what may still be expected of each, and what they used to buy; never who objected.

    Example: perennial list win-back -c configs/demo.yaml --sort spend --out win-back.xlsx
    """
    from serving.lists import win_back

    rows = _scored(opened(config, overrides, home), as_of).win_back(
        top=top, min_value=min_value, max_value=max_value, attribute=attribute, sort=sort.value,
        contacts=contacts,
    )  # fmt: skip
    _write(rows, win_back.as_text, format, out)


def list_cross_sell(
    config: Config,
    item: Annotated[str | None, typer.Option(help="Who is offered this; everybody's best offer if absent.")] = None,
    kind: Annotated[OfferKind | None, typer.Option(help="repeat: bought before; new: new to them.")] = None,
    top: TopOption = 100, band: BandOption = None, min_value: MinValue = 0.0, max_value: MaxValue = None,
    attribute: AttributeOption = [], category: CategoryOption = None,
    sort: Annotated[CrossSellSort, typer.Option(metavar="<column>", help=f"First: {', '.join(CrossSellSort)}.")] = (
        CrossSellSort.probability
    ),
    unproven_offers: UnprovenOffers = False, format: FormatOption = None, contacts: ContactsOption = False,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """To whom an item can be offered, likeliest first; never who objected.

    Example: perennial list cross-sell -c configs/demo.yaml --item tea --out tea.xlsx
    """
    from serving.lists import cross_selling

    rows = _scored(opened(config, overrides, home), as_of).cross_sell(
        item=item, kind=kind and kind.value, top=top, band=band and band.value, min_value=min_value,
        max_value=max_value, attribute=attribute, category=category, sort=sort.value, unproven_offers=unproven_offers,
        contacts=contacts,
    )  # fmt: skip
    _write(rows, cross_selling.as_text, format, out)


def _split(
    there: ShopAt, asked: Callable[..., pd.DataFrame], by: str, attribute: list[str], format: Format,
    folder: Path | None,
) -> None:  # fmt: skip
    """A file for each value of an attribute, and one for who has none."""
    from serving.lists import totals

    if folder is None or folder.is_file():
        raise SettingsError("--split-by writes several files: name their folder with --out")
    values, names = totals.values_of(there.shop.workspace, there.as_of, by), set[str]()
    storage.make_folder(folder)
    for value in [*values, ""]:
        rows = asked(attribute=[*attribute, f"{by}:{value}"])
        if rows.empty:
            continue
        name = _file_name(value or f"without {by}", names)
        with storage.replacing(folder / f"{name}.{format.value}") as draft:
            draft.write_bytes(encode(rows, format.value))
        typer.echo(f"{len(rows):,} customers in {folder / name}.{format.value}")


def _file_name(value: str, taken: set[str]) -> str:
    """The value without what a file's name cannot hold, and with a number where another looks the same then."""
    plain = re.sub(r"[^\w.-]+", "_", value).strip("._")[:_LONGEST_NAME] or "_"
    number = next(n for n in count(1) if (f"{plain}_{n}" if n > 1 else plain).casefold() not in taken)
    name = f"{plain}_{number}" if number > 1 else plain
    taken.add(name.casefold())
    return name


def list_bought_with(
    config: Config, item: Annotated[str | None, typer.Option(help="Of this item; of every one if absent.")] = None,
    top: Annotated[int, typer.Option(min=1, max=20, help="So many companions of an item at most.")] = 5,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """What the buyers of an item buy with it more than by chance, for its product page.

    Of a scored as_of, the latest if absent. Example: perennial list bought-with -c configs/demo.yaml --out rules.csv
    """
    rules = _scored(opened(config, overrides, home), as_of).bought_with(item=item, top=top)
    if out is None:
        typer.echo(rules.to_string(index=False, float_format=lambda figure: f"{figure:.3f}"))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(encode(rules, _format_of(out).value))
        typer.echo(f"{len(rules):,} rules in {out}")


def churn_segments(
    config: Config, band: BandOption = None,
    out: Out = None, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Who the customers at risk are: groups in words, each with its customers, risk and value.

    Of a scored as_of, the latest if absent. Example: perennial churn segments -c configs/demo.yaml
    """
    from serving.lists import risk_groups

    groups = _scored(opened(config, overrides, home), as_of).segments(band)
    if out is None:
        typer.echo("\n".join([risk_groups.as_text(groups), "", *groups.attrs["about"]]))
    else:
        with storage.replacing(out) as draft:
            draft.write_bytes(encode(groups, _format_of(out).value))
        typer.echo(f"{len(groups):,} groups in {out}")


def export(
    config: Config, what: Annotated[Exported, typer.Argument(help="scores, offers or features.")],
    out: Annotated[Path, typer.Option("--out", help="A .parquet or .csv file.")],
    unproven_offers: UnprovenOffers = False, overrides: Set = [], home: Home = None, as_of: AsOf = None,
) -> None:  # fmt: skip
    """Write the scores, offers or features of a scored as_of (the latest if absent) to a file.

    Behind the scores and the offers stand the grades of their numbers.
    Example: perennial export scores -c configs/online_retail.yaml --out scores.csv
    """
    from serving import champions
    from serving.lists import exports

    workspace, day = opened(config, overrides, home), as_of and as_of.date()
    if what is not Exported.features:
        champions.that_scored(workspace, _tracker, day or storage.latest_scored(workspace.home_path))
    rows = exports.export(workspace, what.value, day, out, unproven_offers, partial(typer.echo, err=True))
    note(workspace, f"export {what.value}", {"as_of": day, "unproven_offers": unproven_offers}, rows)
    typer.echo(f"{rows:,} rows in {out}")


def _scored(workspace: Workspace, as_of: datetime | None) -> ShopAt:
    """The shop on a day that was scored, the latest one if none is named."""
    shop = shop_of(workspace)
    return shop.at(as_of) if as_of else shop.latest()


def _format_of(out: Path) -> Format:
    try:
        return Format(out.suffix[1:].lower())
    except ValueError:
        raise SettingsError(f"--out {out}: end the name in .csv, .xlsx or .json, or name a --format") from None
