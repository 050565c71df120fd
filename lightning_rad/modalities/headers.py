"""Where the sections of a report begin: headers, their spellings, and what lies between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

_READ: Final = r"findings?(?: *(?:/|&|and) *impressions?)?|impressions?|conclusions?|opinions?"
_OTHER: Final = r"recommendations?(?:\(s\))?|addendum|wet read|final report"
_BEFORE: Final = r"(?:(?:past|medical|patient|surgical|relevant|brief|date of|type of|study) ){0,3}"
_LEFT_OUT: Final = (
    r"comparisons?|clinical|history|indications?|techniques?|exam(?:ination)?s?|reason"
    r"|procedures?|notifications?"
)
_CANONICAL: Final = {
    "finding": "findings",
    "conclusion": "impression",
    "opinion": "impression",
    "clinical": "indication",
    "reason": "indication",
    "examination": "exam",
}

Kind = Literal["read", "left out", "unnamed"]


class Piece(NamedTuple):
    """A stretch of a report: the section it is of ("" for none), whether it may be read, its text.

    "left out" is what comparison, history, indication, technique and their like say.
    """

    name: str
    kind: Kind
    body: str


def canonical(name: str) -> str:
    """One name for the spellings of a header."""
    name = " ".join(name.lower().replace("(s)", "").split())
    if name.startswith("finding") and "impression" in name:
        return "impression"
    singular = name.removesuffix("s")
    return _CANONICAL.get(singular, "findings" if singular == "finding" else singular)


def pieces(text: str, wanted: Sequence[str]) -> Iterator[Piece]:
    """The text cut at its headers: known names and those of `wanted`, which are canonical.

    A header is a name with a colon at the start of a line (any case), anywhere in capitals, or
    after the end of a sentence where it begins with a capital; in capitals alone on a line it
    needs no colon. Other words in capitals at the start of a line end what is left out.
    """
    name, start = "", 0
    kind: Kind = "unnamed"
    for found in _met(text, wanted):
        if found["caps"] is not None:
            if kind != "left out":
                continue
            following: tuple[str, Kind, int] = ("", "unnamed", found.start())
        else:
            title = canonical(found["read"] or found["left"])
            out = found["left"] is not None and title not in wanted
            following = (title, "left out" if out else "read", found.end())
        yield Piece(name, kind, text[start : found.start()])
        name, kind, start = following
    yield Piece(name, kind, text[start:])


def _headers(wanted: Sequence[str]) -> re.Pattern[str]:
    chosen = "|".join([_READ, _OTHER, *(rf"{re.escape(name)}s?" for name in wanted)])
    return re.compile(
        rf"(?:(?P<line>^[ \t]*)|(?<![^\W_]))(?P<begin>)"
        rf"(?:(?P<read>{chosen})|{_BEFORE}(?P<left>{_LEFT_OUT})(?:\(s\))?"
        r"(?![a-z])(?P<tail>[a-z ,/&()-]{0,40}?))"
        r"[ \t]*(?P<end>:|$)"
        r"|^[ \t]*(?P<caps>(?-i:[A-Z][A-Z ,/&()-]{2,40}?))[ \t]*:",
        re.IGNORECASE | re.MULTILINE,
    )


def _opens_a_section(found: re.Match[str], text: str) -> bool:
    """Whether a name that was met is a header, by where it stands and how it is written."""
    if found["caps"] is not None:
        return True
    words, tail = found[0].strip(" \t:"), (found["tail"] or "").strip(" ()")
    at_start = found["line"] is not None
    if re.search(rf"\b(?:{_READ})$", tail, re.IGNORECASE):
        return False  # "history of cough FINDINGS:" is a header that begins later
    if found["end"] != ":":
        return at_start and words.isupper() and " " not in tail
    if at_start or words.isupper():
        return True
    before = text[max(found.start() - 80, 0) : found.start()].rstrip()
    return words[0].isupper() and not tail and before.endswith((".", "!", "?"))


def _met(text: str, wanted: Sequence[str]) -> Iterator[re.Match[str]]:
    """The headers of a text; where a name is none, one may begin inside what was taken for it."""
    headers, at = _headers(wanted), 0
    while found := headers.search(text, at):
        opens = _opens_a_section(found, text)
        if opens:
            yield found
        at = found.end() if opens else found.start("begin") + 1
