"""Adding up shard records to a manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lightning_rad.manifest import Manifest
from lightning_rad.sharding.indexing import ShardRecord

FIELDS: Final = ("report", "gaze", "boxes", "saliency")
"""Optional members and entries, in the order in which a manifest lists them."""


def summarise(
    root: Path,
    name: str,
    records: Sequence[ShardRecord],
    details: Mapping[str, Any],
    *,
    labels: Sequence[str] | None = None,
) -> Manifest:
    """The manifest of some shards; those without an image are left out.

    labels: order of the findings; without it those that occur, sorted.
    """
    kept = [record for record in records if record.shard.images]
    findings = tuple(labels) if labels else tuple(sorted({f for r in kept for f in r.labels}))
    present = {field for record in kept for field in record.fields}
    views = Counter[str]()
    for record in kept:
        views.update(record.views)
    return Manifest(
        root=root,
        name=name,
        labels=findings,
        fields=tuple(field for field in FIELDS if field in present),
        prevalence=_prevalence(kept, findings),
        shards=tuple(record.shard for record in kept),
        details=dict(details) | {"views": dict(sorted(views.items()))},
    )


def _prevalence(
    records: Sequence[ShardRecord], findings: Sequence[str]
) -> dict[str, dict[str, dict[str, int]]]:
    images = Counter[str]()
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        images[record.shard.split] += record.shard.images
        for finding, known in record.labels.items():
            counts[record.shard.split, finding].update(known)
    table: dict[str, dict[str, dict[str, int]]] = {}
    for split in images:
        table[split] = {}
        for finding in findings:
            known = counts[split, finding]
            present, absent = known["present"], known["absent"]
            unknown = images[split] - present - absent
            table[split][finding] = {"present": present, "absent": absent, "unknown": unknown}
    return table
