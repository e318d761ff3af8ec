"""What is held of a customer and what is computed about them, in sentences to the customer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from features import day_files
from ingest.rows import identifier
from serving.desk import words
from serving.desk.language import Language
from serving.predictor import NO_CONSENT
from training.models.leaving import NO_PURCHASE
from workspace import storage
from workspace.privacy import PrivacyKey
from workspace.settings import Workspace

_MEMORY = 1.0  # gigabytes
_DATED = ("signed_up", "contract_ends")
_OF_CUSTOMER = "FROM {} WHERE customer_id = $customer"
_QUERIES = {
    "customer_days": "SELECT count(DISTINCT day) FILTER (n_lines > 0), min(day) FILTER (n_lines > 0),"
    f" max(day) FILTER (n_lines > 0), coalesce(sum(spend), 0) {_OF_CUSTOMER}",
    "interaction_days": f"SELECT kind, CAST(sum(n) AS INT), min(day), max(day) {_OF_CUSTOMER} GROUP BY kind"
    " ORDER BY kind",
    "item_days": f"SELECT item, count(DISTINCT day), max(day), sum(gross) {_OF_CUSTOMER} GROUP BY item"
    " ORDER BY 4 DESC, 1",
}  # fmt: skip


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


# By column of `scores`: what it is called, what it means and is for; of the value, the same where it is a margin.
NUMBERS: Mapping[str, tuple[str, ...]] = {
    "churn_probability": (
        _("Chance that you stop buying"),
        _("How likely it is that you stop being a customer within %(days)s days. It is used to decide whom the company"
          " contacts first."),
    ),
    "churn_band": (
        _("Group"),
        _("Customers are put into three groups by that chance: low, medium and high. It is used to choose whom to"
          " contact."),
    ),
    "churn_percentile": (
        _("Place among all customers"),
        _("So many customers have a lower chance. It is used for the order of lists."),
    ),
    "p_alive": (
        _("Chance that you are a customer still"),
        _("Going by the days of your purchases alone. It is a step on the way to the other numbers."),
    ),
    "expected_purchases": (
        _("Purchases expected"),
        _("How often you will probably buy in the next %(later)s days. It is a step on the way to the amount."),
    ),
    "lifetime_value": (
        _("Amount expected"),
        _("What you will probably spend in the next %(later)s days; four times in five between %(low)s and %(high)s. It"
          " is used to decide how much effort an offer is worth."),
        _("What the company will probably earn from you in the next %(later)s days; four times in five between"
          " %(low)s and %(high)s. It is used to decide how much effort an offer is worth."),
    ),
    "value_at_risk": (
        _("Chance times amount"),
        _("The first chance times the amount expected. Lists of whom to contact are sorted by it."),
    ),
}  # fmt: skip
_BOUNDS = ("lifetime_value_low", "lifetime_value_high")


@dataclass(frozen=True)
class Doings:
    """What a customer did, as the last import summed it up: days with a purchase, the first, the last and the net sum;
    (kind, how many, first, last) of all else that happened; and (item, days, last, spent), what most went on first."""

    days: int
    first: date | None
    last: date | None
    spent: float
    contacts: list[tuple[str, int, date, date]]
    items: list[tuple[str, int, date, float]]


@storage.read_again
def doings(workspace: Workspace, customer_id: str) -> Doings:
    """
    Raises:
        CheckFailed: a batch is at work on the days.
    """
    files = day_files.days_files(workspace)[0]
    with storage.connect(workspace.home_path, workspace.timezone, _MEMORY) as connection:
        of = {
            kind: connection.execute(query.format(storage.reader(files[kind])), {"customer": customer_id}).fetchall()
            for kind, query in _QUERIES.items()
        }
    days, first, last, spent = of["customer_days"][0]
    return Doings(days, first, last, spent, of["interaction_days"], of["item_days"])


@storage.read_again
def row_of(workspace: Workspace, customer_id: str) -> dict[str, Any]:
    """The customer's row of `customers`, contact data readable; empty where there is none.

    Raises:
        SettingsError: the privacy key is not there to read contact data.
    """
    files = storage.parts(storage.tables_folder(workspace.home_path, "customers"))
    if not files:
        return {}
    with storage.connect(workspace.home_path, workspace.timezone, _MEMORY) as connection:
        there = [
            column for column, *_ in connection.execute(f"DESCRIBE SELECT * FROM {storage.reader(files)}").fetchall()
        ]
        named = (*(f"{name}_day" for name in _DATED), "marketing_consent", "profiling_consent", *workspace.pii,
                 *workspace.attributes)  # fmt: skip
        names = [name for name in dict.fromkeys(named) if name in there]
        query = f"SELECT {', '.join(map(identifier, names))} FROM {storage.reader(files)} WHERE customer_id = $customer"
        rows = connection.execute(query, {"customer": customer_id}).fetchall()
    row = dict(zip(names, rows[0], strict=True)) if rows else {}
    hidden = {name: row[name] for name in workspace.pii if row.get(name) is not None}
    key = PrivacyKey.of_environment() if hidden else None
    return row | {name: key.decrypted(text) for name, text in hidden.items() if key}


def identity(
    spoken: Language, workspace: Workspace, customer_id: str, row: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Who the customer is, as (what it is called, what it is)."""
    yield spoken.say("Customer id"), customer_id
    days = {"signed_up": _("Customer since"), "contract_ends": _("Contract ends on")}
    for name in _DATED:
        if (day := row.get(f"{name}_day")) is not None:
            yield spoken.say(days[name]), spoken.day(day)
    for name in dict.fromkeys((*workspace.pii, *workspace.attributes)):
        if (value := row.get(name)) is not None:
            yield words.attribute_name(name), str(value)


def purchases(spoken: Language, workspace: Workspace, done: Doings) -> Iterator[str]:
    """What was bought, in sentences."""
    if done.first is None or done.last is None:
        yield spoken.say("No purchase of yours is held.")
        return
    yield spoken.count(
        "You bought on %(number)s day, on %(first)s.",
        "You bought on %(number)s days, first on %(first)s and last on %(last)s.", done.days,
        first=spoken.day(done.first), last=spoken.day(done.last),
    )  # fmt: skip
    yield spoken.say(
        "You spent %(money)s, less what you sent back.", money=spoken.money(done.spent, workspace.currency)
    )
    if items := [item for item, *_ in done.items[:5]]:
        yield spoken.say("Most of it went on: %(items)s.", items=spoken.listed(items))


def contacts(spoken: Language, done: Doings) -> Iterator[tuple[str, str]]:
    """What else happened, by kind."""
    for kind, number, first, last in done.contacts:
        name = spoken.sentence(words.in_words(spoken, words.EVENTS, kind)).rstrip(".。")
        yield name, spoken.count("once, on %(first)s", "%(number)s times, from %(first)s to %(last)s", number,
                                 first=spoken.day(first), last=spoken.day(last))  # fmt: skip


def why_nothing(spoken: Language, card: Mapping[str, Any] | None) -> str | None:
    """Why nothing is computed about a customer; none where something is."""
    if card is None:
        return spoken.say("Nothing is worked out about you yet: the last calculation did not know you.")
    match card["scores"]["not_scored_reason"]:
        case None:
            return None
        case reason if reason == NO_CONSENT:
            return spoken.say("You do not agree to profiling, so nothing is worked out about you.")
        case reason if reason == NO_PURCHASE:
            return spoken.say("You have not bought anything yet, so nothing is worked out about you.")
        case _:
            return None


def computed(spoken: Language, card: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each number about a customer: what it is called, what it is, what it means and what it is for.

    One that is not there, or is shown to nobody, is left out.
    """
    scores, is_margin = card["scores"], card["lifetime_value_measure"] == "margin"
    texts = {name: _in_words(spoken, name, scores[name], card["currency"]) for name in (*NUMBERS, *_BOUNDS)}
    places = {
        "days": spoken.number(card["churn_period_days"]), "later": spoken.number(card["lifetime_value_period_days"]),
        "low": texts["lifetime_value_low"], "high": texts["lifetime_value_high"],
    }  # fmt: skip
    for name, (title, meaning, *of_margin) in NUMBERS.items():
        if texts[name] is not None:
            means = of_margin[0] if of_margin and is_margin else meaning
            yield spoken.say(title), str(texts[name]), spoken.say(means, **places)


def _in_words(spoken: Language, name: str, value: Any, currency: str) -> str | None:
    match name:
        case _ if value is None:
            return None
        case "churn_probability" | "p_alive":
            return spoken.percent(value)
        case "churn_percentile":
            return spoken.percent(value / 100)
        case "churn_band":
            return words.in_words(spoken, words.BANDS, value)
        case "expected_purchases":
            return spoken.number(value, 1)
        case _:
            return spoken.money(value, currency)


def offers(
    spoken: Language, card: Mapping[str, Any], items: Sequence[tuple[str, int, date, float]]
) -> Iterator[tuple[str, str]]:
    """Each offer with the reason for it."""
    bought = {item: (days, last) for item, days, last, _ in items}
    is_newcomer = card["scores"]["not_scored_reason"] == NO_PURCHASE
    for offer in card["offers"]:
        days, last = bought.get(offer["item"], (0, None))
        if offer["kind"] == "repeat" and last is not None:
            reason = spoken.count(
                "You bought it before, on %(last)s, and may want it again.",
                "You bought it before, on %(number)s days, the last time on %(last)s, and may want it again.", days,
                last=spoken.day(last),
            )  # fmt: skip
        elif offer["kind"] == "repeat":
            reason = spoken.say("You bought it before, and may want it again.")
        elif is_newcomer:
            reason = spoken.say("You have not bought anything yet; it is what new customers buy most.")
        else:
            reason = spoken.say("You have not bought it yet; customers who buy as you do often buy it.")
        yield offer["item"], reason
