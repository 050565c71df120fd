"""What identifies somebody in a source, and what of it is too common a word to be looked for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

Words = tuple[str, ...]

WORD: Final = re.compile(r"\d+|[^\W\d_]+")
"""A stretch of digits, or one of letters: in "p10000032_view1" there are four."""

APART: Final = " \u16a0 "
"""Between texts that are not one: its word, a rune, keeps words on both sides from following."""

PATHS: Final = ("file", "folder", "study")
"""Kinds whose values may be the same for many patients, such as "study1" or "frontal"."""

SPELLED: Final = 6
"""Values with fewer letters and digits are met as they are spelled, not word by word."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """A value that says who somebody is, or where to look it up.

    where: the row or file it is of, without a name. kind: patient, study, file, folder, a column or
    a DICOM keyword. owner: the patient whose it is, as the source spells them, to tell whether
    several share the value.
    """

    where: str
    kind: str
    value: str = field(repr=False)
    owner: str = field(repr=False)


def folded(text: str) -> str:
    """One spelling for the case and the code points of a text."""
    return unicodedata.normalize("NFC", text).casefold()


def words_of(text: str) -> Words:
    """The words of a text, folded: what stands between them does not count."""
    return tuple(WORD.findall(folded(text)))


def commonness(words: Words, kind: str, *, shared: bool, vocabulary: Collection[str]) -> str | None:
    """Why a value says nothing where it is met, or None for one to look for.

    shared: several patients have it. vocabulary: words that the shards use themselves.
    """
    letters = "".join(words)
    digits = sum(len(word) for word in words if word.isdigit())
    if len(letters) < 4:
        return "fewer than 4 letters and digits"
    if digits == len(letters) < SPELLED:
        return f"a number of fewer than {SPELLED} digits"
    if all(word in vocabulary for word in words):
        return "a word of the set itself"
    if shared and kind in PATHS and digits < SPELLED:
        return "of several patients"
    return None


def in_path(path: str) -> dict[str, str]:
    """What may be looked for of a path: name or folder -> its kind, and the path for short names.

    A suffix of letters, such as .jpg, does not belong to the name; a part of a UID does.
    """
    *folders, name = [part for part in path.replace("\\", "/").split("/") if part not in (".", "")]
    stem = re.sub(r"(\.[A-Za-z][A-Za-z0-9]{1,4}){1,2}$", "", name) or name
    found = dict.fromkeys(folders, "folder") | {stem: "file"}
    if folders and len("".join(words_of(stem))) < SPELLED:
        found["/".join([*folders, stem])] = "file"
    return found
