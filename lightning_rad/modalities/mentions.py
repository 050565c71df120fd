"""Which findings a text says are there: rules in the manner of NegEx (Chapman et al., 2001).

For vocabularies that are named in full, such as that of the synthetic reports, to measure what a
model wrote. Not a labeller of real reports: uncertainty ("possible") counts as named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from lightning_rad.modalities.report import sentences

SYNTHETIC_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "atelectasis": ("atelecta",),
    "cardiomegaly": ("cardiomegaly", "enlarged", "enlargement"),
    "consolidation": ("consolidation",),
    "edema": ("edema",),
    "effusion": ("effusion", "pleural fluid"),
    "nodule": ("nodule",),
    "pneumothorax": ("pneumothora",),
}
"""The words of each finding in the reports of `shards synthesize`."""

# what would read as a denial and is none: the finding is there, and is as it was or has not gone
_NO_DENIAL: Final = re.compile(
    r"\b(?:no|without|not)"
    r"(?: (?:significant|significantly|interval|substantial|completely|fully|yet|been))*"
    r"(?: (?:change|changed|increase|increased|decrease|decreased|resolved|cleared"
    r"|improvement|excluded))\b(?: (?:in|of))?"
)
_BEFORE: Final = re.compile(
    r"\b(?:no(?! longer\b)|not|without|free of|never|neither|nor|denies|(?:absence|clear) of"
    r"|negative for|rather than|resolution of)\b"
    r"|(?<!has )(?<!have )(?<!is )(?<!are )(?<!been )\bresolved\b|\bnormal $"
)
_AFTER: Final = re.compile(
    r"\bno longer\b|\b(?:has|have) (?:now |since |completely )*(?:resolved|cleared|disappeared)\b"
    r"|\b(?:is|are|was|were|has been|have been|now) (?:now )?(?:resolved|absent|normal|gone"
    r"|excluded|ruled out)\b"
    r"|\bnot (?:seen|present|identified|visible|evident|demonstrated|appreciated|noted)\b"
)
_CLAUSE: Final = re.compile(
    r"[;:]|\b(?:but|however|although|though|yet|except|while|whereas)\b"
    r"|(?:,|,? and) (?=(?:there|the|a|an|small|mild|moderate|large|severe|stable|unchanged|new)\b)"
)


def mentioned(text: str, words: Mapping[str, Sequence[str]]) -> dict[str, bool]:
    """Finding -> whether some sentence names it without denying it.

    words: finding -> the beginnings of words or phrases that name it ("atelecta" is met in
    "atelectasis" and "atelectatic"). A denial ("no", "without", "free of", "has resolved", "is no
    longer present", "is normal") holds within its clause; "no change in" and "not resolved" deny
    nothing. Case is ignored.
    """
    patterns = {
        finding: re.compile("|".join(rf"\b{re.escape(word.lower())}" for word in named))
        for finding, named in words.items()
    }
    clauses = [clause for sentence in sentences(text.lower()) for clause in _clauses(sentence)]
    return {
        finding: any(
            _affirmed(clause, found) for clause in clauses for found in pattern.finditer(clause)
        )
        for finding, pattern in patterns.items()
    }


def _clauses(sentence: str) -> list[str]:
    return _CLAUSE.split(_NO_DENIAL.sub("with", sentence))


def _affirmed(clause: str, found: re.Match[str]) -> bool:
    before, after = clause[: found.start()], clause[found.end() :]
    return not _BEFORE.search(before) and not _AFTER.search(after)
