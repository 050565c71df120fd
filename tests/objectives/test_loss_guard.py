"""A bad loss on any rank moves nothing on any rank; several in a row end the run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch import distributed as dist

from lightning_rad.collectives import world_size
from lightning_rad.manifest import load_manifest
from lightning_rad.objectives.loss_guard import Guard, LossDivergedError
from lightning_rad.optim.lars import LARS
from lightning_rad.schema import ViewBatch
from tests.command import lightning_rad
from tests.configs.test_stacks import CONFIGS, stack
from tests.gloo import run_on_ranks
from tests.objectives.fixed import FixedBatches, fit_on_this_rank, fit_steps, random_batches
from tests.objectives.test_byol import byol
from tests.objectives.test_c2l import c2l
from tests.objectives.test_micle import simclr
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_steps import smaller
from tests.objectives.test_vicreg import vicreg

BAD = 2
"""The batch, counted from 0, that is spoilt."""

State = dict[str, Tensor]
Optimiser = Callable[[Any], torch.optim.Optimizer]

OPTIMISERS: dict[str, Optimiser] = {
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=0.01, foreach=True),
    "adamw, fused": partial(torch.optim.AdamW, lr=0.01, fused=True),
    "lars": partial(LARS, lr=0.1),
}


def spoilt(batches: list[ViewBatch], *which: int, row: int = -1) -> list[ViewBatch]:
    """Some batches with a NaN in one row: by default the last, which the last rank has."""
    out = [ViewBatch(b.views.clone(), b.unit, b.patient, b.image) for b in batches]
    for number in which:
        out[number].views[0, row, 0, 3, 3] = float("nan")
    return out


def without(batches: list[ViewBatch], *which: int) -> list[ViewBatch]:
    return [batch for number, batch in enumerate(batches) if number not in which]


def guarded(make: Callable[..., Any], **settings: Any) -> Any:
    objective = make()
    objective.guard = Guard(**settings)
    return objective


def last_state(make: Callable[[], Any], batches: list[ViewBatch], **how: Any) -> State:
    fit = fit_on_this_rank if world_size() > 1 else lambda made, *a, **k: fit_steps(made(), *a, **k)
    return fit(make, batches, **how)[-1].state


def assert_same(state: State, other: State) -> None:
    assert state.keys() == other.keys()
    for name, value in state.items():
        assert value.isfinite().all(), name
        assert torch.equal(value, other[name]), name


# Nothing in these is a function of the step's number: what is left is the batches. On two ranks
# ShuffleBN is, and MoCo has no batch norms there.
STATELESS: dict[str, Callable[..., Any]] = {
    "simclr": partial(simclr, "batch"),
    "moco": partial(moco, "batch"),
    "vicreg": partial(vicreg, "batch"),
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", STATELESS)
def test_a_bad_batch_is_as_if_it_had_not_been(name: str, ranks: int) -> None:
    """Weights, momenta, statistics of batch norms, twin, queue and pointer, bit for bit."""
    batches = random_batches(5)
    objective = moco if (name, ranks) == ("moco", 2) else STATELESS[name]
    make = partial(guarded, partial(objective, optimizer=OPTIMISERS["momentum"]))
    given = (spoilt(batches, BAD), without(batches, BAD))
    if ranks == 1:
        assert_same(*(last_state(make, batches) for batches in given))
        return
    kept, wanted = (run_on_ranks(last_state, 2, make, batches) for batches in given)
    for mine, theirs in zip(kept, wanted, strict=True):
        assert_same(mine, theirs)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_no_optimiser_moves_on_a_bad_batch(optimiser: str) -> None:
    batches = random_batches(5)
    make = partial(guarded, partial(simclr, optimizer=OPTIMISERS[optimiser]))
    given = (spoilt(batches, BAD), without(batches, BAD))
    assert_same(*(last_state(make, batches, gradient_clip_val=0.5) for batches in given))


@pytest.mark.parametrize("make", [byol, moco_v3], ids=["byol", "moco_v3"])
def test_a_bad_loss_of_one_rank_leaves_the_step_out_on_both(
    make: Callable[..., Any], fault: Callable[..., None]
) -> None:
    """BYOL exchanges nothing, so one rank alone has the bad loss; the twin stays, too."""
    batches = spoilt(random_batches(4), BAD)
    ranks = run_on_ranks(fit_on_this_rank, 2, partial(guarded, partial(make, "batch")), batches)
    for snapshots in ranks:
        assert_same(snapshots[BAD].state, snapshots[BAD - 1].state)
        assert any(
            not torch.equal(value, snapshots[BAD].state[name])
            for name, value in snapshots[BAD + 1].state.items()
        )
    if make is byol:
        losses = [math.isfinite(sum(run[BAD].terms.values())) for run in ranks]
        assert losses == [True, False]
    for (name, mine), theirs in zip(
        ranks[0][-1].state.items(), ranks[1][-1].state.values(), strict=True
    ):
        if "running" not in name:  # each rank's batch norms see its own rows
            assert torch.equal(mine, theirs), name
    fault(
        "a NaN in one row of one of two ranks",
        injected="a pixel of one batch",
        outcome="the step is left out on both: weights, optimiser, twin, queue as before",
        lost="that step",
        identical="bits, to the run without that batch",
    )


def test_a_step_is_bad_if_any_of_its_micro_batches_is() -> None:
    batches = random_batches(9)
    make = partial(guarded, partial(simclr, "batch", optimizer=OPTIMISERS["momentum"]))
    how = {"accumulate_grad_batches": 3, "max_steps": -1, "max_epochs": 1}
    wanted = last_state(make, without(batches, 3, 4, 5), **how)
    for bad in (3, 4, 5):
        assert_same(last_state(make, spoilt(batches, bad), **how), wanted)


def test_parts_of_a_batch_are_guarded_too() -> None:
    batches = random_batches(5)

    def in_parts() -> Any:
        objective = guarded(partial(simclr, optimizer=OPTIMISERS["momentum"]))
        objective.embed_at_once = 3
        return objective

    given = (spoilt(batches, BAD), without(batches, BAD))
    assert_same(*(last_state(in_parts, batches) for batches in given))


def exploding(make: Callable[..., Any], *, at: int) -> Any:
    """Its loss is ten thousand times itself at one step, as is its gradient."""
    objective = make()
    terms = objective.terms

    def larger(embeddings: Any, batch: ViewBatch) -> dict[str, Tensor]:
        factor = 1e4 if objective.global_step == at else 1.0
        return {name: factor * term for name, term in terms(embeddings, batch).items()}

    objective.terms = larger
    return objective


def test_a_loss_above_the_limit_is_as_bad_as_one_that_is_no_number(
    fault: Callable[..., None],
) -> None:
    batches = random_batches(4)
    make = partial(exploding, partial(simclr, optimizer=OPTIMISERS["momentum"]), at=BAD)
    snapshots = fit_steps(guarded(make, max_loss=1000.0), batches)
    wanted = fit_steps(simclr(optimizer=OPTIMISERS["momentum"]), without(batches, BAD))
    assert_same(snapshots[-1].state, wanted[-1].state)
    assert snapshots[BAD].terms["nt_xent"] > 1000
    unguarded = fit_steps(guarded(make), batches)
    assert not torch.equal(
        unguarded[-1].state["encoder.layers.0.weight"], wanted[-1].state["encoder.layers.0.weight"]
    )
    fault(
        "an exploding loss",
        injected="one loss times 10,000, guard.max_loss set",
        outcome="the step is left out",
        lost="that step",
        identical="bits, to the run without that batch",
    )


def test_the_schedule_goes_on_over_a_step_left_out() -> None:
    rates: list[float] = []

    def falling(optimizer: Any, steps: int) -> Any:
        def rate(step: int) -> float:
            rates.append(1 - step / steps)
            return rates[-1]

        return torch.optim.lr_scheduler.LambdaLR(optimizer, rate)

    fit_steps(simclr(schedule=falling), spoilt(random_batches(4), BAD))
    assert sorted(set(rates), reverse=True) == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("explodes", [False, True], ids=["no number", "above the limit"])
@pytest.mark.parametrize("optimiser", ["momentum", "adamw, fused"])
def test_under_a_loss_scale_the_scaler_leaves_the_step_out(optimiser: str, explodes: bool) -> None:
    batches = random_batches(4) if explodes else spoilt(random_batches(4), BAD)
    for batch in batches:
        batch.views = batch.views.float()
    plain = partial(simclr, optimizer=OPTIMISERS[optimiser])
    make = partial(exploding, plain, at=BAD) if explodes else plain
    objective = guarded(make, max_loss=1000.0).float()
    states: list[State] = []
    taken: list[bool] = []

    def watched(was_taken: bool) -> None:
        taken.append(was_taken)
        states.append({name: x.clone() for name, x in objective.state_dict().items()})

    objective.after_step = watched
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    Trainer(
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        max_steps=4,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    ).fit(objective, datamodule=FixedBatches(batches))
    assert taken == [step != BAD for step in range(4)]
    assert_same(states[BAD], states[BAD - 1])
    assert any(not torch.equal(x, states[BAD][n]) for n, x in states[BAD + 1].items())
    assert all(x.isfinite().all() for x in states[-1].values())


def test_a_first_batch_that_is_bad_does_not_set_the_constant_of_nce() -> None:
    batches = random_batches(4)
    make = partial(guarded, partial(c2l, nce_images=200, optimizer=OPTIMISERS["momentum"]))
    snapshots = fit_steps(make(), spoilt(batches, 0))
    assert float(snapshots[0].state["log_partition"]) == 0
    constant = snapshots[1].state["log_partition"]
    assert constant.isfinite()
    assert constant != 0
    assert torch.equal(snapshots[3].state["log_partition"], constant)


def _until_it_ends(folder: Path, batches: list[ViewBatch], **settings: Any) -> str:
    make = partial(guarded, byol, **settings)
    try:
        fit_on_this_rank(make, batches, default_root_dir=str(folder))
    except LossDivergedError as error:
        return str(error)
    return "went on"


def test_bad_steps_in_a_row_end_the_run_on_all_ranks_and_name_their_batches(
    tmp_path: Path, fault: Callable[..., None]
) -> None:
    batches = spoilt(random_batches(8), 1, 3, 4, 5)
    said = run_on_ranks(_until_it_ends, 2, tmp_path, batches)
    assert [text.split(",")[0] for text in said] == ["the losses of 3 steps in a row"] * 2
    files = sorted((tmp_path / "bad_batches").iterdir())
    assert [file.name for file in files] == ["step-5-rank-0.json", "step-5-rank-1.json"]
    for number, file in enumerate(files):
        body = json.loads(file.read_text())
        assert (body["rank"], body["ranks"]) == (number, 2)
        assert [batch["step"] for batch in body["batches"]] == [3, 4, 5]
        assert [batch["bad"] for batch in body["batches"]] == [number == 1] * 3
        for batch in body["batches"]:
            first = 8 * batch["step"] + 4 * number
            assert [row["unit"] for row in batch["rows"]] == list(range(first, first + 4))
    fault(
        "NaN three steps in a row on one of two ranks",
        injected="a pixel of three batches",
        outcome="both ranks name the rows of their batches and end; the checkpoint stays",
        lost="since the last checkpoint",
        identical="-",
    )


@pytest.mark.parametrize(("most", "ends"), [(1, True), (2, True), (3, False), (None, False)])
def test_the_run_ends_after_so_many_as_it_is_told(
    tmp_path: Path, most: int | None, ends: bool
) -> None:
    objective = guarded(simclr, stop_after=most)
    batches = spoilt(random_batches(6), 0, 2, 3, 5)
    how = {"default_root_dir": str(tmp_path)}
    if ends:
        with pytest.raises(LossDivergedError):
            fit_steps(objective, batches, **how)
    else:
        assert len(fit_steps(objective, batches, **how)) == 6
    assert (tmp_path / "bad_batches").exists() == ends


def test_each_step_left_out_is_counted_and_logged_with_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    fit_steps(simclr(), spoilt(random_batches(6), 1, 4), logger=logger, log_every_n_steps=5)
    rows = [
        (row["step"], row["train/skipped"])
        for row in logger.experiment.metrics + _read(tmp_path)
        if row.get("train/skipped")
    ]
    assert [(int(step), float(count)) for step, count in rows] == [(1, 1), (4, 2)]
    said = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert said == [
        "step 1 is left out: the loss of rank 0 is bad (rank 0: nan); 1 in a row, 1 in all",
        "step 4 is left out: the loss of rank 0 is bad (rank 0: nan); 1 in a row, 2 in all",
    ]


def _read(folder: Path) -> list[dict[str, str]]:
    with next(folder.rglob("metrics.csv")).open(newline="") as file:
        return list(csv.DictReader(file))


class _Forget(Callback):
    """Drops what Lightning sent before the first step."""

    def __init__(self, sent: list[Any]) -> None:
        self._sent = sent

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._sent.clear()


def _all_reduces(accumulate: int) -> int:
    sent: list[Any] = []
    reduce = dist.all_reduce

    def watched(x: Tensor, *args: Any, **how: Any) -> Any:
        sent.append((x.dtype, x.nbytes))
        return reduce(x, *args, **how)

    with patch.object(dist, "all_reduce", watched):
        fit_on_this_rank(
            byol,
            random_batches(6),
            accumulate_grad_batches=accumulate,
            max_steps=-1,
            max_epochs=1,
            callbacks=[_Forget(sent)],
        )
    return sent


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_ranks_agree_by_one_number_a_step(accumulate: int) -> None:
    assert run_on_ranks(_all_reduces, 2, accumulate) == [[(torch.int32, 4)] * (6 // accumulate)] * 2


def _leave_out(run: Path, shards: Path, *changes: str) -> list[str]:
    """A stack whose losses are all above the limit, in batches of 8 of 32 pixels."""
    view = yaml.safe_load((CONFIGS / "view/two_view_small.yaml").read_text())
    for part in (*view["data"]["views"], view["data"]["evaluation"]["view"]):
        part["init_args"]["size"] = 32
    model = {"init_args": smaller("simclr")}
    (run / "smaller.yaml").write_text(yaml.safe_dump(view | {"model": model}))
    return [
        *stack(objective="simclr"),
        *("-c", str(run / "smaller.yaml")),
        *("--run", str(run)),
        *("--data.manifest", str(shards)),
        *("--data.global_batch", "8"),
        *("--data.loading.threads", "0"),
        *("--trainer.limit_val_batches", "0"),
        *("--trainer.enable_progress_bar", "false"),
        *("--trainer.enable_model_summary", "false"),
        *("--trainer.max_epochs", "-1"),
        *("--trainer.max_steps", "5"),
        *("--checkpoint.every_n_train_steps", "100"),
        *changes,
    ]


def test_the_command_ends_with_86_and_writes_no_last_checkpoint(
    tmp_path: Path,
    tiny_shards: Path,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[..., None],
) -> None:
    arguments = _leave_out(tmp_path, tiny_shards, "--guard.max_loss", "1e-9")
    with pytest.raises(SystemExit) as ending:
        lightning_rad("fit", *arguments, "--guard.stop_after", "2")
    assert ending.value.code == 86
    assert "lightning-rad: the losses of 2 steps in a row, to step 1, were bad" in (
        capsys.readouterr().err
    )
    body = json.loads((tmp_path / "bad_batches/step-1-rank-0.json").read_text())
    assert [batch["positions"] for batch in body["batches"]] == [[0], [8]]
    shards = {shard.file for shard in load_manifest(tiny_shards).of_split("train")}
    for batch in body["batches"]:
        assert [len(row["images"]) for row in batch["rows"]] == [2] * 8
        assert {shown["shard"] for row in batch["rows"] for shown in row["images"]} <= shards
    assert not list((tmp_path / "checkpoints").glob("step-00000002*"))  # none at the end
    fault(
        "every loss too large, from the command line",
        injected="--guard.max_loss 1e-9 --guard.stop_after 2",
        outcome="exit 86, shard and key of each row in bad_batches, no last checkpoint",
        lost="since the last checkpoint",
        identical="-",
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stop_after": 0}, r"guard\.stop_after must be at least 1 or null, got 0"),
        ({"max_loss": 0.0}, r"guard\.max_loss must be above 0 or null, got 0\.0"),
        ({"max_loss": float("nan")}, r"guard\.max_loss must be above 0 or null, got nan"),
    ],
)
def test_a_guard_that_guards_nothing_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Guard(**settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 11.0, -11.0])
def test_these_losses_are_bad(value: float) -> None:
    assert Guard(max_loss=10).bad(torch.tensor(value))
    assert bool(Guard().bad(torch.tensor(value))) == (not math.isfinite(value))
    assert not Guard(max_loss=10).bad(torch.tensor(10.0))
