"""The desk in the reader's language: its words, and how they write numbers, days and money."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cache
from pathlib import Path

from babel import Locale, negotiate_locale
from babel.dates import format_date, format_skeleton
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_currency, format_decimal, format_percent
from babel.support import NullTranslations, Translations

import pages

LANGUAGES = {"en": "English", "zh": "简体中文"}
"""By their codes, by what their readers call them."""
CATALOGUES = Path(pages.__file__).parent / "locale"


@dataclass(frozen=True)
class Language:
    """`say` puts a sentence of the code's English into this language; the others write values as it does."""

    code: str
    locale: Locale
    catalogue: NullTranslations

    def say(self, text: str, **values: object) -> str:
        return str(self.catalogue.gettext(text)) % values if values else str(self.catalogue.gettext(text))

    def count(self, one: str, many: str, number: int, **values: object) -> str:
        """With the number, as `%(number)s`, written as the language does."""
        return str(self.catalogue.ngettext(one, many, number)) % {"number": self.number(number), **values}

    def number(self, value: float, digits: int = 0) -> str:
        return format_decimal(round(value, digits), format=f"#,##0.{'0' * digits}" if digits else "#,##0",
                              locale=self.locale)  # fmt: skip

    def percent(self, share: float, digits: int = 0) -> str:
        pattern = f"#,##0.{'0' * digits}%" if digits else "#,##0%"
        return format_percent(share, format=pattern, locale=self.locale)

    def money(self, amount: float, currency: str) -> str:
        """Without cents from a hundred on."""
        if abs(amount) >= 100:
            return format_currency(round(amount), currency, "¤#,##0", self.locale, currency_digits=False)
        return format_currency(round(amount, 2) + 0.0, currency, locale=self.locale)

    def to_the_cent(self, amount: Decimal, currency: str) -> str:
        """Money of an account, whose sums a reader may add up."""
        return format_currency(amount, currency, locale=self.locale)

    def day(self, day: date) -> str:
        return format_date(day, format="medium", locale=self.locale)

    def month(self, day: date) -> str:
        return format_skeleton("yMMM", day, locale=self.locale)

    def sentence(self, text: str) -> str:
        """With a capital and a full stop, as the language ends one."""
        return f"{text[:1].upper()}{text[1:]}{'。' if self.code == 'zh' else '.'}"

    def listed(self, texts: Sequence[str]) -> str:
        return ("、" if self.code == "zh" else ", ").join(texts)


def chosen(asked: str | None, accepted: str) -> Language:
    """The language asked for, or else the first that the browser accepts and there is; English where there is none."""
    if asked in LANGUAGES:
        return language(asked)
    wanted = [part.split(";")[0].strip() for part in accepted.split(",") if part.strip()]
    return language(negotiate_locale([tag for one in wanted for tag in (one, one.split("-")[0])], LANGUAGES, sep="-")
                    or "en")  # fmt: skip


@cache
def language(code: str) -> Language:
    return Language(code, Locale.parse("zh_Hans_CN" if code == "zh" else "en"), _catalogue(code))


def _catalogue(code: str) -> NullTranslations:
    """Compiled as it is read: no step of an installation has to."""
    path = CATALOGUES / f"{code}.po"
    if not path.exists():
        return NullTranslations()
    compiled = io.BytesIO()
    with path.open("rb") as written:
        write_mo(compiled, read_po(written, locale="zh_Hans_CN"))
    compiled.seek(0)
    return Translations(compiled)
