"""REFERS, from funnyzhou/REFERS at df7e83e, Pre-train/refers.

models/captioning.py, modules/{Fusion,textual_heads,embedding,contrastive_learning}.py and
utils/losses.py. Three views, B studies, P patches, D features, E the decoder's width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tests.objectives.transcribed.descent import Descent
from tests.objectives.transcribed.record import Step, state, values

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class RefersStep(Step):
    """student: `encoder.`, `text.` and all given weights. parts: directions of the contrast.

    slow: Lookahead's slow weights of the trained parameters, by the same names.
    """

    slow: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)


def refers_steps(
    encoder: nn.Module,
    text: nn.Module,
    weights: Weights,
    batches: list[Tensor],
    *,
    captions: list[Tensor],
    texts: list[Tensor],
    hashes: list[Tensor],
    heads: int,
    temperature: float,
    lr: float,
    text_lr: float | None = None,
    image_share: float = 0.75,
    faithful_code: bool = False,
    faithful: bool = False,
    momentum: float = 0.0,
    clip: float | None = None,
    lookahead: tuple[int, float] | None = None,
    factors: Sequence[float] | None = None,
) -> list[RefersStep]:
    """`ForwardCaptioningModel.forward` and `main`'s step for each batch [3, B, 1, H, W].

    encoder(images, tokens=True): class token [B, D] and patches [B, P, D]. text(tokens): pooled
    output [B, F]. captions, texts: [B, T] a batch, -1 behind the end of a row; the decoder reads
    every report for itself and at its own length, so that nothing is padded. hashes: [B], equal for
    studies of one text, which are not each other's negatives unless `faithful`. faithful_code: the
    text-to-image loss goes through `.item()` in `LossesOfConVIRT.text_image`; by default it has its
    gradient. text_lr is for `text` and `text_projection`, which both are of `contrastive_bert` in
    `OptimizerFactory`. factors: the schedule's, one a step.

    weights, by the names of the source but for the first part: `text_projection.{weight,bias}` (its
    contrastive_bert.fc), `fusion.fc{1,2,3}.{weight,bias}`, and under `decoder.` its `textual`:
    visual_projection, embedding.words, embedding.positions, embedding.layer_norm, transformer
    .layers.N of nn.TransformerDecoderLayer, output.bias. Words and output share one matrix.

    Not taken over: id 0 as both padding and unknown word, which leaves unknown words out of the
    loss and zeroes their embedding; float32 of the cosine; dropout; mixed precision; decay.
    """
    encoder, text = deepcopy(encoder).train(), deepcopy(text).train()
    weights = {name: w.detach().clone().requires_grad_() for name, w in weights.items()}
    trained = dict(weights)
    trained |= {f"encoder.{name}": p for name, p in encoder.named_parameters()}
    trained |= {f"text.{name}": p for name, p in text.named_parameters()}
    of_text = ("text.", "text_projection.")
    text_lr = lr if text_lr is None else text_lr
    rates = {name: text_lr if name.startswith(of_text) else lr for name in trained}
    descent = Descent(trained, rates, momentum=momentum, clip=clip, lookahead=lookahead)
    steps = []
    for number, views in enumerate(batches):
        (cls1, patches1), (cls2, patches2), (cls3, patches3) = (
            encoder(view, tokens=True) for view in views
        )
        lost, counted = [], 0
        for b, row in enumerate(captions[number]):
            tokens = [int(token) for token in row if token >= 0]
            with_cls = [patches1[b] + cls1[b], patches2[b] + cls2[b], patches3[b] + cls3[b]]
            logits_TC = decoder_logits(fused(with_cls, weights), tokens, weights, heads)
            for t in range(len(tokens) - 1):
                lost.append(torch.logsumexp(logits_TC[t], 0) - logits_TC[t, tokens[t + 1]])
                counted += 1
        caption = torch.stack(lost).sum() / counted
        v_BD = torch.cat([cls1, cls2, cls3], dim=1)
        u_BD = _linear(text(texts[number]), weights, "text_projection")
        same = hashes[number].tolist()
        image_text, text_image = [], []
        for i in range(len(v_BD)):
            rivals = [j for j in range(len(v_BD)) if j == i or faithful or same[j] != same[i]]
            image_text.append(_nce(v_BD[i], u_BD, i, rivals, temperature))
            term = _nce(u_BD[i], v_BD, i, rivals, temperature)
            text_image.append(term.detach() if faithful_code else term)
        to_text, to_image = torch.stack(image_text).mean(), torch.stack(text_image).mean()
        contrast = image_share * to_text + (1 - image_share) * to_image
        descent.step(caption + contrast, 1.0 if factors is None else factors[number])
        student = {f"encoder.{name}": value for name, value in state(encoder).items()}
        student |= {f"text.{name}": value for name, value in state(text).items()}
        student |= {name: w.detach().clone() for name, w in weights.items()}
        steps.append(
            RefersStep(
                values({"caption": caption, "contrast": contrast}),
                student,
                slow={name: value.clone() for name, value in descent.slow.items()},
                parts=values({"image_to_text": to_text, "text_to_image": to_image}),
            )
        )
    return steps


def fused(views: list[Tensor], weights: Weights) -> Tensor:
    """`fusion` and the products behind it: three views [P, D] to a memory [3 P, D]."""
    memory = []
    for v, view_PD in enumerate(views):
        for p in range(len(view_PD)):
            patch_of_all = torch.cat([other_PD[p] for other_PD in views])
            gate = torch.sigmoid(_linear(patch_of_all, weights, f"fusion.fc{v + 1}"))
            memory.append(gate * view_PD[p])
    return torch.stack(memory)


def decoder_logits(memory_MD: Tensor, tokens: list[int], weights: Weights, heads: int) -> Tensor:
    """`TransformerTextualHead` of one report without padding: logits [T, vocabulary]."""
    inside = {n.removeprefix("decoder."): w for n, w in weights.items() if n.startswith("decoder.")}
    memory_ME = _linear(memory_MD, inside, "visual_projection")
    words, positions = inside["embedding.words.weight"], inside["embedding.positions.weight"]
    x_TE = torch.stack([words[token] + positions[t] for t, token in enumerate(tokens)])
    x_TE = _norm(x_TE, inside, "embedding.layer_norm", 1e-8)
    layer = 0
    while f"transformer.layers.{layer}.linear1.weight" in inside:
        name = f"transformer.layers.{layer}"
        seen = _attention(x_TE, x_TE, inside, f"{name}.self_attn", heads, causal=True)
        x_TE = _norm(x_TE + seen, inside, f"{name}.norm1", 1e-5)
        seen = _attention(x_TE, memory_ME, inside, f"{name}.multihead_attn", heads, causal=False)
        x_TE = _norm(x_TE + seen, inside, f"{name}.norm2", 1e-5)
        wide = _linear(x_TE, inside, f"{name}.linear1")
        wide = 0.5 * wide * (1 + torch.erf(wide / math.sqrt(2)))
        x_TE = _norm(x_TE + _linear(wide, inside, f"{name}.linear2"), inside, f"{name}.norm3", 1e-5)
        layer += 1
    return x_TE @ words.T + inside["output.bias"]


def _attention(
    x_TE: Tensor, memory_ME: Tensor, weights: Weights, name: str, heads: int, *, causal: bool
) -> Tensor:
    """nn.MultiheadAttention, one position and one head at a time."""
    width = x_TE.shape[1]
    matrix, shift = weights[f"{name}.in_proj_weight"], weights[f"{name}.in_proj_bias"]
    query = x_TE @ matrix[:width].T + shift[:width]
    key = memory_ME @ matrix[width : 2 * width].T + shift[width : 2 * width]
    value = memory_ME @ matrix[2 * width :].T + shift[2 * width :]
    each = width // heads
    rows = []
    for t in range(len(x_TE)):
        visible = t + 1 if causal else len(memory_ME)
        found = []
        for head in range(heads):
            part = slice(head * each, (head + 1) * each)
            scores = key[:visible, part] @ query[t, part] / math.sqrt(each)
            share = torch.exp(scores - scores.max())
            found.append(share / share.sum() @ value[:visible, part])
        rows.append(torch.cat(found))
    return _linear(torch.stack(rows), weights, f"{name}.out_proj")


def _nce(x_D: Tensor, others_BD: Tensor, own: int, rivals: list[int], temperature: float) -> Tensor:
    """`image_text` of one row: -log of the own pair's share."""
    exps = {}
    for j in rivals:
        cosine = torch.dot(x_D, others_BD[j]) / (x_D.norm() * others_BD[j].norm())
        exps[j] = torch.exp(cosine / temperature)
    return -torch.log(exps[own] / torch.stack(list(exps.values())).sum())


def _norm(x_TE: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    centred = x_TE - x_TE.mean(1, keepdim=True)
    spread = torch.sqrt((centred**2).mean(1, keepdim=True) + eps)
    return centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
