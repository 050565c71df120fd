"""Our losses against those of pytorch-metric-learning, value and gradient, in float64."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss, SupConLoss, VICRegLoss
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from lightning_rad.losses.info_nce import info_nce
from lightning_rad.losses.nt_xent import nt_xent
from lightning_rad.losses.vicreg import covariance, invariance, variance

SHAPES = [(3, 4), (8, 5), (24, 16)]
TEMPERATURES = [0.07, 0.5, 1.0]
SETTINGS = list(product(SHAPES, TEMPERATURES))


def rows(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def agree(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Value, and the gradient of all inputs, which must not vanish."""
    got, wanted = ours(*inputs), theirs(*inputs)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)
    got_grad, wanted_grad = (torch.autograd.grad(loss, inputs) for loss in (got, wanted))
    assert all(float(g.abs().max()) > 1e-6 for g in wanted_grad)
    torch.testing.assert_close(got_grad, wanted_grad, rtol=1e-8, atol=1e-11)


def our_nt_xent(
    ids_N: Tensor, temperature: float, groups_N: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """On one rank, whose rows are all the keys there are."""
    return lambda z: nt_xent(z, z, ids_N, temperature=temperature, groups_M=groups_N)


def pairs(ids_N: Tensor, groups_N: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors and positives, anchors and negatives, as lists of (row, row), pair by pair."""
    groups = [0] * len(ids_N) if groups_N is None else groups_N.tolist()
    ids, positive, negative = ids_N.tolist(), [], []
    for i, j in product(range(len(ids)), repeat=2):
        if i != j and ids[i] == ids[j]:
            positive.append((i, j))
        elif i != j and not (groups[i] == groups[j] != 0):
            negative.append((i, j))
    return (*torch.tensor(positive).T.unbind(), *torch.tensor(negative).T.unbind())


@pytest.mark.parametrize(("shape", "temperature"), SETTINGS)
def test_nt_xent_of_two_views(shape: tuple[int, int], temperature: float) -> None:
    ids_N = torch.arange(shape[0]).repeat(2)
    theirs = NTXentLoss(temperature)
    agree(our_nt_xent(ids_N, temperature), lambda z: theirs(z, ids_N), rows(2 * shape[0], shape[1]))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(
    "ids",
    [[0, 1, 2] * 4, [5, 5, 5, 1, 1, 2, 2, 2, 2], [0, 0, 0, 1, 1, 7, 8]],
    ids=["four-views", "uneven", "lone-rows"],
)
def test_nt_xent_of_more_views_is_supcon(ids: list[int], temperature: float) -> None:
    ids_N = torch.tensor(ids)
    theirs = SupConLoss(temperature)
    agree(our_nt_xent(ids_N, temperature), lambda z: theirs(z, ids_N), rows(len(ids), 6))


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("groups", [[4, 4, 4, 0, 0, 9], [0] * 6, [1, 1, 2, 2, 3, 3]])
@pytest.mark.parametrize("views", [2, 3])
def test_nt_xent_with_groups_is_theirs_on_the_pairs_that_stay(
    groups: list[int], views: int, temperature: float
) -> None:
    ids_N, groups_N = torch.arange(6).repeat(views), torch.tensor(groups).repeat(views)
    chosen = pairs(ids_N, groups_N)
    theirs = SupConLoss(temperature) if views > 2 else NTXentLoss(temperature)
    agree(
        our_nt_xent(ids_N, temperature, groups_N),
        lambda z: theirs(z, indices_tuple=chosen),
        rows(6 * views, 5),
    )


@pytest.mark.parametrize(("shape", "temperature"), SETTINGS)
def test_info_nce_whose_positives_are_among_the_keys(
    shape: tuple[int, int], temperature: float
) -> None:
    """Keys of two ranks of which this is the second, as MoCo v3 has them."""
    count, features = shape
    keys_MD = normalize(rows(2 * count, features, seed=1).detach(), dim=1)
    ids_N, key_ids_M = torch.arange(count) + count, torch.arange(2 * count)

    def ours(query: Tensor) -> Tensor:
        return info_nce(query, keys_MD[count:], keys_MD, temperature=temperature, offset=count)

    def pytorchs(query: Tensor) -> Tensor:
        return cross_entropy(normalize(query, dim=1) @ keys_MD.T / temperature, ids_N)

    theirs = NTXentLoss(temperature)
    agree(ours, lambda z: theirs(z, ids_N, ref_emb=keys_MD, ref_labels=key_ids_M), rows(*shape))
    agree(ours, pytorchs, rows(*shape))


@pytest.mark.parametrize(("shape", "temperature"), SETTINGS)
def test_info_nce_with_a_queue(shape: tuple[int, int], temperature: float) -> None:
    """Every row against its own positive and the whole queue: pairs, for want of labels."""
    count, features = shape
    positive_ND = normalize(rows(count, features, seed=1).detach(), dim=1)
    queue_KD = normalize(rows(30, features, seed=2).detach(), dim=1)
    rows_N, queue_K = torch.arange(count), torch.arange(30) + count
    chosen = (rows_N, rows_N, rows_N.repeat_interleave(30), queue_K.repeat(count))
    theirs = NTXentLoss(temperature)

    def ours(query: Tensor) -> Tensor:
        return info_nce(query, positive_ND, queue_KD, temperature=temperature)

    def pytorchs(query: Tensor) -> Tensor:
        unit = normalize(query, dim=1)
        logits = torch.cat([(unit * positive_ND).sum(1, keepdim=True), unit @ queue_KD.T], dim=1)
        return cross_entropy(logits / temperature, torch.zeros(count, dtype=torch.int64))

    keys = torch.cat([positive_ND, queue_KD])
    agree(ours, lambda z: theirs(z, indices_tuple=chosen, ref_emb=keys), rows(*shape))
    agree(ours, pytorchs, rows(*shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_vicreg(shape: tuple[int, int]) -> None:
    theirs = VICRegLoss(invariance_lambda=25, variance_mu=20, covariance_v=3)

    def ours(a: Tensor, b: Tensor) -> Tensor:
        spread = (variance(a) + variance(b)) / 2
        return 25 * invariance(a, b) + 20 * spread + 3 * (covariance(a) + covariance(b))

    agree(ours, lambda a, b: theirs(a, ref_emb=b), rows(*shape), rows(*shape, seed=1))
