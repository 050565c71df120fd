"""REFERS: what three views of a study are turned into, and what the report has to do with it.

Letters in names are those of the conformance list that the method was built against.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.settings import Shuffle
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.losses.captioning import counted
from lightning_rad.modalities.reading import ReadingSettings
from lightning_rad.modalities.report import swap_sides, text_hash
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.report_decoder import ReportDecoder
from lightning_rad.objectives.refers import REFERS, StudyContrast
from lightning_rad.schema import Reports, ViewBatch
from tests.data.reports import batches_of, data_of, images_of, rows_of, source_of
from tests.objectives.fixed import random_batches, with_reports
from tests.objectives.small_nets import TOKENIZER, Norm, SmallEncoder, small_text
from tests.objectives.spread import assert_alike_on_ranks

ROWS, LIMIT = 8, 12
SAME = [(0, 5), (2, 3, 7)]
"""Rows of a batch that have one text; of two ranks each holds some of both."""


def refers(norm: Norm = "none", **changes: Any) -> REFERS:
    """Without dropout; reports so large that what they say shows."""
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "encoder": SmallEncoder(norm),
        "reports": ReadingSettings(TOKENIZER, limit=LIMIT),
        "decoder": partial(ReportDecoder, width=8, heads=2, feedforward=12, dropout=0.0),
        "text": small_text,
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "seed": 3,
    }
    objective = REFERS(**(given | changes))
    with torch.no_grad():
        for p in (*objective.text.parameters(), *objective.decoder.parameters()):
            p.mul_(10 if p.ndim > 1 else 1)
    return objective.double()


def contrasted(norm: Norm = "none", **how: Any) -> REFERS:
    return refers(norm, contrast=StudyContrast(**how))


def batch(same: Any = (), rows: int = ROWS, limit: int = LIMIT) -> ViewBatch:
    return with_reports(random_batches(1, rows=rows, views=3), same=same, limit=limit)[0]


def report_of(given: ViewBatch) -> Reports:
    assert given.report is not None
    return given.report


def with_tokens(given: ViewBatch, **tokens: Tensor) -> ViewBatch:
    report = report_of(given)
    return replace(given, report=replace(report, tokens=report.tokens | tokens))


def terms(objective: REFERS, given: ViewBatch) -> dict[str, Tensor]:
    return objective.terms(objective.embed(given), given)


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


# --- views


def vit() -> Encoder:
    """The size of ViT-B/16, one block deep."""
    return Encoder("vit_base_patch16_224", kwargs={"depth": 1})


def test_refers_a_memory_is_588_tokens_and_three_independent_gates_lie_in_0_1() -> None:
    objective = refers(encoder=vit(), decoder=partial(ReportDecoder, width=16, heads=2))
    given = with_reports(random_batches(1, rows=2, views=3, size=224))[0]
    seen: dict[str, Tensor] = {}
    objective.fusion.register_forward_pre_hook(lambda _, x: seen.update(tokens=x[0]))
    objective.decoder.register_forward_pre_hook(lambda _, x: seen.update(memory=x[0]))
    image = objective.embed(given)["image"]
    assert seen["tokens"].shape == (3, 2, 196, 768)
    assert seen["memory"].shape == (2, 588, 768)
    assert image.shape == (1, 2, 2304)
    gates = objective.fusion.gates(seen["tokens"].detach()).detach()
    assert gates.shape == (3, 2, 196, 1)
    assert bool(((gates > 0) & (gates < 1)).all())
    assert float((gates.sum(0) - 1).abs().max()) > 1e-3  # no softmax over views
    for view in range(3):
        objective.zero_grad()
        objective.fusion.gates(seen["tokens"].detach())[view].sum().backward()
        moved = [bool(head.weight.grad.any()) for head in objective.fusion.heads]  # type: ignore[operator,union-attr]
        assert moved == [number == view for number in range(3)]


def test_refers_a_class_token_is_added_to_each_patch() -> None:
    objective, given, seen = refers(), batch(), []
    objective.fusion.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    image = objective.embed(given)["image"][0]
    for view, got in enumerate(seen[0]):
        feature, patches = objective.encoder(given.views[view], tokens=True)
        same(got, patches + feature[:, None])
        same(image[:, 8 * view : 8 * (view + 1)], feature)


def test_refers_b_permuting_the_views_changes_gates_and_study_vector() -> None:
    objective, given, gates = refers(), batch(), []
    objective.fusion.register_forward_pre_hook(
        lambda _, x: gates.append(objective.fusion.gates(x[0].detach()))
    )
    order = [2, 0, 1]
    with torch.no_grad():
        one = objective.embed(given)
        other = objective.embed(replace(given, views=given.views[order]))
    assert float((gates[1] - gates[0]).abs().max()) > 1e-3
    assert float((gates[1] - gates[0][order]).abs().max()) > 1e-3  # heads stay with their places
    assert float((one["image"] - other["image"]).abs().max()) > 1e-3
    assert float((one["nll"] - other["nll"]).abs().max()) > 1e-6
    same(one["text"], other["text"])


def test_gates_do_not_touch_the_study_vector() -> None:
    objective, given = refers(), batch()
    with torch.no_grad():
        before = objective.embed(given)
        for p in objective.fusion.parameters():
            p.add_(1.0)
        after = objective.embed(given)
    assert torch.equal(before["image"], after["image"])
    assert float((before["nll"] - after["nll"]).abs().min()) > 1e-6


# --- studies as they are drawn


def stream(shards: Path, *, flip: float = 0.0, limit: int = 60) -> tuple[REFERS, RadiographData]:
    """What the objective asks the data for, with views that differ in geometry alone."""
    objective = refers(reports=ReadingSettings(TOKENIZER, limit=limit))
    shuffle = Shuffle(groups=4, window=16, images="independent", flip=flip)
    views = [RandomView(16, crop=Crop())] * 3
    return objective, data_of(shards, objective.reading, views=views, shuffle=shuffle)


def test_refers_c_a_study_of_one_image_gives_three_views_of_it_each_drawn_on_its_own(
    tiny_shards: Path,
) -> None:
    _, data = stream(tiny_shards)
    source, single, repeated = source_of(tiny_shards), 0, 0
    for drawn in batches_of(data, 12):
        for row, images in enumerate(drawn.image.T.tolist()):
            own = images_of(source, int(drawn.unit[row]))
            assert set(images) <= set(own)
            repeated += len(own) == 2 and len(set(images)) == 1
            if len(own) > 1:
                continue
            single += 1
            assert images == own * 3
            first, second, third = drawn.pixels[:, row]
            assert not torch.equal(first, second)
            assert not torch.equal(first, third)
            assert not torch.equal(second, third)
    assert single >= 10
    assert repeated >= 3  # with replacement: one of two images can be all three views


def test_refers_d_a_flipped_study_swaps_left_and_right_before_tokenising_and_mirrors_every_view(
    tiny_shards: Path,
) -> None:
    objective, data = stream(tiny_shards)
    caption, text = objective.reading.words["caption"], objective.reading.words["text"]
    _, mirrored = stream(tiny_shards, flip=0.5)
    source, flipped, sides = source_of(tiny_shards), 0, 0
    for plain, drawn in zip(batches_of(data, 8), batches_of(mirrored, 8), strict=True):
        assert torch.equal(plain.image, drawn.image)
        assert drawn.report is not None
        for row, (_, turned, *tokens) in enumerate(rows_of(drawn.report)):
            read = objective.reading.text(source.report(int(drawn.unit[row])))
            said = swap_sides(read) if turned else read
            assert tokens == [tuple(words.encode(said).tolist()) for words in (caption, text)]
            assert int(drawn.report.hash[row]) == text_hash(said)
            views, shown = plain.pixels[:, row], drawn.pixels[:, row]
            assert torch.equal(shown, views.flip(-1) if turned else views)
            flipped, sides = flipped + turned, sides + (turned and said != read)
    assert 16 < flipped < 48
    assert sides >= 5


# --- the contrast


def gradients(objective: REFERS, given: ViewBatch) -> tuple[float, dict[str, Tensor]]:
    """Of the contrast, to the vectors of studies and of reports."""
    made = {name: x.detach().requires_grad_() for name, x in objective.embed(given).items()}
    loss = objective.terms(made, given)["contrast"]
    vectors = {name: made[name] for name in ("image", "text")}
    if not loss.requires_grad:
        return float(loss.detach()), {name: torch.zeros_like(x) for name, x in vectors.items()}
    found = torch.autograd.grad(loss, list(vectors.values()))
    return float(loss.detach()), dict(zip(vectors, found, strict=True))


@pytest.mark.parametrize("share", [0.75, 0.5])
def test_refers_e_the_text_to_image_term_has_no_gradient_in_faithful_code_and_has_one_by_default(
    share: float,
) -> None:
    given = batch(SAME)
    only = contrasted(image_share=0.0, faithful_code=True), contrasted(image_share=0.0)
    (value, none), (wanted, back) = (gradients(objective, given) for objective in only)
    assert value == pytest.approx(wanted, rel=1e-12)
    assert all(float(g.abs().max()) == 0 for g in none.values())
    assert all(float(g.abs().max()) > 1e-3 for g in back.values())
    to_text, forth = gradients(contrasted(image_share=1.0), given)
    code, theirs = gradients(contrasted(image_share=share, faithful_code=True), given)
    paper, ours = gradients(contrasted(image_share=share), given)
    assert code == pytest.approx(paper, rel=1e-12)
    assert paper == pytest.approx(share * to_text + (1 - share) * wanted, rel=1e-12)
    for name in ("image", "text"):
        same(theirs[name], share * forth[name])
        same(ours[name], share * forth[name] + (1 - share) * back[name])


# --- the caption


def test_the_caption_is_the_mean_over_the_tokens_of_all_ranks() -> None:
    """Ranks of long and of short reports: a mean of their means would be another loss."""
    given = batch()
    tokens = report_of(given).tokens["caption"].clone()
    tokens[:4, 3:], tokens[:4, 2] = -1, 2
    given = with_tokens(given, caption=tokens)
    counts = counted(tokens)
    assert int(counts[:4].sum()) * 2 < int(counts[4:].sum())
    objective = refers()
    nll_B = objective.embed(given)["nll"].flatten().detach()
    caption = terms(objective, given)["caption"].detach()
    same(caption, nll_B.sum() / counts.sum())
    halves = [nll_B[i : i + 4].sum() / counts[i : i + 4].sum() for i in (0, 4)]
    assert abs(float(caption - sum(halves) / 2)) > 1e-3
    assert_alike_on_ranks(refers, given, 2)


def test_refers_f_padding_adds_nothing_to_the_captioning_loss() -> None:
    objective, given = refers(), batch(limit=LIMIT - 4)
    tokens = report_of(given).tokens["caption"]
    wide = torch.cat([tokens, torch.full((ROWS, 4), -1)], dim=1)
    learn = [*objective.encoder.parameters(), *objective.decoder.parameters()]
    found = []
    for padded in (tokens, wide):
        loss = terms(objective, with_tokens(given, caption=padded))["caption"]
        found.append([loss.detach(), *torch.autograd.grad(loss, learn)])
    same(*found)
    alone = [
        objective.embed(with_tokens(given, caption=row[None].expand(ROWS, -1)))["nll"][0, i]
        for i, row in enumerate(row[row >= 0] for row in tokens)
    ]
    same(torch.stack(alone), objective.embed(given)["nll"][0])
