"""The report decoder: equal to the official head, causal, blind to padding, able to learn."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.losses.captioning import captioning, counted
from lightning_rad.nn.report_decoder import ReportDecoder
from tests.nn.texts import SENTENCES, padded, small_words

SMALL = {"width": 32, "heads": 4, "feedforward": 48, "dropout": 0.0}


def decoder(memory_features: int = 6, seed: int = 0, **changes: Any) -> ReportDecoder:
    torch.manual_seed(seed)
    return ReportDecoder(memory_features, small_words(), **(SMALL | changes))


def memory(reports: int, places: int = 5, features: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(reports, places, features, generator=generator)


def lively(net: ReportDecoder) -> ReportDecoder:
    """The same with weights so large that tokens differ, in float64."""
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(20 if p.ndim > 1 else 1)
    return net.double()


def by_hand(net: ReportDecoder, seen: Tensor, tokens: Tensor) -> Tensor:
    """The official head, one report and one token after the other, from the weights alone."""
    w = dict(net.named_parameters())
    width, heads = SMALL["width"], SMALL["heads"]

    def norm(x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        x = x - x.mean()
        return x / torch.sqrt((x * x).mean() + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def attend(query: Tensor, rows: list[Tensor], name: str) -> Tensor:
        q_w, k_w, v_w = w[f"{name}.in_proj_weight"].split(int(width))
        q_b, k_b, v_b = w[f"{name}.in_proj_bias"].split(int(width))
        each = int(width // heads)
        found = []
        for h in range(int(heads)):
            part = slice(h * each, (h + 1) * each)
            q = (q_w @ query + q_b)[part]
            keys = [(k_w @ row + k_b)[part] for row in rows]
            values = [(v_w @ row + v_b)[part] for row in rows]
            scores = torch.stack([(q * key).sum() / math.sqrt(each) for key in keys])
            shares = torch.exp(scores) / torch.exp(scores).sum()
            found.append(sum(share * v for share, v in zip(shares, values, strict=True)))
        return w[f"{name}.out_proj.weight"] @ torch.cat(found) + w[f"{name}.out_proj.bias"]  # type: ignore[arg-type]

    out = torch.full((*tokens.shape, net.vocabulary), float("nan"), dtype=torch.float64)
    for b, row in enumerate(tokens.tolist()):
        length = sum(t >= 0 for t in row)
        places = [w["projection.weight"] @ m + w["projection.bias"] for m in seen[b]]
        states = [
            norm(w["words.weight"][row[t]] + w["positions.weight"][t], "norm", 1e-8)
            for t in range(length)
        ]
        for n in range(len(net.layers.layers)):
            at = f"layers.layers.{n}"
            after = []
            for t in range(length):
                x = states[t] + attend(states[t], states[: t + 1], f"{at}.self_attn")
                x = norm(x, f"{at}.norm1")
                x = norm(x + attend(x, places, f"{at}.multihead_attn"), f"{at}.norm2")
                y = w[f"{at}.linear1.weight"] @ x + w[f"{at}.linear1.bias"]
                y = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
                y = w[f"{at}.linear2.weight"] @ y + w[f"{at}.linear2.bias"]
                after.append(norm(x + y, f"{at}.norm3"))
            states = after
        for t in range(length):
            out[b, t] = w["words.weight"] @ states[t] + w["bias"]
    return out


@pytest.mark.parametrize("layers", [1, 2])
def test_it_equals_the_official_head(layers: int) -> None:
    net = lively(decoder(layers=layers))
    tokens, seen = padded(small_words(), SENTENCES[:3]), memory(3).double()
    mine, want = net(seen, tokens), by_hand(net, seen, tokens)
    real = tokens >= 0
    assert not real.all()
    torch.testing.assert_close(mine[real], want[real], rtol=1e-10, atol=1e-10)
    with torch.no_grad():  # and where torch may take another path
        torch.testing.assert_close(
            net.eval()(seen, tokens)[real], want[real], rtol=1e-10, atol=1e-10
        )


def test_a_token_changes_no_logit_before_its_own() -> None:
    net, tokens = lively(decoder()), padded(small_words(), SENTENCES[3:4])
    seen = memory(1).double()
    before = net(seen, tokens)
    for place in range(1, tokens.shape[1]):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 7) % net.vocabulary
        moved = (net(seen, other) - before).abs().amax(-1)[0]
        assert not moved[:place].any()
        assert moved[place] > 1e-6


def test_refers_f_more_padding_changes_no_logit_loss_or_gradient() -> None:
    torch.manual_seed(0)
    words = small_words(40)
    net = lively(ReportDecoder(6, words, **SMALL))  # type: ignore[arg-type]
    seen = memory(len(SENTENCES)).double()
    found = []
    for width in (None, words.limit):
        tokens = padded(words, width=width)
        net.zero_grad()
        logits = net(seen, tokens)
        captioning(logits, tokens).sum().backward()
        grads = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
        found.append((logits, grads))
    (narrow, a), (wide, b) = found
    assert wide.shape[1] > narrow.shape[1]
    real = padded(words) >= 0
    torch.testing.assert_close(narrow[real], wide[:, : real.shape[1]][real], rtol=0, atol=1e-12)
    assert a.keys() == b.keys() == dict(net.named_parameters()).keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=1e-9)


def test_every_place_of_the_memory_is_seen() -> None:
    net, tokens = lively(decoder()), padded(small_words(), SENTENCES[:1])
    seen = memory(1).double().requires_grad_()
    net(seen, tokens)[0, 0].square().sum().backward()
    assert seen.grad is not None
    assert (seen.grad[0].abs().sum(-1) > 1e-8).all()


def test_refers_a_a_memory_of_588_places_of_768_features_is_taken() -> None:
    net = decoder(768)
    tokens = padded(small_words(), SENTENCES[:2])
    assert net(torch.randn(2, 588, 768), tokens).shape == (*tokens.shape, net.vocabulary)


def test_the_defaults_are_those_of_the_published_config() -> None:
    with torch.device("meta"):
        net = ReportDecoder(768, small_words())
    [layer] = net.layers.layers
    assert isinstance(layer, nn.TransformerDecoderLayer)
    assert net.projection.weight.shape == (1024, 768)
    assert layer.self_attn.num_heads == 16
    assert layer.linear1.out_features == 4096
    assert not layer.norm_first
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout)} == {0.1}
    assert layer.self_attn.dropout == 0.1
    assert net.norm.eps == 1e-8
    assert net.positions.num_embeddings == net.limit == 24


def test_words_are_dropped_while_it_trains_and_only_then() -> None:
    """Before the first layer, too."""
    net, tokens, seen = decoder(), padded(small_words()), memory(len(SENTENCES))
    net.dropout.p = 0.5
    assert not torch.equal(net(seen, tokens), net(seen, tokens))
    net.eval()
    assert torch.equal(net(seen, tokens), net(seen, tokens))


def test_weights_start_as_a_normal_of_2_percent_and_biases_as_torchs() -> None:
    net = decoder(width=256, heads=4, feedforward=512)
    for name, p in net.named_parameters():
        if p.ndim == 2:
            assert p.std().item() == pytest.approx(0.02, rel=0.05), name
    assert 0.9 / 16 < net.bias.abs().max() <= 1 / 16


def test_what_is_written_is_the_argmax_token_by_token_and_nothing_behind_the_end() -> None:
    """In a fixed number of calls, whatever is written."""
    net, calls = lively(decoder(seed=3)).eval(), []
    net.register_forward_hook(lambda *a: calls.append(a[1][1].shape[1]))
    seen = memory(16).double()
    written = net.generate(seen, 20)
    assert calls == list(range(1, 20))
    assert written.shape == (16, 20)
    assert (written[:, 0] == net._start).all()
    ended = 0
    for row, place in zip(written.tolist(), seen, strict=True):
        told = row[: row.index(-1)] if -1 in row else row
        assert all(t == -1 for t in row[len(told) :])
        assert net._end not in told[:-1]
        ended += -1 in row
        assert -1 not in row or told[-1] == net._end
        for t in range(1, len(told)):
            alone = net(place.unsqueeze(0), torch.tensor([told[:t]]))[0, -1]
            assert int(alone.argmax()) == told[t]
    assert 0 < ended < 16  # some reports end early, and some do not


def test_generation_keeps_weights_and_needs_no_gradient() -> None:
    net = decoder()
    before = copy.deepcopy(net.state_dict())
    written = net.generate(memory(2).requires_grad_(), 5)
    assert written.dtype == torch.int64
    assert not written.requires_grad
    assert all(torch.equal(x, net.state_dict()[k]) for k, x in before.items())
    assert net.generate(memory(2), 1).tolist() == [[net._start]] * 2


def test_it_learns_to_write_eight_sentences_from_their_memories() -> None:
    words = small_words()
    tokens, seen = padded(words), memory(len(SENTENCES))
    net = decoder(seed=1, width=48)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = captioning(net(seen, tokens), tokens).sum() / counted(tokens).sum()
        loss.backward()
        optimizer.step()
    written = net.eval().generate(seen, words.limit)
    assert [words.decode(row) for row in written.tolist()] == [
        words.decode(words.encode(text).tolist()) for text in SENTENCES
    ]


def test_bfloat16_autocast_trains_every_parameter() -> None:
    net, tokens = decoder(), padded(small_words())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = net(memory(len(SENTENCES)), tokens)
    captioning(logits, tokens).mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 5}, "decoder.heads: 5 do not divide the width 32"),
        ({"layers": 0}, "decoder.layers: 0 is not at least 1"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decoder(**changes)


def test_more_tokens_than_the_limit_are_refused() -> None:
    with pytest.raises(ValueError, match="25 tokens, and its limit is 24"):
        decoder()(memory(1), torch.zeros(1, 25, dtype=torch.long))
    with pytest.raises(ValueError, match="25 steps are not 1 to 24"):
        decoder().generate(memory(1), 25)
