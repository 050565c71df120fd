"""The benchmark of a card goes through every section on a CPU, on tiny sizes."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import rivals, tiles
from benchmarks.gpu.truth import subset_gradient
from benchmarks.problems import two_views
from benchmarks.ways import Way

ROOT = Path(__file__).parents[2]
TINY = ["--device", "cpu", "--tiny"]


@pytest.mark.parametrize("section", gpu.SECTIONS)
def test_a_section_runs_and_finds_no_form_wrong(section: str, tmp_path: Path) -> None:
    gpu.main([section, str(tmp_path), *TINY])
    content = json.loads((tmp_path / "parts" / f"{section}.json").read_text())
    assert content["problem"] == ""
    cells = [cell for table in content["tables"] for row in table["rows"] for cell in row.values()]
    assert cells
    assert not [cell for cell in cells if re.match("fails|disagrees|ABOVE", cell)]
    gpu.main(["report", str(tmp_path), *TINY])
    (text,) = (file.read_text() for file in tmp_path.glob("gpu_*.md"))
    assert content["tables"][0]["title"] in text
    assert text.count("was not run") == len(gpu.SECTIONS) - 1


def test_a_section_that_fails_keeps_its_rows_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(setting: gpu.Setting):  # type: ignore[no-untyped-def]
        table = gpu.Table("Half", ["a"], [{"a": "1"}])
        yield table
        raise RuntimeError("no kernel image is available")

    monkeypatch.setitem(gpu.SECTIONS, "queues", planted)
    gpu.main(["queues", str(tmp_path), *TINY])
    content = json.loads((tmp_path / "parts" / "queues.json").read_text())
    assert "no kernel image is available" in content["problem"]
    assert content["tables"][0]["rows"] == [{"a": "1"}]


def test_the_script_runs_every_section_in_under_eight_minutes() -> None:
    script = (ROOT / "benchmarks/gpu.sh").read_text()
    seconds = dict(re.findall(r"^run (\w+) (\d+)$", script, flags=re.MULTILINE))
    assert list(seconds) == list(gpu.SECTIONS)
    killed = sum(int(limit) + 15 + 5 for limit in seconds.values())
    assert killed + 10 < 8 * 60


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:.*return_lse is deprecated.*")
def test_nt_xent_by_attention_is_nt_xent() -> None:
    """FlexAttention has no backward on a CPU, so the race itself only runs on a card."""
    attend = importlib.import_module("torch.nn.attention.flex_attention").flex_attention
    dense = two_views(20, 16)["dense"]
    assert isinstance(dense, Way)
    with torch.no_grad():
        got, wanted = rivals.attention_loss(*dense.leaves, attend), dense.loss(*dense.leaves)
    torch.testing.assert_close(got, wanted)


def test_the_gradient_of_some_rows_by_hand_is_that_of_autograd() -> None:
    z_MD = torch.randn(14, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z_MD.requires_grad_()
    u_MD = normalize(z_MD, dim=1)
    s_MM = (u_MD @ u_MD.T / 0.1).masked_fill(torch.eye(14, dtype=torch.bool), -torch.inf)
    loss = cross_entropy(s_MM, torch.arange(14).roll(7))
    (wanted_MD,) = torch.autograd.grad(loss, z_MD)
    some_S = torch.tensor([0, 8, 13])
    truth, got_SD = subset_gradient(z_MD.detach(), some_S, 0.1)
    assert truth == pytest.approx(float(loss.detach()), rel=1e-12)
    torch.testing.assert_close(got_SD, wanted_MD[some_S], rtol=1e-10, atol=1e-12)


def test_other_tiles_are_tried_against_the_shipped_ones(tmp_path: Path) -> None:
    tiles.main([str(tmp_path), *TINY])
    (text,) = (file.read_text() for file in tmp_path.glob("tiles_*.md"))
    assert {"sums", "gradient", "queue"} <= set(
        re.findall(r"^\| (\w+) \|", text, flags=re.MULTILINE)
    )
    assert "fails" not in text
    assert "differs" not in text
