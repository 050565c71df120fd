"""A real Slurm of several nodes on one machine, each node in network, host-name and mount
namespaces of its own, with fake GPUs. Needs root and slurm-wlm, munge and iproute2.

The controller and the nodes share a bridge that lies in the controller's namespace: the machine's
own network has no part in it, nor have /etc/munge and /etc/slurm. Everything is ended by pid.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

NEEDS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter", "unshare")

CONF = """\
ClusterName=lrad
SlurmctldHost=controller(10.77.0.254)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=15
SlurmdTimeout=6
MinJobAge=3600
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
GresTypes=gpu
"""
PARTITIONS = """\
PartitionName=usual Nodes=ALL Default=YES PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """Starts on `up`, goes on `down`; nodes are called node1, node2 ..."""

    def __init__(self, folder: Path, *, nodes: int = 3, cpus: int = 4, gpus: int = 4) -> None:
        self.folder = folder
        self.nodes = [f"node{i}" for i in range(1, nodes + 1)]
        self._cpus, self._gpus = cpus, gpus
        self._tag = f"lrad{os.getpid()}"  # namespaces are named on the whole machine
        self._munged: int | None = None
        self._env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def up(self) -> None:
        """Start the daemons and wait until every node is idle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write_files()
        self._start_munge()
        self._start_controller()
        for node in self.nodes:
            self._join(node)
            self.start(node)
        until(
            lambda: (
                self.run("sinfo", "-h", "-N", "-p", "usual", "-o", "%t").split().count("idle")
                == len(self.nodes)
            ),
            "nodes are idle",
            30,
        )

    def down(self) -> None:
        """Kill whatever lives in our namespaces, and the one munged; remove the namespaces."""
        for name in (*self.nodes, "controller"):
            self._kill_all(name)
            _told("ip", "netns", "del", self._space(name))
        if self._munged is not None:
            os.kill(self._munged, signal.SIGTERM)
            self._munged = None

    def run(self, *command: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
        """What a command on the login node (the controller's) prints."""
        pid = self._pid("controller")
        enter = ["nsenter", f"--target={pid}", "--net", "--uts", "--mount", f"--wd={cwd or '/'}"]
        return _call(*enter, *command, env=self._env | (env or {}))

    def processes(self, node: str) -> list[int]:
        """Every process on a node."""
        listed = _told("ip", "netns", "pids", self._space(node))
        return [int(pid) for pid in listed.stdout.split()]

    def kill(self, node: str) -> None:
        """A node dies: its slurmd and all that runs there, at once."""
        self._kill_all(node)

    def link(self, node: str, state: str) -> None:
        """Pull a node's network cable (down) or put it back (up)."""
        _call("ip", "-n", self._space("controller"), "link", "set", f"v{node}", state)

    def start(self, node: str) -> None:
        """Start a node's slurmd; its namespace is there."""
        self._pid_file(node).unlink(missing_ok=True)
        local = self.folder / f"local-{node}"
        local.mkdir(exist_ok=True)
        # the same path is another folder on each node, as node-local scratch is
        mount = f"mount --bind {local} {self.folder / 'local'};"
        conf = self.folder / "slurm.conf"
        self._enter(node, mount, "slurmd", "-f", str(conf), "-N", node)
        self._pid(node)

    def _write_files(self) -> None:
        for name in ("state", "local"):
            (self.folder / name).mkdir(exist_ok=True)
        lines = [CONF.format(folder=self.folder)]
        hosts = [Path("/etc/hosts").read_text(), "10.77.0.254 controller"]
        for i, node in enumerate(self.nodes, start=1):
            lines.append(
                f"NodeName={node} NodeHostname={node} NodeAddr=10.77.0.{i} CPUs={self._cpus} "
                f"RealMemory=8000 Gres=gpu:{self._gpus} State=UNKNOWN"
            )
            hosts.append(f"10.77.0.{i} {node}")
        (self.folder / "slurm.conf").write_text("\n".join([*lines, PARTITIONS]))
        (self.folder / "hosts").write_text("\n".join([*hosts, ""]))
        for i in range(self._gpus):  # Slurm takes character devices only: copies of /dev/null
            os.mknod(self.folder / f"gpu{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        devices = f"{self.folder}/gpu[0-{self._gpus - 1}]"
        (self.folder / "gres.conf").write_text(
            f"NodeName=node[1-{len(self.nodes)}] Name=gpu File={devices}\n"
        )

    def _start_munge(self) -> None:
        """One daemon with a key and socket of ours: a path is reachable from every namespace."""
        home = self.folder / "munge"
        home.mkdir(mode=0o755, exist_ok=True)
        key = home / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
        paths = [f"--{option}={home / name}" for option, name in files.items()]
        _call("munged", "--force", f"--log-file={home / 'log'}", *paths)
        self._munged = int((home / "pid").read_text())

    def _start_controller(self) -> None:
        space = self._space("controller")
        _call("ip", "netns", "add", space)
        _call("ip", "-n", space, "link", "set", "lo", "up")
        _call("ip", "-n", space, "link", "add", "br0", "type", "bridge")
        _call("ip", "-n", space, "addr", "add", "10.77.0.254/24", "dev", "br0")
        _call("ip", "-n", space, "link", "set", "br0", "up")
        self._enter("controller", "", "slurmctld", "-f", str(self.folder / "slurm.conf"))
        self._pid("controller")

    def _join(self, node: str) -> None:
        """Give a node a namespace and a cable to the controller's bridge."""
        space, bridge = self._space(node), self._space("controller")
        _call("ip", "netns", "add", space)
        _call("ip", "-n", space, "link", "set", "lo", "up")
        pair = ["eth0", "netns", space, "type", "veth", "peer", "name", f"v{node}", "netns", bridge]
        _call("ip", "link", "add", *pair)
        _call("ip", "-n", bridge, "link", "set", f"v{node}", "master", "br0", "up")
        address = f"10.77.0.{node.removeprefix('node')}/24"
        _call("ip", "-n", space, "addr", "add", address, "dev", "eth0")
        _call("ip", "-n", space, "link", "set", "eth0", "up")

    def _enter(self, name: str, first: str, *daemon: str) -> None:
        """Start a daemon in the namespace of a node, with host name, /etc/hosts and mounts."""
        script = f'hostname {name}; mount --bind {self.folder}/hosts /etc/hosts; {first} exec "$@"'
        private = ["unshare", "--uts", "--mount", "--propagation", "private"]
        space = f"--net=/run/netns/{self._space(name)}"
        _call("nsenter", space, *private, "sh", "-ec", script, "sh", *daemon, env=self._env)

    def _kill_all(self, name: str) -> None:
        for _ in range(50):
            pids = self.processes(name)
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)

    def _space(self, name: str) -> str:
        return f"{self._tag}-{name}"

    def _pid_file(self, name: str) -> Path:
        return self.folder / f"{name}.pid"

    def _pid(self, name: str) -> int:
        file = self._pid_file(name)
        until(lambda: file.exists() and file.read_text().strip() != "", f"{name} runs", 10)
        return int(file.read_text())


def missing() -> str | None:
    """Why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [name for name in NEEDS if shutil.which(name) is None]
    if absent:
        packages = "apt-get install --no-install-recommends slurm-wlm munge iproute2"
        return f"no {', '.join(absent)}: {packages}"
    tried = _told("unshare", "--net", "--uts", "--mount", "true")
    return "namespaces are not permitted here" if tried.returncode else None


def until(holds: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s it is not so that {what}")
        time.sleep(0.1)


def _told(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)


def _call(*command: str, env: dict[str, str] | None = None) -> str:
    done = _told(*command, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()
