"""C2L: what is mixed with what, what is compared with what, and what the queue takes.

Letters in names are those of the conformance list that the method was built against.
"""

from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_rad.collectives import rank, world_size
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives import c2l as module
from lightning_rad.objectives.c2l import C2L, Contrast
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches, share
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.spread import assert_alike_on_ranks

ROWS, LENGTH, TEMPERATURE = 8, 50, 0.2


def c2l(norm: Norm = "none", nce_images: int | None = None, **changes: Any) -> C2L:
    """A queue that three batches of eight do not divide; partners within four rows."""
    given_here: dict[str, Any] = {
        "projector": lambda width: Projector(
            width, layers=1, norm="none", ending="biased", out_features=8
        ),
        "queue": lambda width: FeatureQueue(width, length=LENGTH, init="uniform"),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "contrast": Contrast(temperature=TEMPERATURE, nce_images=nce_images),
        "momentum": 0.9,
        "partners": 4,
        "seed": 3,
    }
    torch.manual_seed(0)
    return C2L(SmallEncoder(norm), **(given_here | changes)).double()  # type: ignore[arg-type]


def batch(rows: int = ROWS) -> ViewBatch:
    return random_batches(1, rows=rows)[0]


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


cached = lru_cache(c2l)


def c2l_mixing(step: int, first: int = 0, rows: int = ROWS, partners: int = 4) -> Any:
    return cached(partners=partners).mixing(step, first, rows)


class Seen:
    """What goes into encoder and twin, and what the twin makes of it, in order."""

    def __init__(self, objective: C2L) -> None:
        self.student: list[Tensor] = []
        self.twin: list[Tensor] = []
        self.keys: list[Tensor] = []
        objective.encoder.register_forward_pre_hook(
            lambda _, x: self.student.append(x[0].detach().clone())
        )
        objective.twin.register_forward_hook(self._twin)

    def _twin(self, _: nn.Module, x: tuple[Tensor], out: Tensor) -> None:
        self.twin.append(x[0].clone())
        self.keys.append(out.clone())


def test_c2l_a_one_lambda_and_one_permutation_mix_both_views_and_the_keys() -> None:
    objective, given_batch = c2l(), batch()
    share, partner_B = objective.mixing(0, 0, ROWS)
    assert 0.5 <= share < 1
    assert not torch.equal(partner_B, torch.arange(ROWS))
    seen = Seen(objective)
    made = objective.embed(given_batch)
    view, other = given_batch.views
    for got, raw in ((seen.student, view), (seen.twin, other)):
        assert len(got) == 2
        assert torch.equal(got[0], raw)
        torch.testing.assert_close(got[1], share * raw + (1 - share) * raw[partner_B])
    key = seen.keys[0]
    torch.testing.assert_close(made["key"][0], key)
    torch.testing.assert_close(made["key_mixture"][0], share * key + (1 - share) * key[partner_B])


def test_c2l_a_lambda_is_at_least_a_half_and_uniform_above_it() -> None:
    """Beta(1, 1) is uniform on 0 to 1, and the larger share of two is uniform on 1/2 to 1."""
    shares = np.array([c2l_mixing(step)[0] for step in range(1000)])
    assert shares.min() >= 0.5
    gap = np.abs(2 * np.sort(shares) - 1 - np.arange(0.5, 1000) / 1000).max()
    assert gap < 1.95 / np.sqrt(1000)  # Kolmogorov and Smirnov, at one in a thousand


def test_c2l_b_features_are_mixed_first_and_normalised_then() -> None:
    """The queue holds unit rows of the mixture of raw keys, not the mixture of unit rows."""
    objective, given_batch = c2l(), batch()
    made = objective.embed(given_batch)
    share, partner_B = objective.mixing(0, 0, ROWS)
    key, mixture = made["key"][0], made["key_mixture"][0]
    assert key.norm(dim=1).std() > 1e-3
    objective.terms(made, given_batch)
    objective.after_step(True)
    got = objective.queue.keys_KD[2 * ROWS : 3 * ROWS]
    torch.testing.assert_close(got, unit(share * key + (1 - share) * key[partner_B]))
    torch.testing.assert_close(got, unit(mixture))
    wrong = unit(share * unit(key) + (1 - share) * unit(key)[partner_B])
    assert (got - wrong).abs().max() > 1e-3


def test_c2l_c_the_queue_advances_by_three_batches_in_the_order_of_the_terms() -> None:
    """Round the end of a queue of 50: three steps of 24 keys end at place 22."""
    objective = c2l()
    before = objective.queue.keys_KD.clone()
    for step, given_batch in enumerate(random_batches(3, rows=ROWS)):
        made = objective.embed(given_batch)
        objective.terms(made, given_batch)
        torch.testing.assert_close(objective.queue.keys_KD, before)
        objective.after_step(True)
        places = (torch.arange(24) + 24 * step) % LENGTH
        order = ("key", "mixed_key", "key_mixture")
        before[places] = unit(torch.cat([made[name][0] for name in order]))
        torch.testing.assert_close(objective.queue.keys_KD, before)
        assert int(objective.queue.pointer) == 24 * (step + 1) % LENGTH


def test_c2l_c_each_term_meets_the_keys_that_the_terms_before_it_gave() -> None:
    objective, given_batch = c2l(), batch()
    made = objective.embed(given_batch)
    queue = objective.queue.keys_KD.clone()
    terms = objective.terms(made, given_batch)
    assert list(terms) == ["view", "mixed_view", "mixture"]
    pairs = [("query", "key"), ("mixed_query", "mixed_key"), ("mixed_query", "key_mixture")]
    for number, (term, (query, key)) in enumerate(zip(terms.values(), pairs, strict=True)):
        q, k = unit(made[query][0]), unit(made[key][0])
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / TEMPERATURE
        target = torch.zeros(ROWS, dtype=torch.int64)
        expected = nn.functional.cross_entropy(logits, target) / 3
        assert term.item() == pytest.approx(expected.item(), rel=1e-10)
        queue[number * ROWS : (number + 1) * ROWS] = k


def test_c2l_d_the_twin_moves_to_the_new_student_by_parameters_alone() -> None:
    objective = c2l("batch", momentum=0.999)
    old = {name: p.detach().clone() for name, p in objective.twin.net.named_parameters()}
    [step] = fit_steps(objective, [batch()])
    new, twin = step.chain("encoder", "projector"), step.under("twin.net")
    assert old.keys() < twin.keys()
    assert (new["0.layers.0.weight"] - old["0.layers.0.weight"]).abs().max() > 1e-3
    for name, value in old.items():
        wanted = 0.999 * value + 0.001 * new[name]
        torch.testing.assert_close(twin[name], wanted, rtol=1e-12, atol=1e-14)


def test_c2l_d_batch_norm_buffers_of_the_twin_are_what_it_saw_itself() -> None:
    """Of the keys' views, whereas the student saw the queries'."""
    objective, given_batch = c2l("batch"), batch()
    share, partner_B = objective.mixing(0, 0, ROWS)
    other = given_batch.views[1]
    first = objective.twin.net[0].layers[0]
    mean = torch.zeros(8, dtype=torch.float64)
    for x in (other, share * other + (1 - share) * other[partner_B]):
        mean = 0.9 * mean + 0.1 * first(x).mean((0, 2, 3)).detach()
    [step] = fit_steps(objective, [given_batch])
    name = "0.layers.1.running_mean"
    torch.testing.assert_close(step.under("twin.net")[name], mean)
    assert not torch.allclose(step.chain("encoder", "projector")[name], mean, atol=1e-4)


def test_c2l_e_no_gradient_reaches_any_key() -> None:
    objective, given_batch = c2l(), batch()
    made = objective.embed(given_batch)
    for name in ("key", "mixed_key", "key_mixture"):
        assert not made[name].requires_grad
    for name in ("query", "mixed_query"):
        assert made[name].requires_grad
    # and the loss itself would not let it through if a key asked for it
    asked = {name: made[name].detach().requires_grad_() for name in made}
    sum(objective.terms(asked, given_batch).values()).backward()  # type: ignore[union-attr]
    assert {name for name in asked if asked[name].grad is not None} == {"query", "mixed_query"}
    assert all(p.grad is None for p in objective.twin.parameters())
    assert not any(p.requires_grad for p in objective.twin.parameters())


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_c2l_f_with_lambda_one_the_mixed_terms_have_the_first_ones_positives(
    norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, given_batch = c2l(norm), batch()
    _, partner_B = objective.mixing(0, 0, ROWS)
    monkeypatch.setattr(objective, "mixing", lambda *_: (1.0, partner_B))
    compared: list[tuple[Tensor, Tensor]] = []
    info_nce = module.info_nce

    def watched(query: Tensor, key: Tensor, keys: Tensor, **how: Any) -> Tensor:
        compared.append((unit(query), key))
        return info_nce(query, key, keys, **how)

    monkeypatch.setattr(module, "info_nce", watched)
    made = objective.embed(given_batch)
    assert torch.equal(made["mixed_query"], made["query"])
    objective.terms(made, given_batch)
    first, *others = ((query * key).sum(1) for query, key in compared)
    assert len(others) == 2
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-12, atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(
    blocks=st.sampled_from([4, 8, 12]),
    partners=st.sampled_from([2, 4, 16]),
    step=st.integers(0, 10**6),
)
def test_the_same_pairs_are_mixed_on_1_2_and_4_ranks_and_none_across_ranks(
    blocks: int, partners: int, step: int
) -> None:
    rows = blocks * partners
    lam, whole = c2l_mixing(step, 0, rows, partners)
    assert sorted(whole.tolist()) == list(range(rows))
    assert torch.equal(whole // partners, torch.arange(rows) // partners)
    for ranks in (2, 4):
        own = rows // ranks
        parts = [c2l_mixing(step, rank * own, own, partners) for rank in range(ranks)]
        assert {part[0] for part in parts} == {lam}
        assert all(int(p.min()) >= 0 and int(p.max()) < own for _, p in parts)
        shifted = [partner + rank * own for rank, (_, partner) in enumerate(parts)]
        assert torch.equal(torch.cat(shifted), whole)


def test_pairs_change_from_step_to_step_and_with_the_seed_and_every_partner_is_as_likely() -> None:
    drawn = torch.stack([c2l_mixing(step)[1] for step in range(1000)])
    counts = torch.stack([(drawn[:, :4] == k).sum(0) for k in range(4)]).double()
    assert (counts / 1000 - 0.25).abs().max() < 0.07
    other = c2l(seed=4)
    assert other.mixing(0, 0, ROWS)[0] != c2l_mixing(0)[0]
    assert any(not torch.equal(other.mixing(s, 0, ROWS)[1], drawn[s]) for s in range(4))


def _mixed_on_this_rank(given_batch: ViewBatch) -> list[Tensor]:
    objective = c2l()
    seen = Seen(objective)
    objective.embed(share(given_batch, rank(), world_size()))
    return [seen.student[1], seen.twin[1]]


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_mix_the_images_that_one_process_mixes(ranks: int) -> None:
    objective, given_batch = c2l(), batch(16)
    seen = Seen(objective)
    objective.embed(given_batch)
    parts = run_on_ranks(_mixed_on_this_rank, ranks, given_batch)
    assert torch.equal(torch.cat([student for student, _ in parts]), seen.student[1])
    assert torch.equal(torch.cat([twin for _, twin in parts]), seen.twin[1])


@pytest.mark.parametrize("nce_images", [None, 200])
def test_same_loss_and_gradient_on_one_process_and_on_two(nce_images: int | None) -> None:
    assert_alike_on_ranks(partial(c2l, nce_images=nce_images), batch(), 2)


def test_the_queue_is_equal_on_all_ranks_and_holds_the_keys_of_all() -> None:
    """With batch norms, whose statistics are each rank's own, and ShuffleBN."""
    batches = random_batches(3, rows=ROWS)
    mine, theirs = run_on_ranks(fit_on_this_rank, 2, partial(c2l, "batch"), batches)
    assert len(mine) == 3
    start = c2l("batch").queue.keys_KD
    for number, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        for name in ("keys_KD", "pointer"):
            assert torch.equal(a.under("queue")[name], b.under("queue")[name])
        assert a.under("twin.net").keys() == b.under("twin.net").keys()
        moved = (a.under("queue")["keys_KD"] != start).any(1)
        assert int(moved.sum()) == min(LENGTH, 3 * ROWS * (number + 1))
        assert int(a.under("queue")["pointer"]) == 3 * ROWS * (number + 1) % LENGTH


# --- noise-contrastive estimation


def test_nce_sets_its_partition_once_from_the_first_comparison_and_keeps_it() -> None:
    """That a resumed run keeps it, too, is in test_steps.py: its C2L uses NCE."""
    objective, given_batch = c2l(nce_images=200), batch()
    made = objective.embed(given_batch)
    q, k = unit(made["query"][0]), unit(made["key"][0])
    cosines = torch.cat([(q * k).sum(1, keepdim=True), q @ objective.queue.keys_KD.T], dim=1)
    expected = ((cosines / TEMPERATURE).exp().mean() * 200).log().item()
    steps = fit_steps(objective, [given_batch, *random_batches(2, seed=2)])
    assert all(np.isfinite(value) for step in steps for value in step.terms.values())
    constants = [float(step.state["log_partition"]) for step in steps]
    assert constants == [constants[0]] * 3
    assert constants[0] == pytest.approx(expected, rel=1e-10)


def test_infonce_has_no_partition() -> None:
    [step] = fit_steps(c2l(), [batch()])
    assert step.state["log_partition"] == 0


# --- refusals


def test_accumulation_is_refused_by_name() -> None:
    said = r"^C2L takes one batch a step: trainer\.accumulate_grad_batches is 2, set it to 1$"
    with pytest.raises(ValueError, match=said):
        fit_steps(c2l(), random_batches(2), accumulate_grad_batches=2)


def test_a_queue_shorter_than_three_batches_is_refused_before_the_first_step() -> None:
    short = c2l(queue=lambda width: FeatureQueue(width, length=3 * ROWS - 1))
    with pytest.raises(ValueError, match=r"^queue\.length: 23 is less than the 24 keys"):
        fit_steps(short, [batch()])
    just = c2l(queue=lambda width: FeatureQueue(width, length=3 * ROWS))
    [step] = fit_steps(just, [batch()])
    assert int(step.under("queue")["pointer"]) == 0


@pytest.mark.parametrize("partners", [3, 16])
def test_partners_that_do_not_divide_a_ranks_rows_are_refused_by_name(partners: int) -> None:
    with pytest.raises(ValueError, match=rf"^partners: {partners} does not divide the 8 rows"):
        fit_steps(c2l(partners=partners), [batch()])


def test_a_row_without_a_partner_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^partners must be at least 2, got 1$"):
        c2l(partners=1)


def test_a_set_of_no_images_and_a_low_temperature_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^contrast\.nce_images must be at least 1, got 0$"):
        Contrast(nce_images=0)
    with pytest.raises(ValueError, match=r"temperature must be at least 0\.01"):
        Contrast(temperature=0.001)


def test_a_step_that_was_not_taken_moves_neither_twin_nor_queue() -> None:
    objective, given_batch = c2l(), batch()
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.terms(objective.embed(given_batch), given_batch)
    with torch.no_grad():
        objective.encoder.layers[0].weight.add_(1.0)  # type: ignore[union-attr]
    objective.after_step(False)
    for name, value in objective.state_dict().items():
        if name.startswith(("twin", "queue")):
            assert torch.equal(value, start[name]), name
    assert objective.queue.upcoming() is objective.queue.keys_KD
