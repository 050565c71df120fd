"""SimCLR, MoCo and BYOL on views that look where readers looked, as they are configured."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_rad import checkpoints
from tests.command import lightning_rad
from tests.configs.test_stacks import CONFIGS, stack
from tests.objectives.test_steps import smaller

SIZE = 32
VIEWS = sorted(
    file.stem
    for kind in ("focus", "random_zoom")
    for file in (CONFIGS / "view").glob(f"two_view_{kind}*.yaml")
)
OBJECTIVES = ("simclr_small", "moco_v2_small", "byol_small")
RUNS = [(objective, view, "cpu") for objective in OBJECTIVES for view in VIEWS if "focus" in view]
RUNS += [("simclr_small", view, "device") for view in VIEWS]
RATES = {f"data/focus_{name}" for name in ("crop_exhausted", "cutout_exhausted", "blank")}


def test_there_is_a_control_of_every_small_focus_view_that_differs_in_saliency_alone() -> None:
    focused = [name for name in VIEWS if "focus" in name and name.endswith("_small")]
    assert focused
    for name in focused:
        view, control = (
            yaml.safe_load((CONFIGS / f"view/{each}.yaml").read_text())["data"]["views"]
            for each in (name, name.replace("focus", "random_zoom"))
        )
        for one, other in zip(view, control, strict=True):
            given, plain = one["init_args"], other["init_args"]
            for part in ("size", "intensity", "blur", "noise"):
                assert given[part] == plain[part], part
            assert plain["crop"].items() <= given["crop"].items()
            assert plain["cutout"].items() <= given["cutout"].items()
            assert set(given) - set(plain) == {"saliency", "drop"}


@pytest.mark.parametrize(("objective", "view", "render"), RUNS)
def test_three_steps(
    objective: str, view: str, render: str, tiny_shards: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = yaml.safe_load((CONFIGS / f"view/{view}.yaml").read_text())
    for part in (*changes["data"]["views"], changes["data"]["evaluation"]["view"]):
        part["init_args"]["size"] = SIZE
    changes["model"] = {"init_args": smaller(objective)}
    (tmp_path / "smaller.yaml").write_text(yaml.safe_dump(changes))
    lightning_rad(
        "fit",
        *stack(objective=objective, view=view),
        *("-c", str(tmp_path / "smaller.yaml")),
        *("--run", str(tmp_path / "run")),
        *("--data.manifest", str(tiny_shards)),
        *("--data.global_batch", "8"),
        *("--data.loading.threads", "2"),
        *("--data.loading.render", render),
        *("--trainer.limit_val_batches", "0"),
        *("--trainer.enable_progress_bar", "false"),
        *("--trainer.enable_model_summary", "false"),
        *("--trainer.max_epochs", "-1"),
        *("--trainer.max_steps", "3"),
        *("--trainer.log_every_n_steps", "1"),
    )
    state = checkpoints.read(checkpoints.resolve(tmp_path / "run/checkpoints"))
    assert state["global_step"] == 3
    assert all(v.isfinite().all() for v in state["state_dict"].values() if v.is_floating_point())
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = [row for row in rows if row.get("data/focus_blank")]
    if "random_zoom" in view:
        assert not RATES & rows[0].keys()
        return
    assert len(told) == 3
    assert all(0 <= float(row[name]) <= 1 for row in told for name in RATES)
    assert all(float(row["data/focus_blank"]) == 0 for row in told)  # every study has gaze
    assert torch.tensor([float(row["data/focus_crop_exhausted"]) for row in told]).mean() < 1
