"""Words to numbers and back: the only importer of `tokenizers`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from json import dumps, loads
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# the threads are the stream's own; read by the library's first use, which would warn at a fork
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

UNKNOWN, START, END = "[UNK]", "[SOS]", "[EOS]"

PAIRS: Final = ((START, END), ("[CLS]", "[SEP]"), ("<s>", "</s>"))
"""What may begin and end a text: the first pair that a vocabulary has."""

SHORTEST: Final = 4
"""Least limit of tokens, the start and the end among them."""

_LIKELY: Final = 32
"""Characters a token of the limit that are read first: of a long text all, with rare exceptions."""


class Words:
    """A tokeniser with a limit. Safe to use from many threads; pickled by its JSON.

    Args:
        json: The contents of a `tokenizer.json`. Its own truncation, padding and template are
            ignored: a text is start, tokens, end.
        limit: The most tokens of a text, start and end among them, at least 4.
        keep_end: Whether a text that was cut to the limit still has its end.
        where: What messages call the tokeniser.

    vocabulary: one more than the largest id. digest: identity of the JSON, whatever its layout.
    start, end, unknown: ids (`unknown` is None where the vocabulary has no such token).
    """

    def __init__(self, json: str, *, limit: int, keep_end: bool, where: str = "tokenizer") -> None:
        if limit < SHORTEST:
            raise ValueError(
                f"{where}: a limit of {limit} tokens; accepted are {SHORTEST} and more"
            )
        self.limit, self.keep_end = limit, keep_end
        self._given = json, limit, keep_end, where
        try:
            body = loads(json)
            self._tokenizer = Tokenizer.from_str(json)
        except Exception as error:  # the library raises this very class
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{where}: not a tokenizer.json: {reason}") from None
        for setting in ("truncation", "padding"):
            body.pop(setting, None)
        self.digest = hashlib.sha256(dumps(body, sort_keys=True).encode()).hexdigest()[:16]
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # "[EOS]" in a report is text, not an end
        ids = self._tokenizer.get_vocab()
        self.vocabulary = max(ids.values(), default=-1) + 1
        self.start, self.end = _start_and_end(ids, where)
        self.unknown = ids.get(getattr(self._tokenizer.model, "unk_token", None) or "")

    @classmethod
    def read(cls, file: str, *, limit: int, keep_end: bool) -> Words:
        """The tokeniser of a file. Raises ValueError where it is missing or is none."""
        try:
            json = Path(file).read_text(encoding="utf-8")
        except FileNotFoundError:
            made = "`lightning-rad reports tokenizer` makes one"
            raise ValueError(f"{file}: no such tokenizer; {made}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not a tokenizer.json: {error}") from None
        return cls(json, limit=limit, keep_end=keep_end, where=str(file))

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """[T] ids, T <= limit: start, tokens, end; a text that was cut may lack its end."""
        head = text[: _LIKELY * self.limit].rpartition(" ")[0]
        inner = self._inner(head) if len(text) > _LIKELY * self.limit else []
        # far behind the limit: what follows the head changes no token before it
        if len(inner) < 2 * self.limit:
            inner = self._inner(text)
        ids = [self.start, *inner, self.end][: self.limit]
        if self.keep_end:
            ids[-1] = self.end
        return np.asarray(ids, np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids up to the first end or negative id; special ids are left out."""
        told: list[int] = []
        for token in map(int, ids):
            if token == self.end or token < 0:
                break
            if token != self.start:
                told.append(token)
        text: str = self._tokenizer.decode(told, skip_special_tokens=True)
        return text

    def _inner(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, self._given


def train_words(texts: Iterable[str], *, vocabulary: int = 10_000, least: int = 2) -> str:
    """The JSON of a byte-pair tokeniser of these texts; equal texts give equal bytes.

    Lower case, no accents (NFKD), spaces kept as in SentencePiece (Metaspace), punctuation apart,
    ids 0 [UNK], 1 [SOS], 2 [EOS]. A pair is merged where it occurs `least` times, so few texts
    give fewer than `vocabulary` tokens; every character seen is one, which may give more.
    """
    if vocabulary < SHORTEST or least < 1:
        raise ValueError(
            f"vocabulary {vocabulary}, least {least}: accepted are {SHORTEST} and 1, or more"
        )
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=least,
        special_tokens=[UNKNOWN, START, END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    json: str = tokenizer.to_str()
    return json


def _again(json: str, limit: int, keep_end: bool, where: str) -> Words:
    return Words(json, limit=limit, keep_end=keep_end, where=where)


def _start_and_end(ids: dict[str, int], where: str) -> tuple[int, int]:
    for start, end in PAIRS:
        if start in ids and end in ids:
            return ids[start], ids[end]
    pairs = ", ".join(" ".join(pair) for pair in PAIRS)
    raise ValueError(
        f"{where}: no token that begins and one that ends a text; accepted are {pairs}"
    )
