"""Linters of what is not Python; packages of theirs are among the dev dependencies."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def complaints(linter: str, *arguments: str | Path) -> str:
    """What a linter says of files; skips the test where there is none for this platform."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = shutil.which(linter, path=places)
    if command is None:
        pytest.skip(f"no {linter} for this platform")
    done = subprocess.run([command, *arguments], check=False, capture_output=True, text=True)
    said = done.stdout + done.stderr
    return said or (f"status {done.returncode}" if done.returncode else "")
