"""From attenuation to the grey levels of a radiograph: photons, scatter, noise, display."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from lightning_rad.sharding.sources.synthetic.projection import Camera, Map


@dataclass(frozen=True)
class Exposure:
    """How a picture was taken and displayed.

    photons: quanta a pixel behind tissue of the picture's median thickness. scatter: scattered
    over primary radiation there. blur: of the detector, sigma in pixels of a 256-pixel image.
    window: percentiles that become black and white. gamma, brightness, contrast: of the display.
    seed: of the quantum noise.
    """

    photons: float
    scatter: float
    blur: float
    window: tuple[float, float]
    gamma: float
    brightness: float
    contrast: float
    seed: int


def draw_exposure(rng: np.random.Generator, portable: bool) -> Exposure:
    """Draw one picture's exposure; bedside pictures have more scatter and noise."""
    return Exposure(
        photons=float(10.0 ** rng.uniform(2.6, 3.6)) * (0.5 if portable else 1.0),
        scatter=rng.uniform(0.4, 0.9) + (0.4 if portable else 0.0),
        blur=rng.uniform(0.45, 0.9),
        window=(rng.uniform(0.5, 6.0), rng.uniform(95.0, 99.5)),
        gamma=float(np.exp(rng.normal(0.0, 0.35))),
        brightness=rng.normal(0.0, 0.08),
        contrast=rng.uniform(0.6, 1.1),
        seed=int(rng.integers(2**31)),
    )


def expose(attenuation: Map, exposure: Exposure) -> npt.NDArray[np.uint8]:
    """The displayed image [H, W], bright where dense, of the attenuation [H, W] along each ray."""
    size = attenuation.shape[0]
    primary = np.exp(-attenuation)
    inside = attenuation > 0.6
    typical = float(np.median(primary[inside])) if inside.any() else 1.0
    small = cv2.resize(np.minimum(primary, 4 * typical), (64, 64), interpolation=cv2.INTER_AREA)
    veil = cv2.resize(cv2.GaussianBlur(small, (0, 0), 7.0), (size, size))
    signal = (primary + exposure.scatter * veil) / typical
    noise = np.random.default_rng(exposure.seed).standard_normal((size, size), dtype=np.float32)
    signal += np.sqrt(signal / exposure.photons) * noise
    density = -np.log(np.maximum(signal, 0.02))
    density = cv2.GaussianBlur(density, (0, 0), max(exposure.blur * size / 256, 0.3))
    low, high = np.percentile(density[inside] if inside.any() else density, exposure.window)
    level = np.clip((density - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    level = 0.5 + exposure.contrast * (level**exposure.gamma - 0.5) + exposure.brightness
    return np.asarray(np.clip(255.0 * level + 0.5, 0, 255), np.uint8)


def add_marker(attenuation: Map, camera: Camera, letter: str, corner: tuple[float, float]) -> None:
    """Lay a lead letter on the detector: corner is its centre, fractions of width and height."""
    size = camera.size
    scale = size / 512 * 1.3
    thick = max(1, round(size / 130))
    (w, h), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    origin = (round(corner[0] * size - w / 2), round(corner[1] * size + h / 2))
    ink = np.zeros((size, size), np.uint8)
    cv2.putText(ink, letter, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, thick, cv2.LINE_AA)
    attenuation += 6.0 * ink.astype(np.float32) / 255.0
