"""Tokenisers and batches of tokens for tests, of a few sentences."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_rad.modalities.words import Words, train_words

SENTENCES = (
    "The heart is enlarged.",
    "No pleural effusion is seen.",
    "There is a small effusion on the left.",
    "A nodule lies in the right upper lobe, with a smaller one below.",
    "Clear lungs.",
    "Left lower lobe pneumonia.",
    "The heart is not enlarged, and the lungs are clear on both sides.",
    "Right sided pneumothorax.",
)


def small_json() -> str:
    """A tokenizer.json of some 80 tokens, trained on the sentences."""
    return train_words(SENTENCES, vocabulary=80)


def small_words(limit: int = 24, *, keep_end: bool = True) -> Words:
    """The tokeniser of that file."""
    return Words(small_json(), limit=limit, keep_end=keep_end)


def padded(words: Words, texts: tuple[str, ...] = SENTENCES, width: int | None = None) -> Tensor:
    """[B, T] tokens of texts, -1 behind their ends; T is the longest, or what is asked for."""
    rows = [words.encode(text) for text in texts]
    width = width or max(map(len, rows))
    full = [np.pad(row, (0, width - len(row)), constant_values=-1) for row in rows]
    return torch.from_numpy(np.stack(full))
