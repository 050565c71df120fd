"""Every speed switch changes the speed alone, falls back where it must, and is never ignored."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend
from torch._inductor.exc import InvalidCxxCompiler
from torch.distributed.fsdp import fully_shard

from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.moco_v3 import MoCoV3
from lightning_rad.objectives.simclr import SimCLR
from lightning_rad.optim.lars import LARS
from lightning_rad.schema import ViewBatch
from lightning_rad.training import block_calls
from lightning_rad.training.speed import Speed
from tests.gloo import run_on_ranks
from tests.objectives.evidence import suited, views_of
from tests.objectives.fixed import FixedBatches, Snapshot, random_batches
from tests.objectives.small_nets import SmallEncoder
from tests.training.spread_nets import made

# torch looks at the gradients of tensors that it traces, and warns of what it does itself
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")

VIT = "vit_tiny_patch16_224"
SMALL = {VIT: {"depth": 4, "embed_dim": 48, "num_heads": 3}}
"""Four blocks are enough to show what twelve would."""


class Watch(Callback):
    """Snapshots as the tests of objectives take them, with the gradient."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.gradients: dict[str, Tensor] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = pl_module.named_parameters()
        self.gradients = {n: p.grad.clone() for n, p in named if p.grad is not None}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        state = {k: v.detach().clone() for k, v in pl_module.state_dict().items()}
        terms = {k: float(v) for k, v in trainer.callback_metrics.items() if k != "loss"}
        self.snapshots.append(Snapshot(state, terms))


def encoder(name: str, **kwargs: Any) -> Encoder:
    torch.manual_seed(0)
    size = {"image_size": 32} if name == VIT else {}
    return Encoder(name, **size, kwargs=SMALL.get(name, {}) | kwargs)


def head(layers: int = 2) -> Callable[[int], Projector]:
    return partial(Projector, hidden=16, out_features=8, layers=layers)


SGD = partial(torch.optim.SGD, lr=0.01)


def with_twin(name: str, optimizer: Any = SGD, **kwargs: Any) -> MoCoV3:
    made = encoder(name, **kwargs)
    return MoCoV3(made, projector=head(), predictor=head(), optimizer=optimizer)


def simclr(name: str, optimizer: Any = SGD, **kwargs: Any) -> SimCLR:
    return SimCLR(encoder(name, **kwargs), projector=head(), optimizer=optimizer)


def fit(
    objective: Objective,
    *callbacks: Callback,
    batches: list[ViewBatch] | None = None,
    **changes: Any,
) -> Watch:
    """Steps over batches of noise, in float64 unless told otherwise."""
    watch = Watch()
    batches = batches or random_batches(2, rows=4, size=32)
    if changes.get("precision", "64-true") != "64-true":
        batches = [ViewBatch(b.views.float(), b.unit, b.patient, b.image) for b in batches]
    data = FixedBatches(batches)
    data.views = [SimpleNamespace(size=32)] * len(batches[0].views)
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "precision": "64-true",
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "callbacks": [watch, *callbacks],
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        Trainer(**(settings | changes)).fit(objective, datamodule=data)
    return watch


def assert_same(mine: Watch, theirs: Watch, rtol: float = 0.0, floor: float = 1e-2) -> None:
    """Terms, gradients and states of all steps, relative to the largest entry of a tensor.

    floor: what that entry counts as at least: a bias before a batch norm has a gradient of 0, of
    which rounding leaves 2e-5 in float32, compiled or not, beside entries of 8.
    """
    for one, other in zip(mine.snapshots, theirs.snapshots, strict=True):
        assert one.terms == pytest.approx(other.terms, rel=max(rtol, 1e-15))
        assert_near(one.state, other.state, rtol, floor)
    assert_near(mine.gradients, theirs.gradients, rtol, floor)


def assert_near(
    mine: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float, floor: float = 1e-2
) -> None:
    assert list(mine) == list(theirs)
    for name, tensor in mine.items():
        scale = theirs[name].double().abs().max().clamp_min(floor)
        worst = (tensor.double() - theirs[name].double()).abs().max()
        assert worst <= rtol * scale, name


def refusal(speed: Callable[[], Speed], objective: Objective | None = None, **how: Any) -> str:
    with pytest.raises(ValueError, match="speed") as raised:
        fit(objective or simclr(VIT), speed(), **how)
    return str(raised.value)


@pytest.fixture(autouse=True)
def _a_compiler_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """Traces, takes apart and partitions as inductor does, and counts, but makes no code.

    Not `aot_eager`: its batch norms keep running statistics for backward, moved by the next view.
    """
    counter = CompileCounterWithBackend("aot_eager_decomp_partition")
    monkeypatch.setattr(block_calls, "COMPILER", counter)
    return counter


# --- recomputing ------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [True, 3])
@pytest.mark.parametrize("name", [VIT, "resnet18"])
def test_recomputed_blocks_give_the_same_bits_in_float32(name: str, every: int) -> None:
    """Terms, gradient, weights, twin and running statistics of two steps, with dropout."""
    how = {"proj_drop_rate": 0.2, "drop_path_rate": 0.2} if name == VIT else {"drop_path_rate": 0.2}
    speed = Speed(activation_checkpointing=every)
    runs = [fit(with_twin(name, **how), *s, precision="32-true") for s in ([speed], [])]
    assert_same(*runs)


@pytest.mark.parametrize(("every", "passes"), [(True, 8), (2, 6), (4, 5)])
def test_only_every_nth_block_runs_again_and_none_of_the_twin(every: int, passes: int) -> None:
    objective = simclr(VIT)
    twin = with_twin(VIT).twin
    ran: list[nn.Module] = []
    for block in objective.encoder.blocks() + list(twin.net[0].blocks()):
        block.norm1.register_forward_hook(lambda m, *_: ran.append(m))
    objective.twin = twin  # of a fit that does not use it: nothing of it may run
    fit(objective, Speed(activation_checkpointing=every), batches=random_batches(1, size=32))
    assert len(ran) == passes


@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_recomputed_blocks_keep_less_for_backward(form: str, graphs: CompileCounter) -> None:
    def kept(**how: Any) -> int:
        total = []

        class Count(Callback):
            def on_train_batch_start(self, *_: Any) -> None:
                def pack(x: Tensor) -> Tensor:
                    total.append(x.numel())
                    return x

                self.hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)
                self.hooks.__enter__()

            def on_before_backward(self, *_: Any) -> None:
                self.hooks.__exit__(None, None, None)

        more = {"compile": "blocks"} if form == "compiled" else {}
        fit(simclr(VIT), Speed(**more, **how), Count(), batches=random_batches(1, size=32))
        return sum(total)

    weights = sum(p.numel() for p in encoder(VIT).parameters())  # kept either way
    everything, little = kept(), kept(activation_checkpointing=True)
    assert little < 0.75 * everything
    assert everything > weights / 4


def test_recomputing_goes_with_parts_of_a_batch() -> None:
    def run(units: int | None, *speed: Speed) -> Watch:
        bare = partial(head(), norm="none")
        objective = SimCLR(encoder(VIT), projector=bare, optimizer=SGD)
        objective.embed_at_once = units
        return fit(objective, *speed)

    assert_same(run(3, Speed(activation_checkpointing=True)), run(3))
    assert_same(run(3, Speed(activation_checkpointing=True)), run(None), rtol=1e-11)


# --- compiling --------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, 2])
@pytest.mark.parametrize(
    ("name", "expected"),
    [(VIT, {False: 2, 2: 3}), ("resnet18", {False: 14, 2: 15})],
)
def test_one_graph_serves_all_blocks_of_a_make(
    name: str, expected: dict[Any, int], recompute: Any, graphs: CompileCounter
) -> None:
    """ResNet-18 has seven makes of blocks, eight where each second one is recomputed; the twin has
    graphs of its own; validation, a second epoch and the generators' seeding add none.
    """
    batches = random_batches(2, rows=4, size=32)
    speed = Speed(compile="blocks", activation_checkpointing=recompute)
    how = {"max_epochs": 2, "limit_val_batches": 1, "num_sanity_val_steps": 1}
    compiled = fit(with_twin(name), speed, batches=batches, **how)
    assert graphs.frame_count == expected[recompute]
    plainly = fit(with_twin(name), batches=batches, **how)
    assert_same(compiled, plainly, rtol=1e-9)


@pytest.mark.parametrize(
    ("kind", "name", "kwargs"),
    [
        ("knowledge_contrast", "test_resnet", {}),
        ("knowledge_contrast_grad_cam", VIT, {"class_token": False, "global_pool": "avg"}),
        ("gaze_predictor", VIT, {}),
    ],
)
def test_what_reads_patches_learns_the_same_of_compiled_blocks(
    kind: str, name: str, kwargs: dict[str, Any], graphs: CompileCounter
) -> None:
    """Heat of the patches, Grad-CAM through a head that is not compiled, maps of patches."""

    def run(*speed: Speed) -> Watch:
        objective = made(kind, encoder=partial(encoder, name, **kwargs))
        batches = random_batches(2, rows=4, views=views_of(objective), size=32)
        how = {"limit_val_batches": 1, "num_sanity_val_steps": 1}
        return fit(objective, *speed, batches=suited(objective, batches), **how)

    compiled = run(Speed(compile="blocks"))
    assert graphs.frame_count > 0
    assert_same(compiled, run(), rtol=1e-9)


@pytest.mark.slow
def test_compiled_by_inductor_a_run_is_the_run_within_rounding() -> None:
    """On a CPU, by the C++ compiler: two steps with a twin, every second block recomputed."""
    for precision, rtol, floor in (("64-true", 1e-9, 1e-2), ("32-true", 3e-3, 0.1)):
        speed = Speed(compile="blocks", activation_checkpointing=2)
        runs = [fit(with_twin(VIT), *s, precision=precision) for s in ([speed], [])]
        assert_same(*runs, rtol=rtol, floor=floor)


def test_keys_of_the_state_stay_and_the_module_is_left_as_it_was(graphs: CompileCounter) -> None:
    objective = with_twin(VIT)
    keys, limit = list(objective.state_dict()), torch._dynamo.config.recompile_limit
    watch = fit(objective, Speed(compile="blocks", activation_checkpointing=True))
    assert list(watch.snapshots[-1].state) == list(objective.state_dict()) == keys
    assert not [m for m in objective.modules() if "forward" in m.__dict__]
    assert torch._dynamo.config.recompile_limit == limit


def test_more_makes_than_torch_allows_by_itself_are_compiled(graphs: CompileCounter) -> None:
    """Stochastic depth gives each block of a transformer a rate of its own, the twin's too."""
    with torch._dynamo.config.patch(recompile_limit=8):  # torch's own, which other tests may raise
        fit(with_twin(VIT, drop_path_rate=0.3, depth=9), Speed(compile="blocks"))
    assert graphs.frame_count == 18


def _missing() -> str:
    raise InvalidCxxCompiler


def _no_cpp_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", _missing)


def _broken_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("Cannot find a working triton installation")

    monkeypatch.setattr(block_calls, "COMPILER", broken)


def _broken_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.backends.common import aot_autograd

    def refuse(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("ptxas died")

    backend = aot_autograd(fw_compiler=lambda graph, _: graph.forward, bw_compiler=refuse)
    monkeypatch.setattr(block_calls, "COMPILER", backend)


def _no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_calls, "COMPILER", "aot_eager")
    monkeypatch.setattr(block_calls, "FORMS", 1 / 8)  # times eight blocks: one graph


FAULTS = {
    "no C++ compiler": (_no_cpp_compiler, "C++ compiler"),
    "no triton": (_broken_backend, "working triton"),
    "a backward pass that does not compile": (_broken_backward, "ptxas died"),
    "too many forms": (_no_room, "RecompileLimit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_where_blocks_cannot_be_compiled_the_run_goes_on_without(
    fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant, cause = FAULTS[fault]
    plant(monkeypatch)
    caplog.set_level(logging.WARNING, logger="lightning_rad")
    watch = fit(with_twin(VIT), Speed(compile="blocks"))
    (told,) = (r.getMessage() for r in caplog.records if r.name.startswith("lightning_rad"))
    assert "speed.compile" in told
    assert cause in told
    monkeypatch.undo()
    assert_same(watch, fit(with_twin(VIT)), rtol=1e-12 if fault == "too many forms" else 0)


def test_an_operator_that_cannot_be_traced_is_named_and_run_plainly(
    caplog: pytest.LogCaptureFixture, graphs: CompileCounter
) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return x * float(x.detach().mean().sign())

    def odd() -> MoCoV3:
        objective = with_twin(VIT)
        objective.encoder.net.blocks[2].ls1 = Odd()
        return objective

    caplog.set_level(logging.WARNING, logger="lightning_rad")
    watch = fit(odd(), Speed(compile="blocks"))
    (told,) = (r.getMessage() for r in caplog.records if r.name.startswith("lightning_rad"))
    assert "Unsupported" in told
    assert_same(watch, fit(odd()), rtol=1e-12)


def test_an_error_of_a_block_itself_is_still_raised(graphs: CompileCounter) -> None:
    objective = simclr(VIT)
    objective.encoder.net.blocks[2].norm1 = nn.LayerNorm(7, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="normalized_shape"):
        fit(objective, Speed(compile="blocks"))


def _sharded_blocks() -> None:
    torch._dynamo.reset()
    net, x = encoder(VIT), torch.randn(4, 1, 32, 32)
    net(x).square().sum().backward()
    wanted = [p.grad for p in net.parameters()]
    other = encoder(VIT)
    with patch.object(block_calls, "COMPILER", "aot_eager"):
        compiled = block_calls.Compiled(other, "default", 4)
        block_calls.set_calls(other.blocks(), compiled.form(block_calls.recomputed))
        for block in other.blocks():
            fully_shard(block)
        fully_shard(other)
        other(x).square().sum().backward()
    assert not compiled.failed
    for (name, p), want in zip(other.named_parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad.full_tensor(), want, msg=name, rtol=1e-4, atol=1e-5)


def test_sharded_blocks_are_compiled_and_recomputed_between_their_gathers() -> None:
    run_on_ranks(_sharded_blocks, 2)


# --- nothing is ignored -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "trainer", "words"),
    [
        ({"compile": "whole"}, {}, "speed.compile must be false or blocks, got 'whole'"),
        ({"compile_mode": "fast"}, {}, "speed.compile_mode: 'fast'"),
        ({"compile_mode": "max-autotune"}, {}, "needs speed.compile: blocks"),
        ({"compile": "blocks", "compile_mode": "reduce-overhead"}, {}, "needs CUDA"),
        ({"compile": "blocks", "compile_mode": "max-autotune"}, {}, "needs CUDA"),
        ({"activation_checkpointing": -1}, {}, "speed.activation_checkpointing: -1"),
        ({"activation_checkpointing": 5}, {}, "5, of an encoder of 4 blocks"),
        ({"tf32": True}, {}, "speed.tf32: true needs CUDA"),
        ({"tf32": False}, {}, "speed.tf32: false needs CUDA"),
    ],
)
def test_a_switch_without_effect_is_refused_by_name(
    how: dict[str, Any], trainer: dict[str, Any], words: str
) -> None:
    assert words in refusal(lambda: Speed(**how), **trainer)


def test_an_encoder_of_another_kind_is_refused() -> None:
    odd: Any = SmallEncoder("none")
    for how in ({"compile": "blocks"}, {"activation_checkpointing": True}):
        objective = SimCLR(odd, projector=head(), optimizer=SGD)
        told = refusal(partial(Speed, **how), objective)  # type: ignore[arg-type]
        assert f"speed.{next(iter(how))}" in told
        assert "SmallEncoder" in told


def _on(device: str, precision: str) -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(strategy=strategy, precision=precision)


def test_tf32_is_set_for_float32_on_cuda_and_put_back() -> None:
    def now() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    for chosen, wanted in ((True, ("high", True)), (False, ("highest", False))):
        speed, trainer = Speed(tf32=chosen), _on("cuda", "32-true")
        speed.setup(trainer, nn.Module(), "validate")  # type: ignore[arg-type]
        assert now() == wanted
        speed.teardown(trainer, nn.Module(), "validate")  # type: ignore[arg-type]
        assert now() == before
    for precision in ("bf16-mixed", "16-mixed", "64-true"):
        with pytest.raises(ValueError, match=f"speed.tf32: true .*{precision}"):
            Speed(tf32=True).setup(_on("cuda", precision), nn.Module(), "fit")  # type: ignore[arg-type]


def test_a_search_of_cudnn_without_cuda_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="lightning_rad")
    fit(simclr(VIT), Speed(), benchmark=True)
    assert "trainer.benchmark: true has no effect on cpu" in caplog.text


# --- what belongs to others -------------------------------------------------------------------


def test_every_attention_of_a_transformer_is_torchs_own() -> None:
    with patch(
        "torch.nn.functional.scaled_dot_product_attention",
        wraps=torch.nn.functional.scaled_dot_product_attention,
    ) as attention:
        encoder(VIT)(torch.randn(2, 1, 32, 32))
    assert attention.call_count == 4


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.AdamW, lr=1e-3, eps=1e-3, fused=True),
        partial(torch.optim.SGD, lr=0.01, momentum=0.9, fused=True),
        partial(LARS, lr=0.1),
    ],
    ids=["AdamW fused", "SGD fused", "LARS"],
)
def test_optimisers_step_in_every_precision(optimizer: Any, precision: str) -> None:
    """Fused AdamW and SGD are the plain ones to rounding; LARS is one form, in foreach calls."""
    how: dict[str, Any] = {"precision": precision}
    if precision == "16-mixed":  # Lightning would take bfloat16 on a CPU, and say so
        how = {"precision": None}

    def run(made: Any) -> Watch:
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        mixed = {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
        more = mixed if precision == "16-mixed" else {}
        return fit(with_twin(VIT, made), **(how | more))

    mine = run(optimizer)
    if "fused" in optimizer.keywords:
        plainly = partial(optimizer.func, **(optimizer.keywords | {"fused": False}))
        # Adam's first steps are of the size of the rate whatever the gradient's: compare weights
        theirs = run(plainly)
        assert_near(mine.snapshots[-1].state, theirs.snapshots[-1].state, rtol=2e-3)
    first = with_twin(VIT).state_dict()
    last = mine.snapshots[-1].state
    moved = [n for n in last if not torch.equal(last[n].float(), first[n].float())]
    assert {n.split(".")[0] for n in moved} == {"encoder", "projector", "predictor", "twin"}


def test_float16_leaves_out_a_fused_step_that_overflowed_and_the_twin_stays() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    mixed = MixedPrecision("16-mixed", "cpu", scaler)
    adam = partial(torch.optim.AdamW, lr=1e-3, fused=True)
    watch = fit(with_twin(VIT, adam), precision=None, plugins=[mixed])
    first = {n: t.float() for n, t in with_twin(VIT).state_dict().items()}
    for name, tensor in watch.snapshots[0].state.items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(tensor.float(), first[name]), name
    assert scaler.get_scale() < 2.0**40
