"""What the configs of the gaze predictor have to agree on, and what its views must not do."""

from __future__ import annotations

import pytest
from jsonargparse import ArgumentParser

from lightning_rad.modalities.evidence import GazeReading
from lightning_rad.objectives.gaze_predictor import GazePredictor
from tests.configs.test_report_configs import model, of

SIZES = {"": 224, "_small": 64}


@pytest.mark.parametrize("size", SIZES)
def test_the_objective_of_each_file_can_be_made(size: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(GazePredictor, "model")
    given = model(f"objective/gaze_predictor{size}")
    made: GazePredictor = parser.instantiate(parser.parse_object({"model": given})).model
    assert made.decoder.side == made.gaze.side
    assert GazeReading(made.gaze).saliency.source == "recorded"  # it learns from readers, not maps


@pytest.mark.parametrize("size", SIZES)
def test_views_move_pictures_and_neither_mirror_nor_hide(size: str) -> None:
    [view] = of(f"view/one_view_gaze{size}", "data", "views")
    given = view["init_args"]
    assert given.keys() == {"size", "crop", "intensity"}
    assert given["crop"]["flip"] == 0.0
    assert given["size"] == SIZES[size]
