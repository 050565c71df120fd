"""The chest X-rays of Indiana University (Open-i): reports as XML, which name their images."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from lightning_rad.sharding.source import Rejection
from lightning_rad.sharding.sources.rows import Row
from lightning_rad.sharding.sources.table import TableSource
from lightning_rad.sharding.sources.tables import Tables

log = logging.getLogger(__name__)

COLUMNS: Final = ("report", "image", "terms", "text")
"""Columns of the rows that reports become."""

LARGEST: Final = 1 << 20
"""Bytes of a report file; those of the set have 9,000 at most."""


class OpenISource(TableSource):
    """Reads a report of each XML file and the images that it names.

    Args:
        root: Folder of the raw data.
        reports: Wildcards of the XML files, relative to `root`.
        joins: Further columns, as in `tables.Tables`; rows have the columns report (the report's
            id), image (that of the image) and what is said below.
        columns: Further keys of `columns.Columns`, such as view. Patient and study are the report,
            image is its name as PNG, and the report is its four sections, each under its name.
        folders, views, labels, splits: As of `table.TableSource`. labels.column is "terms": of each
            MeSH term that an indexer gave the report ("Opacity/lung/base/left") the heading
            ("Opacity") and it with each of its qualifiers ("Opacity/lung"), apart by "|".
    """

    version = 1
    """Raised with each change to what the reports become."""

    def __init__(
        self,
        root: Path,
        *,
        reports: str = "ecgen-radiology/*.xml",
        joins: Sequence[Any] = (),
        columns: Mapping[str, Any] | None = None,
        folders: Sequence[str] | Mapping[str, Any] = (".",),
        views: Mapping[str, str] | None = None,
        labels: Mapping[str, Any] | None = None,
        splits: Mapping[str, Any] | None = None,
    ) -> None:
        own = {"image": "{image}.png", "patient": "report", "study": "report", "report": "text"}
        super().__init__(
            root,
            csv={"files": reports},
            columns=own | dict(columns or {}),
            folders=folders,
            views=views,
            labels=labels,
            splits=splits,
        )
        self.tables = OpenIReports(files=reports, joins=joins)


@dataclass(frozen=True, slots=True)
class OpenIReports(Tables):
    """The images of reports as rows: `files` are the reports."""

    def _own_rows(
        self, root: Path, own: Collection[str], rejected: list[Rejection]
    ) -> Iterator[tuple[str, Row]]:
        if other := sorted(set(own) - set(COLUMNS)):
            raise ValueError(f"reports: no column '{other[0]}'; there are {', '.join(COLUMNS)}")
        names = sorted(glob(str(self.files), root_dir=root))
        if not names:
            raise ValueError(f"{root}: no file matches '{self.files}' (reports)")
        without = 0
        for number, name in enumerate(names, 1):
            where = f"report {number} of {len(names)}, sorted"
            try:
                rows = rows_of(_parse(root / name))
            except ValueError as error:
                rejected.append(Rejection(where, str(error)))
                continue
            without += not rows
            for place, row in enumerate(rows, 1):
                yield f"{where}, image {place}", row
        if without:
            log.warning("%d reports are left out: they name no image", without)


def rows_of(report: Element) -> list[Row]:
    """A row an image. Raises ValueError for a report without an id."""
    identity = report.find("uId")
    name = identity.get("id", "").strip() if identity is not None else ""
    if not name:
        raise ValueError("damaged report: no uId")
    parts = ((p.get("Label", ""), (p.text or "").strip()) for p in report.iter("AbstractText"))
    text = "\n".join(f"{label}: {body}" for label, body in parts if body)
    said = (words_of(term.text or "") for term in report.findall("MeSH/major"))
    terms = "|".join(dict.fromkeys(word for words in said for word in words))
    images = [image.get("id", "").strip() for image in report.iter("parentImage")]
    return [{"report": name, "image": image, "terms": terms, "text": text} for image in images]


def words_of(term: str) -> list[str]:
    """The heading of a term, and it with each of its qualifiers."""
    heading, *qualifiers = (" ".join(part.split()) for part in term.split("/"))
    return [heading, *(f"{heading}/{qualifier}" for qualifier in qualifiers)]


def _parse(path: Path) -> Element:
    """The XML of a file. Raises ValueError, in words that name no file."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"damaged report: more than {LARGEST} bytes")
        return ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise ValueError(f"damaged report: no XML: {error}") from None
    except OSError as error:
        raise ValueError(f"unreadable report: {error.strerror}") from None
