"""The findings can be learnt from the pictures, and not from how bright the pictures are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lightning_rad.sharding.sources.synthetic import SyntheticSource


def grey_levels(image: np.ndarray) -> np.ndarray:
    histogram = np.histogram(image, 16, (0, 256))[0] / image.size
    return np.concatenate([[image.mean(), image.std()], histogram])


def edges(image: np.ndarray) -> np.ndarray:
    """Histograms of gradient directions in 8 x 8 cells, and the picture in 16 x 16."""
    smooth = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8)
    gx, gy = cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1)
    strength, sector = np.hypot(gx, gy), (np.arctan2(gy, gx) / (2 * np.pi) * 8).astype(int) % 8
    cells = np.stack(
        [
            cv2.resize(strength * (sector == k), (8, 8), interpolation=cv2.INTER_AREA)
            for k in range(8)
        ]
    )
    cells /= cells.sum(axis=0, keepdims=True) + 5
    small = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA) / 255.0
    return np.concatenate([cells.ravel(), small.ravel()])


def macro_auroc(features: np.ndarray, labels: np.ndarray, train: np.ndarray, c: float) -> float:
    scores = []
    for column in labels.T:
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=400))
        probe.fit(features[train], column[train])
        scores.append(roc_auc_score(column[~train], probe.decision_function(features[~train])))
    return float(np.mean(scores))


@pytest.mark.slow
def test_findings_show_in_edges_and_not_in_grey_levels() -> None:
    source = SyntheticSource(800, seed=6, size=64, max_studies=1, lateral_fraction=0.0)
    images = [source.read(study).images[0] for study in source.plan()[0]]
    labels = np.array([list(image.labels.values()) for image in images])
    train = np.arange(len(images)) < 500
    trivial, better = (
        macro_auroc(np.stack([of(image.pixels) for image in images]), labels, train, c)
        for of, c in ((grey_levels, 1.0), (edges, 3e-4))
    )
    assert trivial < 0.6
    assert better > 0.62
    assert better > trivial + 0.06
