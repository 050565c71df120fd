"""Strategies: what lies where, what is gathered in which precision, what is refused by name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins.precision import DoublePrecision
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import Objective, embed_views
from lightning_rad.objectives.byol import BYOL
from lightning_rad.objectives.moco_v3 import MoCoV3
from lightning_rad.optim.lars import LARS
from lightning_rad.schema import ViewBatch
from lightning_rad.training.checkpoint_io import FolderCheckpointIO
from lightning_rad.training.sharding_plan import parts
from lightning_rad.training.strategies import DDP, Sharded
from tests import gloo
from tests.objectives.evidence import views_of
from tests.objectives.fixed import Snapshot, random_batches, whole
from tests.training.spread_nets import head, made, on_ranks, sgd, steps, vit

run_on_ranks = partial(gloo.run_on_ranks, timeout=240)
IN_BFLOAT16 = {"precision": "bf16-mixed", "plugins": []}
Found = dict[str, Any]
READ = ["image_report_clip", "image_report_siglip", "refers"]
"""What reads reports: with texts, a decoder, parameters of its own and such without a dimension."""

SEES = "knowledge_contrast_grad_cam"
"""What calls an encoder's head apart, and keeps statistics in float64."""


class Look(Callback):
    """Calls a function with the objective when the fit ends."""

    def __init__(self, look: Callable[[Trainer, Any], Any]) -> None:
        self.look, self.seen = look, None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen = self.look(trainer, pl_module)


def fitted(objective: Objective, strategy: Any, **how: Any) -> dict[str, Tensor]:
    """What the objective ends as, on whatever ranks there are, in its own precision."""
    end = Look(lambda _, module: {k: whole(x) for k, x in module.state_dict().items()})
    dtype = next(objective.parameters()).dtype
    batches = random_batches(2, rows=8, views=views_of(objective))
    for batch in batches:
        batch.views = batch.views.to(dtype)
    with patch("tests.training.spread_nets.random_batches", lambda *_, **__: batches):
        run = steps if strategy is None else on_ranks
        given = () if strategy is None else (strategy,)
        run(objective, *given, **(how | {"callbacks": [end]}))
    assert end.seen is not None
    return end.seen


def distance(mine: dict[str, Tensor], theirs: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Of the learned weights, as a part of how far they moved; not of twins and statistics."""

    def length(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
        names = [
            k for k in b if b[k].is_floating_point() and not k.startswith(("twin.", "z_score."))
        ]
        return math.hypot(*(float((a[k].double() - b[k].double()).norm()) for k in names))

    return length(mine, theirs) / length(theirs, start)


class Learned(Objective):
    """With a parameter of its own, beside its encoder, of any shape."""

    def __init__(self, encoder: Encoder, *, shape: tuple[int, ...], **given: Any) -> None:
        super().__init__(encoder, **given)
        self.scale = nn.Parameter(torch.full(shape, 0.5))
        self.projector = head(encoder.out_features)

    def embed(self, batch: ViewBatch) -> dict[str, Tensor]:
        return {"rows": embed_views(batch.views, self.encoder, self.projector)}

    def terms(self, embeddings: dict[str, Tensor], batch: ViewBatch) -> dict[str, Tensor]:
        a, b = embeddings["rows"]
        return {"distance": (a * self.scale.exp() - b).square().mean()}


def learned(shape: tuple[int, ...], optimizer: Callable[..., Any]) -> Objective:
    torch.manual_seed(0)
    return Learned(vit(), shape=shape, optimizer=optimizer).double()


def resnet() -> BYOL:
    """Batch norms everywhere, convolutions in channels_last."""
    torch.manual_seed(0)

    def plain(width: int) -> Projector:
        return Projector(width, hidden=10, out_features=7)

    encoder = Encoder("test_resnet", channels_last=True)
    return BYOL(encoder, projector=plain, predictor=plain, optimizer=sgd, momentum=0.9)


def _layout() -> Found:
    """What one rank holds, under LARS, of an objective with a twin and a queue."""
    found: Found = {}

    def look(trainer: Trainer, module: Any) -> None:
        params = dict(module.named_parameters())
        found["sharded"] = all(isinstance(p, DTensor) for p in params.values())
        found["here"] = sum(p.to_local().numel() for p in params.values())
        found["whole"] = sum(p.numel() for p in params.values())
        found["buffers"] = [x for x in module.buffers() if isinstance(x, DTensor)]
        student = [*module.encoder.parameters(), *module.projector.parameters()]
        found["alike"] = all(
            p.to_local().shape == t.to_local().shape
            for p, t in zip(student, module.twin.net.parameters(), strict=True)
        )
        state = trainer.strategy.optimizer_state(trainer.optimizers[0])["state"]
        found["velocities"] = all(isinstance(s["velocity"], DTensor) for s in state.values())
        found["name"] = type(module).__name__
        found["names"] = list(module.state_dict())
        validation = trainer.fit_loop.epoch_loop.val_loop
        found["inference_mode"] = validation.inference_mode or trainer.validate_loop.inference_mode
        found["fresh"] = module.encoder.fresh(3).state_dict()

    objective = made("moco", optimizer=lambda groups: LARS(groups, lr=0.1))
    on_ranks(objective, Sharded(), count=1, callbacks=[Look(look)])
    return found


def test_each_rank_holds_its_part_of_everything_and_the_twin_as_its_student() -> None:
    plain = made("moco")
    for found in run_on_ranks(_layout, 2):
        assert found["sharded"]
        assert found["velocities"]
        assert found["alike"]
        assert not found["buffers"]
        assert found["here"] == pytest.approx(found["whole"] / 2, rel=0.05)
        assert found["whole"] == sum(p.numel() for p in plain.parameters())
        assert found["names"] == list(plain.state_dict())
        assert found["name"] == "MoCo"  # what checkpoints and refusals say
        assert not found["inference_mode"]
        expected = vit().fresh(3).state_dict()
        assert all(torch.equal(found["fresh"][k], v) for k, v in expected.items())


def test_parts_are_blocks_then_their_encoder_then_heads_then_the_twins() -> None:
    objective = made("moco_v3")
    assert isinstance(objective, MoCoV3)
    student = [*objective.encoder.blocks(), objective.encoder]
    student += [objective.projector, objective.predictor]
    copy, projector = objective.twin.net
    assert isinstance(copy, Encoder)
    twin = [*copy.blocks(), copy, projector]
    assert list(parts(objective)) == [(m, False) for m in student] + [(m, True) for m in twin]


def _gathered(objective: str) -> dict[str, tuple[Any, Any]]:
    """By part: the precision parameters are gathered and gradients are summed in."""
    found: dict[str, tuple[Any, Any]] = {}

    def look(_: Trainer, module: Any) -> None:
        for name, part in module.named_modules():
            if isinstance(part, FSDPModule):
                policy = fully_shard.state(part)._mp_policy  # type: ignore[attr-defined]
                found[name] = (policy.param_dtype, policy.reduce_dtype)

    model = resnet() if objective == "resnet" else made(objective).float()
    fitted(model, Sharded(), **IN_BFLOAT16, callbacks=[])
    look(None, model)  # type: ignore[arg-type]
    return found


def test_bfloat16_parts_sum_in_float32_and_batch_norms_keep_float32() -> None:
    low, own = (torch.bfloat16, torch.float32), (None, None)
    [found, _] = run_on_ranks(_gathered, 2, "moco_v3")
    assert found.pop("") == own
    assert set(found.values()) == {low}
    assert {"encoder", "encoder.net.blocks.1", "projector", "twin.net.0.net.blocks.0"} <= set(found)
    [found, _] = run_on_ranks(_gathered, 2, "resnet")
    assert set(found.values()) == {own}
    assert "encoder.net.layer1.0" in found


def _low(name: str, parameters: str) -> dict[str, Tensor]:
    return fitted(made(name).float(), Sharded(parameters=parameters), **IN_BFLOAT16)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("moco_v3", "auto"), ("moco_v3", "float32"), *((name, "auto") for name in (*READ, SEES))],
)
def test_bfloat16_parameters_learn_what_float32_ones_do_within_what_bfloat16_rounds(
    name: str, parameters: str
) -> None:
    start = made(name).float()
    before = start.state_dict()
    before = {k: v.clone() for k, v in before.items()}
    exact = fitted(start, None, precision="32-true", plugins=[])
    [mine, other] = run_on_ranks(_low, 2, name, parameters)
    assert distance(mine, exact, before) < 0.1
    assert all(torch.equal(mine[k], other[k]) for k in mine)
    assert all(v.dtype != torch.bfloat16 for v in mine.values())


def _batch_norms(strategy: Callable[[], Any]) -> dict[str, Tensor]:
    return fitted(resnet().double(), strategy())


def test_batch_norms_take_the_statistics_they_take_under_ddp() -> None:
    """Running statistics of each rank; convolutions in channels_last."""
    shards, copies = run_on_ranks(_batch_norms, 2, Sharded), run_on_ranks(_batch_norms, 2, DDP)
    for mine, theirs in zip(shards, copies, strict=True):
        for key, value in theirs.items():
            torch.testing.assert_close(mine[key], value, rtol=1e-6, atol=1e-8, msg=key)
    assert not torch.equal(
        copies[0]["encoder.net.bn1.running_var"], copies[1]["encoder.net.bn1.running_var"]
    )


def _synchronised() -> list[str]:
    class NoSteps(Callback):
        def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            kinds.extend(
                type(m).__name__ for m in pl_module.modules() if "Norm" in type(m).__name__
            )
            trainer.should_stop = True

    kinds: list[str] = []
    end = {"sync_batchnorm": True, "callbacks": [NoSteps()], "min_epochs": 0, "min_steps": 0}
    on_ranks(resnet().double(), Sharded(), limit_train_batches=0, **end)
    return kinds


def test_batch_norms_are_synchronised_where_the_trainer_says_so() -> None:
    """Which needs a GPU to run."""
    for kinds in run_on_ranks(_synchronised, 2):
        assert set(kinds) == {"SyncBatchNorm"}


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_parameter_of_the_objective_itself_learns(
    shape: tuple[int, ...], accumulated: int
) -> None:
    """Two steps of AdamW, the first of which sees signs only; one clipped step of SGD."""
    how = {"gradient_clip_val": 0.1, "accumulate_grad_batches": 2, "max_steps": 1}
    given = (shape, sgd, how) if accumulated == 2 else (shape, _adam, {})
    alone = fitted(learned(*given[:2]), None, **given[2])
    assert abs(float(alone["scale"]) - 0.5) > 1e-6
    for mine in run_on_ranks(_learned, 2, *given):
        for key, value in alone.items():
            torch.testing.assert_close(mine[key], value, rtol=1e-9, atol=1e-9, msg=key)


def _learned(shape: tuple[int, ...], optimizer: Callable[..., Any], how: Any) -> dict[str, Tensor]:
    return fitted(learned(shape, optimizer), Sharded(), **how)


def _weightless(name: str) -> list[Snapshot]:
    with torch.device("meta" if dist.get_rank() else "cpu"):
        objective = made(name)
    return on_ranks(objective, Sharded(), count=2)


@pytest.mark.parametrize("name", ["c2l", *READ, SEES])
def test_ranks_but_the_first_may_be_built_without_memory(name: str) -> None:
    """Queue, buffers, twin, learned temperature, too, as they are where every rank builds all."""
    expected = steps(made(name), count=2)
    for mine in run_on_ranks(_weightless, 2, name):
        for key, value in expected[-1].state.items():
            torch.testing.assert_close(mine[-1].state[key], value, rtol=1e-9, atol=1e-9, msg=key)


def _between_nodes() -> list[int]:
    """All-reduces of gradients after each of two accumulated batches, and of the next two."""
    seen: list[int] = []
    count = [0]
    real = dist.all_reduce

    def counted(x: Tensor, *args: Any, **how: Any) -> Any:
        group = how.get("group") or (args[1] if len(args) > 1 else None)
        count[0] += group is not None and dist.get_world_size(group) == 2
        return real(x, *args, **how)

    class Watch(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            seen.append(count[0])

    strategy = Sharded(shard_over="node")
    with patch.object(dist, "all_reduce", counted):
        how = {"accumulate_grad_batches": 2, "max_steps": 2, "callbacks": [Watch()]}
        on_ranks(made("simclr"), strategy, nodes=2, count=4, **how)
    return seen


def test_nothing_passes_between_nodes_while_batches_are_accumulated() -> None:
    for seen in run_on_ranks(_between_nodes, 4):
        first, second, third, fourth = seen
        assert first == 0
        assert second > 0
        assert third == second
        assert fourth == 2 * second


def _compressed(strategy: Callable[[], Any]) -> dict[str, Tensor]:
    return fitted(made("moco_v3"), strategy())


def compressing() -> DDP:
    return DDP(compress_gradients=True)


def test_compressed_gradients_lose_the_digits_that_bfloat16_has_not() -> None:
    start = {k: v.clone() for k, v in made("moco_v3").state_dict().items()}
    exact = fitted(made("moco_v3"), None)
    for mine in run_on_ranks(_compressed, 2, compressing):
        assert 1e-4 < distance(mine, exact, start) < 0.02


def static() -> DDP:
    return DDP(static_graph=True)


def _static(how: dict[str, Any]) -> list[dict[str, Tensor]]:
    ends = []
    for units in (None, 1):
        objective = made("moco_v3", encoder=lambda: vit(frozen=["patch_embed"]))
        objective.embed_at_once = units
        ends.append(fitted(objective, static(), **how))
    return ends


def test_a_static_graph_may_embed_in_parts_and_have_frozen_ones() -> None:
    alone = fitted(made("moco_v3", encoder=lambda: vit(frozen=["patch_embed"])), None)
    for ends in run_on_ranks(_static, 2, {}):
        for mine in ends:
            for key, value in alone.items():
                torch.testing.assert_close(mine[key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_a_static_graph_does_not_accumulate() -> None:
    """Torch ends it with an internal error, in the first step."""
    with pytest.raises(ValueError, match=r"accumulate_grad_batches is 2: set static_graph to fal"):
        run_on_ranks(_static, 2, {"accumulate_grad_batches": 2})


def _low_without_autocast() -> None:
    fitted(made("simclr").float(), Sharded(parameters="bfloat16"), precision="32-true", plugins=[])


def test_bfloat16_parameters_need_autocast() -> None:
    with pytest.raises(ValueError, match=r"parameters bfloat16 with trainer\.precision 32-true"):
        run_on_ranks(_low_without_autocast, 2)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Sharded(shard_over="rack"), "shard_over 'rack' is not in"),  # type: ignore[arg-type]
        (lambda: Sharded(parameters="float16"), "parameters 'float16' is not in"),  # type: ignore[arg-type]
        (lambda: Sharded(timeout_minutes=0), "timeout_minutes must be above 0"),
        (lambda: DDP(timeout_minutes=-1), "timeout_minutes must be above 0"),
        (lambda: DDP(bucket_cap_mb=0), "bucket_cap_mb must be at least 1"),
    ],
)
def test_options_are_refused_by_name(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


@cache
def _ends() -> dict[str, Tensor]:
    return steps(made("moco", optimizer=_adam), count=4)[-1].state


def _adam(groups: Any) -> torch.optim.Optimizer:
    plain = [{k: v for k, v in group.items() if k != "adapt"} for group in groups]
    return torch.optim.AdamW(plain, lr=1e-2)


def _saved(folder: str, strategy: Callable[[], Any], last: int, begin: str | None) -> Any:
    """To step `last`, from a checkpoint or not, with one written at the end."""
    plugins = [DoublePrecision(), FolderCheckpointIO()]
    batches = random_batches(4, rows=8)
    if begin:  # the data of these tests do not know where they were
        batches = batches[2:] * 2
    path = Path(folder) / f"step-{last:08}"
    end = Look(lambda _, module: {k: whole(x) for k, x in module.state_dict().items()})
    how = {"plugins": plugins, "max_steps": last, "callbacks": [end]}
    with (
        patch("tests.objectives.fixed.Trainer.fit", _resuming(begin, path)),
        patch("tests.training.spread_nets.random_batches", lambda *_, **__: batches),
    ):
        on_ranks(made("moco", optimizer=_adam, seed=dist.get_rank()), strategy(), **how)
    return end.seen


def _resuming(begin: str | None, path: Path) -> Callable[..., None]:
    real = Trainer.fit

    def fit(self: Trainer, *args: Any, **how: Any) -> None:
        real(self, *args, ckpt_path=begin, **how)
        self.save_checkpoint(path)

    return fit


@pytest.mark.parametrize(
    ("first", "ranks", "then", "others"),
    [(Sharded, 2, DDP, 4), (DDP, 2, Sharded, 4), (Sharded, 4, Sharded, 2)],
    ids=["sharded-2-ddp-4", "ddp-2-sharded-4", "sharded-4-sharded-2"],
)
def test_a_run_goes_on_under_another_strategy_and_on_other_ranks(
    first: Any, ranks: int, then: Any, others: int, tmp_path: Path
) -> None:
    """Weights, twin, queue and the optimiser's state: it ends as the undisturbed one."""
    run_on_ranks(_saved, ranks, str(tmp_path), first, 2, None)
    begin = str(tmp_path / "step-00000002")
    for mine in run_on_ranks(_saved, others, str(tmp_path), then, 4, begin):
        for key, value in _ends().items():
            torch.testing.assert_close(mine[key], value, rtol=1e-9, atol=1e-9, msg=key)


def test_no_view_of_an_output_is_warned_of() -> None:
    """The pools of encoders give views, and nothing writes into them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(parts(resnet()))
        warnings.warn(
            "FSDP2-wrapped module (FSDPEncoder) returned a view tensor", UserWarning, stacklevel=1
        )
        with pytest.raises(UserWarning):
            warnings.warn(
                "FSDP2-wrapped module (Block) returned a view tensor", UserWarning, stacklevel=1
            )
