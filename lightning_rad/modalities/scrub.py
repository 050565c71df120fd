"""Taking dates, names after titles, phone and record numbers out of reports, by rule.

Rules of English reports that miss what they do not know: a name without a title, an address, a year
or a day and month alone. A help; no de-identification that a release could rest on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

BLANK: Final = "___"
"""What stands for each thing taken out: a mark that `modalities.report` knows."""

VERSION: Final = 1
"""Raised with each change to what is taken out."""

_GAP: Final = r"[ \t\r\n]+"
_MONTH: Final = (
    r"(?:(?i:jan(?:uary)?|feb(?:ruary)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)|M(?:ar(?:ch)?|ay|AR(?:CH)?|AY))\b\.?"
)
_DAY: Final = r"\d{1,2}(?:st|nd|rd|th|ST|ND|RD|TH)?\b(?![.:/]\d|[ \t]*(?:mm|cm|x|%))"
_YEAR: Final = r"(?:19|20)\d\d\b"
_LEFT: Final = r"(?<![\w./-])"
_RIGHT: Final = r"(?![\w/-]|\.\d)"

_STOP: Final = (
    "the|at|on|by|in|and|or|of|to|is|was|were|has|had|with|for|from|who|via|this|that|as|no|not|be|"
    "will|agrees?|reviewed|notified|called|drs?|mrs?|ms|findings?|impression|comparison|chest|date|time|x{3,}"
)
_NAME: Final = rf"(?!(?i:{_STOP})\b)[^\W\d_a-z](?:[^\W\d_]|['\u2019-](?=[^\W\d_])){{1,30}}"
_INITIAL: Final = r"[A-Z]\.?(?![\w'\u2019-])"
_PARTICLE: Final = r"(?:van|von|de|der|den|la|di|el|al|bin|Van|Von|De)"
_NAMES: Final = (
    rf"(?:(?:{_INITIAL}|{_PARTICLE})[ \t]{{0,3}}){{0,3}}{_NAME}"
    rf"(?:,?[ \t]+(?:(?:{_INITIAL}|{_PARTICLE})[ \t]{{0,3}}){{0,2}}{_NAME}){{0,2}}"
)


class _Rule(NamedTuple):
    kind: str
    pattern: re.Pattern[str]
    applies: Callable[[re.Match[str]], bool] = lambda _: True


def _is_date(match: re.Match[str]) -> bool:
    """Whether two of the numbers are a day and a month."""
    numbers = [int(n) for n in re.findall(r"\d+", match[0])]
    if len(numbers) == 1:
        digits = match[0]
        numbers = [int(digits[4:6]), int(digits[6:])]
    elif len(match[0].split(match["by"])[0]) == 4:
        numbers = numbers[1:]
    low, high = sorted(numbers[:2])
    return 1 <= low <= 12 and high <= 31


_RULES: Final = (
    _Rule(  # what a word says is a number of somebody
        "number",
        re.compile(
            r"\b(?i:mrn|medical[ \t]+record|accession|acc|ssn|record|account|patient[ \t]+id"
            r"|encounter|visit|order|case|exam|study|id)"
            r"(?:(?P<marked>[ \t]*(?:(?i:numbers?|no\.?|nr\.?|num\.?|id)\b\.?|[#:=])){1,3}|)"
            r"[ \t]*(?P<id>(?:[A-Za-z]{1,4}-?)?\d[\d-]{2,}[A-Za-z\d-]*)(?![\w/]|\.\d)"
        ),
        lambda m: bool(m["marked"]) or sum(c.isdigit() for c in m["id"]) > 4,
    ),
    _Rule("number", re.compile(rf"{_LEFT}\d{{3}}-\d\d-\d{{4}}{_RIGHT}")),
    _Rule("number", re.compile(rf"{_LEFT}\d+(?:\.\d+){{4,}}{_RIGHT}")),
    _Rule(
        "phone",
        re.compile(
            r"(?<![\w.])(?:\+?\d{1,3}[ .-])?(?:\(\d{3}\)[ ]?|\d{3}[ .-])\d{3}[ .-]\d{4}(?!\d|\.\d)"
            r"|(?<!\w)\+\d{1,3}[ ]?\(?\d[\d() -]{6,16}\d"
            r"|(?<=\b)(?i:phone|tel|telephone|pager|beeper|fax|ext|extension|call(?:ed)?[ ]at)"
            r"(?:\.|:|[ ](?:no\.?|number|\#))*[ ]*(?P<id>\d[\d -]{2,}\d)\b"
        ),
    ),
    _Rule(
        "date",
        re.compile(rf"{_LEFT}(?:(?:19|20)\d\d(?P<by>[-/.])\d{{1,2}}(?P=by)\d{{1,2}}){_RIGHT}"),
        _is_date,
    ),
    _Rule(
        "date",
        re.compile(
            rf"{_LEFT}\d{{1,2}}(?:(?P<by>[/-])\d{{1,2}}(?P=by)(?:\d\d)?\d\d"
            rf"|\.[ ]?\d{{1,2}}\.[ ]?{_YEAR}){_RIGHT}(?![ \t]*(?:mm|cm|x\b))"
        ),
        lambda m: _is_date(m) if m["by"] else True,
    ),
    _Rule("date", re.compile(rf"{_LEFT}(?:0?[1-9]|1[0-2])/{_YEAR}{_RIGHT}")),
    _Rule("date", re.compile(rf"{_LEFT}(?:19|20)\d{{6}}{_RIGHT}"), _is_date),
    _Rule(
        "date",
        re.compile(
            rf"\b{_DAY}(?:{_GAP}of)?(?:{_GAP}|-){_MONTH}(?:,?(?:{_GAP}|-)(?:{_YEAR}|'?\d\d\b))?"
            rf"|\b{_MONTH}(?:{_GAP}|-){_DAY}(?:,?(?:{_GAP}|-){_YEAR})?"
            rf"|\b{_MONTH},?(?:{_GAP}|-){_YEAR}"
        ),
    ),
    _Rule("date", re.compile(r"(?<=\b[Dd]ated )\d{1,2}/\d{1,2}\b")),
    _Rule("number", re.compile(rf"{_LEFT}\d{{7,}}{_RIGHT}")),
    _Rule(
        "name",
        re.compile(
            r"(?<!\w)(?:Drs?\.?|DRS?\.|M(?:rs?|s)\.?|M(?:RS?|S)\.|Miss|Prof(?:essor)?\.?|PROF\."
            rf"|Doctors?|Nurse)[ \t]+(?P<id>{_NAMES}(?:[ \t]+and[ \t]+{_NAMES})?)"
        ),
    ),
    _Rule("name", re.compile(rf"(?<!\w)(?P<id>{_NAMES}),?[ \t]+M\.?D\b\.?")),
)


def scrub(text: str) -> tuple[str, dict[str, int]]:
    """The text with BLANK for what was taken out, and how often by kind.

    Kinds: date (with a day or a month; a year alone stays), name (after a title, or before M.D.),
    phone, number (of seven digits or more, or behind words such as MRN and accession). Words that
    say what it was stay ("Dr. ___", "MRN: ___"). Measurements, levels (T12, L4-5), scores (3/6)
    and times stay. Done twice it gives the same.
    """
    counts: dict[str, int] = {}
    for rule in _RULES:

        def blank(match: re.Match[str], rule: _Rule = rule) -> str:
            if not rule.applies(match):
                return match[0]
            counts[rule.kind] = counts.get(rule.kind, 0) + 1
            start, end = match.span("id") if "id" in match.re.groupindex else match.span()
            if start < 0:
                start, end = match.span()
            return match[0][: start - match.start()] + BLANK + match[0][end - match.start() :]

        text = rule.pattern.sub(blank, text)
    return text, counts
