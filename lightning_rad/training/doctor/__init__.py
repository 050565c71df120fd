"""Looks at a machine before a long run does: what is wrong, and what to do about it."""

from lightning_rad.training.doctor.examination import Asked, examine, summary
from lightning_rad.training.doctor.finding import Finding, worst

__all__ = ["Asked", "Finding", "examine", "summary", "worst"]
