"""The churn-risk list: who is about to leave, why, what they are worth and what to offer; never who objected."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.retrieval import matrix
from features.snapshot import CUSTOMER_FAMILIES, customer_features, families
from ingest.rows import identifier
from serving.consent import may_be_listed
from serving.lists import filters, paging
from serving.lists.filters import NoSuchFilter as NoSuchFilter
from serving.lists.list_query import ListQuery, Rules
from serving.lists.paging import Where
from serving.predictor import Predictor
from serving.reasons import Explainer
from serving.scope import WHOLE, Scope
from serving.terms import UNPROVEN, Terms, norms_of
from workspace import storage
from workspace.privacy import PrivacyKey
from workspace.settings import Workspace
from workspace.storage import quoted

Vectors = Callable[[date, Sequence[str]], NDArray[np.float32]]
Reasons = Callable[[Sequence[str]], Mapping[str, list[str]]]
"""Of a listed day, as far as they were told before."""

COLUMNS = (
    "customer_id", "churn_probability", "churn_percentile", "churn_band", "churn_grade", "lifetime_value",
    "lifetime_value_low", "lifetime_value_high", "lifetime_value_grade", "value_at_risk", "value_at_risk_grade",
    "reasons", "value_reasons", "offer", "offer_kind", "offer_probability", "offer_grade", "as_of", "churn_period_days",
    "lifetime_value_period_days", "lifetime_value_measure", "currency", "withheld",
)  # fmt: skip
# What the files hold of each customer; the rest is told of the listed alone, or is the same for all of them.
_SCORED = (
    "customer_id", "churn_probability", "churn_percentile", "churn_band", "lifetime_value", "lifetime_value_low",
    "lifetime_value_high", "value_at_risk", "as_of",
)  # fmt: skip
_OFFER = ("offer", "offer_kind", "offer_probability")
_WORDS = 10  # that are looked for at once
_BLOCK = 500  # rows told reasons of, and sent, at a time
_ROW_GROUP = 32_768  # rows of which a page reads all
# Highest first, and then in a fixed order, so that a page goes on where the last one ended. An amount that is withheld
# from everybody leaves the order to the next.
_TIES = {
    "value_at_risk": ("value_at_risk", "churn_probability", "churn_percentile", "lifetime_value"),
    "churn_probability": ("churn_probability", "churn_percentile", "value_at_risk", "lifetime_value"),
    "lifetime_value": ("lifetime_value", "churn_probability", "churn_percentile"),
}


@dataclass(frozen=True)
class Page:
    """`rows` rows of a list in blocks, in order; `cursor` is where the next page begins, none after the last.

    `reasons` and `value_reasons` are lists of sentences; `about` are those that a reader of the numbers needs.
    """

    as_of: date
    rows: int
    blocks: Iterator[pd.DataFrame]
    cursor: str | None
    about: tuple[str, ...]


def churn_risk(
    predictor: Predictor, as_of: date | None = None, *, top: int = 100, min_value: float = 0.0,
    max_value: float | None = None, band: str | None = None, attribute: Sequence[str] = (), category: str | None = None,
    search: str | None = None, sort: str = "value_at_risk", unproven_offers: bool = False, contacts: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """The listed customers of a scored as_of (the latest unless named), highest `sort` first.

    Left out: who was not scored or withdrew a consent, and, where the shop keeps marketing consents, who gave none.
    `reasons` (of the risk) and `value_reasons` are those of the listed rows only, joined by ". "; `offer` is the
    customer's best item, unless offers are not proven and not asked for all the same. With `contacts` the columns that
    the setting `pii` names follow.

    Raises:
        NoSuchFilter: a filter that no customer can pass.
        CheckFailed: nothing is scored yet.
        SettingsError: contact data are asked for, and the privacy key is not there to read them.
    """
    workspace = predictor.workspace
    as_of = as_of or storage.latest_scored(workspace.home_path)
    asked = ListQuery.model_construct(
        top=top, min_value=min_value, max_value=max_value, band=band, attribute=list(attribute), category=category,
        search=search, sort=sort, unproven_offers=unproven_offers,
    )  # fmt: skip
    terms = Terms.at(predictor, as_of)
    listed = _listed(workspace, as_of, conditions(workspace, as_of, asked, terms), sort, top)
    explainer = Explainer(predictor, norms_of(workspace.home_path, as_of))
    told = _told(explainer, listed, lambda day, ids: vectors(workspace, day, ids))
    shown = joined(_shown(told, terms, unproven_offers))
    return with_contacts(workspace, shown) if contacts else shown


def _untold(_: Sequence[str]) -> dict[str, list[str]]:
    return {}


def page(
    explainer: Explainer, as_of: date, asked: ListQuery, vectors_of: Vectors, contacts: bool = False,
    reasons_of: Reasons = _untold, scope: Scope = WHOLE,
) -> Page:  # fmt: skip
    """The page of the list that `asked` describes, of the customers of a `scope`, with `contacts` as in `churn_risk`.

    The reasons of the risk are those of `reasons_of`, and worked out for whom it has none.

    Raises:
        NoSuchFilter: the cursor is of another list, or a filter is one that no customer can pass.
        CheckFailed: `as_of` is not scored.
        SettingsError: contact data are asked for, and the privacy key is not there to read them.
    """
    workspace = explainer.predictor.workspace
    terms = Terms.at(explainer.predictor, as_of)
    where = conditions(workspace, as_of, asked, terms, scope)
    if asked.cursor is not None:
        paging.go_on(where, asked.cursor, as_of, asked.sort, _TIES[asked.sort])
    rows = _listed(workspace, as_of, where, asked.sort, asked.top + 1)
    listed, more = rows.head(asked.top), len(rows) > asked.top
    blocks = (listed.iloc[start : start + _BLOCK] for start in range(0, max(len(listed), 1), _BLOCK))
    told = (_told(explainer, block, vectors_of, reasons_of) if asked.reasons else block for block in blocks)
    shown = (_shown(block, terms, asked.unproven_offers) for block in told)
    if contacts:
        shown = (with_contacts(workspace, block) for block in shown)
    cursor = paging.cursor(as_of, asked.sort, _TIES[asked.sort], listed.iloc[-1]) if more else None
    return Page(as_of, len(listed), shown, cursor, about(terms, as_of, asked.unproven_offers))


def about(terms: Terms, as_of: date, unproven_offers: bool = False) -> tuple[str, ...]:
    """What a reader of the list has to know of its numbers, a sentence each."""
    left_out = "offers are not proven, and so not listed; `--unproven-offers` (`unproven_offers=true`) lists them"
    return (*terms.sentences(as_of), *([left_out] if terms.leaves_offers_out(unproven_offers) else []))


def with_models(rows: pd.DataFrame, predictor: Predictor) -> pd.DataFrame:
    """Rows of a list beside the versions that they are of, as the prediction log wants them."""
    models = {f"{kind}_model": predictor.versions[kind] for kind in ("churn", "lifetime_value")}
    return rows.assign(**models, **predictor.trained)


def _told(
    explainer: Explainer, listed: pd.DataFrame, vectors_of: Vectors, reasons_of: Reasons = _untold
) -> pd.DataFrame:
    if listed.empty:
        return listed.assign(reasons=None, value_reasons=None)
    customer_ids = listed["customer_id"].tolist()
    packed, before = vectors_of(listed["as_of"].iloc[0].date(), customer_ids), reasons_of(customer_ids)
    further = iter(explainer(packed[[one not in before for one in customer_ids]]))
    reasons = [before[one] if one in before else next(further) for one in customer_ids]
    told: dict[str, Any] = {"reasons": reasons, "value_reasons": explainer.value(packed)}
    return listed.assign(**told)


def joined(block: pd.DataFrame) -> pd.DataFrame:
    """With all reasons of a customer in one text, as files and answers have them."""
    there = [name for name in ("reasons", "value_reasons") if name in block]
    return block.assign(**{name: block[name].map(". ".join).astype(object) for name in there})


def _shown(listed: pd.DataFrame, terms: Terms, unproven_offers: bool) -> pd.DataFrame:
    """By `COLUMNS`, without reasons where none were asked for: beside each number how far it is proven."""
    if terms.leaves_offers_out(unproven_offers):
        listed = listed.assign(**dict.fromkeys(_OFFER))
    listed = listed.assign(**terms.columns())
    return listed[[name for name in COLUMNS if name in listed]]


def conditions(workspace: Workspace, as_of: date, asked: ListQuery, terms: Terms, scope: Scope = WHOLE) -> Where:
    """Who is on the list that is asked for, wherever a page of it begins; nobody outside the scope.

    Raises:
        NoSuchFilter: a filter that no customer of the scope can pass.
    """
    where = rules(workspace, as_of, asked, terms, scope)
    if asked.band is not None:
        choose_band(where, asked.band, terms)
    if asked.category is not None:
        choose_category(where, workspace, as_of, asked.category, scope)
    return where


def choose_band(where: Where, band: str, terms: Terms) -> None:
    """
    Raises:
        NoSuchFilter: nobody's band is shown.
    """
    _refuse_withheld("band", "churn", terms)
    where.add("churn_band = $band", band=band)


def rules(workspace: Workspace, as_of: date, asked: Rules, terms: Terms, scope: Scope) -> Where:
    """What all lists can be filtered by, within the scope; over rows with `customer_id` and `lifetime_value`.

    Raises:
        NoSuchFilter: a filter that no customer can pass.
    """
    _refuse_no_range(asked.min_value, asked.max_value)
    where = Where(["coalesce(lifetime_value, 0) >= $min_value"], {"min_value": asked.min_value})
    if asked.min_value or asked.max_value is not None:
        _refuse_withheld("min_value, max_value", "lifetime_value", terms)
    if asked.max_value is not None:
        where.add("lifetime_value <= $max_value", max_value=asked.max_value)
    for attribute in asked.attribute:
        _filter_by_attribute(where, workspace, attribute, scope)
    if asked.search is not None:
        where.add("starts_with(customer_id, $search)", search=asked.search)
    where.add(may_be_listed(workspace))
    if scope:
        where.add(scope.condition(workspace))
    return where


def _refuse_no_range(low: float, high: float | None) -> None:
    """Bounds between which nobody's value can be; an HTTP request is refused before for what is no number."""
    for name, value in (("min_value", low), ("max_value", high)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise NoSuchFilter(f"{name} {value:g}: an amount is a number from 0 on")
    if high is not None and low > high:
        raise NoSuchFilter(f"min_value {low:g} is above max_value {high:g}: nobody's value is between them")


def _refuse_withheld(what: str, kind: str, terms: Terms) -> None:
    if why := terms.standing(kind).withheld:
        raise NoSuchFilter(f"{what}: nobody's is shown: {why}")


def _filter_by_attribute(where: Where, workspace: Workspace, attribute: str, scope: Scope) -> None:
    name, value = filters.of_attribute("attribute", attribute, workspace.attributes)
    customers, key = storage.rows_of(workspace.home_path, "customers"), f"attribute_{len(where.values)}"
    column = identifier(name)
    if not value:
        where.add(f"customer_id NOT IN (SELECT customer_id FROM {customers} WHERE {column} IS NOT NULL)")
        return
    there = f"{customers} WHERE {column} IS NOT NULL AND ({scope.of_rows(workspace)})"
    stored = _distinct(workspace.home_path, f"SELECT DISTINCT {column} FROM {there}")
    meant = filters.chosen(f"attribute {name}:", value, stored)
    where.add(f"customer_id IN (SELECT customer_id FROM {customers} WHERE {column} IN (SELECT unnest(${key})))")
    where.values[key] = meant


def choose_category(where: Where, workspace: Workspace, as_of: date, category: str, scope: Scope) -> None:
    """Only who bought of it in the last 365 days.

    Raises:
        NoSuchFilter: nobody did, or nothing is known of categories.
    """
    if "product_affinity" not in families(workspace):
        raise NoSuchFilter("category: the workspace has no products, so nothing is known of categories")
    part = storage.rows_of_part(storage.snapshot_part(workspace.home_path, "product_affinity", as_of))
    bought = f"FROM {part} WHERE item_days_since_last <= 365"
    meant = filters.chosen(
        "category",
        category,
        _distinct(workspace.home_path, f"SELECT DISTINCT item {bought} AND {scope.condition(workspace)}"),
        "nobody bought of it in 365 days",
    )
    where.add(f"customer_id IN (SELECT customer_id {bought} AND item IN (SELECT unnest($items)))", items=meant)


def _distinct(home: Path, query: str) -> list[filters.Stored]:
    with paging.reader(home).cursor() as connection:
        return [row[0] for row in connection.execute(query).fetchall()]


@storage.read_again
def _listed(workspace: Workspace, as_of: date, where: Where, sort: str, top: int) -> pd.DataFrame:
    path = storage.risk_path(workspace.home_path, as_of, sort)
    if not path.exists():
        raise storage.CheckFailed(f"{workspace.name} has no scores of {as_of}; run `perennial score --as-of {as_of}`")
    return paging.read(workspace, f"read_parquet({quoted(path)})", where, _TIES[sort], top)


def with_contacts(workspace: Workspace, listed: pd.DataFrame) -> pd.DataFrame:
    """The rows with their contact data behind them."""
    told = contacts_of(workspace, listed["customer_id"].tolist())
    return listed.assign(**{name: pd.Series([row[name] for row in told], listed.index) for name in workspace.pii})


@storage.read_again
def contacts_of(workspace: Workspace, customer_ids: Sequence[str]) -> list[dict[str, str | None]]:
    """The contact data of each customer, decrypted, by what the setting `pii` names; null where none is kept."""
    if not workspace.pii:
        return [{} for _ in customer_ids]
    key, customers = PrivacyKey.of_environment(), storage.rows_of(workspace.home_path, "customers")
    names = ", ".join(map(identifier, workspace.pii))
    query = f"SELECT {names} FROM wanted LEFT JOIN {customers} USING (customer_id) ORDER BY place"
    with storage.connect(workspace.home_path) as connection:
        connection.register("wanted", _placed(customer_ids))
        hidden = connection.execute(query).fetchall()
    readable = ([key.decrypted(text) if isinstance(text, str) else None for text in row] for row in hidden)
    return [dict(zip(workspace.pii, row, strict=True)) for row in readable]


def refuse_other_key(workspace: Workspace) -> None:
    """Ends what would answer with another privacy key than the one that the contact data were encrypted with.

    Raises:
        SettingsError: the key in the environment is another one.
    """
    if not workspace.pii or not storage.parts(storage.tables_folder(workspace.home_path, "customers")):
        return
    first = f"coalesce({', '.join(map(identifier, workspace.pii))})"
    query = f"SELECT {first} FROM {storage.rows_of(workspace.home_path, 'customers')} WHERE {first} IS NOT NULL LIMIT 1"
    with storage.connect(workspace.home_path) as connection:
        for (hidden,) in connection.execute(query).fetchall():
            PrivacyKey.of_environment().decrypted(hidden)


@storage.read_again
def with_contact(workspace: Workspace, asked: str, most: int, scope: Scope = WHOLE) -> list[str]:
    """The customers of a scope of whom all of these words are in the contact data, at most so many, by id.

    Raises:
        SettingsError: the privacy key is not there to look with.
    """
    if not asked.strip() or not workspace.pii:
        return []
    *words, whole = PrivacyKey.of_environment().word_marks(asked)
    marks = {f"word_{place}": mark for place, mark in enumerate(words[:_WORDS] or [whole])}
    text = f"concat_ws(' ', {', '.join(map(identifier, workspace.pii))})"
    every = " AND ".join(f"contains({text}, ${name})" for name in marks)
    query = f"""SELECT customer_id FROM {storage.rows_of(workspace.home_path, "customers")}
        WHERE (({every}) OR contains({text}, $whole)) AND ({scope.of_rows(workspace)})
        ORDER BY customer_id LIMIT {most}"""
    with paging.reader(workspace.home_path).cursor() as connection:
        return [customer_id for (customer_id,) in connection.execute(query, marks | {"whole": whole}).fetchall()]


def _placed(customer_ids: Sequence[str] | pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"customer_id": pd.Series(list(customer_ids), dtype=str), "place": range(len(customer_ids))})


def write_risk(workspace: Workspace, as_of: date, scores: Path) -> None:
    """The files that lists are read from: who was scored, with the best offer, highest first, one for each order.

    So a page is at the head of a file, or where a cursor says, however many customers there are.
    """
    home = workspace.home_path
    columns = ", ".join(f"scores.{name}" for name in _SCORED)
    with storage.connect(home, workspace.timezone, workspace.memory) as connection:
        connection.execute("SET preserve_insertion_order = true")
        connection.execute(f"""
            CREATE TEMP TABLE risk AS
            SELECT {columns}, item AS offer, kind AS offer_kind, probability AS offer_probability
            FROM (SELECT * FROM {storage.reader([scores])} WHERE not_scored_reason IS NULL) AS scores LEFT JOIN (
                SELECT * FROM {storage.reader([storage.offers_path(home, as_of)])} WHERE rank = 1) AS offers
              ON scores.customer_id = offers.customer_id""")
        for sort in _TIES:
            query = f"FROM risk ORDER BY {paging.order(_TIES[sort])}"
            storage.copy_to(connection, query, storage.risk_path(home, as_of, sort), row_group=_ROW_GROUP)


@storage.read_again
def vectors(
    workspace: Workspace, as_of: date, customer_ids: Sequence[str], names: Sequence[str] = ()
) -> NDArray[np.float32]:
    """The packed vectors of the listed customers, straight from the snapshot that they were scored on.

    Of the features of these `names` alone where there are some.
    """
    names = names or [feature.name for feature in customer_features(workspace)]
    joins = " ".join(
        f"LEFT JOIN {storage.rows_of_part(storage.snapshot_part(workspace.home_path, family, as_of))} AS {family}"
        f" USING (customer_id)"
        for family in CUSTOMER_FAMILIES
    )
    columns = ", ".join(f'"{name}"' for name in names)
    with storage.connect(workspace.home_path) as connection:
        connection.register("wanted", _placed(customer_ids))
        return matrix(connection.execute(f"SELECT {columns} FROM wanted {joins} ORDER BY place").df(), names)


def as_text(rows: pd.DataFrame) -> str:
    """The list for a terminal: a line a customer, what matters most first; beside each weak number its grade."""
    if rows.empty:
        return "no customer to list: nobody who was scored, and may be listed, is what was asked for"
    row: Any = rows.iloc[0]
    of = (
        f"({row.churn_period_days} days)",
        f"({row.lifetime_value_measure}, {row.lifetime_value_period_days} days, {row.currency})",
        f"({row.currency})",
    )
    lines = [f"{'customer':<14}{'risk':>12}{'value':>26}{'at risk':>16}  why; offer"]
    lines.append(f"{'':<14}{of[0]:>12}{of[1]:>26}{of[2]:>16}")
    for row in rows.itertuples():
        numbers = (
            graded(row.churn_probability, ".0%", row.churn_grade, 12),
            graded(row.lifetime_value, ",.0f", row.lifetime_value_grade, 26),
            graded(row.value_at_risk, ",.0f", row.value_at_risk_grade, 16),
        )
        mark = f", grade {row.offer_grade}" if row.offer_grade in _WEAK else ""
        offer = f"offer {row.offer} ({row.offer_kind}{mark})" if isinstance(row.offer, str) else ""
        why = "; ".join(filter(None, [row.reasons, offer])) or "nothing stands out"
        lines.append(f"{row.customer_id:<14}{''.join(numbers)}  {why}")
    return "\n".join(lines)


_WEAK = ("C", UNPROVEN)


def graded(value: float, form: str, grade: str, width: int) -> str:
    """A number with its grade where that is weak; a dash where there is none to show."""
    shown = "-" if pd.isna(value) else f"{value:{form}} {grade}" if grade in _WEAK else f"{value:{form}}"
    return f"{shown:>{width}}"
