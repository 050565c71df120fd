"""NT-Xent against a formula in float64 NumPy, row by row, in every form, and at the edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_rad.kernels import choice
from lightning_rad.kernels.nt_xent import nt_xent
from lightning_rad.kernels.pairs import fused_cpu
from lightning_rad.kernels.temperature import Learned

FORMS = ["reference", "fused"]


def formula(z: Any, ids: Any, temperature: float, groups: Any = None) -> tuple[Any, float]:
    """Losses of the rows and their mean over rows with a positive, one scalar at a time."""
    groups = [0] * len(z) if groups is None else groups
    z = z / np.maximum(np.sqrt((z**2).sum(1, keepdims=True)), 1e-6)
    losses, counted = np.zeros(len(z)), []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        positives = [j for j in others if ids[j] == ids[i]]
        if not positives:
            continue
        rivals = [j for j in others if ids[j] == ids[i] or groups[i] == 0 or groups[j] != groups[i]]
        logit = {j: math.fsum(z[i] * z[j]) / temperature for j in rivals}
        top = max(logit.values())
        lse = top + math.log(math.fsum(math.exp(v - top) for v in logit.values()))
        losses[i] = lse - math.fsum(logit[j] for j in positives) / len(positives)
        counted.append(losses[i])
    return losses, math.fsum(counted) / len(counted) if counted else 0.0


def problem(seed: int, rows: int, dim: int, units: int) -> tuple[Tensor, Tensor]:
    """Float64 rows with ids below `units`."""
    make = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, dim, generator=make, dtype=torch.float64)
    return z, torch.randint(units, (rows,), generator=make)


def gradient_at(
    z: Tensor, ids: Tensor, temperature: float, backend: Any, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    loss = nt_xent(z, z, ids, temperature=temperature, groups_M=groups, backend=backend)
    loss.backward()
    assert z.grad is not None
    return loss.detach(), z.grad


@pytest.fixture(params=[4, fused_cpu.BLOCK])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The side of a block: small enough for ragged ones in small problems, and as it is."""
    monkeypatch.setattr(fused_cpu, "BLOCK", request.param)
    return int(request.param)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("side", [3, 512])
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 13),
    dim=st.integers(1, 17),
    units=st.integers(1, 12),
    groups=st.integers(0, 5),
    temperature=st.sampled_from([0.01, 0.02, 0.1, 0.5]),
    learned=st.booleans(),
)
def test_equals_the_formula_for_any_rows_positives_and_groups(
    side: int,
    backend: Any,
    seed: int,
    rows: int,
    dim: int,
    units: int,
    groups: int,
    temperature: float,
    learned: bool,
) -> None:
    z, ids = problem(seed, rows, dim, units)
    groups_M = ids % groups if groups else None
    want, mean = formula(
        z.numpy(), ids.tolist(), temperature, None if groups_M is None else groups_M.tolist()
    )
    tau = Learned(torch.tensor(temperature, dtype=torch.float64), 0.01) if learned else temperature
    how: dict[str, Any] = {"temperature": tau, "groups_M": groups_M, "backend": backend}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "BLOCK", side)
        got = nt_xent(z, z, ids, reduction="none", **how)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-11, atol=1e-11)
        assert nt_xent(z, z, ids, **how).item() == pytest.approx(mean, rel=1e-11, abs=1e-11)
        low = nt_xent(z.float(), z.float(), ids, **how)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(mean, rel=1e-5, abs=5e-7 / temperature)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("rows", "units"), [(1, 1), (9, 3), (6, 20)])
@pytest.mark.parametrize("grouped", [False, True])
def test_gradients_of_rows_and_temperature_are_right(
    backend: Any,
    temperature: float,
    reduction: Any,
    rows: int,
    units: int,
    grouped: bool,
    block: int,
) -> None:
    z, ids = problem(3, rows, 4, units)
    groups = ids // 2 if grouped else None  # units 0 and 1 of an unknown group
    weights = torch.rand(rows, dtype=torch.float64)  # an upstream gradient of its own a row

    def loss(z: Tensor, tau: Tensor) -> Tensor:
        losses = nt_xent(
            z,
            z.detach(),
            ids,
            temperature=Learned(tau, 0.9 * temperature),
            groups_M=groups,
            reduction=reduction,
            backend=backend,
        )
        return -3.7 * (weights * losses).sum()

    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (z.requires_grad_(), tau), eps=1e-7, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", FORMS)
def test_pairs_of_two_views_have_the_entropy_of_simclr(backend: Any) -> None:
    z, _ = problem(0, 8, 5, 1)
    unit = torch.nn.functional.normalize(z, dim=1)
    logits = (unit @ unit.T / 0.1).fill_diagonal_(-torch.inf)
    want = torch.nn.functional.cross_entropy(logits, torch.arange(8).roll(4))
    got = nt_xent(z, z, torch.arange(4).repeat(2), temperature=0.1, backend=backend)
    torch.testing.assert_close(got, want, rtol=1e-13, atol=0)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_rows_split_over_ranks_average_to_the_whole(backend: Any, temperature: float) -> None:
    z, _ = problem(5, 12, 6, 1)
    ids = torch.arange(6).repeat(2)
    how: dict[str, Any] = {"temperature": temperature, "backend": backend}
    parts = [nt_xent(z[k : k + 4], z, ids, offset=k, **how) for k in (0, 4, 8)]
    whole = nt_xent(z, z, ids, **how)
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("group", [0, 7])
def test_unknown_groups_and_groups_of_one_unit_exclude_nothing(backend: Any, group: int) -> None:
    z, ids = problem(4, 8, 5, 4)
    groups = torch.zeros_like(ids) if group == 0 else ids + group
    with_groups = gradient_at(z, ids, 0.1, backend, groups)
    for got, want in zip(with_groups, gradient_at(z, ids, 0.1, backend), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rows_without_a_positive_give_zero_and_no_gradient(backend: Any, rows: int) -> None:
    loss, grad = gradient_at(torch.randn(rows, 3), torch.arange(rows), 0.1, backend)
    assert loss.item() == 0
    assert not grad.any()


@pytest.mark.parametrize("backend", FORMS)
def test_rows_left_with_nothing_but_their_positive_give_zero(backend: Any) -> None:
    ids = torch.tensor([0, 0, 1, 1, 2])
    loss, grad = gradient_at(torch.randn(5, 3), ids, 0.1, backend, torch.full((5,), 3))
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert grad.abs().max() <= 1e-5


@pytest.mark.parametrize("backend", FORMS)
def test_a_row_without_a_positive_leaves_the_mean_but_stays_a_negative(backend: Any) -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.2]])
    ids = torch.tensor([0, 0, 1])
    loss, grad = gradient_at(z, ids, 0.1, backend)
    per_row = nt_xent(z, z, ids, temperature=0.1, reduction="none", backend=backend)
    assert per_row[2] == 0
    torch.testing.assert_close(loss, per_row[:2].mean())
    assert loss > gradient_at(z[:2], ids[:2], 0.1, backend)[0]
    assert grad[2].any()


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1e-6, 1.0, 1e20, 1e37])
def test_extreme_norms_give_finite_loss_and_gradient(
    backend: Any, scale: float, temperature: float
) -> None:
    z = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    z[::2] *= scale
    loss, grad = gradient_at(z, torch.arange(3).repeat(2), temperature, backend)
    assert loss.isfinite()
    assert grad.isfinite().all()


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("scale", [2.0**-16, 2.0**120])
def test_the_norm_of_a_row_does_not_matter_even_where_its_square_overflows(
    backend: Any, scale: float
) -> None:
    z, ids = problem(2, 6, 4, 3)
    loss, grad = gradient_at(z.float(), ids, 0.1, backend)
    scaled_loss, scaled_grad = gradient_at(z.float() * scale, ids, 0.1, backend)
    torch.testing.assert_close(scaled_loss, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled_grad * scale, grad, rtol=1e-5, atol=1e-6)


def embeddings(kind: str, rows: int, dim: int) -> Tensor:
    """Two views each of rows / 2 units: strangers, near twins, or all alike."""
    make = torch.Generator().manual_seed(rows)
    first, second = torch.randn(2, rows // 2, dim, generator=make)
    if kind == "twins":
        second = first + 0.3 * second
    z = torch.cat([first, second])
    return 1 + 1e-3 * z if kind == "collapsed" else z


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.03, 0.1, 0.5])
@pytest.mark.parametrize("kind", ["strangers", "twins", "collapsed"])
@pytest.mark.parametrize(("rows", "dim"), [(6, 4), (256, 128), (1100, 33)])
@pytest.mark.parametrize("grouped", [False, True])
def test_float32_keeps_the_tolerance_of_the_table(
    backend: Any, kind: str, rows: int, dim: int, grouped: bool, temperature: float
) -> None:
    z, ids = embeddings(kind, rows, dim), torch.arange(rows // 2).repeat(2)
    groups = ids % 3 if grouped else None
    loss, grad = gradient_at(z, ids, temperature, backend, groups)
    want_loss, want_grad = gradient_at(z.double(), ids, temperature, "reference", groups)
    bound = 1e-6 * want_loss.abs() + 2e-7 / temperature
    assert (loss - want_loss).abs() <= bound
    row_scale = 1 / (temperature * rows * z.norm(dim=1))
    assert ((grad - want_grad).norm(dim=1) <= row_scale * (1.5e-6 + 2e-7 / temperature)).all()


@pytest.mark.parametrize("backend", FORMS)
def test_identical_rows_at_a_low_temperature_stay_exact(backend: Any) -> None:
    z = torch.ones(6, 4)  # collapsed: every logit is 100, the softmax is uniform over 5 keys
    loss, grad = gradient_at(z, torch.arange(3).repeat(2), 0.01, backend)
    assert loss.item() == pytest.approx(math.log(5), rel=1e-5)
    assert grad.abs().max() < 1e-4


@pytest.mark.parametrize("backend", FORMS)
def test_a_nan_is_not_hidden(backend: Any) -> None:
    z = torch.randn(4, 3)
    z[1, 1] = torch.nan
    assert gradient_at(z, torch.tensor([0, 1, 0, 1]), 0.1, backend)[0].isnan()


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_loss(backend: Any, low: torch.dtype) -> None:
    z, ids = problem(4, 32, 64, 16)
    low_z = z.to(low)
    want = nt_xent(low_z.double(), low_z.double(), ids, temperature=0.05, backend="reference")
    with torch.autocast("cpu", dtype=low):
        got = nt_xent(low_z, low_z, ids, temperature=0.05, backend=backend)
        learned = Learned(torch.tensor(0.05, dtype=low), 0.04)
        assert nt_xent(low_z, low_z, ids, temperature=learned, backend=backend).dtype == got.dtype
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=2e-6)


@pytest.mark.parametrize("backend", FORMS)
def test_compiles_without_a_graph_break_forward_and_backward(backend: Any) -> None:
    z, ids = problem(6, 8, 5, 4)
    compiled = torch.compile(nt_xent, backend="aot_eager", fullgraph=True)
    for groups in (None, ids % 2):
        how: dict[str, Any] = {"temperature": 0.1, "groups_M": groups, "backend": backend}
        want, want_grad = gradient_at(z, ids, 0.1, backend, groups)
        leaf = z.clone().requires_grad_()
        got = compiled(leaf, leaf.detach(), ids, **how)
        got.backward()
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(leaf.grad, want_grad)


@pytest.mark.parametrize("rows", [8, 600])
def test_auto_compiles_without_a_graph_break_and_without_its_line_of_log(rows: int) -> None:
    choice._tell.cache_clear()
    z, ids = problem(6, rows, 5, rows // 2)

    def loss(z: Tensor) -> Tensor:
        return nt_xent(z, z.detach(), ids, temperature=0.1)

    leaf = z.clone().requires_grad_()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(leaf), loss(z))


def test_auto_runs_the_fused_form_where_it_is_the_faster_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []
    inner = fused_cpu.sums
    monkeypatch.setattr(fused_cpu, "sums", lambda p, b: ran.append(len(p.x_ND)) or inner(p, b))
    for rows in (512, 513):
        z, ids = problem(0, rows, 8, 32)
        nt_xent(z, z, ids, temperature=0.1)
        nt_xent(z, z, ids, temperature=0.1, backend="reference")
    assert ran == [513]


def test_memory_grows_with_the_rows_and_not_with_their_square() -> None:
    """The largest tensor that 4,096 rows make is a block, not a matrix of 64 MiB."""
    z, ids = torch.randn(4096, 8), torch.arange(2048).repeat(2)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                sizes.append(out.numel() * out.element_size())
            return out

    with Watch():
        gradient_at(z, ids, 0.1, "fused")
    assert max(sizes) <= 4 * 2**20


def test_auto_refuses_a_matrix_that_is_too_large_where_there_is_no_fused_form(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "DENSE_LIMIT_MIB", 1)
    monkeypatch.setattr(choice, "FUSED_ABOVE", {})
    z, ids = torch.randn(513, 2), torch.zeros(513, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"513 x 513 similarities .* backend 'reference'"):
        nt_xent(z, z, ids, temperature=0.1)
    assert nt_xent(z, z, ids, temperature=0.1, backend="reference").isfinite()
    assert nt_xent(z[:512], z[:512], ids[:512], temperature=0.1).isfinite()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "fast"}, "'fast' is not one of .*'auto', 'reference', 'fused'"),
        ({"temperature": 0.0}, "temperature: 0.0"),
        ({"temperature": math.nan}, "temperature: nan"),
        ({"temperature": Learned(torch.tensor(0.1), 0.0)}, "temperature: 0.0"),
        ({"offset": 2}, "offset: rows 2 to 5 are not among 4 keys"),
        ({"offset": -1}, "offset"),
        ({"keys_MD": torch.zeros(4, 3)}, "do not match"),
        ({"ids_M": torch.zeros(3, dtype=torch.int64)}, r"ids \(3,\) for 4 keys"),
        ({"ids_M": torch.zeros(4)}, "ids must be int64"),
        ({"groups_M": torch.zeros(4, 1, dtype=torch.int64)}, r"groups \(4, 1\) for 4 keys"),
        ({"groups_M": torch.zeros(4)}, "groups must be int64"),
    ],
)
def test_unusable_arguments_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "z_ND": torch.zeros(3, 2),
        "keys_MD": torch.zeros(4, 2),
        "ids_M": torch.zeros(4, dtype=torch.int64),
        "temperature": 0.1,
    }
    assert nt_xent(**good).isfinite()
    with pytest.raises(ValueError, match=message):
        nt_xent(**(good | change))
