"""Whatever happens to whichever file of a checkpoint: it is named, and the one before is taken."""

import json
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_rad.checkpoints import newest, read, read_contents, resolve, verify
from tests.checkpoints.trees import saved, trained

FILES = (".metadata", "__0_0.distcp", "contents.json", "plain.pt")


def flip(file: Path, at: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1 << 4
    file.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "bit flipped at the start": lambda file: flip(file, 0.0),
    "bit flipped in the middle": lambda file: flip(file, 0.5),
    "bit flipped near the end": lambda file: flip(file, 0.97),
    "last byte gone": lambda file: file.write_bytes(file.read_bytes()[:-1]) and None,
    "half of it gone": lambda f: f.write_bytes(f.read_bytes()[: f.stat().st_size // 2]) and None,
    "emptied": lambda file: file.write_bytes(b"") and None,
    "a byte too much": lambda file: file.write_bytes(file.read_bytes() + b"x") and None,
    "deleted": lambda file: file.unlink(),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    saved(folder, 1)
    saved(folder, 2, trained(2))
    return folder


def test_these_are_all_the_files(whole: Path) -> None:
    assert sorted(p.name for p in (whole / "step-00000002").iterdir()) == sorted(FILES)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_checkpoint_before_is_taken(
    whole: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: str,
    fault: Callable[..., None],
) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    bad = tmp_path / "step-00000002"
    DAMAGES[damage](bad / name)
    with pytest.raises(ValueError, match=str(name)) as said:
        verify(bad)
    assert str(bad) in str(said.value)
    with caplog.at_level(logging.WARNING):
        assert newest(tmp_path) == tmp_path / "step-00000001"
    assert len(caplog.records) == 1
    assert "step-00000002" in caplog.text
    assert name in caplog.text
    with pytest.raises(ValueError, match=str(name)):
        resolve(bad)  # asked for by name it is refused, not replaced
    fault(
        f"{damage}: a file of the newest checkpoint",
        injected=f"any of {', '.join(FILES)}",
        outcome="passed over with a warning that names the file; the one before is taken",
        lost="to the checkpoint before",
        identical="-",
    )


def test_a_flipped_bit_would_have_been_loaded_silently(whole: Path, tmp_path: Path) -> None:
    """Why there are checksums: without `verify` nothing sees it."""
    shutil.copytree(whole / "step-00000002", tmp_path / "x")
    flip(tmp_path / "x" / "__0_0.distcp", 0.5)
    read(tmp_path / "x")


def test_no_checkpoint_none_whole_and_no_folder_differ(whole: Path, tmp_path: Path) -> None:
    assert newest(tmp_path / "nowhere") is None
    assert newest(tmp_path) is None
    (tmp_path / "step-00000009.part").mkdir()
    assert newest(tmp_path) is None
    (tmp_path / "step-00000009").mkdir()
    with pytest.raises(ValueError, match=r"none of its .* is whole \(step-00000009\)"):
        newest(tmp_path)


def test_contents_are_told_without_the_tensors(tmp_path: Path) -> None:
    about = {"data": {"a": "1234"}, "objective_config_sha256": "ab"}
    path = saved(tmp_path, 7, about=about)
    for name in FILES:
        if name != "contents.json":
            (path / name).unlink()
    contents = read_contents(path)
    assert (contents.step, contents.about) == (7, about)
    assert set(contents.files) == set(FILES) - {"contents.json"}


def test_a_format_of_another_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_rad.checkpoints.contents.FORMAT", 2)
    path = saved(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"contents\.json: format 2; this version reads 1"):
        verify(path)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.marker,)


def test_a_metadata_that_would_run_code_is_refused_by_name_and_does_not_run(
    whole: Path, tmp_path: Path
) -> None:
    path, marker = tmp_path / "x", tmp_path / "it ran"
    shutil.copytree(whole / "step-00000002", path)
    content = pickle.dumps(Evil(marker))
    pickle.loads(content)
    assert marker.exists()  # so the test can fail
    marker.unlink()
    (path / ".metadata").write_bytes(content)
    with pytest.raises(ValueError, match=r"\.metadata: not readable: it names .*[pP]ath"):
        read(path)
    assert not marker.exists()


def _metadata(path: Path, change: Callable[[object], None]) -> None:
    content = pickle.loads((path / ".metadata").read_bytes())
    change(content)
    (path / ".metadata").write_bytes(pickle.dumps(content))


def test_bytes_and_files_elsewhere_are_refused(whole: Path, tmp_path: Path) -> None:
    """What torch.distributed.checkpoint would load with pickle, or from another folder."""
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    path = tmp_path / "x"
    shutil.copytree(whole / "step-00000002", path)

    def to_bytes(content: object) -> None:
        content.state_dict_metadata["state_dict.0.weight"] = BytesStorageMetadata()  # type: ignore[attr-defined]

    _metadata(path, to_bytes)
    with pytest.raises(ValueError, match=r"state_dict\.0\.weight is not a tensor"):
        read(path)

    def elsewhere(content: object) -> None:
        to_place = content.storage_data  # type: ignore[attr-defined]
        for info in to_place.values():
            info.relative_path = "../step-00000001/__0_0.distcp"

    shutil.rmtree(path)
    shutil.copytree(whole / "step-00000002", path)
    _metadata(path, elsewhere)
    with pytest.raises(ValueError, match="is no file of this checkpoint"):
        read(path)


def test_nothing_of_this_machine_is_written_into_a_checkpoint(whole: Path) -> None:
    for file in (whole / "step-00000002").iterdir():
        assert str(whole).encode() not in file.read_bytes()
    assert json.loads((whole / "step-00000002/contents.json").read_text())["format"] == 1
