"""Finding any of a million identifiers in texts, in time that grows with the texts alone."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from lightning_rad.sharding.privacy.identifier import (
    APART,
    SPELLED,
    WORD,
    Identifier,
    Words,
    commonness,
    folded,
    words_of,
)

_HASH: Final = re.compile(r"(?<![^\W_])(?:[0-9a-f]{64}|[0-9a-f]{32}|[0-9a-f]{16})(?![^\W_])")
"""What the format itself writes at random: keys, digests, fingerprints."""


@dataclass(frozen=True, slots=True)
class Needle:
    """An identifier that is looked for. spelling: that of a short value, "" for any spelling."""

    where: str
    kind: str
    spelling: str


@dataclass(slots=True)
class _Value:
    where: str
    kind: str
    spelling: str
    owner: str | None


class Needles:
    """Identifiers by the rarest of their words.

    common: why a value is not looked for -> how many. Values are met where their words follow one
    another, whatever stands between ("1.2.840" in "1_2_840", "Doe^Jane" in "doe, jane"), digits
    not next to digits nor letters next to letters; those of fewer than SPELLED letters and digits
    as they are spelled. A hash of 16, 32 or 64 digits is compared as a whole.
    """

    def __init__(self, identifiers: Iterable[Identifier], vocabulary: Collection[str] = ()) -> None:
        values = _distinct(identifiers)
        self.common = Counter[str]()
        self.needles: list[Needle] = []
        self._words: list[Words] = []
        known = {word for text in vocabulary for word in words_of(text)}
        for words, value in values.items():
            reason = commonness(words, value.kind, shared=value.owner is None, vocabulary=known)
            if reason is not None:
                self.common[reason] += 1
                continue
            short = sum(map(len, words)) < SPELLED
            self.needles.append(Needle(value.where, value.kind, value.spelling if short else ""))
            self._words.append(words)
        often = Counter(word for words in self._words for word in words)
        self._by_word: dict[str, array[int]] = defaultdict(lambda: array("I"))
        self._hashes: dict[str, int] = {}
        for number, words in enumerate(self._words):
            rarest = min(words, key=lambda word: (often[word], -len(word)))
            self._by_word[rarest].append(number)
            if _HASH.fullmatch("".join(words)):
                self._hashes["".join(words)] = number

    def __len__(self) -> int:
        return len(self.needles)

    def find(self, text: str, *, least: int = 0) -> Iterator[int]:
        """The numbers of the needles in a text, a needle as often as it is there.

        least: needles of fewer letters and digits are passed over.
        """
        text = folded(text)
        yield from (self._hashes[h] for h in _HASH.findall(text) if h in self._hashes)
        text = _HASH.sub(APART, text)
        words = WORD.findall(text)
        if self._by_word.keys().isdisjoint(words):
            return
        for place, word in enumerate(words):
            for number in self._by_word.get(word, ()) if word in self._by_word else ():
                needle = self._words[number]
                if sum(map(len, needle)) >= least and self._stands(number, words, place, text):
                    yield number

    def _stands(self, number: int, words: list[str], place: int, text: str) -> bool:
        """Whether a needle is there, one of its words being at this place."""
        needle, spelling = self._words[number], self.needles[number].spelling
        start = place - needle.index(words[place])
        if start < 0 or tuple(words[start : start + len(needle)]) != needle:
            return False
        exact = rf"(?<![^\W_]){re.escape(spelling)}(?![^\W_])"
        return not spelling or re.search(exact, text) is not None


def _distinct(identifiers: Iterable[Identifier]) -> dict[Words, _Value]:
    """Each value once, by its words; of no owner where several have it."""
    found: dict[Words, _Value] = {}
    for one in identifiers:
        words = words_of(one.value)
        seen = found.get(words)
        if seen is None:
            found[words] = _Value(one.where, one.kind, folded(one.value).strip(), one.owner)
        elif seen.owner != one.owner:
            seen.owner = None
    found.pop((), None)
    return found
