"""The probe behind the real data module: reports and labels as shards hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.reports import ReportProbe
from lightning_rad.losses.captioning import counted
from lightning_rad.modalities.mentions import SYNTHETIC_WORDS
from lightning_rad.schema import StudyBatch
from tests.data.reports import SETTINGS, reading_of

pytestmark = pytest.mark.filterwarnings("ignore:The '.*' does not have many workers")
WORDS = {finding: list(named) for finding, named in SYNTHETIC_WORDS.items()}


class _Copier(LightningModule):
    """Embeds images as they are and reports by their hash; writes the true report."""

    def __init__(self, reading: Any) -> None:
        super().__init__()
        self.reading, self.caption_words = reading, reading.words["caption"]

    def setup(self, stage: str) -> None:
        self.trainer.datamodule.read_reports(self.reading)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        if not isinstance(batch, StudyBatch):
            return None
        views, report = batch.views, batch.views.report
        assert report is not None
        tokens = report.tokens["caption"]
        text = torch.stack([report.hash >> shift & 255 for shift in range(0, 64, 8)], 1)
        return {
            "image": text.double() - 127.5,  # a perfect match
            "text": text.double() - 127.5,
            "hash": report.hash,
            "unit": views.unit,
            "patient": views.patient,
            "labels": batch.labels,
            "tokens": counted(tokens),
            "nll": counted(tokens).double(),
            "generated": tokens,
        }


def test_true_reports_of_shards_find_their_studies_and_name_their_findings(
    tiny_shards: Path, tmp_path: Path
) -> None:
    module = _Copier(reading_of(tiny_shards, limit=200))
    data = RadiographData(str(tiny_shards), **SETTINGS)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ReportProbe(bootstrap=PatientBootstrap(20), words=WORDS)],
    )
    trainer.validate(module, datamodule=data, verbose=False)
    body = json.loads((tmp_path / "reports_val.json").read_text())
    measures = body["measures"]
    assert body["studies"] > 10
    assert measures["recall_i2t@1"]["value"] == measures["recall_t2i@1"]["value"] == 1.0
    assert measures["perplexity"]["value"] == pytest.approx(torch.e)
    assert measures["finding_f1"]["value"] == measures["true_f1"]["value"] > 0.95
    assert measures["finding_f1_chance"]["value"] < 0.7
    assert (tmp_path / "reports_val.txt").read_text().count("generated: ") == 8
