"""Where studies come from, one file a kind of source."""
