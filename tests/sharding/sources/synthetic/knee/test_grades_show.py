"""The grade can be learnt from the joint, and not from the rest of the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_rad.sharding.sources.synthetic.knee import SyntheticKnees

JOINT = slice(30, 68)
"""Rows of a 96-pixel picture that hold the joint, wherever it was centred."""


def auroc(features: np.ndarray, worn: np.ndarray, train: np.ndarray) -> float:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=3e-4, max_iter=400))
    probe.fit(features[train], worn[train])
    return float(roc_auc_score(worn[~train], probe.decision_function(features[~train])))


@pytest.mark.slow
def test_grades_show_at_the_joint_and_nowhere_else() -> None:
    source = SyntheticKnees(450, seed=6, size=96, max_studies=1)
    images = [image for study in source.plan()[0] for image in source.read(study).images]
    worn = np.array([list(image.labels.values()).index(1) >= 2 for image in images])
    train = np.arange(len(images)) < 600
    fine = np.stack(
        [cv2.GaussianBlur(i.pixels.astype(np.float32), (0, 0), 1.0)[::2, ::2] for i in images]
    )
    rows = np.zeros(48, bool)
    rows[JOINT.start // 2 : JOINT.stop // 2] = True
    joint, rest = (auroc(fine[:, k].reshape(len(fine), -1), worn, train) for k in (rows, ~rows))
    assert joint > 0.75
    assert rest < 0.62
    assert joint > rest + 0.15
