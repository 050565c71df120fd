"""Making shards: sources, clean, write, verify. The only writer of shards."""
