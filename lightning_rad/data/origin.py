"""Where the rows of a batch come from: enough to make the batch again, or to look at its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_rad.data.reader import Reader
from lightning_rad.data.stream import Positions, Stream


def origin(
    stream: Stream, positions: Positions, unit: Sequence[int], image: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """One dict a row, as plain data.

    epoch and unit are, with the order's seed and the number of the view, what that view was drawn
    from; images names for each view the manifest's folder, the shard, the key of the sample and
    which of its images it shows.

    positions: those that the batch began at. unit: [B], image: [V][B], numbers of the stream, as in
    ViewBatch.
    """
    epochs = stream.rows(positions).epoch.tolist()
    rows = zip(epochs, unit, zip(*image, strict=True), strict=True)
    return [
        {"epoch": epoch, "unit": number, "images": [_image(stream.reader, i) for i in shown]}
        for epoch, number, shown in rows
    ]


def _image(reader: Reader, image: int) -> dict[str, Any]:
    source, local = reader.place(image)
    record = source.index.images[local]
    study = int(record["study"])
    folder, _, file = source.index.place(int(source.index.shard_of_study[study])).rpartition("/")
    return {
        "manifest": folder,
        "shard": file,
        "key": source.index.studies[study]["key"].decode(),
        "ordinal": int(record["ordinal"]),
        "image": image,
    }
