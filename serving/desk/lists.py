"""The lists of the desk: what each is called, what it asks, what a page of it and all of it are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pandas as pd

from serving.desk import words
from serving.desk.language import Language
from serving.desk.reason_words import in_language, refusal_in_language
from serving.desk.visit import Visit
from serving.lists import cross_selling, totals, win_back
from serving.lists.churn_risk import Page
from serving.lists.list_query import CrossSellQuery, ListQuery, Rules, WinBackQuery
from serving.lists.paging import Totals
from serving.scope import Scope
from serving.terms import Terms

if TYPE_CHECKING:
    from serving.http.answers import Answers


def _(text: str) -> str:
    """Marks a text for the catalogue."""
    return text


HEADINGS = {
    "customer_id": _("Customer"), "churn_probability": _("Risk of leaving"),
    "churn_percentile": _("Risk above that of so many in 100 customers"), "churn_band": _("Risk band"),
    "churn_grade": _("How proven the risk is"), "lifetime_value": _("Value"),
    "lifetime_value_low": _("Value, low end"), "lifetime_value_high": _("Value, high end"),
    "lifetime_value_grade": _("How proven the value is"), "value_at_risk": _("Money at risk"),
    "value_at_risk_grade": _("How proven the money at risk is"), "reasons": _("Why"),
    "value_reasons": _("Why this value"), "offer": _("Offer"), "offer_kind": _("Kind of offer"),
    "offer_probability": _("Chance that they buy it"), "offer_grade": _("How proven the offer is"),
    "last_purchase": _("Last purchase"), "silent_days": _("Days since then"), "purchases": _("Purchases"),
    "spend": _("Spent in all"), "bought_most": _("Bought most often"), "left_by": _("Left, by"),
    "as_of": _("As of"), "churn_period_days": _("Days that the risk is of"),
    "lifetime_value_period_days": _("Days that the value is of"), "lifetime_value_measure": _("Value is"),
    "currency": _("Currency"), "withheld": _("What is not shown, and why"),
}  # fmt: skip
_CODES: Mapping[str, Mapping[str, str]] = {
    "churn_band": words.BANDS, "offer_kind": words.OFFER_KINDS, "lifetime_value_measure": words.MEASURES,
}  # fmt: skip
Choices = tuple[tuple[str, str], ...]


class Asking(Protocol):
    """Who asks for a list, of what answers: a visit of the desk, or a call of an assistant."""

    @property
    def answers(self) -> Answers: ...
    @property
    def sees_contacts(self) -> bool: ...
    @property
    def scope(self) -> Scope: ...


class DeskList(ABC):
    """A list at `/desk/lists/<name>`, for whoever may see lists."""

    name: ClassVar[str]
    title: ClassVar[str]
    lead: ClassVar[str]
    query: ClassVar[type[Rules]]
    sorts: ClassVar[Mapping[str, str]]
    is_counted: ClassVar[bool] = False
    """Whether the customers that values of filters are counted among are its own."""
    kinds: ClassVar[tuple[str, ...]]
    """Of the models whose grades a reader has to know."""

    @property
    def path(self) -> str:
        return f"/desk/lists/{self.name}"

    @abstractmethod
    def page(self, asking: Asking, asked: Any) -> Page:
        """The rows that are asked for.

        Raises:
            Refused: a filter that no customer can pass.
        """

    @abstractmethod
    def total(self, asking: Asking, asked: Any) -> Totals:
        """Of the whole list."""

    @abstractmethod
    def said(self, spoken: Language, total: Totals, terms: Terms) -> str:
        """The total in words."""

    @abstractmethod
    def meanings(self, spoken: Language, terms: Terms) -> Iterator[str]:
        """Of the columns, a sentence each."""

    def selections(self, visit: Visit, asked: Any) -> Iterator[tuple[str, str, Choices, str | None]]:
        """What only this list can be filtered by: the field, its title, its codes with their words, the chosen one."""
        if hasattr(asked, "band"):
            yield "band", visit.say("Risk band"), _said_all(visit.language, words.BANDS), asked.band

    def blocks(self, visit: Visit, asked: Any) -> Iterator[pd.DataFrame]:
        """The whole list, as many rows at a time as are asked for, with words where it has codes."""
        cursor: str | None = None
        while True:
            page = self.page(visit, asked.model_copy(update={"cursor": cursor}))
            yield from (_worded(rows, visit.language) for rows in page.blocks)
            if (cursor := page.cursor) is None:
                return


class ChurnRisk(DeskList):
    name = "churn-risk"
    title = _("Churn risk")
    lead = _("Who may leave and what is lost with them, as of %(day)s. Never anyone who objected.")
    query = ListQuery
    sorts = words.SORTS
    is_counted = True
    kinds = ("churn", "lifetime_value", "offers")

    def page(self, asking: Asking, asked: ListQuery) -> Page:
        return asking.answers.churn_risk(asked, asking.sees_contacts, asking.scope)

    def total(self, asking: Asking, asked: ListQuery) -> Totals:
        published = asking.answers.current()
        return totals.totals(published.workspace, published.as_of, asked, published.filed_terms, asking.scope)

    def said(self, spoken: Language, total: Totals, terms: Terms) -> str:
        if total.amount is None:
            return _customers(spoken, total)
        return spoken.say("%(customers)s with %(money)s at risk", customers=_customers(spoken, total),
                          money=spoken.money(total.amount, terms.currency))  # fmt: skip

    def meanings(self, spoken: Language, terms: Terms) -> Iterator[str]:
        yield _risk(spoken, terms)
        yield _value(spoken, terms)
        yield spoken.say("Money at risk: risk times value. So a loyal customer who is worth much can stand above one"
                         " who is likely to leave and worth little.")  # fmt: skip


class WinBack(DeskList):
    name = "win-back"
    title = _("Win back")
    lead = _("Who has left already, what they spent, and what may still be expected of them, as of %(day)s. Never"
             " anyone who objected.")  # fmt: skip
    query = WinBackQuery
    sorts: ClassVar[Mapping[str, str]] = {
        "lifetime_value": _("Value"), "spend": _("Spent in all"), "last_purchase": _("Last purchase"),
    }  # fmt: skip
    kinds = ("lifetime_value",)

    def page(self, asking: Asking, asked: WinBackQuery) -> Page:
        return asking.answers.win_back(asked, asking.sees_contacts, asking.scope)

    def total(self, asking: Asking, asked: WinBackQuery) -> Totals:
        published = asking.answers.current()
        return win_back.total(published.workspace, published.as_of, asked, published.filed_terms, asking.scope)

    def said(self, spoken: Language, total: Totals, terms: Terms) -> str:
        if total.amount is None:
            return _customers(spoken, total)
        return spoken.say("%(customers)s who left; %(money)s to be expected of them all the same",
                          customers=_customers(spoken, total),
                          money=spoken.money(total.amount, terms.currency))  # fmt: skip

    def meanings(self, spoken: Language, terms: Terms) -> Iterator[str]:
        yield _value(spoken, terms)
        yield spoken.say("Nobody here has a risk of leaving: they left. Their value is what comes of such customers"
                         " without anything being done, since some come back by themselves; what a campaign would"
                         " change is not in it.")  # fmt: skip


class CrossSell(DeskList):
    name = "cross-sell"
    title = _("Cross-sell")
    lead = _("Who is most likely to buy what next, as of %(day)s. Never anyone who objected.")
    query = CrossSellQuery
    sorts: ClassVar[Mapping[str, str]] = {
        "probability": _("Chance that they buy it"), "lifetime_value": _("Value"), "value_at_risk": _("Money at risk"),
    }  # fmt: skip
    kinds = ("offers", "lifetime_value", "churn")

    def page(self, asking: Asking, asked: CrossSellQuery) -> Page:
        return asking.answers.cross_sell(asked, asking.sees_contacts, asking.scope)

    def total(self, asking: Asking, asked: CrossSellQuery) -> Totals:
        published = asking.answers.current()
        return cross_selling.total(published.workspace, published.as_of, asked, published.filed_terms, asking.scope)

    def said(self, spoken: Language, total: Totals, terms: Terms) -> str:
        if total.amount is None:
            return _customers(spoken, total)
        return spoken.say("%(customers)s, of whom %(number)s are expected to buy what they are offered here",
                          customers=_customers(spoken, total), number=spoken.number(total.amount))  # fmt: skip

    def meanings(self, spoken: Language, terms: Terms) -> Iterator[str]:
        yield spoken.say("Chance that they buy it: within the days that offers were learnt for, without being asked.")
        yield _value(spoken, terms)
        yield _risk(spoken, terms)
        if terms.leaves_offers_out(asked_for=False):
            yield spoken.say("Offers are not proven, and so nobody is listed unless you ask for them all the same.")

    def selections(self, visit: Visit, asked: CrossSellQuery) -> Iterator[tuple[str, str, Choices, str | None]]:
        published, spoken = visit.answers.current(), visit.language
        there = cross_selling.items(published.workspace, published.as_of, visit.scope)[: totals.MOST_VALUES]
        items = tuple((item, f"{item} ({spoken.number(count)})") for item, count in there)
        yield "item", visit.say("Offer"), items, asked.item
        yield "kind", visit.say("Kind of offer"), _said_all(spoken, words.OFFER_KINDS), asked.kind
        yield from super().selections(visit, asked)
        if published.filed_terms.leaves_offers_out(asked_for=False):
            codes = (("true", visit.say("listed all the same")),)
            yield "unproven_offers", visit.say("Offers that are not proven"), codes, str(asked.unproven_offers).lower()


LISTS: Mapping[str, DeskList] = {one.name: one for one in (ChurnRisk(), WinBack(), CrossSell())}


def _said_all(spoken: Language, texts: Mapping[str, str]) -> Choices:
    return tuple((code, spoken.say(text)) for code, text in texts.items())


def _customers(spoken: Language, total: Totals) -> str:
    return spoken.count("%(number)s customer", "%(number)s customers", total.customers)


def _risk(spoken: Language, terms: Terms) -> str:
    if terms.leaving.startswith("the chance of no purchase within"):
        return spoken.say("Risk of leaving: the chance of no purchase within %(days)s days.", days=terms.churn_days)
    return spoken.say("Risk of leaving: %(what)s.", what=terms.leaving)


def _value(spoken: Language, terms: Terms) -> str:
    return spoken.say(
        "Value: the %(measure)s to be expected in the next %(days)s days, in %(currency)s.",
        measure=words.in_words(spoken, words.MEASURES, terms.measure), days=terms.value_days, currency=terms.currency,
    )  # fmt: skip


_GRADED = {"churn": _("Risk of leaving"), "lifetime_value": _("Value"), "offers": _("Offer")}


def definitions(of: DeskList, spoken: Language, terms: Terms) -> Iterator[str]:
    """What the columns of a list mean, and how far they are proven, a sentence each."""
    yield from of.meanings(spoken, terms)
    for kind in of.kinds:
        yield spoken.sentence(f"{spoken.say(_GRADED[kind])}: {spoken.say(words.GRADES[terms.grades[kind]])}")


def _worded(rows: pd.DataFrame, spoken: Language) -> pd.DataFrame:
    said = {name: {code: spoken.say(text) for code, text in of.items()} for name, of in _CODES.items() if name in rows}
    told = {name: rows[name].map(partial(sentences, spoken)) for name in ("reasons", "value_reasons") if name in rows}
    if "left_by" in rows:
        told["left_by"] = rows["left_by"].map(partial(refusal_in_language, spoken))
    return rows.assign(**told, **{name: rows[name].map(words_of) for name, words_of in said.items()})


def sentences(spoken: Language, reasons: Sequence[str]) -> str:
    """The reasons of a listed customer."""
    return " ".join(spoken.sentence(in_language(spoken, one)) for one in reasons)
