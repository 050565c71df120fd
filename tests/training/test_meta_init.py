"""`--meta_init`: one rank builds the objective in memory, and all train as if each had."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback

from lightning_rad.checkpoints import newest, read
from tests.command import lightning_rad
from tests.configs.test_stacks import stack
from tests.processes import Command

SHARDED = "lightning_rad.training.strategies.Sharded"


class Places(Callback):
    """Writes where a rank's tensors are before the strategy takes them, to `<run>/places-RANK`."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        tensors = [*pl_module.parameters(), *pl_module.buffers()]
        path = Path(trainer.default_root_dir) / f"places-{trainer.global_rank}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(sorted({x.device.type for x in tensors})))


@pytest.mark.slow
def test_one_rank_builds_and_all_train_the_same(tmp_path: Path, tiny_shards: Path) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    for meta in ("false", "true"):
        run = tmp_path / meta
        command = Command(
            run,
            *("fit", *stack(objective="moco_v2_small"), "--run", str(run), "--meta_init", meta),
            *("--data.manifest", str(tiny_shards), "--data.global_batch", "16"),
            *("--trainer.devices", "2", "--trainer.strategy.class_path", SHARDED),
            *("--trainer.callbacks+=tests.training.test_meta_init.Places",),
            *("--model.init_args.encoder.init_args.name", "test_resnet"),
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
