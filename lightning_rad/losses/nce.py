"""Noise-contrastive estimation, the other loss of C2L.

Shape letters: N rows of this rank, K keys, D features.
"""

from __future__ import annotations

from lightning_rad.kernels.nce import nce, nce_log_partition

__all__ = ["nce", "nce_log_partition"]
