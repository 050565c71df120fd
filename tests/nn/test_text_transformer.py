"""The small text transformer: padding is nothing, order is something, everything learns."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.nn.blocks import repeated_blocks
from lightning_rad.nn.text_transformer import TextTransformer
from tests.nn.texts import SENTENCES, padded, small_words

SMALL = {"width": 32, "layers": 2, "heads": 4}


def encoder(**changes: Any) -> TextTransformer:
    torch.manual_seed(0)
    return TextTransformer(small_words(), **(SMALL | {"dropout": 0.0} | changes))


def features(net: TextTransformer, tokens: Tensor, *, learning: bool) -> Tensor:
    """With and without gradient torch may take different ways."""
    with torch.set_grad_enabled(learning):
        return net.train(learning)(tokens)


@pytest.mark.parametrize("learning", [True, False])
def test_padding_changes_nothing(learning: bool) -> None:
    net = encoder().double()
    tokens = padded(small_words(), SENTENCES[:4])
    together = features(net, tokens, learning=learning)
    wide = features(net, padded(small_words(), SENTENCES[:4], width=24), learning=learning)
    torch.testing.assert_close(together, wide, rtol=0, atol=1e-12)
    for row, text in zip(together, SENTENCES, strict=False):
        alone = features(net, padded(small_words(), (text,)), learning=learning)
        torch.testing.assert_close(alone[0], row, rtol=0, atol=1e-12)
    assert together.shape == (4, net.out_features) == (4, 32)


def test_the_order_of_words_is_seen() -> None:
    net = encoder().double()
    tokens = padded(small_words(), SENTENCES[3:4])
    turned = tokens.clone()
    turned[0, 2:5] = tokens[0, [4, 2, 3]]
    assert (net(tokens) - net(turned)).abs().max() > 1e-4


def test_each_token_counts_and_unknown_ones_too() -> None:
    net = encoder().double()
    tokens = padded(small_words(), SENTENCES[3:4])
    for place in range(tokens.shape[1]):
        other = tokens.clone()
        other[0, place] = 0 if tokens[0, place] else 5
        assert (net(other) - net(tokens)).abs().max() > 1e-5


def test_every_parameter_gets_a_gradient_in_bfloat16_too() -> None:
    net = encoder(dropout=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = net(padded(small_words())).square().sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_words_are_dropped_while_it_trains_and_only_then() -> None:
    """Before the first layer, too."""
    net, tokens = encoder(), padded(small_words())
    net.dropout.p = 0.5
    assert not torch.equal(net(tokens), net(tokens))
    net.eval()
    assert torch.equal(net(tokens), net(tokens))
    rates = {m.p for m in encoder(dropout=0.3).modules() if isinstance(m, nn.Dropout)}
    assert rates == {0.3}


def test_its_blocks_are_its_layers() -> None:
    net = encoder()
    assert net.blocks() == list(net.layers)
    assert net.blocks() == repeated_blocks(net.layers)


def test_it_survives_pickling() -> None:
    net = encoder().eval()
    again = pickle.loads(pickle.dumps(net))
    tokens = padded(small_words())
    assert torch.equal(again(tokens), net(tokens))
    assert again.words.encode("heart").tolist() == net.words.encode("heart").tolist()


def test_impossible_sizes_and_too_many_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match=r"text\.heads: 3 do not divide the width 32"):
        encoder(heads=3)
    with pytest.raises(ValueError, match=r"text\.layers: 0 is not at least 1"):
        encoder(layers=0)
    with pytest.raises(ValueError, match="text: 25 tokens, and its limit is 24"):
        encoder()(torch.zeros(1, 25, dtype=torch.long))
