"""Synthetic knees: a frontal view of each, with a Kellgren-Lawrence grade of osteoarthritis."""

from lightning_rad.sharding.sources.synthetic.knee.source import SyntheticKnees

__all__ = ["SyntheticKnees"]
