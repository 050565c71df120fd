"""Loggers that live in the run's folder and go on after a restart."""

from __future__ import annotations

import csv
import io
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

log = logging.getLogger(__name__)


class RunCSV(CSVLogger):
    """`<run>/metrics.csv`; a restarted run appends where Lightning's own logger starts anew.

    Steps that a killed run had taken since its last checkpoint stand twice; the later row counts.

    Args:
        save_dir: The run's folder; given by `--run`.
        flush_logs_every_n_steps: Steps between two writes.
    """

    def __init__(self, save_dir: str = "", flush_logs_every_n_steps: int = 50) -> None:
        super().__init__(
            save_dir, name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer, made on first use."""
        if self._experiment is None:
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment


class _AppendingWriter(ExperimentWriter):
    """Goes on in a file; what it replaces is there until the new is; a full disk costs no row."""

    def _check_log_dir_exists(self) -> None:
        file = Path(self.metrics_file_path)
        if not file.is_file():
            return
        whole, newline, torn = file.read_text().rpartition(
            "\n"
        )  # a kill may have torn the last row
        if torn:
            _replace(file, whole + newline)
        self.metrics_keys = next(csv.reader(whole.splitlines()), [])

    def save(self) -> None:
        """Append; where the disk does not take it the rows wait for the next time."""
        file = Path(self.metrics_file_path)
        size, keys = file.stat().st_size if file.is_file() else None, list(self.metrics_keys)
        try:
            super().save()
        except OSError as error:
            self.metrics_keys = keys
            log.warning("%s: not written, %d rows wait: %s", file, len(self.metrics), error)
            with suppress(OSError):
                os.truncate(file, size) if size is not None else file.unlink(missing_ok=True)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        file, body = Path(self.metrics_file_path), io.StringIO()
        with file.open(newline="") as old:
            writer = csv.DictWriter(body, fieldnames=fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(old))
        _replace(file, body.getvalue())


def _replace(file: Path, text: str) -> None:
    part = file.with_name(f"{file.name}.part")
    part.write_text(text, newline="")
    part.replace(file)


class RunWandb(WandbLogger):
    """Weights & Biases, offline unless asked; a restarted run continues under its id.

    The id is kept in `<run>/wandb_id`; `wandb sync` uploads what was written offline.

    Args:
        save_dir: The run's folder; given by `--run`.
        project: Project name.
        offline: Write locally only.
        name: Name of the run shown; by default the folder's.
    """

    def __init__(
        self,
        save_dir: str = "",
        project: str = "lightning-rad",
        offline: bool = True,
        name: str | None = None,
    ) -> None:
        folder = Path(save_dir or ".")
        self._id_file = folder / "wandb_id"
        known = self._id_file.read_text().strip() if self._id_file.is_file() else None
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(
            name=name or folder.resolve().name,
            save_dir=str(folder),
            version=known,
            offline=offline,
            project=project,
            resume="allow",
        )

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, made on first use; its id is then written down."""
        run = super().experiment
        if not self._id_file.is_file():
            self._id_file.write_text(f"{run.id}\n")
        return run
