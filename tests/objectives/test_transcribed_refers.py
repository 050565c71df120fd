"""The transcription of REFERS, and its gradient descent, by cases that can be worked out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.objectives.transcribed.descent import Descent
from tests.objectives.transcribed.refers import RefersStep, decoder_logits, fused, refers_steps

ROWS, WIDTH, WORDS, LONGEST, HEADS = 4, 8, 7, 6, 2
DISTINCT = torch.tensor([1, 2, 3, 4])


class Scaled(nn.Module):
    """Pixels [B, 1, 1, D] times numbers to learn, and three patches that are not alike."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH, dtype=torch.float64))

    def forward(self, images: Tensor, tokens: bool = False) -> Any:
        feature_BD = images.flatten(1) * self.weight
        patches = torch.stack([feature_BD, 2 * feature_BD, -feature_BD], dim=1)
        return (feature_BD, patches) if tokens else feature_BD


class FirstWord(nn.Module):
    """The row of a table that the first token names; at first the unit vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.eye(ROWS, WIDTH, dtype=torch.float64))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.table[tokens_BT[:, 0]]


def unit_pixels(views: int) -> Tensor:
    """Image i of every view is the i-th unit vector."""
    return (
        torch.eye(ROWS, WIDTH, dtype=torch.float64)
        .view(1, ROWS, 1, 1, WIDTH)
        .repeat(views, *[1] * 4)
    )


def noise(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TEXTS = torch.arange(ROWS)[:, None]
CAPTIONS = torch.tensor(
    [[1, 3, 4, 2, -1, -1], [1, 5, 2, -1, -1, -1], [1, 6, 6, 3, 4, 2], [1, 2, -1, -1, -1, -1]]
)


def sourced() -> tuple[dict[str, Tensor], nn.TransformerDecoder]:
    """Random weights by the names of the source, and the class of torch that the source uses."""
    torch.manual_seed(5)
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 12, dropout=0.0, activation="gelu")
    decoder = nn.TransformerDecoder(layer, 2).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.3)
    shapes = {
        "text_projection": (3 * WIDTH, WIDTH),
        "fusion.fc1": (1, 3 * WIDTH),
        "fusion.fc2": (1, 3 * WIDTH),
        "fusion.fc3": (1, 3 * WIDTH),
        "decoder.visual_projection": (WIDTH, WIDTH),
        "decoder.embedding.layer_norm": (WIDTH,),
    }
    weights = {f"decoder.transformer.{n}": p.detach() for n, p in decoder.named_parameters()}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = noise(*shape, seed=len(weights))
        weights[f"{name}.bias"] = noise(shape[0], seed=len(weights))
    weights["decoder.embedding.words.weight"] = noise(WORDS, WIDTH, seed=98)
    weights["decoder.embedding.positions.weight"] = noise(LONGEST, WIDTH, seed=99)
    weights["decoder.output.bias"] = noise(WORDS, seed=97)
    return weights, decoder


def plain_texts() -> dict[str, Tensor]:
    """The decoder says nothing, and text i is the unit vector i of all three views."""
    weights = {name: torch.zeros_like(w) for name, w in sourced()[0].items()}
    weights["text_projection.weight"] = torch.eye(WIDTH, dtype=torch.float64).repeat(3, 1)
    return weights


def refers(weights: dict[str, Tensor], steps: int = 1, **changes: Any) -> list[RefersStep]:
    settings: dict[str, Any] = {"captions": [CAPTIONS] * steps, "texts": [TEXTS] * steps}
    settings |= {"hashes": [DISTINCT] * steps, "heads": HEADS, "temperature": 0.1, "lr": 0.1}
    batches = changes.pop("batches", [unit_pixels(3)] * steps)
    return refers_steps(Scaled(), FirstWord(), weights, batches, **(settings | changes))


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)


def told_apart(rivals: int, temperature: float = 0.1) -> float:
    """The loss of a pair at cosine 1 whose rivals all are at 0."""
    return math.log(1 + rivals * math.exp(-1 / temperature))


def test_a_gate_is_the_sigmoid_of_one_patch_of_all_views() -> None:
    """Bias log 3 opens a gate by three quarters; the heads are one a view."""
    views = [torch.full((2, WIDTH), float(v)).double() for v in (1, 2, 3)]
    weights = {f"fusion.fc{v}.weight": torch.zeros(1, 3 * WIDTH).double() for v in (1, 2, 3)}
    weights |= {f"fusion.fc{v}.bias": torch.zeros(1).double() for v in (1, 2, 3)}
    weights["fusion.fc2.bias"] += math.log(3)
    weights["fusion.fc3.weight"][0, 0] = math.log(4)  # of the first view, whose number is 1
    same(
        fused(views, weights)[:, 0],
        torch.tensor([0.5, 0.5, 1.5, 1.5, 2.4, 2.4], dtype=torch.float64),
    )


def test_the_decoder_is_the_class_of_torch_that_the_source_calls() -> None:
    weights, decoder = sourced()
    memory_MD, tokens = noise(9, WIDTH), [1, 4, 3, 3, 2]
    inside = {n.removeprefix("decoder."): w for n, w in weights.items()}
    words = inside["embedding.words.weight"]
    x = words[tokens] + inside["embedding.positions.weight"][: len(tokens)]
    scale, shift = (inside[f"embedding.layer_norm.{part}"] for part in ("weight", "bias"))
    x = nn.functional.layer_norm(x, (WIDTH,), scale, shift, 1e-8)
    projection = [inside[f"visual_projection.{part}"] for part in ("weight", "bias")]
    future = torch.full((len(tokens), len(tokens)), -math.inf).double().triu(1)
    memory = nn.functional.linear(memory_MD, *projection)[:, None]
    out = decoder(x[:, None], memory, tgt_mask=future)[:, 0]
    wanted = nn.functional.linear(out, words, inside["output.bias"])
    same(decoder_logits(memory_MD, tokens, weights, HEADS), wanted)


def test_the_caption_loss_is_the_mean_over_words_not_over_reports() -> None:
    """A decoder of zeros says what its output bias says, at every place; 3 + 2 + 5 + 1 words."""
    weights = plain_texts()
    assert refers(weights)[0].terms["caption"] == pytest.approx(math.log(WORDS), abs=1e-12)
    weights["decoder.output.bias"] = torch.arange(WORDS).double()
    said = torch.tensor([3, 4, 2, 5, 2, 6, 6, 3, 4, 2, 2])
    wanted = cross_entropy(weights["decoder.output.bias"].expand(len(said), -1), said)
    assert refers(weights)[0].terms["caption"] == pytest.approx(float(wanted), abs=1e-12)


def test_the_decoder_sees_patches_with_their_class_token_on_top() -> None:
    """Of a feature f the patches are f, 2 f and -f; the reports are read without their padding."""
    weights, _ = sourced()
    pixels = noise(3, ROWS, 1, 1, WIDTH)
    lost = []
    for b, row in enumerate(CAPTIONS):
        views = [torch.stack([2 * f, 3 * f, 0 * f]) for f in pixels[:, b].flatten(1)]
        tokens = row[row >= 0]
        logits = decoder_logits(fused(views, weights), tokens.tolist(), weights, HEADS)
        lost.append(cross_entropy(logits[:-1], tokens[1:], reduction="none"))
    got = refers(weights, batches=[pixels])[0].terms["caption"]
    assert got == pytest.approx(float(torch.cat(lost).mean()), abs=1e-12)


def test_studies_of_one_text_are_no_rivals_unless_faithful() -> None:
    weights = plain_texts()
    assert refers(weights)[0].terms["contrast"] == pytest.approx(told_apart(3), abs=1e-12)
    some: dict[str, Any] = {"hashes": [torch.tensor([7, 7, 7, 8])]}
    wanted = 0.75 * told_apart(1) + 0.25 * told_apart(3)
    assert refers(weights, **some)[0].terms["contrast"] == pytest.approx(wanted, abs=1e-12)
    faithful = refers(weights, **some, faithful=True)[0].terms["contrast"]
    assert faithful == pytest.approx(told_apart(3), abs=1e-12)


def test_the_text_to_image_loss_of_the_code_is_counted_and_teaches_nothing() -> None:
    weights, _ = sourced()
    pixels = [noise(3, ROWS, 1, 1, WIDTH)]
    code = refers(weights, batches=pixels, image_share=0.0, faithful_code=True)[0]
    paper = refers(weights, batches=pixels, image_share=0.0)[0]
    assert code.terms == paper.terms
    assert code.terms["contrast"] == code.parts["text_to_image"] != code.parts["image_to_text"]
    for name, start in {"text.table": FirstWord().table.detach(), **weights}.items():
        if name.startswith("text"):
            same(code.student[name], start)
            assert not torch.equal(paper.student[name], start)
    one = refers(weights, batches=pixels, image_share=1.0, faithful_code=True)[0]
    same(one.student, refers(weights, batches=pixels, image_share=1.0)[0].student)


def test_the_text_side_has_a_rate_of_its_own() -> None:
    weights, _ = sourced()
    pixels = [noise(3, ROWS, 1, 1, WIDTH)]
    plain = refers(weights, batches=pixels)[0].student
    rested = refers(weights, batches=pixels, text_lr=0.0)[0].student
    half = refers(weights, batches=pixels, text_lr=0.2, factors=[0.5])[0].student
    starts = {**weights, "text.table": FirstWord().table.detach()}
    starts["encoder.weight"] = Scaled().weight.detach()
    assert starts.keys() == plain.keys()
    for name, start in starts.items():
        of_text = name.startswith("text")
        same(rested[name], start if of_text else plain[name])
        same(half[name], plain[name] if of_text else (start + plain[name]) / 2)


def test_lookahead_of_refers_lies_between_where_it_began_and_where_it_went() -> None:
    """k 2: the first step is SGD's, the second half of two, the third begins from there."""
    weights, _ = sourced()
    pixels = [noise(3, ROWS, 1, 1, WIDTH, seed=s) for s in (1, 2, 3)]
    settings = {"batches": pixels, "momentum": 0.9, "clip": 1.0}
    plain = refers(weights, 3, **settings)
    ahead = refers(weights, 3, **settings, lookahead=(2, 0.5))
    for name, start in weights.items():
        same(ahead[0].student[name], plain[0].student[name])
        same(ahead[0].slow[name], start)
        same(ahead[1].student[name], (start + plain[1].student[name]) / 2)
        same(ahead[1].slow[name], ahead[1].student[name])
        same(ahead[2].slow[name], ahead[1].slow[name])
    moved = [n for n, w in ahead[2].student.items() if not torch.equal(w, ahead[1].student[n])]
    assert set(moved) == set(ahead[2].student)
    same(refers(weights, 3, **settings, lookahead=(2, 1.0))[2].student, plain[2].student)


def test_descent_is_that_of_torch() -> None:
    """Of two rates, with momentum, clipped in some of the steps."""
    ours = {name: noise(3, seed=i).requires_grad_() for i, name in enumerate("ab")}
    theirs = [value.detach().clone().requires_grad_() for value in ours.values()]
    groups = [{"params": [theirs[0]], "lr": 0.1}, {"params": [theirs[1]], "lr": 0.01}]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    descent = Descent(ours, {"a": 0.1, "b": 0.01}, momentum=0.9, clip=3.6)
    norms = []
    for k in range(6):
        descent.step(sum(((v - k) ** 2).sum() for v in ours.values()) / (1 + k))  # type: ignore[arg-type]
        optimizer.zero_grad()
        (sum(((v - k) ** 2).sum() for v in theirs) / (1 + k)).backward()  # type: ignore[union-attr]
        norms.append(float(nn.utils.clip_grad_norm_(theirs, 3.6)))
        optimizer.step()
        same(list(ours.values()), theirs)
    assert min(norms) < 3.6 < max(norms)
