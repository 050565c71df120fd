"""A run that embeds in parts is the run that does not, on one process and on two, step by step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from lightning_rad.nn.projector import Projector
from tests.gloo import run_on_ranks
from tests.objectives.evidence import suited, views_of
from tests.objectives.fixed import (
    Snapshot,
    fit_on_this_rank,
    fit_steps,
    random_batches,
    with_reports,
)
from tests.objectives.test_bad_input import refusal
from tests.objectives.test_byol import byol
from tests.objectives.test_c2l import c2l
from tests.objectives.test_micle import simclr
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_parts import MAKES, ROWS, Gradient, assert_same, gradient, noisy
from tests.objectives.test_vicreg import vicreg

Make = Callable[..., Any]


@pytest.fixture(params=MAKES)
def make(request: pytest.FixtureRequest) -> Make:
    return MAKES[request.param]


def fitted(make: Make, units: int | None, batches: int = 4, **how: Any) -> list[Snapshot]:
    objective = make()
    objective.embed_at_once = units
    how = {"max_steps": -1, "max_epochs": 1} | how
    given = with_reports(random_batches(batches, views=views_of(objective)))
    return fit_steps(objective, suited(objective, given), unit="study", **how)


def assert_same_run(mine: list[Snapshot], theirs: list[Snapshot], rtol: float = 1e-11) -> None:
    assert len(mine) == len(theirs)
    for parts, whole in zip(mine, theirs, strict=True):
        assert parts.terms == pytest.approx(whole.terms, rel=rtol)
        assert_same(parts.state, whole.state, rtol)


def clipped(snapshots: list[Snapshot], rate: float = 0.1) -> float:
    """The length of the last step of plain SGD, over its rate: that of the gradient it took."""
    before, after = (x.state for x in snapshots[-2:])
    student = [n for n in after if not n.startswith(("twin.", "queue.", "z_score."))]
    return float(torch.stack([(after[n] - before[n]).norm() for n in student]).norm()) / rate


def test_steps_of_a_run_are_those_of_the_whole_batch(make: Make) -> None:
    """Weights, twin, queue and what is logged."""
    assert_same_run(fitted(make, 3), fitted(make, None))


def test_a_step_never_shows_the_encoder_more_than_a_part() -> None:
    shown: list[int] = []

    def watched() -> Any:
        objective = moco_v3()
        objective.encoder.register_forward_pre_hook(lambda _, x: shown.append(len(x[0])))
        return objective

    fitted(watched, 3, batches=1)
    assert sorted(shown) == [2] * 4 + [3] * 8  # two views, each part twice


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_gradient_is_clipped_when_it_is_whole(make: Make, accumulated: int) -> None:
    how = {"gradient_clip_val": 0.01, "accumulate_grad_batches": accumulated}
    mine = fitted(make, 3, **how)
    assert_same_run(mine, fitted(make, None, **how))
    assert len(mine) == 4 // accumulated
    assert clipped(mine) == pytest.approx(0.01, rel=1e-3)


def test_accumulated_batches_are_embedded_in_parts_each(make: Make) -> None:
    mine = fitted(make, 3, accumulate_grad_batches=2)
    assert_same_run(mine, fitted(make, None, accumulate_grad_batches=2))
    assert len(mine) == 2


def test_a_run_with_dropout_repeats_itself_and_observers_do_not_disturb_it() -> None:
    class Draws(Callback):
        def on_before_backward(self, *args: Any) -> None:
            torch.rand(5)

    def drops() -> Any:
        return noisy(moco_v3)

    first = fitted(drops, 3)
    objective = drops()
    objective.embed_at_once = 3
    watched = _Finals()
    fit_steps(objective, random_batches(4), callbacks=[watched, Draws()])
    for name, value in first[-1].state.items():
        assert torch.equal(watched.state[name], value), name


class _Finals(Callback):
    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.state = {name: x.clone() for name, x in module.state_dict().items()}


class _Scales(Callback):
    """The loss scale at the start of each step, and the gradient that is clipped and stepped by."""

    def __init__(self) -> None:
        self.scales: list[float] = []
        self.gradients: list[Gradient] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.scales.append(trainer.precision_plugin.scaler.get_scale())  # type: ignore[union-attr]

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.gradients.append(gradient(module))


def in_float16(units: int | None, scale: float, accumulated: int = 1) -> tuple[Any, _Scales]:
    objective, watcher = moco_v3().float(), _Scales()
    objective.embed_at_once = units
    start = {name: x.clone() for name, x in objective.state_dict().items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)  # type: ignore[attr-defined]
    batches = random_batches(2)
    for batch in batches:
        batch.views = batch.views.float()
    fit_steps(
        objective,
        batches,
        precision=None,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        accumulate_grad_batches=accumulated,
        max_steps=2 // accumulated,
        callbacks=[watcher],
    )
    moved = {n: x - start[n] for n, x in objective.state_dict().items()}
    return moved, watcher


@pytest.mark.parametrize("accumulated", [1, 2])
def test_float16_scales_every_part_alike(accumulated: int) -> None:
    """Gradients are unscaled to those of the whole batch, within what float16 rounds."""
    _, whole = in_float16(None, 1024.0, accumulated)
    _, parts = in_float16(3, 1024.0, accumulated)
    assert parts.scales == [1024.0, 1024.0]
    for mine, theirs in zip(parts.gradients, whole.gradients, strict=True):
        assert_same(mine, theirs, 2e-2)


def test_a_float16_overflow_leaves_the_step_and_the_twin_out() -> None:
    moved, watcher = in_float16(3, 2.0**60)
    assert all(not delta.any() for delta in moved.values())
    assert watcher.scales == [2.0**60, 2.0**59]


LAYOUTS: dict[str, dict[str, Any]] = {
    "simclr": {"gradient_as_bucket_view": True, "broadcast_buffers": False},  # of configs/scale
    "moco": {},
    "moco_v3_layer": {"find_unused_parameters": True},
    "vicreg": {"static_graph": True},
}


class _Reductions(Callback):
    """Counts the buckets that DDP reduces, at the start of each batch."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self._buckets = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.strategy.model.register_comm_hook(None, self._reduce)  # type: ignore[union-attr, operator]

    def _reduce(self, _: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self._buckets += 1
        return allreduce_hook(dist.group.WORLD, bucket)

    def on_train_batch_end(self, *args: Any) -> None:
        self.seen.append(self._buckets)


def _spread(name: str, units: int | None, **how: Any) -> tuple[dict[str, Tensor], list[int]]:
    objective, reductions, end = MAKES[name](), _Reductions(), _Finals()
    objective.embed_at_once = units
    how = {"strategy": DDPStrategy(**LAYOUTS[name]), "callbacks": [reductions, end]} | how
    fit_on_this_rank(lambda: objective, random_batches(4), unit="study", **how)
    return end.state, reductions.seen


@pytest.mark.parametrize("name", LAYOUTS)
def test_two_ranks_that_embed_in_parts_are_one_process_that_does_not(name: str) -> None:
    """Parts of 3 and 1 units; a reduction a step, as without parts."""
    [*_, whole] = fitted(MAKES[name], None)
    for state, reduced in run_on_ranks(_spread, 2, name, 3):
        assert_same(state, whole.state, 1e-9)
        assert reduced == [1, 2, 3, 4]


def test_two_ranks_reduce_once_for_accumulated_batches_and_clip_what_is_whole() -> None:
    how = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.01}
    [*_, whole] = fitted(simclr, None, **how)
    for state, reduced in run_on_ranks(_spread_accumulated, 2):
        assert_same(state, whole.state, 1e-9)
        assert reduced == [0, 1, 1, 2]


def _spread_accumulated() -> tuple[dict[str, Tensor], list[int]]:
    return _spread("simclr", 3, accumulate_grad_batches=2, gradient_clip_val=0.01, max_steps=2)


@pytest.mark.parametrize("units", [0, -1])
def test_parts_of_no_unit_are_refused(units: int) -> None:
    objective = simclr()
    objective.embed_at_once = units
    assert refusal(objective) == f"embed_at_once must be at least 1 or null, got {units}"


def with_norm_in_predictor() -> Any:
    return byol(predictor=lambda width: Projector(width, out_features=8, ending="linear"))


def with_norm_in_twin_alone() -> Any:
    objective = byol()
    objective.twin.net[0].layers[1] = nn.BatchNorm2d(8)
    return objective


def with_norm_that_keeps_nothing() -> Any:
    """It takes the batch's statistics in evaluation, too."""
    objective = simclr()
    objective.encoder.layers[1] = nn.BatchNorm2d(8, track_running_stats=False).eval()
    return objective


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: simclr("batch"), "encoder.layers.1"),
        (lambda: moco("batch"), "encoder.layers.1"),
        (lambda: vicreg(projector=Projector), "projector.layers.1"),
        (with_norm_in_predictor, "predictor.layers.1"),
        (with_norm_in_twin_alone, "twin.net.0.layers.1"),
        (with_norm_that_keeps_nothing, "encoder.layers.1"),
    ],
)
def test_batch_statistics_are_refused_by_their_place_and_by_the_key(make: Make, where: str) -> None:
    objective = make()
    objective.embed_at_once = 3
    said = refusal(objective)
    assert said.startswith(f"{where} takes statistics of the batch")
    assert "embed_at_once is 3 of a rank's 8, set it to null or choose a norm" in said


def test_c2l_is_refused_for_it_mixes_the_units_of_a_batch() -> None:
    objective = c2l()
    objective.embed_at_once = 4
    assert refusal(objective) == (
        "C2L embeds the units of a batch together: embed_at_once is 4 of a rank's 8, set it to null"
    )


@pytest.mark.parametrize("make", [lambda: simclr("batch"), lambda: moco("batch"), c2l])
def test_a_part_as_large_as_the_batch_is_the_batch_and_nothing_is_refused(make: Make) -> None:
    for mine, theirs in zip(fitted(make, ROWS), fitted(make, None), strict=True):
        assert mine.terms == theirs.terms
        assert all(torch.equal(mine.state[name], x) for name, x in theirs.state.items())


def test_batch_norms_at_rest_are_rows_alone() -> None:
    def rests() -> Any:
        objective = simclr("batch")
        for module in objective.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return objective

    assert_same_run(fitted(rests, 3), fitted(rests, None))


def _of_ranks(units: int) -> None:
    def batch_norms() -> Any:
        objective = simclr("batch")
        objective.embed_at_once = units
        return objective

    fit_on_this_rank(batch_norms, random_batches(1))


def test_a_part_is_measured_by_what_one_rank_has() -> None:
    run_on_ranks(_of_ranks, 2, 4)
    with pytest.raises(ValueError, match="embed_at_once is 3 of a rank's 4, set it to null"):
        run_on_ranks(_of_ranks, 2, 3)
