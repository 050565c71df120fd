"""The recipes of `shards synthesize`: one for each body part."""

from __future__ import annotations

from typing import Any, Final, Literal

from lightning_rad.sharding.recipe import ImageSettings, Recipe, SourceSettings
from lightning_rad.sharding.sources.synthetic import SyntheticSource
from lightning_rad.sharding.sources.synthetic.knee import SyntheticKnees

Body = Literal["chest", "knee"]

_SOURCES: Final[dict[str, tuple[str, type[Any], str]]] = {
    "chest": ("synthetic", SyntheticSource, "lightning_rad.sharding.sources.synthetic"),
    "knee": ("synthetic_knees", SyntheticKnees, "lightning_rad.sharding.sources.synthetic.knee"),
}
"""The recipe's name and its source, with the module that offers it."""


def synthetic_recipe(
    patients: int, size: int, seed: int, images_per_shard: int, body: Body = "chest"
) -> Recipe:
    """What shards/synthetic.yaml or shards/synthetic_knees.yaml says, for any number and size.

    Raises ValueError where there is no such body.
    """
    if body not in _SOURCES:
        raise ValueError(f"body: '{body}' is none of {', '.join(_SOURCES)}")
    name, source, module = _SOURCES[body]
    return Recipe(
        name=name,
        namespace=name,
        salt="public",
        labels=source.labels,
        source=SourceSettings(
            f"{module}.{source.__name__}",
            {"patients": patients, "seed": seed, "size": size},
        ),
        splits={"train": 0.65, "val": 0.15, "test": 0.2},
        image=ImageSettings(short_side=None, quality=92),
        images_per_shard=images_per_shard,
        max_rejected_fraction=0.0,
        licence="made by this software, which is Apache-2.0",
    )
