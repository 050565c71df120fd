"""A folder of a tiny text encoder, as transformers writes them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.nn.texts import small_json, small_words


def tiny_bert(folder: Path) -> str:
    """Two layers of 12 features without dropout, and a tokeniser of some 80 words."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=small_words().vocabulary,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(small_json())
    return str(folder)
