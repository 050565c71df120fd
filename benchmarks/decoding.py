"""Pictures decoded to grey a second: ours, Pillow, OpenCV and imagecodecs, of several sizes.

    python -m benchmarks.decoding OUT [--pace 1]

Contenders take turns on the same bytes, in one thread, by seconds on the CPU, and must give the
same greys first, within two levels for JPEG; one that is not installed is left out by name. Writes
OUT/decoding_<machine>_<date>.json and .md; exits with 1 where a target is missed.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from benchmarks.loader_race import asked, conclude
from benchmarks.loader_sets import picture
from benchmarks.report import Goal, Table
from benchmarks.timing import Times, race
from benchmarks.ways import optional, told
from lightning_rad.data.decode import decode
from lightning_rad.sharding.raw import pgm

QUALITY = 90
NEVER_SLOWER = 0.9
SECONDS = 4.0
CASES = [("jpg", side) for side in (256, 320, 512, 1024, 2816)]
CASES += [("png", 512), ("png", 1024), ("pgm", 256), ("pgm", 512)]
COLUMNS = ["picture", "KB", "ours / s", "Pillow L", "Pillow RGB to L", "OpenCV", "imagecodecs"]
NOTE = """Pictures a second of a CPU by ours, which checks sizes and checksums; then how many times
as long as ours the others take. 2816 px is as large as a full radiograph (8 megapixels). A pgm is a
picture of the raw tier: ours looks at it, the others copy it."""

Way = Callable[[], np.ndarray]


def main() -> None:
    given = asked(__doc__)
    table, goals = Table("Decoding to grey", COLUMNS, note=NOTE), []
    for suffix, side in CASES:
        data = encoded(suffix, side)
        ways = agreeing(ways_of(data, suffix), 2 if suffix == "jpg" else 0)
        gone = {name: way for name, way in ways.items() if not isinstance(way, str)}
        times = race(gone, seconds=SECONDS * given.pace, clock=time.process_time)
        add(table, f"{suffix} {side} x {side}", len(data), ways, times)
        goals += goals_of(f"{suffix} {side} x {side}", times)
    conclude(given, "decoding", "Decoding", [table], goals)


def encoded(suffix: str, side: int) -> bytes:
    grey = picture(0, side)
    if suffix == "jpg":
        return bytes(simplejpeg.encode_jpeg(grey[:, :, None], QUALITY, "GRAY", "Gray"))
    return cv2.imencode(".png", grey)[1].tobytes() if suffix == "png" else pgm(grey)


def ways_of(data: bytes, suffix: str) -> dict[str, Way | str]:
    codecs: Any = optional("imagecodecs", f"{ {'jpg': 'jpeg8'}.get(suffix, suffix) }_decode")
    return {
        "ours": lambda: decode(data, suffix),
        "Pillow L": lambda: np.asarray(Image.open(io.BytesIO(data)).convert("L")),
        "Pillow RGB to L": lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., 1],
        "OpenCV": lambda: cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE),
        "imagecodecs": codecs if isinstance(codecs, str) else lambda: codecs(data),
    }


def agreeing(ways: dict[str, Way | str], tolerance: int) -> dict[str, Way | str]:
    """Ways that fail, or give other greys than Pillow, give way to the reason."""
    wanted = np.asarray(ways["Pillow L"]()).astype(int)  # type: ignore[operator]
    judged: dict[str, Way | str] = {}
    for name, way in ways.items():
        judged[name] = way
        if isinstance(way, str):
            continue
        try:
            apart = int(np.abs(way().astype(int) - wanted).max())
        except Exception as error:  # whatever it is, the others are still to be timed
            judged[name] = f"fails: {told(error)}"
            continue
        if apart > tolerance:
            judged[name] = f"disagrees by {apart} greys"
    return judged


def add(
    table: Table, title: str, size: int, ways: dict[str, Way | str], times: dict[str, Times]
) -> None:
    row = {"picture": title, "KB": f"{size / 1000:,.0f}"}
    for name, way in ways.items():
        column = "ours / s" if name == "ours" else name
        if isinstance(way, str):
            row[column] = way
        elif name == "ours":
            row[column] = f"{1 / times[name].median:,.0f}"
        else:
            row[column] = f"{times[name].over(times['ours']):.2f}" if "ours" in times else ""
    table.rows.append(row)
    seconds = {name: spent.summary() for name, spent in times.items()}
    table.details.append({"picture": title, "seconds": seconds})


def goals_of(title: str, times: dict[str, Times]) -> Iterator[Goal]:
    """That no other is faster than ours by more than what its checks cost."""
    others = {name: spent for name, spent in times.items() if name != "ours"}
    ratio = min((t.over(times["ours"]) for t in others.values()), default=0.0)
    wanted = NEVER_SLOWER if title.startswith("jpg") else 0.0
    if wanted:
        yield Goal(f"{title}: fastest other / ours", wanted, ratio if "ours" in times else 0.0)


if __name__ == "__main__":
    main()
