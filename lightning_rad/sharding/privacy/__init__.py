"""No identifiers in shards: what of a source must not be in them, and the search for it."""

from lightning_rad.sharding.privacy.search import search

__all__ = ["search"]
