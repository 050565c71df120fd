"""`lightning-rad reports tokenizer|count`: what the reports of shards are, never what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table

from lightning_rad.data.corpus import report_texts
from lightning_rad.manifest import load_manifest, write_atomically
from lightning_rad.modalities.reading import ReadingSettings, decode_report
from lightning_rad.modalities.report import SECTIONS, parse_report, text_hash
from lightning_rad.modalities.words import Words, train_words

ALL: Final = 1 << 30
LIMIT: Final = ReadingSettings.limit
"""A limit that cuts no report."""


@dataclass
class Corpus:
    """What the studies of a split say. how: the way each was read, or why it was not -> studies."""

    how: Counter[str] = field(default_factory=Counter)
    texts: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, shards: Sequence[Path], split: str, sections: Sequence[str]) -> Corpus:
        """Read every report of a split."""
        corpus = cls()
        for _, data in report_texts(shards, split=split):
            how, text = _read(data, sections)
            corpus.how[how] += 1
            corpus.texts += [text] if text else []
        return corpus


def tokenizer(
    shards: list[Path],
    *,
    out: Path,
    vocabulary: int = 10_000,
    least: int = 2,
    sections: tuple[str, ...] = SECTIONS,
    overwrite: bool = False,
) -> None:
    """Train a tokeniser on the reports of the train split.

    Prints how many tokens it got and which share of the tokens of held-out reports it does not
    know. The same shards and settings give the same file, byte for byte.

    Args:
        shards: Shard folders whose reports it learns from.
        out: The file to write, a tokenizer.json.
        vocabulary: The most tokens; few reports give fewer.
        least: How often a pair of tokens must occur to become one.
        sections: The sections that are read.
        overwrite: Whether a file that is there may be replaced.
    """
    if out.exists() and not overwrite:
        raise ValueError(f"{out}: is already there; --overwrite true replaces it")
    corpus = Corpus.of(shards, "train", sections)
    if not corpus.texts:
        raise ValueError(
            f"{', '.join(map(str, shards))}: no study of the train split has a report to learn from"
        )
    json = train_words(corpus.texts, vocabulary=vocabulary, least=least)
    words = Words(json, limit=ALL, keep_end=False, where=str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, json.encode())
    got = f"{words.vocabulary} tokens of {vocabulary} asked for"
    print(f"{out}: {got}, from {len(corpus.texts)} reports, digest {words.digest}")  # noqa: T201
    held_out = [path for path in shards if _has_val(path)]
    unseen = Corpus.of(held_out, "val", sections).texts
    where = "val" if unseen else "train"
    print(f"unknown: {_unknown(words, unseen or corpus.texts)} of the {where} split")  # noqa: T201


def count(
    shards: list[Path],
    *,
    split: str = "train",
    sections: tuple[str, ...] = SECTIONS,
    tokenizer: Path | None = None,
) -> None:
    """Count how the reports of a split are read, how many are distinct and how long they are.

    Args:
        shards: Shard folders.
        split: train, val or test.
        sections: The sections that are read.
        tokenizer: A tokenizer.json, to count tokens (start and end included) beside words.
    """
    counter = None
    if tokenizer is not None:
        counter = Words.read(str(tokenizer), limit=ALL, keep_end=False)
    corpus = Corpus.of(shards, split, sections)
    studies = sum(corpus.how.values())
    table = Table(title=f"reports of the {split} split", title_justify="left")
    table.add_column("how")
    table.add_column("studies", justify="right")
    table.add_column("share", justify="right")
    for how, number in corpus.how.most_common():
        table.add_row(how, str(number), f"{number / studies:.2%}")
    screen = Console()
    screen.print(table)
    shared = Counter(text_hash(text) for text in corpus.texts)
    screen.print(
        f"{len(shared)} distinct texts; {sum(n for n in shared.values() if n > 1)} studies share "
        f"theirs with another, at most {max(shared.values(), default=0)} the same",
        highlight=False,
    )
    screen.print(_lengths("words", [len(text.split()) for text in corpus.texts]), highlight=False)
    if counter is not None:
        tokens = [len(counter.encode(text)) for text in corpus.texts]
        cut = sum(number > LIMIT for number in tokens)
        longer = f"; {cut} have more than {LIMIT}, the default limit"
        screen.print(_lengths("tokens", tokens) + longer, highlight=False)


REPORTS: Final[dict[str, Callable[..., None]]] = {"tokenizer": tokenizer, "count": count}


def reports(arguments: list[str]) -> None:
    """`lightning-rad reports COMMAND SHARDS...`: options are the parameters of the functions."""
    about = "Count the reports of shards and train a tokeniser on them."
    parser = ArgumentParser(prog="lightning-rad reports", description=about)
    commands = parser.add_subcommands()
    for name, function in REPORTS.items():
        about = (function.__doc__ or "").split("\n\n")[0]
        command = ArgumentParser(description=about)
        command.add_argument("shards", nargs="+", type=Path, help="shard folders")
        command.add_function_arguments(function, skip={"shards"})
        commands.add_subcommand(name, command, help=about)
    chosen = parser.instantiate(parser.parse_args(arguments))
    options: dict[str, Any] = dict(chosen[chosen.subcommand])
    REPORTS[chosen.subcommand](**options)


def _read(data: bytes, sections: Sequence[str]) -> tuple[str, str]:
    """(how it was read or why it was not, its text)."""
    if not data:
        return "no report", ""
    try:
        parsed = parse_report(decode_report(data), sections)
    except ValueError as error:
        return ("not UTF-8" if "UTF-8" in str(error) else "above 1 MiB"), ""
    return parsed.how, parsed.text


def _has_val(path: Path) -> bool:
    return any(shard.split == "val" for shard in load_manifest(path).shards)


def _unknown(words: Words, texts: Sequence[str]) -> str:
    """The share of unknown tokens, between start and end."""
    inner: Iterator[Any] = (words.encode(text)[1:-1] for text in texts)
    counts = [(len(ids), int((ids == words.unknown).sum())) for ids in inner]
    total, unknown = (sum(each) for each in zip(*counts, strict=True))
    return f"{unknown} of {total} tokens ({unknown / max(total, 1):.3%}) in {len(texts)} reports"


def _lengths(what: str, lengths: Sequence[int]) -> str:
    if not lengths:
        return f"{what} a report: none is read"
    middle, most, nearly = np.quantile(lengths, [0.5, 0.9, 0.99])
    return (
        f"{what} a report: median {middle:.0f}, 90 % {most:.0f}, 99 % {nearly:.0f}, "
        f"largest {max(lengths)}"
    )
