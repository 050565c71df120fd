"""Modules with parameters: encoders, projectors and what objectives share."""
