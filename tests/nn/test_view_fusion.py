"""View fusion: three gates that know nothing of each other, over a memory of all patches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_rad.nn.view_fusion import ViewFusion

V, B, P, D = 3, 2, 5, 4


def tokens(views: int = V, studies: int = B, patches: int = P, features: int = D) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (views, studies, patches, features)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def fusion(features: int = D, views: int = V) -> ViewFusion:
    torch.manual_seed(1)
    return ViewFusion(features, views=views).double()


def by_hand(net: ViewFusion, views: Tensor) -> Tensor:
    """The fusion of the official code since its fix, patch after patch."""
    rows = []
    for study in range(views.shape[1]):
        memory = []
        for view, head in enumerate(net.heads):
            for patch in range(views.shape[2]):
                beside = torch.cat([other[study, patch] for other in views])
                score = (head.weight[0] * beside).sum() + head.bias[0]  # type: ignore[index, union-attr]
                memory.append(views[view, study, patch] / (1 + torch.exp(-score)))
        rows.append(torch.stack(memory))
    return torch.stack(rows)


def test_it_equals_the_official_fusion() -> None:
    net = fusion()
    torch.testing.assert_close(net(tokens()), by_hand(net, tokens()), rtol=1e-12, atol=1e-12)


def test_refers_a_three_views_of_196_patches_are_a_memory_of_588_gated_by_0_to_1() -> None:
    views = tokens(patches=196, features=8)
    net = fusion(8)
    assert net(views).shape == (B, 588, 8)
    gates = net.gates(views)
    assert gates.shape == (3, B, 196, 1)
    assert 0 < gates.min() < gates.max() < 1
    assert (gates.sum(0) - 1).abs().max() > 0.1  # no softmax over views


def test_refers_a_each_gate_has_a_layer_of_its_own() -> None:
    """What one gate learns moves no other."""
    net = fusion()
    for view in range(V):
        net.zero_grad()
        net.gates(tokens())[view].sum().backward()
        moved = [
            head.weight.grad is not None and bool(head.weight.grad.any()) for head in net.heads
        ]  # type: ignore[union-attr, operator]
        assert moved == [other == view for other in range(V)]
    weights = [head.weight for head in net.heads]
    assert not torch.equal(weights[0], weights[1])  # type: ignore[arg-type]


def test_refers_b_a_permutation_of_views_changes_the_gates() -> None:
    net, views = fusion(), tokens()
    turned = views[[1, 2, 0]]
    assert (net.gates(turned)[[2, 0, 1]] - net.gates(views)).abs().max() > 0.01
    assert (net(turned) - net(views)).abs().max() > 0.01


def test_each_gate_sees_all_views_at_its_patch_and_no_other_patch() -> None:
    net, views = fusion(), tokens()
    for view in range(V):
        other = views.clone()
        other[view, 0, 3] += 1
        changed = (net.gates(other) - net.gates(views)).abs()[..., 0] > 1e-6
        assert changed[:, 0, 3].all()
        assert changed.sum() == V


@pytest.mark.parametrize("shape", [(2, B, P, D), (V, B, P, D + 1)])
def test_other_views_or_features_than_stated_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"takes 3 views of 4 features, not {shape[0]} of"):
        fusion()(torch.zeros(shape, dtype=torch.float64))


def test_sizes_below_1_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"fusion\.views: 0"):
        ViewFusion(4, views=0)
    with pytest.raises(ValueError, match=r"fusion\.features: 0"):
        ViewFusion(0)
