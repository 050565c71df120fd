"""Networks for reports as sharded parts: the same steps, the same words, on any ranks."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule

from lightning_rad.losses.captioning import captioning
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.report_decoder import ReportDecoder
from lightning_rad.nn.text import TextEncoder
from lightning_rad.nn.text_pretrained import PretrainedText
from lightning_rad.nn.text_transformer import TextTransformer
from lightning_rad.nn.view_fusion import ViewFusion
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.image_report import TextSide
from lightning_rad.schema import ViewBatch
from lightning_rad.training.sharding_plan import parts
from lightning_rad.training.strategies import DDP, Sharded
from tests import gloo
from tests.nn.texts import SENTENCES, padded, small_words
from tests.objectives.fixed import Snapshot, random_batches, whole
from tests.training.spread_nets import head, made, on_ranks, sgd, steps, vit
from tests.training.test_strategies import IN_BFLOAT16, distance, fitted
from tests.training.tiny_bert import tiny_bert

run_on_ranks = partial(gloo.run_on_ranks, timeout=240)
STEPS = 6


class Told(Objective):
    """Writes the sentence that belongs to a unit's number, and reads it."""

    def __init__(self, encoder: Encoder, *, text: TextEncoder, **given: Any) -> None:
        super().__init__(encoder, **given)
        self.text, self.table = text, padded(small_words())
        self.fusion = ViewFusion(encoder.out_features, views=2)
        self.decoder = ReportDecoder(
            encoder.out_features, small_words(), width=16, heads=2, feedforward=20, dropout=0.0
        )

    def memory(self, batch: ViewBatch) -> Tensor:
        views, rows = batch.views.shape[:2]
        features, tokens = self.encoder(batch.views.flatten(0, 1), tokens=True)
        memory: Tensor = self.fusion((tokens + features[:, None]).unflatten(0, (views, rows)))
        return memory

    def tokens(self, batch: ViewBatch) -> Tensor:
        return self.table[batch.unit % len(SENTENCES)]

    def embed(self, batch: ViewBatch) -> dict[str, Tensor]:
        memory, tokens = self.memory(batch), self.tokens(batch)
        nll = captioning(self.decoder(memory, tokens), tokens)
        return {"nll": nll[None, :, None], "text": self.text(tokens)[None]}

    def terms(self, embeddings: dict[str, Tensor], batch: ViewBatch) -> dict[str, Tensor]:
        return {"nll": embeddings["nll"].mean() / 10, "text": embeddings["text"].pow(3).mean()}

    def validation_step(self, batch: ViewBatch, batch_idx: int = 0) -> Tensor:  # type: ignore[override]
        return self.decoder.generate(self.memory(batch), STEPS)


class End(Callback):
    """What the objective is when its fit ends, and what it writes of eight images then."""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.state = {name: whole(x) for name, x in pl_module.state_dict().items()}
        with torch.no_grad():
            self.written = pl_module.validation_step(random_batches(1, rows=8)[0], 0)
        kinds = (Encoder, TextEncoder, ReportDecoder, ViewFusion)
        self.divided = {
            name: isinstance(part, FSDPModule)
            for name, part in pl_module.named_modules()
            if isinstance(part, kinds)
        }


def scratch() -> TextEncoder:
    return TextTransformer(small_words(), width=12, layers=2, heads=2, dropout=0.0)


def pretrained(path: str) -> TextEncoder:
    return PretrainedText(small_words(), folder=path)


def told(folder: str | None, *, lively: bool = True) -> Told:
    torch.manual_seed(0)
    objective = Told(vit(), text=pretrained(folder) if folder else scratch(), optimizer=sgd)
    with torch.no_grad():
        for name, p in objective.named_parameters():  # or all images get the same words
            p.mul_(1 if p.ndim < 2 or not lively else 20 if name.startswith("decoder") else 8)
    return objective.double()


def ended(folder: str | None, strategy: Any = None, *, meta: bool = False) -> End:
    """After three steps; without a strategy, of one process."""
    end = End()
    with torch.device("meta" if meta and dist.get_rank() else "cpu"):
        objective = told(folder)
    if strategy is None:
        steps(objective, count=3, callbacks=[end])
    else:
        on_ranks(objective, strategy(), count=3, callbacks=[end])
    return end


def spread(
    folder: str | None, strategy: Any, meta: bool
) -> tuple[dict[str, Tensor], Tensor, dict[str, bool]]:
    end = ended(folder, strategy, meta=meta)
    return end.state, end.written, end.divided


@pytest.fixture
def bert(tmp_path: Path) -> str:
    return tiny_bert(tmp_path)


def test_text_encoders_decoders_and_fusions_are_parts() -> None:
    objective = told(None)
    found = [part for part, _ in parts(objective)]
    image, text = objective.encoder, objective.text
    want = [*image.blocks(), image, *text.blocks(), text, objective.fusion, objective.decoder]
    assert found == want


def test_the_layers_of_a_pretrained_encoder_are_parts(bert: str) -> None:
    objective = told(bert)
    found = [part for part, _ in parts(objective)]
    layers = objective.text.blocks()
    assert len(layers) == 2
    at = found.index(layers[0])
    assert found[at : at + 3] == [*layers, objective.text]


def test_a_network_that_is_its_own_one_block_is_gathered_with_its_encoder() -> None:
    """Which calls the halves of its forward, past what gathers the network itself."""
    objective = told(None)
    with patch.object(Encoder, "blocks", lambda self: [self.net]):
        found = [part for part, _ in parts(objective)]
    assert found[0] is objective.encoder
    assert objective.encoder.net not in found


@pytest.mark.parametrize("strategy", [DDP, Sharded])
def test_two_ranks_take_the_steps_and_write_the_words_of_one(strategy: Any) -> None:
    alone = ended(None)
    assert alone.written.shape == (8, STEPS)
    assert len(alone.written.unique()) > 2
    for state, written, divided in run_on_ranks(spread, 2, None, strategy, False):
        assert torch.equal(written, alone.written)
        assert divided == dict.fromkeys(
            ("encoder", "text", "fusion", "decoder"), strategy is Sharded
        )
        for key, value in alone.state.items():
            torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.parametrize("meta", [False, True])
def test_a_pretrained_encoder_is_sharded_and_may_be_built_without_memory(
    bert: str, meta: bool
) -> None:
    alone = ended(bert)
    start = told(bert).state_dict()
    assert not torch.equal(
        start["text.net.embeddings.LayerNorm.weight"],
        alone.state["text.net.embeddings.LayerNorm.weight"],
    )
    for state, written, _ in run_on_ranks(spread, 2, bert, Sharded, meta):
        assert torch.equal(written, alone.written)
        for key, value in alone.state.items():
            torch.testing.assert_close(state[key], value, rtol=1e-9, atol=1e-9, msg=key)


def shipped(name: str, folder: str) -> Objective:
    text: Any = partial(PretrainedText, folder=folder)
    return made(name, text=text if name == "refers" else TextSide(text, head))


def _shipped(name: str, folder: str) -> tuple[list[Snapshot], bool]:
    with torch.device("meta" if dist.get_rank() else "cpu"):
        objective = shipped(name, folder)
    weightless = all(p.is_meta for p in objective.parameters())
    return on_ranks(objective, Sharded(), count=2), weightless


@pytest.mark.parametrize("name", ["image_report_clip", "refers"])
def test_one_rank_reads_the_pretrained_weights_for_all(name: str, bert: str) -> None:
    alone = steps(shipped(name, bert), count=2)
    found = run_on_ranks(_shipped, 2, name, bert)
    assert [weightless for _, weightless in found] == [False, True]
    for mine, _ in found:
        for step, theirs in zip(mine, alone, strict=True):
            assert step.state.keys() == theirs.state.keys()
            for key, value in theirs.state.items():
                torch.testing.assert_close(step.state[key], value, rtol=1e-9, atol=1e-9, msg=key)


def _in_bfloat16(folder: str) -> dict[str, Tensor]:
    return fitted(told(folder, lively=False).float(), Sharded(), **IN_BFLOAT16)


def test_gathered_in_bfloat16_they_learn_what_float32_does_within_what_that_rounds(
    bert: str,
) -> None:
    start = told(bert, lively=False).float()
    before = {k: v.clone() for k, v in start.state_dict().items()}
    exact = fitted(start, None, precision="32-true", plugins=[])
    for mine in run_on_ranks(_in_bfloat16, 2, bert):
        assert distance(mine, exact, before) < 0.1
        assert all(v.dtype != torch.bfloat16 for v in mine.values())
