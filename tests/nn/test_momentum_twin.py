"""The twin: what it copies, how far it follows, and the mode its parts are in."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_rad.collectives import rank
from lightning_rad.nn.momentum_twin import MomentumTwin
from tests.gloo import run_on_ranks


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))


def head() -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(6, 3)


def test_it_starts_as_a_copy_that_shares_no_memory() -> None:
    first, last = body(), head()
    twin = MomentumTwin(first, last, momentum=0.9).eval()
    x = torch.randn(5, 4)
    before = twin(x)
    torch.testing.assert_close(before, last(first.eval()(x)))
    with torch.no_grad():
        for p in (*first.parameters(), *last.parameters()):
            p.add_(1.0)
    assert torch.equal(twin(x), before)


@settings(deadline=None, max_examples=30)
@given(momentum=st.floats(0, 1), progress=st.floats(0, 1))
def test_every_parameter_and_no_buffer_follows(momentum: float, progress: float) -> None:
    first, last = body().double(), head().double()
    twin = MomentumTwin(first, last, momentum=momentum)
    old = {name: value.clone() for name, value in twin.net.state_dict().items()}
    with torch.no_grad():
        for tensor in nn.Sequential(first, last).state_dict().values():
            tensor.add_(2)
    student = nn.Sequential(first, last).state_dict()
    twin.follow(first, last, progress=progress)
    keep = 1 - (1 - momentum) * 0.5 * (1 + math.cos(math.pi * progress))
    parameters = {name for name, _ in twin.net.named_parameters()}
    for name, value in twin.net.state_dict().items():
        wanted = keep * old[name] + (1 - keep) * student[name] if name in parameters else old[name]
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)


def test_momentum_one_never_moves_and_momentum_zero_is_the_student_and_progress_ends_at_one() -> (
    None
):
    for momentum, progress, moves in ((1.0, 0.0, False), (0.0, 0.0, True), (0.0, 1.0, False)):
        student = head()
        twin = MomentumTwin(student, momentum=momentum)
        with torch.no_grad():
            student.weight.add_(1.0)
        twin.follow(student, progress=progress)
        assert torch.equal(twin.net[0].weight, student.weight) == moves


def test_nothing_of_it_learns_and_no_gradient_passes() -> None:
    student = head()
    twin = MomentumTwin(student, momentum=0.5)
    x = torch.randn(2, 6, requires_grad=True)
    assert not twin(x).requires_grad
    assert not any(p.requires_grad for p in twin.parameters())
    twin.follow(student)
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in student.parameters())


def test_batch_norms_follow_the_mode_and_nothing_is_ever_dropped() -> None:
    holder = nn.Sequential(MomentumTwin(body(), momentum=0.5))
    linear, norm, dropout = holder[0].net[0]
    assert norm.training  # from the start, and
    assert not dropout.training  # not only once train() was called, which Lightning never does
    for mode in (True, False):
        holder.train(mode)
        assert norm.training == mode
        assert not dropout.training
        assert not linear.training
    holder.train()
    x = torch.randn(8, 4)
    assert torch.equal(holder(x), holder(x))
    assert not torch.equal(norm.running_mean, torch.zeros(6))


def _passed(kinds: tuple[type[nn.Module], ...], order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's rows, what the twin's net saw of them, and what came of it.

    In eval mode, for synchronised norms train on GPUs only; the shuffle does not ask for the mode.
    """
    torch.manual_seed(0)
    layers = [layer for kind in kinds for layer in (nn.Linear(3, 3), kind(3))]
    twin = MomentumTwin(nn.Sequential(*layers), momentum=0.9).eval()
    seen: list[Tensor] = []
    twin.net.register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
    mine = torch.arange(12.0).view(4, 3) + 100 * rank()
    out = twin.shuffled(mine, order)
    return mine, torch.cat(seen), out - twin(mine)


@pytest.mark.parametrize(
    ("kinds", "shuffles"),
    [
        ((nn.BatchNorm1d,), True),
        ((nn.SyncBatchNorm, nn.BatchNorm1d), True),
        ((nn.BatchNorm1d, nn.SyncBatchNorm), True),
        ((nn.SyncBatchNorm, nn.SyncBatchNorm), False),
        ((nn.LayerNorm,), False),
    ],
)
def test_rows_change_ranks_as_long_as_one_batch_norm_sees_one_rank(
    kinds: tuple[type[nn.Module], ...], shuffles: bool
) -> None:
    order = torch.tensor([0, 5, 2, 7, 4, 1, 6, 3])
    out = run_on_ranks(_passed, 2, kinds, order)
    whole = torch.cat([mine for mine, _, _ in out])
    seen = torch.cat([rows[:4] for _, rows, _ in out])
    assert torch.equal(seen, whole[order] if shuffles else whole)
    for _, _, difference in out:
        torch.testing.assert_close(difference, torch.zeros(4, 3), rtol=0, atol=1e-4)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, math.nan, math.inf])
def test_a_momentum_outside_0_to_1_is_refused_by_name(momentum: float) -> None:
    with pytest.raises(ValueError, match=r"^momentum: .* of the twin is not in \[0, 1\]$"):
        MomentumTwin(head(), momentum=momentum)
