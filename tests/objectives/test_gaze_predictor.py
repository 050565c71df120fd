"""GazePredictor: its terms written out, rows without gaze, ranks, parts, what it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.evaluation.saliency import kld
from lightning_rad.modalities.evidence import GazeReading
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.nn.gaze_decoder import GazeDecoder
from lightning_rad.objectives import gaze_predictor
from lightning_rad.objectives.gaze_predictor import GazePredictor
from lightning_rad.objectives.parts import embed_in_parts
from lightning_rad.schema import Gaze, LabelledBatch, ViewBatch
from tests.objectives.fixed import FixedBatches, fit_steps, random_batches, with_gaze
from tests.objectives.small_nets import SmallEncoder
from tests.objectives.spread import assert_alike_on_ranks

SIDE = 8


def predictor(encoder: nn.Module | None = None, **changes: Any) -> GazePredictor:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "gaze": Saliency(side=SIDE),
        "decoder": lambda width: GazeDecoder(width, width=8, side=SIDE),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
    }
    made = encoder or SmallEncoder("none")
    return GazePredictor(made, **(settings | changes)).double()  # type: ignore[arg-type]


def batch(*blank: int, views: int = 2) -> ViewBatch:
    """Eight units of random gaze, but for some rows that nobody looked at."""
    made: ViewBatch = with_gaze(random_batches(1, views=views), side=SIDE)[0]
    map_ = gaze_of(made).map.double()
    map_[:, list(blank)] = 0.0
    return replace(made, gaze=replace(gaze_of(made), map=map_))


def gaze_of(batch: ViewBatch) -> Gaze:
    assert batch.gaze is not None
    return batch.gaze


def terms_of(objective: GazePredictor, batch: ViewBatch) -> dict[str, Tensor]:
    return objective.terms(objective.embed(batch), batch)


def numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


def gradient_of(objective: GazePredictor, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    objective.zero_grad()
    torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
    found = {}
    for name, p in objective.named_parameters():
        assert p.grad is not None, f"{name} has no gradient"
        found[name] = p.grad.clone()
    return found


def literal(objective: GazePredictor, batch: ViewBatch) -> tuple[float, float]:
    """Both terms, view by view and cell by cell."""
    kl, off, looked = 0.0, 0.0, 0
    with torch.no_grad():
        for pixels, wanted in zip(
            batch.views.flatten(0, 1), gaze_of(batch).map.flatten(0, 1), strict=True
        ):
            if float(wanted.sum()) == 0:
                continue
            looked += 1
            features, tokens = objective.encoder(pixels[None], tokens=True)
            scores = objective.decoder(tokens + features[:, None])[0].flatten().tolist()
            q = wanted.flatten().tolist()
            whole = sum(math.exp(s) for s in scores)
            p = [math.exp(s) / whole for s in scores]
            kl += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)
            mp, mq = sum(p) / len(p), sum(q) / len(q)
            top = sum((a - mp) * (b - mq) for a, b in zip(p, q, strict=True))
            down = sum((a - mp) ** 2 for a in p) * sum((b - mq) ** 2 for b in q)
            off += 1 - top / math.sqrt(down)
    return kl / looked, off / looked


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_both_terms_are_means_over_the_views_with_gaze_written_out(weight: float) -> None:
    objective, given = predictor(correlation=weight), batch(1, 6)
    kl, off = literal(objective, given)
    terms = numbers(terms_of(objective, given))
    assert terms == pytest.approx({"kl": kl, "correlation": weight * off}, rel=1e-10)


def test_rows_without_gaze_change_neither_loss_nor_gradient() -> None:
    objective, given = predictor(), batch(0, 1)
    with_blank = terms_of(objective, given)
    a = gradient_of(objective, with_blank)
    without = terms_of(objective, given.rows(slice(2, None)))
    b = gradient_of(objective, without)
    assert numbers(with_blank) == pytest.approx(numbers(without), rel=1e-12)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-14)


def test_a_batch_without_gaze_is_a_loss_of_0_that_every_parameter_takes_part_in() -> None:
    objective, given = predictor(), batch(*range(8))
    terms = terms_of(objective, given)
    assert numbers(terms) == {"kl": 0.0, "correlation": 0.0}
    for value in gradient_of(objective, terms).values():
        assert not value.any()


def test_the_denominator_is_that_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks of 8 and 3 rows with gaze: the mean of their losses is the loss of both."""
    objective = predictor()
    full, few = batch(views=1), batch(0, 1, 2, 3, 4, views=1)
    sums = [numbers(terms_of(objective, b))["kl"] * n for b, n in ((full, 8), (few, 3))]
    monkeypatch.setattr(gaze_predictor, "world_size", lambda: 2)
    monkeypatch.setattr(gaze_predictor, "gather_detached", lambda _: torch.tensor([8, 3]))
    shares = [numbers(terms_of(objective, b))["kl"] for b in (full, few)]
    assert sum(shares) / 2 == pytest.approx(sum(sums) / 11, rel=1e-12)


def uneven() -> ViewBatch:
    return batch(0, 1, 3)


def test_two_ranks_with_uneven_gaze_find_the_loss_and_the_gradient_of_one() -> None:
    assert_alike_on_ranks(predictor, uneven(), 2)


def test_a_batch_embedded_in_parts_is_the_whole_batch() -> None:
    objective, given = predictor(), batch(2)
    whole = gradient_of(objective, terms_of(objective, given))
    parts = embed_in_parts(objective.embed, given, 3)
    for name, value in gradient_of(objective, objective.terms(parts, given)).items():
        torch.testing.assert_close(value, whole[name], rtol=1e-9, atol=1e-14)


def test_flat_targets_and_flat_predictions_have_finite_gradients() -> None:
    objective, given = predictor(), batch()
    flat = torch.full_like(gaze_of(given).map, 1 / SIDE**2)
    given = replace(given, gaze=replace(gaze_of(given), map=flat))
    for p in objective.decoder.score.parameters():
        nn.init.zeros_(p)
    found = gradient_of(objective, terms_of(objective, given))
    assert all(value.isfinite().all() for value in found.values())


def test_bf16_autocast_leaves_the_terms_in_float32() -> None:
    objective, given = predictor().float(), batch()
    given = replace(given, views=given.views.float())
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = objective.embed(given)
        terms = objective.terms(embeddings, given)
    assert embeddings["scores"].dtype == torch.bfloat16
    assert {term.dtype for term in terms.values()} == {torch.float32}


def test_one_step_changes_encoder_and_decoder() -> None:
    before = {k: v.clone() for k, v in predictor().state_dict().items()}
    after = fit_steps(predictor(), [batch()])[-1].state
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert not torch.equal(value, before[name]), name


def test_evaluation_gives_features_and_a_density() -> None:
    objective, given = predictor(), batch()
    rows = LabelledBatch(given.views[0], torch.zeros(8, 1), given.patient, given.image[0])
    got = objective.validation_step(rows, 0)
    assert got["map"].shape == (8, SIDE, SIDE)
    assert got["map"].dtype == torch.float32
    torch.testing.assert_close(got["map"].sum((1, 2)), torch.ones(8))
    torch.testing.assert_close(got["features"], objective.encoder(rows.images).float())


def test_the_data_is_told_which_maps_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(FixedBatches, "read_gaze", lambda _, reading: told.append(reading))
    fit_steps(predictor(), [batch()])
    assert told == [GazeReading(Saliency(side=SIDE))]


def test_a_checkpoint_says_what_its_maps_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    data = SimpleNamespace(views=[SimpleNamespace(size=48)], numbers=(0.4, 0.3))
    monkeypatch.setattr(GazePredictor, "trainer", SimpleNamespace(datamodule=data))
    found: dict[str, Any] = {}
    predictor().on_save_checkpoint(found)
    assert found["objective"] == "GazePredictor"
    assert found["gaze"] == {"size": 48, "mean": 0.4, "std": 0.3, "side": SIDE, "spread": 0.03}


class Patches(nn.Module):
    """An encoder of 8 x 8 patches of 16 x 16 pixels."""

    out_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.GELU())

    def forward(self, images: Tensor, tokens: bool = False) -> Any:
        map_ = self.layers(images).flatten(2).mT
        return (map_.mean(1), map_) if tokens else map_.mean(1)


def spots(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with one bright spot, and the density of looks at it."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(rows, 1, 16, 16, generator=generator) * 0.3
    place = torch.randint(1, SIDE - 1, (rows, 2), generator=generator)
    grid = torch.arange(SIDE)
    squared = (grid[None, :, None] - place[:, 0, None, None]) ** 2
    squared = squared + (grid[None, None, :] - place[:, 1, None, None]) ** 2
    density = torch.exp(-squared / 2.0)
    density /= density.sum((1, 2), keepdim=True)
    for row, (down, across) in enumerate(place.tolist()):
        pixels[row, 0, 2 * down : 2 * down + 2, 2 * across : 2 * across + 2] += 3.0
    return pixels, density


def test_it_learns_to_look_where_the_picture_says_better_than_at_the_mean() -> None:
    objective = predictor(Patches()).float()
    descent = torch.optim.Adam(objective.parameters(), lr=1e-2)
    pixels, density = spots(64, 0)
    unit = torch.arange(64)
    none = torch.full((1, 64, 0, 2), math.nan)
    given = ViewBatch(pixels[None], unit, unit, unit[None], gaze=Gaze(density[None], none))
    for _ in range(100):
        descent.zero_grad()
        torch.stack(list(terms_of(objective, given).values())).sum().backward()  # type: ignore[no-untyped-call]
        descent.step()
    pixels, wanted = spots(32, 1)
    rows = LabelledBatch(pixels, torch.zeros(32, 1), unit[:32], unit[:32])
    with torch.no_grad():
        predicted = objective.eval().validation_step(rows, 0)["map"]
    mean = density.mean(0).expand(32, -1, -1)
    own, average = (kld(m.numpy(), wanted.numpy()).mean() for m in (predicted, mean))
    assert own < 0.5 * average


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"correlation": -0.1}, "correlation must be at least 0"),
        ({"gaze": Saliency(side=16)}, "decoder.side is 8 and gaze.side 16"),
    ],
)
def test_settings_that_do_not_go_are_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        predictor(**changes)
