"""What Lightning hands over comes back, whole or not at all."""

from pathlib import Path

import pytest
import torch

from lightning_rad.checkpoints import CheckpointError, Keep, checkpoints, named, read_contents
from lightning_rad.training.checkpoint_io import FolderCheckpointIO

TREE = {"global_step": 3, "state_dict": {"x": torch.arange(3)}}


def test_what_is_saved_is_loaded_from_itself_and_from_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / named(3)
    FolderCheckpointIO().save_checkpoint(TREE, path)
    for asked in (path, str(path), path.parent):
        io = FolderCheckpointIO()
        assert io.load_checkpoint(asked)["state_dict"]["x"].tolist() == [0, 1, 2]
        assert io.loaded == path
    FolderCheckpointIO().remove_checkpoint(path)
    assert not checkpoints(path.parent)


def test_without_options_a_save_is_whole_on_return_and_raises(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    with pytest.raises(CheckpointError, match=r"a file.*could not be written"):
        FolderCheckpointIO().save_checkpoint(TREE, tmp_path / "a file" / named(3))
    with pytest.raises(TypeError, match="storage_options is what to keep"):
        FolderCheckpointIO().save_checkpoint(TREE, tmp_path / named(3), {"a": 1})  # type: ignore[arg-type]


def test_with_options_a_failure_is_told_by_wait(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    io = FolderCheckpointIO()
    io.save_checkpoint(TREE, tmp_path / "a file" / named(3), Keep())
    assert "could not be written" in str(io.writer.wait())


def test_contents_name_data_and_objective(tmp_path: Path) -> None:
    data = {"positions": [8], "identity": {"data.manifest": {"shards": "12ab"}}}
    config = {"class_path": "x.SimCLR", "init_args": {"temperature": 0.1}}
    tree = TREE | {"RadiographData": data, "objective": "SimCLR", "objective_config": config}
    abouts = []
    for step, change in enumerate((0.1, 0.1, 0.2)):
        config["init_args"] = {"temperature": change}
        FolderCheckpointIO().save_checkpoint(tree, tmp_path / named(step))
        abouts.append(read_contents(tmp_path / named(step)).about)
    assert abouts[0]["data"] == {"shards": "12ab"}
    assert abouts[0]["objective"] == "SimCLR"
    assert abouts[0] == abouts[1] != abouts[2]


def test_an_old_file_is_one_line_that_says_what_is_expected(tmp_path: Path) -> None:
    torch.save(TREE, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"last\.ckpt: a file; to go on takes a checkpoint folder"):
        FolderCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
