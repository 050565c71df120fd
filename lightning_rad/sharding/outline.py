"""What the end of a build needs to know of its beginning, so that it needs neither source nor salt.

Kept beside the shards while they are made; `shards merge` has nothing else.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_rad import __version__
from lightning_rad.manifest import Manifest
from lightning_rad.sharding.guard import of_version, summed
from lightning_rad.sharding.identity import Identity
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.plan import Job, Plan
from lightning_rad.sharding.recipe import Recipe
from lightning_rad.sharding.summary import summarise

Lines = list[tuple[str, str]]
"""(where, reason) of all that was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A plan without its studies. JSON values only; no identifiers.

    plan: its digest. jobs: (name, split) of every shard. rejected: (where, reason) of what the plan
    refused. details: of the manifest, but for what only the end knows. privacy: see
    `guard.of_version`.
    """

    plan: str
    name: str
    jobs: tuple[tuple[str, str], ...]
    labels: tuple[str, ...] | None
    rejected: tuple[tuple[str, str], ...]
    max_rejected_fraction: float
    details: dict[str, Any]
    privacy: dict[str, int]

    def dumps(self) -> bytes:
        """As it is kept."""
        return json.dumps(asdict(self), sort_keys=True).encode()

    @property
    def empty_jobs(self) -> tuple[Job, ...]:
        """The shards by name."""
        return tuple(Job(name, split, ()) for name, split in self.jobs)


def outline_of(plan: Plan, recipe: Recipe, identity: Identity) -> Outline:
    """The outline of a build at its beginning."""
    return Outline(
        plan=plan.digest,
        name=recipe.name,
        jobs=tuple((job.name, job.split) for job in plan.jobs),
        labels=recipe.labels,
        rejected=tuple((r.where, r.reason) for r in plan.rejected),
        max_rejected_fraction=recipe.max_rejected_fraction,
        details={
            "namespace": recipe.namespace,
            "salt": identity.salt_id,
            "recipe": recipe.digest,
            "plan": plan.digest,
            "software": f"lightning-rad {__version__}",
            "image": asdict(recipe.image),
            "url": recipe.url,
            "licence": recipe.licence,
            "citation": recipe.citation,
        },
        privacy=of_version(recipe.privacy),
    )


def parse_outline(data: bytes) -> Outline:
    """An outline as `dumps` gave it."""
    body = json.loads(data)
    pairs = {key: tuple(map(tuple, body[key])) for key in ("jobs", "rejected")}
    labels = body["labels"] if body["labels"] is None else tuple(body["labels"])
    return Outline(**(body | pairs | {"labels": labels}))


def refused(outline: Outline, records: Sequence[ShardRecord]) -> Lines:
    """All that was refused, by the plan and by the shards in their order."""
    return [*outline.rejected, *(line for record in records for line in record.rejected)]


def check_refused(outline: Outline, rejected: int, images: int) -> None:
    """Raises ValueError where no image is left, or too many were refused."""
    if not images:
        raise ValueError(f"recipe '{outline.name}': no image is left ({rejected} rejected)")
    fraction, most = rejected / (rejected + images), outline.max_rejected_fraction
    if fraction > most:
        raise ValueError(
            f"recipe '{outline.name}': {rejected} rejected beside {images} images are "
            f"{fraction:.1%}, above max_rejected_fraction {most:.1%}; "
            f"rejected.jsonl in the output folder names each"
        )


def manifest_of(outline: Outline, root: Path, records: Sequence[ShardRecord]) -> Manifest:
    """The manifest of all shards, whose records are in the order of the plan."""
    kinds = Counter(reason.split(":")[0] for _, reason in refused(outline, records))
    details = outline.details | {"rejected": dict(sorted(kinds.items()))}
    details |= summed(outline.privacy, records)
    return summarise(root, outline.name, records, details, labels=outline.labels)
