"""What every objective promises, on SimCLR: checked batches, seeded steps, the same gradient."""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_rad.collectives import rank, world_size
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.simclr import SimCLR
from lightning_rad.schema import LabelledBatch, ViewBatch
from lightning_rad.training.observers.throughput import Throughput
from tests.gloo import run_on_ranks
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches
from tests.objectives.test_moco import moco
from tests.runs import Run, TinyEncoder, data


def simclr(**changes: Any) -> SimCLR:
    settings: dict[str, Any] = {
        "projector": lambda width: Projector(width, hidden=16, out_features=8, norm="layer"),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "temperature": 0.2,
    }
    torch.manual_seed(0)
    return SimCLR(TinyEncoder(), **(settings | changes))


def global_batch(rows: int = 8, views: int = 2) -> ViewBatch:
    generator = torch.Generator().manual_seed(1)
    return ViewBatch(
        views=torch.randn(views, rows, 1, 16, 16, generator=generator, dtype=torch.float64),
        unit=torch.arange(100, 100 + rows),
        patient=torch.arange(rows),
        image=torch.arange(rows).expand(views, rows),
    )


class Whole(nn.Module):
    """The objective's own path from views to loss, as one module that DDP can wrap."""

    def __init__(self, objective: SimCLR) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, batch: ViewBatch) -> torch.Tensor:
        terms = self.objective.terms(self.objective.embed(batch), batch)
        return torch.stack(list(terms.values())).sum()


def loss_and_gradient(views: int, **changes: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """On however many ranks this runs: the mean loss and DDP's gradient, for one global batch."""
    whole = global_batch(views=views)
    share = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    batch = ViewBatch(
        whole.views[:, share], whole.unit[share], whole.patient[share], whole.image[:, share]
    )
    model = Whole(simclr(**changes).double().eval())
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    loss = wrapped(batch)
    loss.backward()
    total = loss.detach().clone()
    if world_size() > 1:
        torch.distributed.all_reduce(total)
    gradient = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return float(total) / world_size(), gradient


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(("ranks", "exchange"), [(2, "gather"), (4, "gather"), (4, "ring")])
def test_simclr_has_the_same_loss_and_gradient_on_any_number_of_ranks(
    ranks: int, exchange: str, views: int
) -> None:
    loss, gradient = loss_and_gradient(views)
    on_ranks = partial(loss_and_gradient, exchange=exchange)
    for other_loss, other in run_on_ranks(on_ranks, ranks, views):
        assert other_loss == pytest.approx(loss, rel=1e-12)
        assert other.keys() == gradient.keys()
        for name, value in gradient.items():
            assert torch.allclose(other[name], value, rtol=1e-6, atol=1e-12), name


def test_simclr_is_nt_xent_of_the_projections_and_so_is_its_gradient() -> None:
    """Against the formula written out: cosine, temperature, self excluded, mean over 2N rows."""
    objective, batch = simclr().double().eval(), global_batch()
    loss = Whole(objective)(batch)
    loss.backward()
    gradient = {name: p.grad.clone() for name, p in objective.named_parameters()}
    objective.zero_grad()

    z = torch.cat([objective.projector(objective.encoder(view)) for view in batch.views])
    z = z / z.norm(dim=1, keepdim=True)
    s = (z @ z.T / 0.2).masked_fill(torch.eye(16, dtype=torch.bool), float("-inf"))
    expected = torch.nn.functional.cross_entropy(s, torch.arange(16).roll(8))
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    for name, parameter in objective.named_parameters():
        assert torch.allclose(gradient[name], parameter.grad, rtol=1e-6, atol=1e-12), name


def test_a_batch_field_that_is_not_given_is_named_before_the_first_step(
    tiny_shards: Path, tmp_path: Path
) -> None:
    module = data(Run(tiny_shards, tmp_path, 1))
    module.gives = frozenset({"views"})  # type: ignore[misc]
    with pytest.raises(ValueError, match=r"SimCLR needs the batch field\(s\) \['unit'\]; the data"):
        small_trainer().fit(simclr(), datamodule=module)


def test_one_view_is_too_few(tiny_shards: Path, tmp_path: Path) -> None:
    module = data(Run(tiny_shards, tmp_path, 1))
    module.views = module.views[:1]
    with pytest.raises(ValueError, match=r"SimCLR needs at least 2 views .* has 1"):
        small_trainer().fit(simclr(), datamodule=module)


def test_a_temperature_too_low_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperature must be at least 0\.01"):
        simclr(temperature=0.0)


def test_validation_returns_features_with_what_a_probe_needs() -> None:
    batch = LabelledBatch(
        torch.randn(3, 1, 16, 16), torch.zeros(3, 2), torch.arange(3), torch.arange(3)
    )
    out = simclr().eval().validation_step(batch, 0)
    assert out["features"].shape == (3, 32)
    assert out["features"].dtype == torch.float32
    assert out["image"] is batch.image


class Measured(Callback):
    """The encoder's buffers just before a validation, and the features that it returns."""

    def __init__(self) -> None:
        self.buffers: list[torch.Tensor] = []
        self.features = torch.empty(0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.buffers = [x.clone() for x in pl_module.encoder.buffers()]

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self.features = args[2]["features"]


def _validated(by_ddp: bool) -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    watcher, objective = Measured(), moco("batch")
    fit_on_this_rank(
        lambda: objective,
        random_batches(3),
        limit_val_batches=1,
        callbacks=[watcher],
        strategy=DDPStrategy(broadcast_buffers=by_ddp),
    )
    return watcher.buffers, watcher.features, list(objective.encoder.buffers())


@pytest.mark.parametrize("by_ddp", [False, True])
def test_all_ranks_validate_the_encoder_of_rank_0(by_ddp: bool) -> None:
    """Each rank's batch norms saw its own rows last, so there would be as many encoders."""
    (first, features, kept), (second, others, taken) = run_on_ranks(_validated, 2, by_ddp)
    assert not torch.equal(first[0], second[0])
    assert features.shape == (8, 8)
    assert torch.equal(features, others)
    for before, mine, theirs in zip(first, kept, taken, strict=True):
        assert torch.equal(before, mine)
        assert torch.equal(before, theirs)


def small_trainer(**changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 5,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
    }
    return Trainer(**(settings | changes))


class Noisy(Callback):
    """An observer that uses up random numbers."""

    drawn: ClassVar[int] = 0

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        torch.rand(7)
        Noisy.drawn += 1


def test_a_run_without_observers_ends_with_the_same_weights(
    tiny_shards: Path, tmp_path: Path
) -> None:
    """Dropout is on, so a generator that an observer moved would show."""
    ends = []
    for callbacks in ([], [Throughput(), Noisy()]):
        objective = simclr()
        small_trainer(callbacks=callbacks).fit(
            objective, datamodule=data(Run(tiny_shards, tmp_path, 5))
        )
        ends.append(objective.state_dict())
    assert Noisy.drawn == 5
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_optimiser_keeps_nothing_of_the_steps_it_took() -> None:
    """Each step watches with a hook whether it was taken; all of them would pile up."""
    optimizers: list[torch.optim.Optimizer] = []

    def sgd(groups: Any) -> torch.optim.Optimizer:
        optimizers.append(torch.optim.SGD(groups, lr=0.1))
        return optimizers[-1]

    assert len(fit_steps(moco(optimizer=sgd), random_batches(4))) == 4
    [optimizer] = optimizers
    for kind in ("_optimizer_step_post_hooks", "_optimizer_step_pre_hooks"):
        assert not getattr(optimizer, kind), kind


def test_bf16_autocast_trains_with_a_float32_loss(tiny_shards: Path, tmp_path: Path) -> None:
    objective = simclr()
    seen = []
    terms = objective.terms

    def watched(embeddings: torch.Tensor, batch: ViewBatch) -> dict[str, torch.Tensor]:
        out = terms(embeddings, batch)
        seen.append(out["nt_xent"].dtype)
        return out

    objective.terms = watched  # type: ignore[method-assign]
    small_trainer(precision="bf16-mixed", max_steps=2).fit(
        objective, datamodule=data(Run(tiny_shards, tmp_path, 2))
    )
    assert seen == [torch.float32] * 2
