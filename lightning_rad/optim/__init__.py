"""Optimisers, schedules and the grouping of parameters."""
