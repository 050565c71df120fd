"""What is read of images beside their pixels, and for whom it is collected.

Shape letters: V views, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_rad.data.findings import FindingReader, FindingRows
from lightning_rad.data.gaze_rows import GazeReader, GazeRows
from lightning_rad.data.reader import Reader
from lightning_rad.data.views.params import ViewParams
from lightning_rad.modalities.evidence import FindingReading, GazeReading
from lightning_rad.schema import Findings, Gaze


@dataclass(frozen=True, slots=True)
class Evidence:
    """How findings and gaze are read; None where they are not."""

    findings: FindingReader | None = None
    gaze: GazeReader | None = None

    @staticmethod
    def of(
        reader: Reader,
        findings: FindingReading | None,
        gaze: GazeReading | None,
        *,
        hides: bool,
        strange: set[str] | None = None,
    ) -> Evidence:
        """As asked for. hides, strange: see `FindingReader`."""
        return Evidence(
            None
            if findings is None
            else FindingReader(reader, findings, hides=hides, strange=strange),
            None if gaze is None else GazeReader(reader, gaze.saliency),
        )

    def rows(self, views: int, rows: int) -> EvidenceRows | None:
        """Room for that of so many views and rows; None where nothing is read."""
        if self.findings is None and self.gaze is None:
            return None
        return EvidenceRows(self, views, rows)


class EvidenceRows:
    """Collects what is read of the images that V views of R rows show, from any thread."""

    def __init__(self, evidence: Evidence, views: int, rows: int) -> None:
        self._evidence = evidence
        findings, gaze = evidence.findings, evidence.gaze
        self._findings = None if findings is None else FindingRows(views, rows, findings.columns)
        self._gaze = None if gaze is None else GazeRows(views, rows, gaze.side)

    def put(
        self, image_VR: npt.NDArray[np.int64], params: Sequence[ViewParams], first: int
    ) -> None:
        """Read, once an image, what there is of some rows, and keep it as the views show it.

        image_VR: those that are shown. params: of each view. first: the number of the first row.
        """
        distinct = np.unique(image_VR).tolist()
        places = [(v, r, int(image)) for (v, r), image in np.ndenumerate(image_VR)]
        if self._findings is not None and self._evidence.findings is not None:
            known = {image: self._evidence.findings.of(image) for image in distinct}
            for view, row, image in places:
                self._findings.put(first + row, view, known[image], params[view], row)
        if self._gaze is not None and self._evidence.gaze is not None:
            looked = dict(zip(distinct, self._evidence.gaze.of(distinct), strict=True))
            for view, row, image in places:
                self._gaze.put(first + row, view, looked[image], params[view], row)

    def tensors(self, *, pin: bool = False) -> tuple[Findings | None, Gaze | None]:
        """Of all rows, [V, R, ...]."""
        findings = None if self._findings is None else self._findings.tensors(pin=pin)
        return findings, None if self._gaze is None else self._gaze.tensors(pin=pin)
