"""The grade can be learnt from the joint, not from the rest of the picture nor from its greys."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_rad.sharding.sources.synthetic.knee import SyntheticKnees
from lightning_rad.sharding.sources.synthetic.knee.bones import Knee
from lightning_rad.sharding.sources.synthetic.knee.pose import Pose

CELL, SIDE = 0.25, 48
"""Side in cm of a cell of the knee's own frame, and how many are looked at both ways."""


def aligned(pixels: np.ndarray, knee: Knee, pose: Pose) -> np.ndarray:
    """[SIDE, SIDE] of a picture in the knee's frame: upright, to scale, medial to the right.

    A linear reader of pixels has no way to find a joint that lies anywhere; this finds it for it.
    """
    reach = CELL * SIDE / 2
    column, row = pose.pixels(np.array([knee.point(*p) for p in ((0, 0), (reach, 0), (0, reach))]))
    seen = np.stack([column, row], axis=1).astype(np.float32) - 0.5
    middle = (SIDE - 1) / 2
    own = np.array([[middle, middle], [middle + SIDE / 2, middle], [middle, middle + SIDE / 2]])
    smooth = cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), 0.8)
    place = cv2.getAffineTransform(seen, own.astype(np.float32))
    return np.asarray(cv2.warpAffine(smooth, place, (SIDE, SIDE)))


def auroc(features: np.ndarray, worn: np.ndarray, train: np.ndarray) -> float:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=600))
    probe.fit(features[train], worn[train])
    return float(roc_auc_score(worn[~train], probe.decision_function(features[~train])))


@pytest.mark.slow
def test_grades_show_at_the_joint_and_nowhere_else() -> None:
    source = SyntheticKnees(600, seed=6, size=96, max_studies=1)
    plan = source.plan()[0]
    images = [image for study in plan for image in source.read(study).images]
    taken = [source.taken(shot) for study in plan for shot in study.images]
    worn = np.array([knee.wear.grade >= 2 for knee, _ in taken])
    # the first 400 patients against the others
    train = np.arange(len(images)) < 800
    frame = np.stack([aligned(image.pixels, *at) for image, at in zip(images, taken, strict=True)])
    height = CELL * (np.arange(SIDE) - (SIDE - 1) / 2)
    rows = (height > -2.1) & (height < 1.5)
    joint, rest = (auroc(frame[:, k].reshape(len(frame), -1), worn, train) for k in (rows, ~rows))
    assert joint > 0.85
    assert rest < 0.6


def test_greys_alone_do_not_tell_the_grade() -> None:
    """Nor how a picture was exposed: of every fifth patient, by the histograms of the others."""
    source = SyntheticKnees(400, seed=6, size=48, max_studies=1)
    studies = [source.read(study).images for study in source.plan()[0]]
    images = [image for study in studies for image in study]
    worn = np.array([image.labels["kl_0"] == image.labels["kl_1"] == 0 for image in images])
    greys = [np.bincount(image.pixels.ravel() >> 3, minlength=32) for image in images]
    told = np.empty(len(images))
    for fold in range(5):
        held = np.arange(len(images)) // 2 % 5 == fold
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=600))
        probe.fit(np.stack(greys)[~held], worn[~held])
        told[held] = probe.predict_proba(np.stack(greys)[held])[:, 1]
    # of 400 patients chance has a standard error of some 0.03, and 1,000 gave 0.50
    assert abs(roc_auc_score(worn, told) - 0.5) < 0.1
