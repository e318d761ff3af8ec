"""What an id is, the same in SQL and in Python: of customers, orders, products, interactions and campaigns.

Blanks at both ends are none of it: spaces, tabs, line ends, and characters without a width, which come with texts that
were copied. What is left is in Unicode's form NFC, has at most `LONGEST` characters, and no control character. An
apostrophe before `=`, `+`, `-` or `@` is none of it either: that is how a CSV file keeps a spreadsheet from computing.
"""

from __future__ import annotations

import re
import unicodedata

from workspace.storage import quoted

LONGEST = 200
# Unicode's white space, and what has no width: joiners, soft hyphens, marks of a byte order, of a direction of writing,
# of Mongolian vowels, of annotations, and invisible signs of arithmetic. Not what belongs to the character beside it:
# Arabic signs of a number, variants of a character, and the tags by which flags are spelt.
BLANKS = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
    "\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
    "\xad\u061c\u2061\u2062\u2063\u2064\u206a\u206b\u206c\u206d\u206e\u206f\ufff9\ufffa\ufffb"
)
# Neither control characters, nor what ends a line, nor half of a character.
_CONTROLS = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_CONTROLS_IN_SQL = r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"
_GUARDED = r"^'([=+@-])"
# Texts that only need their form: no control character, no blank at an end, no apostrophe in front, and so short that
# they cannot become too long (three times as long at most). Nearly all are; the closer look takes twenty times as long.
_END = "".join(f"\\x{{{ord(blank):x}}}" for blank in BLANKS) + _CONTROLS_IN_SQL[1:-1]
_PLAIN = f"[^'{_END}]([^{_CONTROLS_IN_SQL[1:-1]}]*[^{_END}])?"
_SHORT = LONGEST // 3
# Nearly all that come over HTTP, a page of a hundred at a time: visible ASCII, which has one form and no blanks.
_AS_IT_IS = re.compile(f"[!-&(-~][!-~]{{0,{LONGEST - 1}}}")
# For who looks at the description of the service.
PATTERN = r"^[^\x00-\x20\x7f-\xa0]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0])?$"


def canonical(text: str) -> str:
    """The id that a text means.

    Raises:
        ValueError: it means none.
    """
    if _AS_IT_IS.fullmatch(text):
        return text
    meant = re.sub(_GUARDED, r"\1", unicodedata.normalize("NFC", text.strip(BLANKS)))
    if not meant:
        raise ValueError("an id has at least one character that is no blank")
    if len(meant) > LONGEST:
        raise ValueError(f"an id has at most {LONGEST} characters; this one has {len(meant)}")
    if re.search(_CONTROLS, meant):
        raise ValueError("an id has neither control characters nor halves of characters in it")
    return meant


def trimmed(text: str) -> str:
    """SQL for a text without blanks at its ends; null where nothing is left."""
    return f"CASE WHEN {_is_plain(text)} THEN {text} ELSE {_trimmed(text)} END"


def normalized(text: str) -> str:
    """The same in form NFC, and without the character zero, at which DuckDB's `nfc_normalize` would end."""
    longer = f"replace({_trimmed(text)}, chr(0), '')"
    return f"nfc_normalize(CASE WHEN {_is_plain(text)} THEN {text} ELSE {longer} END)"


def usable(text: str) -> str:
    """SQL for the id that a text means; null where it means none."""
    meant = _meant(text)
    allowed = f"length({meant}) <= {LONGEST} AND NOT regexp_matches({_trimmed(text)}, {quoted(_CONTROLS_IN_SQL)})"
    return f"CASE WHEN {_is_plain(text)} THEN nfc_normalize({text}) WHEN {allowed} THEN {meant} END"


def why_not(name: str, text: str) -> str:
    """SQL for the reason why a text that is not blank means no id."""
    long, odd = quoted(f"{name} is longer than {LONGEST} characters"), quoted(f"{name} has a control character in it")
    return f"CASE WHEN length({_meant(text)}) > {LONGEST} THEN {long} ELSE {odd} END"


def _meant(text: str) -> str:
    return f"regexp_replace(nfc_normalize({_trimmed(text)}), {quoted(_GUARDED)}, '\\1')"


def _trimmed(text: str) -> str:
    return f"nullif(trim({text}, {quoted(BLANKS)}), '')"


def _is_plain(text: str) -> str:
    return f"(length({text}) <= {_SHORT} AND regexp_full_match({text}, {quoted(_PLAIN)}))"
