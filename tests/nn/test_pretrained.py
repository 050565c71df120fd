"""Weights from a file: all of them, or an error that says which did not fit."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_rad import checkpoints
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.pretrained import CONFIG_ENTRY, load_pretrained

State = dict[str, Tensor]


def _net(channels: int = 1) -> nn.Sequential:
    layers = [nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3)]
    return nn.Sequential(*layers)


def _state(channels: int = 3) -> State:
    return dict(_net(channels).state_dict())


def _save(state: object, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)  # type: ignore[arg-type]
    else:
        torch.save(state, path)
    return str(path)


def _load(net: nn.Module, file: str) -> tuple[str, ...]:
    return load_pretrained(net, file, stems=["0"], heads=["head.fc"])


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder.net."])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_tensor_arrives_and_the_stem_is_summed(
    suffix: str, prefix: str, channels: int, tmp_path: Path
) -> None:
    state, net = _state(channels), _net()
    file = _save({prefix + k: v for k, v in state.items()}, tmp_path / f"weights{suffix}")
    assert _load(net, file) == ()
    got = net.state_dict()
    assert torch.equal(got.pop("0.weight"), state.pop("0.weight").sum(1, keepdim=True))
    assert all(torch.equal(got[k], v) for k, v in state.items())


def test_space_to_depth_stems_keep_their_positions(tmp_path: Path) -> None:
    net, source = nn.Sequential(nn.Conv2d(4, 2, 1)), nn.Sequential(nn.Conv2d(12, 2, 1))
    _load(net, _save(source.state_dict(), tmp_path / "w.pt"))
    gray = torch.rand(1, 4, 5, 5)  # position-major, as a pixel-unshuffle of RGB groups it
    rgb = gray.repeat_interleave(3, dim=1)
    torch.testing.assert_close(net(gray), source(rgb))


@pytest.mark.parametrize("envelope", ["state_dict", "model"])
def test_only_the_head_may_be_left_over_and_is_named(envelope: str, tmp_path: Path) -> None:
    head = {"head.fc.weight": torch.zeros(2, 6), "head.fc.bias": torch.zeros(2)}
    file = _save({envelope: _state() | head, "epoch": 3}, tmp_path / "w.pth")
    assert _load(_net(), file) == ("head.fc.weight", "head.fc.bias")


def _drop(key: str) -> Callable[[State], State]:
    return lambda state: {k: v for k, v in state.items() if k != key}


def _with(tensor: Tensor, value: float) -> Tensor:
    """The tensor with one of its numbers, the last, lost."""
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("2.bias"), "fits 8 of 9 tensors; 1 missing: 2.bias"),
        (lambda s: s | {"head.fcs.bias": torch.zeros(1)}, "1 unexpected: head.fcs.bias"),
        (lambda s: s | {"2.bias": torch.zeros(5)}, r"another shape: 2.bias \(5,\) for \(6,\)"),
        (lambda s: s | {"2.weight": torch.zeros(6, 12, 3, 3)}, "another shape: 2.weight"),
        (lambda s: s | {"0.weight": torch.zeros(4, 2, 3, 3)}, "another shape: 0.weight"),
        (
            lambda s: s | {"2.bias": _with(s["2.bias"], float("nan"))},
            r"fits 8 of 9 tensors; 1 not of finite numbers: 2.bias$",
        ),
        (
            lambda s: s | {"1.running_var": _with(s["1.running_var"], float("inf"))},
            "1 not of finite numbers: 1.running_var",
        ),
        (
            lambda s: s | {"0.weight": _with(s["0.weight"], float("-inf"))},
            "1 not of finite numbers: 0.weight",
        ),
        (
            lambda s: s | {"2.weight": torch.ones(6, 4, 3, 3, dtype=torch.int8)},
            "fits 8 of 9 tensors; 1 not of finite numbers: 2.weight$",
        ),
        (
            lambda s: {k: v.to(torch.int8) for k, v in s.items()},
            "8 not of finite numbers: 0.weight, 0.bias, 1.weight, 1.bias, 1.running_mean and 3",
        ),
        (
            lambda s: s | {"2.bias": torch.zeros(5), "0.bias": _with(s["0.bias"], float("nan"))},
            r"fits 7 of 9 .*another shape: 2.bias .*; 1 not of finite numbers: 0.bias$",
        ),
        (lambda s: s | {"note": "text"}, "not tensors: .'note'"),
        (lambda s: {"backbone." + k + "x": v for k, v in s.items()}, "fits 0 of 9 .* and 4 more"),
        (lambda _: {}, "no state dict"),
        (lambda _: [1], "no state dict"),
    ],
)
def test_a_partial_fit_is_an_error_and_changes_nothing(
    change: Callable[[State], object], message: str, tmp_path: Path
) -> None:
    net = _net()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        _load(net, _save(change(_state()), tmp_path / "w.pth"))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_width_are_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    state, net = _state(channels=1), _net()
    narrow = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    assert _load(net, _save(narrow, tmp_path / "w.pth")) == ()
    assert all(torch.equal(v, narrow[k].to(v.dtype)) for k, v in net.state_dict().items())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda _: b"text", lambda _: b""])
def test_a_damaged_file_is_named(
    name: str, damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    file = Path(_save(_state(), tmp_path / name))
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=f"{name} is not readable"):
        _load(_net(), str(file))


def _checkpoint(encoder: Encoder, **config: object) -> dict[str, object]:
    """What an objective with a twin and a queue writes, with what Lightning puts beside it."""
    others = {
        "projector.layers.0.weight": torch.zeros(3, 4),
        "queue.keys_KD": torch.zeros(8, 3),
        "queue.pointer": torch.tensor(0),
        **{f"twin.net.0.{k}": v + 1 for k, v in encoder.state_dict().items()},
    }
    return {
        "epoch": 1,
        "loops": {"fit_loop": {"state_dict": {}}},
        "state_dict": {f"encoder.{k}": v for k, v in encoder.state_dict().items()} | others,
        CONFIG_ENTRY: {"init_args": {"encoder": {"init_args": {"init_from": "old.pt"} | config}}},
    }


@pytest.mark.parametrize("twin_first", [False, True])
def test_of_a_checkpoint_the_student_is_taken_and_all_else_told(
    twin_first: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder("test_resnet")
    content = _checkpoint(encoder)
    if twin_first:
        state = content["state_dict"]
        content["state_dict"] = dict(reversed(state.items()))  # type: ignore[attr-defined]
    file = _save(content, tmp_path / "last.ckpt")
    with caplog.at_level(logging.INFO):
        loaded = Encoder("test_resnet", init_from=file)
    own = encoder.state_dict()
    assert all(torch.equal(v, own[k]) for k, v in loaded.state_dict().items())
    n = len(own)
    assert f"{n} of {n} tensors loaded, 0 missing, 0 unexpected; left aside: " in caplog.text
    counts = {"projector 1", "queue 2", f"twin {n}"}
    assert set(caplog.messages[0].split("left aside: ")[1].split(", ")) == counts
    assert len(loaded.dropped) == n + 3


def test_a_checkpoint_folder_and_a_folder_of_them_do_too_and_the_rest_stays_on_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder("test_resnet")
    own, n = encoder.state_dict(), len(encoder.state_dict())
    tree = _checkpoint(encoder) | {"optimizer_states": [{"state": {0: {"m": torch.ones(4)}}}]}
    writer, path = checkpoints.Writer(), tmp_path / "all" / checkpoints.named(3)
    writer.save(tree, path, step=3)
    writer.wait()
    read: list[str] = []
    real = checkpoints.read

    def noting(folder: Path, *, place: checkpoints.Place) -> dict[str, object]:
        def noted(key: str, size: torch.Size, dtype: torch.dtype) -> Tensor | None:
            given = place(key, size, dtype)
            read.extend([key] * (given is not None))
            return given

        return real(folder, place=noted)

    monkeypatch.setattr(checkpoints, "read", noting)
    for file in (path, path.parent):
        caplog.clear()
        read.clear()
        with caplog.at_level(logging.INFO):
            loaded = Encoder("test_resnet", init_from=str(file))
        assert all(torch.equal(v, own[k]) for k, v in loaded.state_dict().items())
        assert f"{n} of {n} tensors loaded, 0 missing, 0 unexpected; left aside: " in caplog.text
        counts = {"projector 1", "queue 2", f"twin {n}"}
        assert set(caplog.messages[0].split("left aside: ")[1].split(", ")) == counts
        assert set(read) == {f"state_dict.encoder.{k}" for k in own}
    (path / "plain.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"^init_from: .*plain\.pt: damaged checkpoint"):
        Encoder("test_resnet", init_from=str(path))


def test_a_checkpoint_of_another_encoder_names_both_misfit_and_origin(tmp_path: Path) -> None:
    file = _save(
        _checkpoint(Encoder("test_resnet"), name="test_resnet", image_size=None),
        tmp_path / "last.ckpt",
    )
    with pytest.raises(ValueError, match=r"fits 0 of .* its encoder was name=test_resnet$") as said:
        Encoder("test_vit", image_size=32, init_from=file)
    assert "\n" not in str(said.value)
    with pytest.raises(
        ValueError, match=r"init_from: .* of another shape: conv1.*name=test_resnet"
    ):
        Encoder("test_resnet", in_channels=2, init_from=file)


def test_a_checkpoint_without_a_part_of_the_student_is_no_start(tmp_path: Path) -> None:
    content = _checkpoint(Encoder("test_resnet"))
    del content["state_dict"]["encoder.net.conv1.0.weight"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"1 missing: conv1.0.weight"):
        Encoder("test_resnet", init_from=_save(content, tmp_path / "last.ckpt"))


def test_positions_of_another_grid_are_resampled_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    large = Encoder("test_vit", image_size=96)
    file = _save(_checkpoint(large, name="test_vit", image_size=96), tmp_path / "last.ckpt")
    with caplog.at_level(logging.INFO):
        small = Encoder("test_vit", image_size=64, init_from=file)
    assert "; pos_embed resampled from 6x6 to 4x4 patches" in caplog.text
    got, own = small.net.state_dict(), large.net.state_dict()
    assert torch.equal(got["pos_embed"][:, 0], own["pos_embed"][:, 0])
    assert all(torch.equal(v, own[k]) for k, v in got.items() if k != "pos_embed")
    with pytest.raises(ValueError, match=r"image_size=96"):
        Encoder("test_vit", image_size=64, kwargs={"patch_size": 8}, init_from=file)


def test_missing_counters_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _load(_net(), _save(_drop("1.num_batches_tracked")(_state()), tmp_path / "w.pth"))
    assert "8 of 9 tensors loaded, 1 missing (counters of batch norms)" in caplog.text


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


def test_a_file_with_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not readable"):
        _load(_net(), _save({"x": _Code()}, tmp_path / "w.pth"))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["imagenet", "https://example.org/w.pth", "."])
def test_what_is_no_file_is_refused_and_not_downloaded(name: str) -> None:
    with pytest.raises(ValueError, match="nothing is downloaded"):
        _load(_net(), name)
