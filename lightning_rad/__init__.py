"""Distributed pretraining of radiograph encoders."""

__version__ = "0.1.0"
