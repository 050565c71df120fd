"""Loggers stay in the run's folder and go on after a restart."""

import csv
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_rad.training.loggers import RunCSV, RunWandb


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_restart_appends_and_may_bring_new_columns(tmp_path: Path) -> None:
    first = RunCSV(str(tmp_path))
    first.log_metrics({"loss": 1.0}, step=0)
    first.save()
    second = RunCSV(str(tmp_path))
    second.log_metrics({"loss": 0.5, "val/auroc": 0.7}, step=1)
    second.save()
    assert [r["loss"] for r in rows(tmp_path)] == ["1.0", "0.5"]
    assert [r["val/auroc"] for r in rows(tmp_path)] == ["", "0.7"]
    assert Path(second.log_dir).resolve() == tmp_path.resolve()


def test_a_row_torn_by_a_kill_is_dropped(tmp_path: Path) -> None:
    first = RunCSV(str(tmp_path))
    first.log_metrics({"loss": 1.0}, step=0)
    first.log_metrics({"loss": 2.0}, step=1)
    first.save()
    file = tmp_path / "metrics.csv"
    file.write_text(file.read_text()[:-4])
    second = RunCSV(str(tmp_path))
    second.log_metrics({"loss": 3.0}, step=1)
    second.save()
    assert [(r["step"], r["loss"]) for r in rows(tmp_path)] == [("0", "1.0"), ("1", "3.0")]


def test_a_full_disk_costs_no_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[..., None],
) -> None:
    """Neither when a row is appended nor when a new column makes the file anew."""
    logger = RunCSV(str(tmp_path))
    logger.log_metrics({"loss": 1.0}, step=0)
    logger.save()

    def full(*args: Any, **how: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step, writes in enumerate(("writerows", "write_text"), start=1):
        owner = csv.DictWriter if writes == "writerows" else Path
        with monkeypatch.context() as patch:
            patch.setattr(owner, writes, full)
            logger.log_metrics({"loss": 1.0} | ({"new": 2.0} if step == 2 else {}), step=step)
            logger.save()
        assert "No space left on device" in caplog.text
        assert [r["step"] for r in rows(tmp_path)] == [str(n) for n in range(step)]
        logger.save()
        assert [r["step"] for r in rows(tmp_path)] == [str(n) for n in range(step + 1)]
    assert rows(tmp_path)[-1]["new"] == "2.0"
    fault(
        "the disk is full when metrics are written",
        injected="ENOSPC, appending and adding a column",
        outcome="a warning; the rows wait for the next time, none is lost",
        lost=0,
        identical="-",
    )


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_its_id_over_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    first = RunWandb(str(tmp_path))
    assert first.experiment.settings._offline
    identity = first.experiment.id
    first.experiment.finish()
    second = RunWandb(str(tmp_path))
    assert second.experiment.id == identity
    second.experiment.finish()
    assert (tmp_path / "wandb_id").read_text().strip() == identity
