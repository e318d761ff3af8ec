"""SQL that makes numbers of amounts as people write them, chosen by what is written; what could be read in two ways it
refuses."""

from __future__ import annotations

import re
from collections.abc import Iterable

NOT_NEEDED = ""

_PLAIN = r"[-+]?[0-9]+([.][0-9]+)?"
_SIGN = "[-+]?"
# Written with one meaning only, wherever it stands.
_COMMA_DECIMAL = f"{_SIGN}([0-9]+|[0-9]{{1,3}}([.][0-9]{{3}})+),[0-9]{{1,2}}|{_SIGN}[0-9]{{1,3}}([.][0-9]{{3}}){{2,}}"
_COMMA_GROUPS = f"{_SIGN}[0-9]{{1,3}}(,[0-9]{{3}})+[.][0-9]+|{_SIGN}[0-9]{{1,3}}(,[0-9]{{3}}){{2,}}"
# Read by those beside it.
_ONE_GROUP_COMMA = f"{_SIGN}[1-9][0-9]{{0,2}},[0-9]{{3}}"
_ONE_GROUP_DOT = f"{_SIGN}[1-9][0-9]{{0,2}}[.][0-9]{{3}}"


def reading(column: str, texts: Iterable[str], currency: str) -> str | None:
    """An expression over a column, as SQL writes it, that reads plain numbers, and of such texts what can be read in
    one way only. `NOT_NEEDED` where all are numbers; null where none has one meaning.

    Blanks, apostrophes and the currency do not count. A comma before three digits is a group's where others show that
    commas are, and none that they are decimal. A dot before three digits is refused unless such others show that it is
    decimal.
    """
    around = f"[^!-~\u2212\u2013]|['$]|{re.escape(currency)}"
    bare = {text: re.sub(around, "", text) for text in texts}
    quoted = around.replace("'", "''")
    bared = (
        column if all(text == rest for text, rest in bare.items()) else f"regexp_replace({column}, '{quoted}', '', 'g')"
    )
    decimal, groups, dot, number = (
        [text for text in bare.values() if re.fullmatch(form, text)]
        for form in (_COMMA_DECIMAL, _COMMA_GROUPS, _ONE_GROUP_DOT, _PLAIN)
    )
    if not decimal and not groups and len(dot) == len(number):
        return None
    if len(number) == len(bare) and bared == column:
        return NOT_NEEDED
    branches = []
    if decimal or (dot and not groups):
        branches.append(f"WHEN {_is(bared, _ONE_GROUP_DOT)} THEN NULL")
    if decimal:
        as_number = f"CAST(replace(replace({bared}, '.', ''), ',', '.') AS DOUBLE)"
        branches.append(f"WHEN {_is(bared, _COMMA_DECIMAL)} THEN {as_number}")
    if groups:
        form = _COMMA_GROUPS if decimal else f"{_COMMA_GROUPS}|{_ONE_GROUP_COMMA}"
        branches.append(f"WHEN {_is(bared, form)} THEN CAST(replace({bared}, ',', '') AS DOUBLE)")
    number_else = f"TRY_CAST({bared} AS DOUBLE)"
    return f"CASE {' '.join(branches)} ELSE {number_else} END" if branches else number_else


def _is(text: str, form: str) -> str:
    return f"regexp_full_match({text}, '{form}')"
