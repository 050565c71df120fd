"""CLIP's loss against a formula in float64 NumPy, pair by pair, in every form, and at the edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_rad.kernels.clip import clip
from lightning_rad.kernels.pairs import fused_cpu
from lightning_rad.kernels.temperature import Learned

FORMS = ["reference", "fused"]


def formula(image: Any, text: Any, ids: Any, groups: Any, temperature: float) -> Any:
    """[2, M]: losses of the images and of the texts, one scalar at a time."""
    losses = np.zeros((2, len(image)))
    for side, (rows, keys) in enumerate(((image, text), (text, image))):
        unit = [
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6) for x in (rows, keys)
        ]
        for i in range(len(rows)):
            seen = [
                j for j in range(len(keys)) if ids[j] == ids[i] or not groups[i] == groups[j] != 0
            ]
            logit = {j: math.fsum(unit[0][i] * unit[1][j]) / temperature for j in seen}
            top = max(logit.values())
            lse = top + math.log(math.fsum(math.exp(v - top) for v in logit.values()))
            own = [logit[j] for j in seen if ids[j] == ids[i]]
            losses[side, i] = lse - math.fsum(own) / len(own)
    return losses


def problem(seed: int, pairs: int, dim: int) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    image, text = torch.randn(2, pairs, dim, generator=make, dtype=torch.float64)
    return image, image + 0.7 * text


@pytest.mark.parametrize("backend", FORMS)
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    pairs=st.integers(1, 13),
    dim=st.integers(1, 17),
    units=st.integers(1, 20),
    groups=st.integers(0, 4),
    temperature=st.sampled_from([0.01, 0.02, 0.1, 0.5]),
    side=st.sampled_from([3, 512]),
)
def test_equals_the_formula_for_any_pairs_positives_and_groups(
    backend: Any,
    seed: int,
    pairs: int,
    dim: int,
    units: int,
    groups: int,
    temperature: float,
    side: int,
) -> None:
    image, text = problem(seed, pairs, dim)
    make = torch.Generator().manual_seed(seed)
    ids = torch.randint(units, (pairs,), generator=make)
    groups_M = torch.randint(groups + 1, (pairs,), generator=make)
    want = formula(image.numpy(), text.numpy(), ids.tolist(), groups_M.tolist(), temperature)
    how: dict[str, Any] = {"ids_M": ids, "groups_M": groups_M, "temperature": temperature}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "BLOCK", side)
        got = clip(image, text, image, text, reduction="none", backend=backend, **how)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-11, atol=1e-11)
        mean = clip(image, text, image, text, image_share=0.75, backend=backend, **how)
    assert mean.item() == pytest.approx(0.75 * want[0].mean() + 0.25 * want[1].mean(), rel=1e-11)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("block", [4, 512])
def test_gradients_of_both_sides_and_temperature_are_right(
    backend: Any, temperature: float, grouped: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_cpu, "BLOCK", block)
    image, text = problem(3, 9, 4)
    ids = torch.tensor([0, 1, 2, 3, 4, 5, 6, 6, 7])
    groups = ids // 2 if grouped else None
    weights = torch.rand(2, 9, dtype=torch.float64)  # an upstream gradient of its own a row

    def loss(image: Tensor, text: Tensor, tau: Tensor) -> Tensor:
        losses = clip(
            image,
            text,
            image.detach(),
            text.detach(),
            ids_M=ids,
            groups_M=groups,
            temperature=Learned(tau, 0.9 * temperature),
            reduction="none",
            backend=backend,
        )
        return -3.7 * (weights * losses).sum()

    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)
    inputs = image.requires_grad_(), text.requires_grad_(), tau
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-7, atol=1e-5, rtol=1e-5)


def gradients(
    image: Tensor, text: Tensor, ids: Tensor, **how: Any
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    leaves = image.clone().requires_grad_(), text.clone().requires_grad_()
    loss = clip(*leaves, *(x.detach() for x in leaves), ids_M=ids, **how)
    loss.backward()
    return loss.detach(), leaves[0].grad, leaves[1].grad


@pytest.mark.parametrize("temperature", [0.01, 0.03, 0.1, 0.5])
@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize(("pairs", "dim"), [(6, 4), (1100, 33), (520, 256)])
def test_float32_keeps_the_tolerance_of_the_table(
    temperature: float, backend: Any, pairs: int, dim: int
) -> None:
    image, text = (x.float() for x in problem(1, pairs, dim))
    ids = torch.arange(pairs)
    how: dict[str, Any] = {"temperature": temperature, "groups_M": ids % 7}
    got = gradients(image, text, ids, backend=backend, **how)
    want = gradients(image.double(), text.double(), ids, backend="reference", **how)
    bound = 1.5e-6 + 2e-7 / temperature
    assert (got[0] - want[0]).abs() <= bound * (1 + want[0])
    for rows, mine, exact in zip((image, text), got[1:], want[1:], strict=True):
        row_scale = 1 / (temperature * pairs * rows.norm(dim=1))
        assert ((mine - exact).norm(dim=1) <= row_scale * bound).all()


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_pairs_split_over_ranks_average_to_the_whole(backend: Any, temperature: float) -> None:
    image, text = problem(5, 12, 6)
    ids = torch.arange(12)
    how: dict[str, Any] = {"ids_M": ids, "temperature": temperature, "backend": backend}
    parts = [
        clip(image[k : k + 4], text[k : k + 4], image, text, offset=k, **how) for k in (0, 4, 8)
    ]
    whole = clip(image, text, image, text, **how)
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize("backend", FORMS)
def test_reports_of_one_text_are_not_each_others_negatives(backend: Any) -> None:
    image, text = problem(2, 6, 5)
    text[3] = text[0]
    ids, hashes = torch.arange(6), torch.tensor([7, 2, 3, 7, 5, 6])
    how: dict[str, Any] = {"temperature": 0.1, "backend": backend}
    loss, d_image, _ = gradients(image, text, ids, groups_M=hashes, **how)
    assert loss < gradients(image, text, ids, **how)[0]
    without = [0, 1, 2, 4, 5]  # the pair's twin takes no part in its losses
    alone = clip(image[without], text[without], image[without], text[without], ids_M=ids[:5], **how)
    both = clip(image, text, image, text, ids_M=ids, groups_M=hashes, reduction="none", **how)
    single = clip(
        *(x[without] for x in (image, text, image, text)), ids_M=ids[:5], reduction="none", **how
    )
    torch.testing.assert_close(both[:, 0], single[:, 0])
    assert d_image is not None
    assert alone.isfinite()


@pytest.mark.parametrize("backend", FORMS)
def test_extreme_norms_and_one_pair_give_finite_loss_and_gradient(backend: Any) -> None:
    for scale in (0.0, 1e-38, 1e-6, 1e20, 1e37):
        image, text = (x.float() for x in problem(1, 6, 8))
        image[::2] *= scale
        for part in gradients(image, text, torch.arange(6), temperature=0.1, backend=backend):
            assert part is not None
            assert part.isfinite().all()
    loss, *grads = gradients(
        torch.randn(1, 3), torch.randn(1, 3), torch.arange(1), temperature=0.1, backend=backend
    )
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert all(g is not None and g.abs().max() < 1e-5 for g in grads)


@pytest.mark.parametrize("groups", [None, torch.tensor([0, 1, 1, 0, 2, 2, 3, 0])])
def test_compiles_without_a_graph_break_forward_and_backward(groups: Tensor | None) -> None:
    image, text = problem(6, 8, 5)
    ids = torch.arange(8)

    def loss(image: Tensor, text: Tensor) -> Tensor:
        keys = image.detach(), text.detach()
        return clip(
            image, text, *keys, ids_M=ids, groups_M=groups, temperature=0.1, backend="fused"
        )

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    leaves = image.clone().requires_grad_(), text.clone().requires_grad_()
    compiled(*leaves).backward()
    want = gradients(image, text, ids, groups_M=groups, temperature=0.1, backend="fused")
    torch.testing.assert_close(leaves[0].grad, want[1])
    torch.testing.assert_close(leaves[1].grad, want[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "fast"}, "'fast' is not one of"),
        ({"temperature": 0.0}, "temperature: 0.0"),
        ({"offset": 2}, "offset: pairs 2 to 5 are not among 4 images and 4 texts"),
        ({"text_ND": torch.zeros(2, 2)}, r"images \(3, 2\) and texts \(2, 2\) do not match"),
        ({"texts_MD": torch.zeros(4, 3)}, r"texts \(4, 3\) for rows \(3, 2\)"),
        ({"texts_MD": torch.zeros(5, 2)}, "4 images and 5 texts"),
        ({"ids_M": torch.zeros(3, dtype=torch.int64)}, r"ids \(3,\) for 4 keys"),
        ({"groups_M": torch.zeros(4)}, "groups must be int64"),
    ],
)
def test_unusable_arguments_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "image_ND": torch.zeros(3, 2),
        "text_ND": torch.zeros(3, 2),
        "images_MD": torch.zeros(4, 2),
        "texts_MD": torch.zeros(4, 2),
        "ids_M": torch.arange(4),
        "temperature": 0.1,
    }
    assert clip(**good).isfinite()
    with pytest.raises(ValueError, match=message):
        clip(**(good | change))
