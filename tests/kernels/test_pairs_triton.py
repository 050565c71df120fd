"""The tiles of tensor cores, interpreted on a CPU (as they are on a GPU), against the definition.

Shapes have at least two ragged tiles in every dimension. The interpreter cuts bfloat16 off where a
GPU rounds it, which doubles that error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_rad.kernels.clip import clip
from lightning_rad.kernels.nt_xent import nt_xent
from lightning_rad.kernels.pairs import fused_triton, operator
from lightning_rad.kernels.rows import fused_triton as rows_triton
from lightning_rad.kernels.temperature import Learned

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
CASES = [
    (F32, 0.02, False, 150, 24),
    (F32, 0.1, True, 131, 300),
    (F32, 0.1, False, 1, 1),
    (F16, 0.02, True, 150, 24),
    (F16, 0.5, False, 70, 300),
    (BF16, 0.02, True, 131, 300),
    (BF16, 0.07, False, 131, 300),
    (BF16, 0.1, True, 150, 24),
]
BOUNDS = {F32: 1e-5, F16: 1e-3, BF16: 8e-3}
"""Of the norm of a gradient; float16 gradients are rounded to 11 bits, bfloat16 weights to 8."""


@pytest.fixture(autouse=True)
def on_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operator.FORMS, DEVICE, "fused_triton")


def rows(seed: int, count: int, dim: int, dtype: torch.dtype) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, dim, generator=make)
    return (torch.randn(count, dim, generator=make) + 0.5 * centre).to(dtype).to(DEVICE)


def differentiated(loss: Any, temperature: float, *inputs: Tensor) -> list[Tensor]:
    """Losses, and the gradients of rows and temperature for uneven upstream gradients."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    tau = torch.tensor(temperature, dtype=torch.float64, device=DEVICE, requires_grad=True)
    losses = loss(*leaves, Learned(tau, temperature)).flatten()
    weight = torch.linspace(-1, 2, len(losses), dtype=losses.dtype, device=DEVICE)
    (losses * weight).sum().backward()
    return [losses.detach(), *(x.grad for x in (*leaves, tau) if x.grad is not None)]


def assert_alike(
    got: list[Tensor], want: list[Tensor], dtype: torch.dtype, temperature: float
) -> None:
    assert len(got) == len(want)
    torch.testing.assert_close(got[0].double(), want[0], rtol=2e-6, atol=2e-5)
    for mine, exact in zip(got[1:], want[1:], strict=True):
        assert (mine.double() - exact).norm() <= BOUNDS[dtype] * (exact.norm() + 1 / temperature)


@pytest.mark.parametrize(("dtype", "temperature", "grouped", "count", "dim"), CASES)
def test_nt_xent_equals_the_definition(
    dtype: torch.dtype, temperature: float, grouped: bool, count: int, dim: int
) -> None:
    z = rows(1, count, dim, dtype)
    ids = torch.randperm(7 * count, generator=torch.Generator().manual_seed(2))[:count] // 7
    ids = ids.to(DEVICE)
    groups = ids % 5 if grouped else None  # group 0 is unknown

    def loss(z: Tensor, tau: Any, backend: Any) -> Tensor:
        how: dict[str, Any] = {"groups_M": groups, "reduction": "none", "backend": backend}
        return nt_xent(z, z.detach(), ids, temperature=tau, **how)

    got = differentiated(lambda z, t: loss(z, t, "fused"), temperature, z)
    want = differentiated(lambda z, t: loss(z, t, "reference"), temperature, z.double())
    assert_alike(got, want, dtype, temperature)


@pytest.mark.parametrize(("dtype", "temperature", "grouped", "count", "dim"), CASES)
def test_clip_equals_the_definition(
    dtype: torch.dtype, temperature: float, grouped: bool, count: int, dim: int
) -> None:
    image, text = rows(1, count, dim, dtype), rows(2, count, dim, dtype)
    ids = torch.arange(count, device=DEVICE)
    ids = ids % (count - count // 3)  # some pairs are positives of each other
    groups = ids % 5 if grouped else None

    def loss(image: Tensor, text: Tensor, tau: Any, backend: Any) -> Tensor:
        keys = image.detach(), text.detach()
        how: dict[str, Any] = {"groups_M": groups, "reduction": "none", "backend": backend}
        return clip(image, text, *keys, ids_M=ids, temperature=tau, **how)

    got = differentiated(lambda i, x, t: loss(i, x, t, "fused"), temperature, image, text)
    want = differentiated(
        lambda i, x, t: loss(i, x, t, "reference"), temperature, image.double(), text.double()
    )
    assert_alike(got, want, dtype, temperature)


@pytest.mark.parametrize(("dtype", "temperature"), [(F32, 0.02), (F16, 0.1), (BF16, 0.1)])
def test_rows_among_the_keys_of_other_ranks_get_their_whole_gradient(
    dtype: torch.dtype, temperature: float
) -> None:
    z = rows(3, 200, 24, dtype)
    ids = torch.arange(100, device=DEVICE).repeat(2)

    def whole(z: Tensor) -> Tensor:
        how: dict[str, Any] = {"temperature": temperature, "reduction": "none"}
        return nt_xent(z, z.detach(), ids, backend="reference", **how)

    leaf = z.double().requires_grad_()
    losses = whole(leaf)
    losses.sum().backward()
    lse = losses.detach()
    for own in (slice(0, 70), slice(70, 200)):
        part = z[own].clone().requires_grad_()

        def gather(x_N: Tensor, own: slice = own) -> Tensor:  # what the other rank would say
            others = torch.ones(len(z), 3, device=DEVICE)
            others[:, 0] = _lse(z, ids, temperature)
            others[own] = x_N
            return others

        got = nt_xent(
            part,
            z,
            ids,
            temperature=temperature,
            offset=own.start,
            gather=gather,
            reduction="none",
            backend="fused",
        )
        got.sum().backward()
        torch.testing.assert_close(got.double(), lse[own], rtol=2e-6, atol=2e-5)
        assert part.grad is not None
        assert leaf.grad is not None
        error = (part.grad.double() - leaf.grad[own]).norm()
        assert error <= BOUNDS[dtype] * leaf.grad[own].norm()


def _lse(z: Tensor, ids: Tensor, temperature: float) -> Tensor:
    unit = torch.nn.functional.normalize(z.double(), dim=1)
    logits = (unit @ unit.T / temperature).fill_diagonal_(-torch.inf)
    return logits.logsumexp(1).float()


def test_long_strips_and_small_workspaces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than 32 tiles a strip, and several chunks of rows in the workspace."""
    keys = rows(4, 2150, 16, F32)
    ids = torch.arange(2150, device=DEVICE) % 2100
    how: dict[str, Any] = {"temperature": 0.1, "reduction": "none", "backend": "fused"}
    want = nt_xent(keys, keys, ids, **(how | {"backend": "reference"}))[100:110].double()
    monkeypatch.setattr(fused_triton, "PROGRAMS", 1)
    got = nt_xent(keys[100:110], keys, ids, offset=100, **how)
    torch.testing.assert_close(got.double(), want, rtol=2e-6, atol=2e-5)

    z = rows(5, 200, 70, F32)

    def loss(z: Tensor, tau: Any) -> Tensor:
        return nt_xent(z, z.detach(), ids[:200] % 90, **(how | {"temperature": tau}))

    whole = differentiated(loss, 0.1, z)
    monkeypatch.setattr(rows_triton, "WORKSPACE_MIB", 0)
    for mine, other in zip(differentiated(loss, 0.1, z), whole, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_deterministic_sums_make_the_whole_matrix_and_are_the_same(dtype: torch.dtype) -> None:
    image, text = rows(6, 140, 24, dtype), rows(7, 140, 24, dtype)
    ids = torch.arange(140, device=DEVICE)

    def losses() -> tuple[Tensor, Tensor]:
        how: dict[str, Any] = {"temperature": 0.1, "reduction": "none", "backend": "fused"}
        return (
            nt_xent(image, image, ids // 2, **how),
            clip(image, text, image, text, ids_M=ids, **how),
        )

    usual = losses()
    torch.use_deterministic_algorithms(True)
    try:
        first, second = losses(), losses()
    finally:
        torch.use_deterministic_algorithms(False)
    for a, b, c in zip(first, second, usual, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("scale", "dtype"), [(0.0, F32), (1e-38, BF16), (1e-20, F32), (1e-6, BF16), (1e38, F32)]
)
def test_extreme_norms_give_finite_loss_and_gradient(scale: float, dtype: torch.dtype) -> None:
    z = rows(8, 12, 8, F32)
    z[::2] *= scale / z[::2].abs().max() if scale > 1 else scale
    for part in differentiated(
        lambda z, t: nt_xent(
            z, z.detach(), torch.arange(6).repeat(2).to(DEVICE), temperature=t, backend="fused"
        ),
        0.1,
        z.to(dtype),
    ):
        assert part.isfinite().all()


def test_float64_is_refused_by_name() -> None:
    z = rows(9, 4, 4, torch.float64)
    with pytest.raises(ValueError, match=r"'fused' has no torch\.float64 on a GPU"):
        nt_xent(
            z, z, torch.zeros(4, dtype=torch.int64).to(DEVICE), temperature=0.1, backend="fused"
        )


@pytest.mark.slow
def test_every_shipped_kernel_compiles_for_sm_90_within_its_means() -> None:
    """Ahead of time, without a GPU: 227 KB of shared memory, tensor cores used, no loop spills."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.ahead_of_time"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    compiled = json.loads(done.stdout)
    kernels = {k["kernel"] for k in compiled}
    assert kernels >= {"pairs._sums", "pairs._gradient", "pairs._weights"}
    assert kernels >= {"render._warp", "render._across", "render._down"}
    for kernel in compiled:
        assert kernel["shared"] <= 227 * 1024, kernel
        # a row's gradient of 256 features, or sums of both sides, take half of all registers;
        # below t = 0.025 an element takes two exponentials
        hard = kernel.get("BD") == 256 or kernel.get("IN_RANGE") is False or kernel.get("MIRRORED")
        assert kernel["spilled"] <= (160 if hard else 0), kernel
        if "BM" in kernel:
            assert kernel["wgmma"], kernel


def test_a_pair_far_above_the_rest_below_the_range_gives_no_nan() -> None:
    """exp(s - lse) of a row with itself is beyond float32 here; it is no key of itself."""
    z = torch.eye(32, device=DEVICE)
    ids = torch.arange(32, device=DEVICE) // 2
    got = differentiated(
        lambda z, t: nt_xent(z, z.detach(), ids, temperature=t, backend="fused"), 0.01, z
    )
    want = differentiated(
        lambda z, t: nt_xent(z, z.detach(), ids, temperature=t, backend="reference"),
        0.01,
        z.double(),
    )
    assert_alike(got, want, F32, 0.01)
