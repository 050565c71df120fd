"""InfoNCE in one pass against its dense definition, in float64 and at its edges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.kernels.info_nce import fused_cpu, info_nce
from lightning_rad.kernels.temperature import Learned
from lightning_rad.kernels.unit_rows import unit_rows


def problem(seed: int, rows: int, keys: int, dim: int, own: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, unit positives and unit keys; with `own` the first keys are the positives."""
    make = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, dim, generator=make, dtype=torch.float64)
    every = normalize(torch.randn(keys + rows, dim, generator=make, dtype=torch.float64))
    return query, every[:rows], every if own else every[rows:]


def result(
    query: Tensor, positive: Tensor, keys: Tensor, temperature: float, **how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, and the gradients of queries and temperature for uneven upstream gradients."""
    query = query.clone().requires_grad_()
    tau = torch.tensor(temperature, dtype=query.dtype, requires_grad=True)
    learned = Learned(tau, temperature)
    losses = info_nce(query, positive, keys, temperature=learned, reduction="none", **how)
    (losses * torch.linspace(-1, 2, len(losses), dtype=losses.dtype)).sum().backward()
    assert query.grad is not None
    assert tau.grad is not None
    return losses.detach(), query.grad, tau.grad * temperature**2  # of 1 / t


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 9),
    keys=st.integers(1, 13),
    dim=st.integers(1, 9),
    own=st.booleans(),
    temperature=st.sampled_from([0.01, 0.02, 0.07, 0.5, 3.0]),
    rows_of_a_block=st.integers(1, 4),
    keys_of_a_block=st.integers(1, 5),
)
def test_one_pass_equals_the_definition_and_so_do_its_gradients(
    seed: int,
    rows: int,
    keys: int,
    dim: int,
    own: bool,
    temperature: float,
    rows_of_a_block: int,
    keys_of_a_block: int,
) -> None:
    given_ = problem(seed, rows, keys, dim, own)
    offset = 0 if own else None
    wanted = result(*given_, temperature, offset=offset, backend="reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "ROWS", rows_of_a_block)
        patch.setattr(fused_cpu, "KEYS", keys_of_a_block)
        got = result(*given_, temperature, offset=offset, backend="fused")
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.01, 0.024, 0.026, 0.07, 0.5])
@pytest.mark.parametrize("offset", [None, 3])
def test_float32_keeps_the_tolerance_of_the_table(temperature: float, offset: int | None) -> None:
    """Over several blocks of rows and keys, with a running maximum and without."""
    rows, count, dim = 300, 5000, 33
    query, positive, keys = problem(1, rows, count, dim, own=False)
    if offset is not None:
        positive = keys[offset : offset + rows]
    how: dict[str, Any] = {"offset": offset}
    wanted = result(query, positive, keys, temperature, backend="reference", **how)
    low = [x.float() for x in (query, positive, keys)]
    got = result(*low, temperature, backend="fused", **how)
    bound = 1e-6 + 2e-7 / temperature
    assert (got[0] - wanted[0]).abs().max() <= bound * (1 + wanted[0].abs().max())
    row_scale = 2 / (temperature * query.norm(dim=1))
    assert ((got[1] - wanted[1]).norm(dim=1) <= row_scale * bound).all()


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_an_aligned_positive_far_above_the_rest_gives_a_small_exact_gradient(backend: Any) -> None:
    """1 - P of the positive is 1e-13 here: it must not be a difference of two ones."""
    query = torch.tensor([[1.0, 0.0, 0.0]])
    keys = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    _, gradient, _ = result(query, query, keys, 1 / 30, backend=backend)
    wanted = -30 * math.exp(-30)  # upstream -1
    if backend == "fused":
        assert gradient[0, 1].item() == pytest.approx(wanted, rel=1e-4)
    assert abs(gradient[0, 1].item() - wanted) < 1e-6


def test_gradcheck_and_compile_without_a_graph_break() -> None:
    query, positive, keys = problem(2, 4, 7, 5, own=False)

    def loss(query: Tensor, tau: Tensor) -> Tensor:
        learned = Learned(tau, 0.1)
        return info_nce(query, positive, keys, temperature=learned, backend="fused")

    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (query.clone().requires_grad_(), tau))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(query, tau), loss(query, tau))


def test_positives_and_keys_get_no_gradient_and_the_norm_of_a_query_does_not_matter() -> None:
    query, positive, keys = problem(3, 4, 7, 5, own=False)
    positive.requires_grad_()
    keys.requires_grad_()
    query.requires_grad_()
    info_nce(query, positive, keys, temperature=0.1, backend="fused").backward()
    assert positive.grad is None
    assert keys.grad is None
    assert query.grad is not None
    radial = (query.grad * unit_rows(query.detach())).sum(1)
    assert radial.abs().max() < 1e-12


def test_auto_takes_the_one_pass_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    inner = fused_cpu.one_pass
    monkeypatch.setattr(fused_cpu, "one_pass", lambda *a: ran.append(len(a[0])) or inner(*a))
    given_ = problem(4, 6, 2**15, 5, own=False)
    info_nce(*given_, temperature=0.1)
    info_nce(*given_, temperature=0.1, backend="reference")
    assert ran == [6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "fast"}, "'fast' is not one of"),
        ({"temperature": 0.0}, "temperature: 0.0"),
        ({"temperature": torch.tensor(0.1)}, r"is learned as Learned\(value, least\)"),
        ({"offset": 5}, "offset: rows 5 to 8 are not among 7 keys"),
        ({"keys_KD": torch.zeros(7, 3)}, r"keys \(7, 3\) for queries \(3, 2\)"),
        ({"positive_ND": torch.zeros(2, 2)}, "do not match"),
    ],
)
def test_unusable_arguments_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "query_ND": torch.ones(3, 2),
        "positive_ND": torch.ones(3, 2),
        "keys_KD": torch.ones(7, 2),
        "temperature": 0.1,
    }
    assert info_nce(**good).isfinite()
    with pytest.raises(ValueError, match=message):
        info_nce(**(good | change))


def test_a_second_derivative_is_refused_and_not_left_out() -> None:
    query, positive, keys = problem(5, 3, 7, 4, own=False)
    query.requires_grad_()
    loss = info_nce(query, positive, keys, temperature=0.1, backend="fused")
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(loss, query, create_graph=True)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_a_learned_temperature_below_its_bound_counts_as_the_bound(backend: Any) -> None:
    given_ = problem(6, 3, 7, 4, own=False)
    low = Learned(torch.tensor(0.005, dtype=torch.float64), 0.05)
    got = info_nce(*given_, temperature=low, backend=backend)
    want = info_nce(*given_, temperature=0.05, backend=backend)
    assert got.item() == pytest.approx(want.item(), rel=1e-12)
    gradients = []
    for value in (0.05, 0.005):
        tau = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        info_nce(*given_, temperature=Learned(tau, 0.05), backend=backend).backward()
        assert tau.grad is not None
        gradients.append(tau.grad.item())
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-9)  # it can come back
    assert abs(gradients[0]) > 1


@pytest.mark.parametrize("backend", ["auto", "reference", "fused"])
def test_nothing_to_compare_is_refused_by_name(backend: Any) -> None:
    query, positive, keys = problem(7, 3, 7, 4, own=False)
    with pytest.raises(ValueError, match="info_nce: 3 rows and 0 keys"):
        info_nce(query, positive, keys[:0], temperature=0.1, backend=backend)
    with pytest.raises(ValueError, match="info_nce: 0 rows and 7 keys"):
        info_nce(query[:0], positive[:0], keys, temperature=0.1, backend=backend)
