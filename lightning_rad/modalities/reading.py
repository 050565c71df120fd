"""From the bytes of a report to what a model reads: section, sentence, sides, tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_rad.modalities.report import (
    SECTIONS,
    parse_report,
    sentences,
    swap_sides,
    text_hash,
)
from lightning_rad.modalities.words import SHORTEST, Words

LARGEST: Final = 1 << 20
"""Bytes of a report from which on it is none."""

LONGEST: Final = 512
"""The largest limit of tokens."""


@dataclass(frozen=True)
class ReadingSettings:
    """How reports are read.

    tokenizer: a `tokenizer.json`, such as `lightning-rad reports tokenizer` makes. sections: those
    that are read, in this order (see `report.parse_report`). limit: the most tokens, start and end
    among them, 4 to 512. sentence: one sentence of the report, drawn anew each data epoch (ConVIRT)
    instead of all.
    """

    tokenizer: str
    sections: tuple[str, ...] = SECTIONS
    limit: int = 100
    sentence: bool = False

    def __post_init__(self) -> None:
        if not SHORTEST <= self.limit <= LONGEST:
            accepted = f"accepted are {SHORTEST} to {LONGEST}"
            raise ValueError(f"model.init_args.reports.limit {self.limit}: {accepted}")
        if not self.sections or not all(name.strip() for name in self.sections):
            raise ValueError(
                f"model.init_args.reports.sections {list(self.sections)}: "
                "accepted are names of sections, at least one"
            )


class ReadReport(NamedTuple):
    """A report as read. hash: of `text`, which is after the choice of sections and the swap."""

    text: str
    hash: int
    tokens: dict[str, npt.NDArray[np.int64]]


class Reading:
    """Reads reports for an objective, which hands it to the data; safe from many threads.

    words: the tokenisers by the names of the tokens that the objective wants. digests: name ->
    identity of its tokeniser.
    """

    def __init__(self, words: Mapping[str, Words], settings: ReadingSettings) -> None:
        self.words = dict(words)
        self.settings = settings
        self.digests = {name: each.digest for name, each in self.words.items()}

    def __call__(self, data: bytes, *, flipped: bool, draw: int) -> ReadReport:
        """Read one report.

        flipped: whether the study is mirrored, so that the words of side change places before
        anything is counted. draw: any integer from 0; chooses the sentence where one is read.
        Raises ValueError with the reason: above 1 MiB, not UTF-8, or nothing to read.
        """
        text = self.text(data)
        if self.settings.sentence:
            found = [one for one in sentences(text) if parse_report(one).text]
            text = found[int(draw) % len(found)] if found else text
        if flipped:
            text = swap_sides(text)
        tokens = {name: words.encode(text) for name, words in self.words.items()}
        return ReadReport(text, text_hash(text), tokens)

    def text(self, data: bytes) -> str:
        """What is to be read of a report, all of it and unflipped. Raises ValueError."""
        text = parse_report(decode_report(data), self.settings.sections).text
        if not text:
            raise ValueError("a report in which nothing is left to read")
        return text


def decode_report(data: bytes) -> str:
    """The text of a report's bytes. Raises ValueError: above 1 MiB, not UTF-8."""
    if len(data) > LARGEST:
        raise ValueError(f"a report of {len(data)} bytes, at most {LARGEST} are read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"a report that is not UTF-8: byte {error.start}") from None
