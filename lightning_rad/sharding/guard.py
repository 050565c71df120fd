"""What a recipe's `privacy` asks of a shard: scrubbed reports, a list of pictures to review."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_rad.modalities import burned_in, scrub
from lightning_rad.schema import Radiograph
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.recipe import PrivacySettings


class Guard:
    """One shard's. scrubbed: kind -> how many were taken out. review: lines of review.jsonl."""

    def __init__(self, settings: PrivacySettings) -> None:
        self._settings = settings
        self.scrubbed = Counter[str]()
        self.review: list[dict[str, Any]] = []

    def report(self, text: str) -> str:
        """The report as the shard may hold it."""
        if not self._settings.scrub_reports:
            return text
        text, counts = scrub.scrub(text)
        self.scrubbed.update(counts)
        return text

    def look(self, key: str, file: str, radiograph: Radiograph) -> None:
        """Note a picture that seems to bear text near a border."""
        if not self._settings.review_text:
            return
        regions = burned_in.text_regions(radiograph.pixels, radiograph.bits)
        if regions:
            self.review.append({"image": f"{key}.{file}", "regions": [list(r) for r in regions]})


def of_version(settings: PrivacySettings) -> dict[str, int]:
    """What is done, each with the version of its rules: part of a recipe's identity."""
    done = {"scrub_reports": scrub.VERSION, "review_text": burned_in.VERSION}
    return {key: version for key, version in done.items() if getattr(settings, key)}


def summed(privacy: Mapping[str, int], records: Iterable[ShardRecord]) -> dict[str, Any]:
    """What a manifest's details say: versions of the rules and what they did. {} for nothing."""
    if not privacy:
        return {}
    records, said = list(records), dict[str, Any]()
    if "scrub_reports" in privacy:
        counts = Counter[str]()
        for record in records:
            counts.update(record.scrubbed)
        said["scrubbed"] = dict(sorted(counts.items()))
    if "review_text" in privacy:
        said["to_review"] = sum(len(record.review) for record in records)
    return {"privacy": {"rules": dict(privacy)} | said}


def review_lines(privacy: Mapping[str, int], records: Sequence[ShardRecord]) -> bytes | None:
    """review.jsonl: the images that a person should look at; None where none were looked for."""
    if "review_text" not in privacy:
        return None
    lines = (json.dumps(line, sort_keys=True) + "\n" for r in records for line in r.review)
    return "".join(lines).encode()
