"""What an objective reads of an image beside its pixels: findings with their boxes, or gaze."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_rad.modalities.gaze import Saliency


@dataclass(frozen=True)
class FindingReading:
    """Which findings are read, and of whom.

    Args:
        names: Labels of the manifest, in the order of columns.
        aliases: Other words that boxes are labelled with, {word: name}.
        labelled: Share of the training patients whose labels are read, 0 to 1; those of the others
            are hidden, which is the semi-supervised setting. The same patients in every run.
        boxed: The same for boxes.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    labelled: float = 1.0
    boxed: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names or len(set(self.names)) != len(self.names):
            raise ValueError(f"findings.reading.names: some, each once, got {list(self.names)}")
        for key, share in (("labelled", self.labelled), ("boxed", self.boxed)):
            if not 0 <= share <= 1:
                raise ValueError(f"findings.reading.{key} must lie in [0, 1], got {share}")
        for word, name in self.aliases.items():
            if name not in self.names:
                raise ValueError(
                    f"findings.reading.aliases: '{word}' stands for '{name}', "
                    f"which is none of {list(self.names)}"
                )

    def column(self, word: str) -> int | None:
        """The column of what a box is labelled with; None where it is none of the findings."""
        name = self.aliases.get(word, word)
        return self.names.index(name) if name in self.names else None


@dataclass(frozen=True)
class GazeReading:
    """Which maps of attention an objective learns from."""

    saliency: Saliency
