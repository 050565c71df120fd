"""`--meta_init`: one rank builds the objective in memory, and all train as if each had."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from lightning_rad.checkpoints import newest, read
from tests.command import lightning_rad
from tests.configs.test_stacks import stack
from tests.objectives.small_nets import TOKENIZER
from tests.processes import Command
from tests.training.tiny_bert import tiny_bert

SHARDED = "lightning_rad.training.strategies.Sharded"
WORDS = ("--model.init_args.reports.tokenizer", TOKENIZER)
TEXT = "--model.init_args.text"
PRETRAINED = "lightning_rad.nn.text_pretrained.PretrainedText"
RESNET = ("--model.init_args.encoder.init_args.name", "test_resnet")
CASES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "moco": ({"objective": "moco_v2_small"}, RESNET),
    "siglip": (
        {"objective": "image_report_siglip_small", "view": "one_view_reports_small"},
        (*RESNET, *WORDS),
    ),
    "refers": (
        {"objective": "refers_small", "view": "three_view_reports_small"},
        (*WORDS, TEXT, PRETRAINED),
    ),
    "knowledge": (
        {"objective": "knowledge_contrast_small", "view": "one_view_findings_small"},
        RESNET,
    ),
}
"""By name: the stack, and what is changed of it."""


class Places(Callback):
    """Writes where a rank's tensors are before the strategy takes them, to `<run>/places-RANK`."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        tensors = [*pl_module.parameters(), *pl_module.buffers()]
        path = Path(trainer.default_root_dir) / f"places-{trainer.global_rank}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(sorted({x.device.type for x in tensors})))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_rank_builds_and_all_train_the_same(
    case: str, tmp_path: Path, tiny_shards: Path
) -> None:
    """REFERS with a text encoder that one rank alone reads from its folder."""
    names, changes = CASES[case]
    if case == "refers":
        folder = tmp_path / "text"
        changes += (f"{TEXT}.init_args.folder", tiny_bert(folder))
    weights: list[dict[str, torch.Tensor]] = []
    for meta in ("false", "true"):
        run = tmp_path / meta
        command = Command(
            run,
            *("fit", *stack(**names), "--run", str(run), "--meta_init", meta, *changes),
            *("--data.manifest", str(tiny_shards), "--data.global_batch", "16"),
            *("--trainer.devices", "2", "--trainer.strategy.class_path", SHARDED),
            *("--trainer.callbacks+=tests.training.test_meta_init.Places",),
            *("--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"),
            *("--trainer.max_epochs", "-1", "--trainer.max_steps", "3"),
            *("--trainer.limit_val_batches", "0"),
        )
        with command:
            assert command.end() == 0, command.said
        found = newest(run / "checkpoints")
        assert found is not None
        weights.append(read(found)["state_dict"])
        assert (run / "places-0").read_text() == "cpu"
        assert (run / "places-1").read_text() == ("meta" if meta == "true" else "cpu")
    one, other = weights
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_where_every_rank_holds_all_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        lightning_rad("fit", *stack(), "--run", str(tmp_path / "run"), "--meta_init", "true")
    assert ended.value.code == 2
    assert "meta_init: true needs trainer.strategy Sharded, got auto" in capsys.readouterr().err
