"""Free-text reports as data: sections, sentences, sides, and when two texts are one.

Nothing here knows a tokeniser or a file. Marks that de-identification left (`XXXX`, `___`,
`[**...**]`, `***`) are one word, `xxxx`: two reports that differ in them alone are one text, and a
text of nothing else is empty. Rules and names are of English reports.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lightning_rad.modalities.headers import Piece, canonical, pieces

LONGEST: Final = 100_000
"""Characters of a report that are read; the rest is ignored."""

MARK: Final = "xxxx"
"""The word that stands for whatever de-identification took out."""

_MARKS: Final = re.compile(
    r"(?<![^\W_])[xX]{3,}(?![^\W_])|_{2,}|\[\*\*[^\n\[]{0,200}?\*\*\]|\*{3,}",
)
_WORD: Final = re.compile(r"[^\W_]+")
_BLANK_LINES: Final = re.compile(r"\n\s*\n")
_SENTENCE_END: Final = re.compile(r"(?<![.!?])([.!?]++[\"')\]]*+)\s+")
_NUMERALS: Final = re.compile(r"^(?:\(?\d{1,2}[.)](?:\s+|$))+")
_ABBREVIATED: Final = re.compile(
    r"(?:drs?|mrs?|ms|prof|st|vs|e\.g|i\.e|cf|ca|approx|resp|incl|fig|[ap]\.m|a\.p|p\.a)\."
)


SECTIONS: Final = ("findings", "impression")
"""Those that are read unless others are asked for."""

NOTE_END: Final = "\x1e"
"""Between the notes of a study that are kept as one text: U+001E, which no report uses."""


@dataclass(frozen=True, slots=True)
class ParsedReport:
    """What a report says.

    sections: lower-case name -> body, of the headers met (findings, impression, comparison,
    indication, technique, ...); a body that occurs twice is there once.
    text: what is to be read, spaces collapsed, marks as `xxxx`; "" where nothing is left.
    how: the sections joined by "+" (such as "findings+impression"), "last paragraph", "whole" (one
    paragraph without a header) or "empty"; of several notes each that occurs, such as "whole, last
    paragraph".
    """

    sections: Mapping[str, str]
    text: str
    how: str


def parse_report(text: str, sections: Sequence[str] = SECTIONS) -> ParsedReport:
    """The chosen sections of a report, in the order of `sections`.

    Headers are met as `headers.pieces` says; CONCLUSION and OPINION are an impression. Where no
    chosen section says anything, the text is the last paragraph that is under no left-out header
    (comparison, history, indication, clinical ..., technique, exam, reason, procedure,
    notification): such a header covers everything up to the next one, but for this last resort
    only the first paragraph after it.

    Notes that NOTE_END keeps apart are read one by one, so that no rule for one drops another, and
    what they say is joined in their order, each text once.
    """
    wanted = list(dict.fromkeys(canonical(name) for name in sections))
    notes = text[:LONGEST].replace("\r\n", "\n").split(NOTE_END)
    read = [_parse_note(note, wanted) for note in notes]
    said = [note for note in read if note.text]
    if len(read) == 1 or not said:
        return read[0]
    bodies: dict[str, list[str]] = {}
    for name, body in ((name, body) for note in said for name, body in note.sections.items()):
        bodies.setdefault(name, []).append(body)
    return ParsedReport(
        {name: " ".join(distinct_texts(several)) for name, several in bodies.items()},
        " ".join(distinct_texts(note.text for note in said)),
        ", ".join(dict.fromkeys(note.how for note in said)),
    )


def _parse_note(text: str, wanted: Sequence[str]) -> ParsedReport:
    """As `parse_report`, of one note; names of sections are canonical."""
    cut = list(pieces(_one_mark(text), wanted))
    bodies: dict[str, list[str]] = {}
    for name, _, body in cut:
        if name:
            bodies.setdefault(name, []).append(_collapse(body))
    found = {name: " ".join(distinct_texts(filter(_says, b))) for name, b in bodies.items()}
    met = {name: body for name, body in found.items() if body}
    used = [name for name in wanted if name in met]
    if used:
        return ParsedReport(met, " ".join(distinct_texts(met[n] for n in used)), "+".join(used))
    paragraphs = distinct_texts(filter(_says, _paragraphs(cut)))
    if not paragraphs:
        return ParsedReport(met, "", "empty")
    how = "last paragraph" if bodies or len(paragraphs) > 1 else "whole"
    return ParsedReport(met, paragraphs[-1], how)


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the numerals of a list ("1.", "2)") before them.

    No sentence ends after an abbreviation ("Dr.", "e.g.") or inside a number ("3.5 cm").
    """
    found, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        last = text[max(start, end.end(1) - 20) : end.end(1)].rsplit(maxsplit=1)[-1]
        if not _ABBREVIATED.fullmatch(last.lower().lstrip("(")):
            found.append(text[start : end.end()])
            start = end.end()
    plain = (_NUMERALS.sub("", _collapse(sentence)) for sentence in (*found, text[start:]))
    return [sentence for sentence in plain if sentence]


_SIDES: Final = {"left": "right", "right": "left"}
_SWAPPED: Final = {
    case(one): case(other)
    for one, other in _SIDES.items()
    for case in (str.lower, str.title, str.upper)
}
_SIDE: Final = re.compile(
    rf"(?<![^\W_])({'|'.join(_SWAPPED)})(?=(?:wards?|most|WARDS?|MOST)?(?![^\W_]))"
)


def swap_sides(text: str) -> str:
    """The text of the mirrored body: whole words "left" and "right" change places.

    Case is kept ("Left", "LEFT"; other mixtures are left alone), as are words that merely contain
    one ("bright", "cleft"); "left-sided", "leftward" and "leftmost" follow their side. Done twice
    it gives the text back. Letters (L, R) and words such as "dextroscoliosis" are not touched.
    """
    return _SIDE.sub(lambda word: _SWAPPED[word[1]], text)


def text_hash(text: str) -> int:
    """A signed 64-bit number, never 0, equal for texts of equal normal form.

    The normal form: one mark for all of de-identification's, case folded, spaces collapsed.
    """
    digest = hashlib.blake2b(_normal(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


def distinct_texts(texts: Iterable[str]) -> list[str]:
    """The first text of each normal form (see `text_hash`), in order."""
    first: dict[str, str] = {}
    for text in texts:
        first.setdefault(_normal(text), text)
    return list(first.values())


def _normal(text: str) -> str:
    return _collapse(_one_mark(text)).casefold()


def _one_mark(text: str) -> str:
    """Marks as one word of their own: "___F" becomes "xxxx F"."""

    def word(mark: re.Match[str]) -> str:
        before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
        return " " * before.isalnum() + MARK + " " * after.isalnum()

    return _MARKS.sub(word, text)


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _says(text: str) -> bool:
    """Whether a text has any word beside marks, which `_one_mark` has made one."""
    return any(word[0] != MARK for word in _WORD.finditer(text))


def _paragraphs(pieces: Iterable[Piece]) -> Iterator[str]:
    """Every paragraph that stands under no left-out header, which covers the first after it."""
    for _, kind, body in pieces:
        parts = [part for part in _BLANK_LINES.split(body) if part.strip()]
        yield from map(_collapse, parts[1:] if kind == "left out" else parts)
