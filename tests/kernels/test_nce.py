"""NCE in one pass against its definition, in float64 and at its edges."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.kernels.nce import blocked, nce, nce_log_partition
from lightning_rad.kernels.sigmoid_pairs import fused_cpu
from lightning_rad.kernels.unit_rows import unit_rows


def problem(seed: int, rows: int, keys: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, unit positives that lie near them and unit keys, in float64."""
    make = torch.Generator().manual_seed(seed)
    query, noise = torch.randn(2, rows, dim, generator=make, dtype=torch.float64)
    every = torch.randn(keys, dim, generator=make, dtype=torch.float64)
    return query, normalize(query + noise), normalize(every)


def result(*rows: Tensor, t: float, log_z: float, images: int, backend: Any) -> tuple[Tensor, ...]:
    """The loss, and the gradient of queries for an upstream gradient of -1.7."""
    query = rows[0].clone().requires_grad_()
    constant = torch.tensor(log_z, dtype=torch.float64)
    how: dict[str, Any] = {"temperature": t, "log_partition": constant, "images": images}
    loss = nce(query, *rows[1:], **how, backend=backend)
    (-1.7 * loss).backward()
    assert query.grad is not None
    return loss.detach(), query.grad


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 9),
    keys=st.integers(1, 13),
    dim=st.integers(1, 9),
    t=st.sampled_from([0.01, 0.02, 0.07, 0.1, 0.5]),
    log_z=st.sampled_from([-3.0, 5.0, 60.0]),
    images=st.sampled_from([1, 90, 700_000]),
    block=st.tuples(st.integers(1, 4), st.integers(1, 5)),
)
def test_one_pass_equals_the_definition_and_so_does_its_gradient(
    seed: int,
    rows: int,
    keys: int,
    dim: int,
    t: float,
    log_z: float,
    images: int,
    block: tuple[int, int],
) -> None:
    query, positive, keys_KD = problem(seed, rows, keys, dim)
    given_ = query, 0.7 * positive, 1.5 * keys_KD  # compared as they are
    how: dict[str, Any] = {"t": t, "log_z": log_z, "images": images}
    wanted = result(*given_, **how, backend="reference")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "ROWS", block[0])
        patch.setattr(fused_cpu, "KEYS", block[1])
        got = result(*given_, **how, backend="fused")
    torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 9),
    keys=st.integers(1, 13),
    t=st.sampled_from([0.01, 0.07, 0.5]),
    block=st.tuples(st.integers(1, 4), st.integers(1, 5)),
)
def test_the_partition_in_blocks_is_that_of_all_keys_at_once(
    rows: int, keys: int, t: float, block: tuple[int, int]
) -> None:
    query, positive, keys_KD = problem(rows * keys, rows, keys, 4)
    unit_ND = normalize(query)
    own_N1 = (unit_ND * positive).sum(1, keepdim=True)
    logits = torch.cat([own_N1, unit_ND @ keys_KD.T], dim=1) / t
    wanted = logits.exp().mean().mul(90).log()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked, "ROWS", block[0])
        patch.setattr(blocked, "KEYS", block[1])
        got = nce_log_partition(query, positive, keys_KD, temperature=t, images=90)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0.02, 0.07, 0.1, 0.5])
@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_float32_keeps_the_tolerance_of_the_table(backend: Any, t: float) -> None:
    """Over several blocks of rows and keys; Z is that of the batch, as in training."""
    query, positive, keys = (x.float() for x in problem(5, 600, 1100, 65))
    wide = [x.double() for x in (query, positive, keys)]
    log_z = nce_log_partition(*wide, temperature=t, images=4000).item()
    how: dict[str, Any] = {"t": t, "log_z": log_z, "images": 4000}
    wanted = result(*wide, **how, backend="reference")
    got = result(query, positive, keys, **how, backend=backend)
    bound = 1e-6 + 2e-7 / t + 1e-7 * abs(log_z)
    assert (got[0] - wanted[0]).abs() <= bound * wanted[0]
    size = 1.7 / (t * len(query)) / query.norm(dim=1)
    assert ((got[1] - wanted[1]).norm(dim=1) <= bound * size * (1 + wanted[0])).all()


def test_gradcheck_and_compile_without_a_graph_break() -> None:
    query, positive, keys = problem(2, 4, 7, 5)
    log_z = torch.tensor(6.0, dtype=torch.float64)
    how: dict[str, Any] = {"temperature": 0.2, "log_partition": log_z, "images": 90}

    def loss(query: Tensor) -> Tensor:
        return nce(query, positive, keys, **how, backend="fused")

    query.requires_grad_()
    assert torch.autograd.gradcheck(loss, (query,))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(query), loss(query))
    got, wanted = (torch.autograd.grad(f(query), query) for f in (compiled, loss))
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_positives_keys_and_the_constant_get_no_gradient_nor_does_the_norm_of_a_query(
    backend: Any,
) -> None:
    query, positive, keys = (x.requires_grad_() for x in problem(3, 4, 7, 5))
    log_z = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    nce(
        query, positive, keys, temperature=0.1, log_partition=log_z, images=90, backend=backend
    ).backward()
    assert positive.grad is None
    assert keys.grad is None
    assert log_z.grad is None
    assert query.grad is not None
    assert query.grad.norm() > 1e-3
    assert (query.grad * unit_rows(query.detach())).sum(1).abs().max() < 1e-12


def test_auto_takes_the_one_pass_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    inner = fused_cpu.one_pass

    def counted(*args: Any, keys_too: bool, **how: Any) -> Any:
        ran.append(keys_too)
        return inner(*args, keys_too=keys_too, **how)

    monkeypatch.setattr(fused_cpu, "one_pass", counted)
    given_ = problem(4, 60, 2500, 5)
    for backend in ("auto", "reference"):
        result(*given_, t=0.1, log_z=5.0, images=90, backend=backend)
    assert ran == [False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "fast"}, "'fast' is not one of"),
        ({"temperature": 0.0}, r"temperature: 0\.0"),
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
        "log_partition": torch.tensor(1.0),
        "images": 90,
    }
    assert nce(**good).isfinite()
    with pytest.raises(ValueError, match=message):
        nce(**(good | change))
