"""Synthetic radiographs: a parametric chest, its findings, and the pictures taken of it."""

from lightning_rad.sharding.sources.synthetic.source import SyntheticSource

__all__ = ["SyntheticSource"]
