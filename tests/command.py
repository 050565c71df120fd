"""Runs the command line in this process."""

import sys
from unittest import mock

import pytest

from lightning_rad.cli import main


def lightning_rad(*arguments: str) -> None:
    """What `lightning-rad ARGUMENTS` does; SystemExit passes through."""
    with mock.patch.object(sys, "argv", ["lightning-rad", *arguments]):
        main()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `lightning-rad ARGUMENTS` says on standard error, which ends it as a user's mistake."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        lightning_rad(*arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said
