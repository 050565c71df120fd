"""Callbacks that only watch: a run without them ends with the same weights."""
