"""Runs the command line in this process."""

import sys
from unittest import mock

from lightning_rad.cli import main


def lightning_rad(*arguments: str) -> None:
    """What `lightning-rad ARGUMENTS` does; SystemExit passes through."""
    with mock.patch.object(sys, "argv", ["lightning-rad", *arguments]):
        main()
