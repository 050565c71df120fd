"""A container engine for tests: Docker where it runs, else podman without a daemon, as root.

Without Docker the base image is made by debootstrap, so that no registry of images is needed; an
index of Python packages and Debian's packages are. LIGHTNING_RAD_CONTAINERS=FOLDER keeps the
images of podman there from one run to the next.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PODMAN = ("podman", "runc", "debootstrap")
INSTALL = "apt-get install --no-install-recommends podman buildah runc debootstrap"
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""


def missing() -> str | None:
    """Why no container can be made here; None where one can."""
    if _docker_runs():
        return None
    absent = [name for name in PODMAN if shutil.which(name) is None]
    if absent:
        return f"no Docker engine, and no {', '.join(absent)}: {INSTALL}"
    return None if os.geteuid() == 0 else "podman is used as root here, and this is another user"


def _docker_runs() -> bool:
    """Whether Docker's own engine answers: the command may be podman under another name."""
    asked = ("docker", "version", "--format", "{{.Server.Platform.Name}}")
    if shutil.which("docker") is None:
        return False
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@dataclass
class Engine:
    """Runs the commands of an engine; `folder` is where podman keeps images and containers."""

    folder: Path
    podman: bool = field(default_factory=lambda: not _docker_runs())

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "containers.conf").write_text(_CONTAINERS)
        (self.folder / "storage.conf").write_text(_STORAGE.format(folder=self.folder))

    def __call__(
        self, *arguments: str, timeout: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """One command of the engine, with its output; an error shows the end of it."""
        done = subprocess.run(
            ["podman" if self.podman else "docker", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = f"{' '.join(arguments)[:200]}: {done.returncode}\n{done.stdout[-3000:]}"
        assert done.returncode == 0 or not check, f"{said}\n{done.stderr[-3000:]}"
        return done

    @property
    def environment(self) -> dict[str, str]:
        """Settings of podman that need no system-wide file."""
        own = {
            "CONTAINERS_CONF": str(self.folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(self.folder),
        }
        return {**os.environ, **own} if self.podman else dict(os.environ)

    def base(self) -> list[str]:
        """Arguments of a build that choose its base: with podman a Debian 12 made here."""
        if not self.podman:
            return []
        name = "localhost/lightning-rad-base"
        if self("image", "exists", name, check=False).returncode:
            root = self.folder / "debian"
            include = "--include=ca-certificates"
            made = ["debootstrap", "--variant=minbase", include, "bookworm", str(root)]
            subprocess.run(made, check=True, capture_output=True, timeout=600)
            skip = [f"--exclude=./{part}/*" for part in ("dev", "proc", "sys", "var/cache/apt")]
            packed = self.folder / "debian.tar"
            subprocess.run(["tar", "-C", str(root), *skip, "-cf", str(packed), "."], check=True)
            self("import", "-q", str(packed), name)
            packed.unlink()
            shutil.rmtree(root)
        return ["--format=docker", "--layers=false", "--build-arg", f"BASE_IMAGE={name}"]

    def index(self) -> list[str]:
        """Arguments of a build that hand on how this machine reaches an index of packages."""
        lines, secrets = ["[global]"], []
        if certificate := os.environ.get("PIP_CERT"):
            lines.append("cert = /run/secrets/ca.pem")
            secrets += ["--secret", f"id=ca.pem,src={certificate}"]
        if url := os.environ.get("PIP_INDEX_URL"):
            lines.append(f"index-url = {url}")
        if len(lines) > 1:
            settings = self.folder / "pip.conf"
            settings.write_text("\n".join(lines) + "\n")
            secrets += ["--secret", f"id=pip.conf,src={settings}"]
        return secrets

    def build(self, name: str) -> None:
        """Build the repository's image."""
        what = ["-f", str(ROOT / "docker" / "Dockerfile"), "-t", name, str(ROOT)]
        self("build", "--network=host", *self.base(), *self.index(), *what, timeout=1800)

    def clear(self) -> None:
        """Take away everything that podman made; of Docker's, nothing is known."""
        if not self.podman:
            return
        self("rm", "--all", "--force", check=False)
        self("rmi", "--all", "--force", check=False, timeout=300)
        subprocess.run(
            ["umount", str(self.folder / "store" / "overlay")], capture_output=True, check=False
        )
        shutil.rmtree(self.folder, ignore_errors=True)
