"""A real SLURM on this machine: one controller and some nodes with fake GPUs, on loopback, in a folder of its own.

Each node is a ``slurmd`` in a UTS and a mount namespace, so that it bears its own host name and can resolve the others'. All share
this machine's file system, ports and process table, as nodes of one cluster share the first of these. Daemons run in the
foreground: their pid is known, and they are ended by it. There is no device isolation, no memory limit and no accounting.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from qwen_fp8_ops.outside import process
from tests.ports import free_port
from tests.waiting import wait_for

KILL_WAIT_SECONDS = 10
"""From SIGTERM to SIGKILL; SLURM's own default is 30."""
REQUEUE_SECONDS = 15
"""A requeued job starts again only after ``cred_expire``, which must be more than KillWait."""
COMMAND_SECONDS = 60
GPU_TYPE = "h100"

ENTER_NODE = 'mount --bind "$0" /etc/hosts && hostname "$1" && exec slurmd -D -N "$1"'


class Cluster:
    def __init__(self, nodes: int = 1, gpus: int = 8) -> None:
        # Unix socket paths are short: pytest's own folders would be too long.
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self.gpus = gpus
        self.conf = self.folder / "slurm.conf"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def environ(self) -> dict[str, str]:
        """For commands that speak to this cluster, from outside of any job."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "QWEN_FP8_"))}
        return {**clean, "SLURM_CONF": str(self.conf), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}

    # --- up and down --------------------------------------------------------------------------------------------------------

    def up(self) -> None:
        for name in ("state", "spool", "dev", "log"):
            (self.folder / name).mkdir()
        self._configure()
        munge = f"--key-file={self.folder}/munge.key --socket={self._socket} --pid-file={self.folder}/munged.pid --log-file={self.folder}/log/munged.log"
        self._spawn("munged", ["munged", "--foreground", "--force", *munge.split(), f"--seed-file={self.folder}/munge.seed"])
        wait_for(lambda: self.run(["munge", "-S", self._socket, "-n"]).returncode == 0, "munged answers")
        self.start_controller()
        for node in self.nodes:
            self.start_node(node)
        wait_for(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), f"{len(self.nodes)} nodes are idle")

    def down(self) -> None:
        if self.daemons.get("slurmctld") and self.states():
            ids = self.run(["squeue", "-h", "-o", "%A"]).stdout.split()
            if ids:
                self.run(["scancel", "--quiet", *sorted(set(ids))])
                with contextlib.suppress(AssertionError):  # what does not go is ended below
                    wait_for(lambda: not self.run(["squeue", "-h", "-o", "%A"]).stdout.strip(), "the jobs are gone", KILL_WAIT_SECONDS + 10)
        self._end_strays()
        for name in reversed(list(self.daemons)):
            self.end(name)
        self._end_strays()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_controller(self) -> None:
        self._spawn("slurmctld", ["slurmctld", "-D"])
        wait_for(lambda: "is UP" in self.run(["scontrol", "ping"]).stdout, "the controller is up")

    def start_node(self, node: str) -> None:
        self._spawn(node, ["unshare", "--uts", "--mount", "sh", "-c", ENTER_NODE, str(self.folder / "hosts"), node])

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(signal.SIGCONT)
        daemon.send_signal(number)
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    @contextlib.contextmanager
    def controller_away(self) -> Iterator[None]:
        """The controller's host was switched off: nobody listens."""
        self.end("slurmctld")
        try:
            yield
        finally:
            self.start_controller()

    @contextlib.contextmanager
    def controller_silent(self) -> Iterator[None]:
        """The controller hangs: it takes connections and never answers."""
        self.daemons["slurmctld"].send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.daemons["slurmctld"].send_signal(signal.SIGCONT)

    # --- use ----------------------------------------------------------------------------------------------------------------

    def run(self, words: Sequence[str], environ: Mapping[str, str] | None = None, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            env={**self.environ, **(environ or {})},
            cwd=folder or self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )

    def told(self, *words: str) -> str:
        """What a command says; it must succeed."""
        done = self.run(words)
        assert done.returncode == 0, f"{' '.join(words)}: {done.returncode} {done.stdout} {done.stderr}"
        return done.stdout.strip()

    def states(self) -> dict[str, str]:
        lines = self.run(["sinfo", "-h", "-N", "-o", "%N %T"]).stdout.splitlines()
        return dict(line.split() for line in lines)

    def job(self, job_id: str) -> dict[str, str]:
        """State, node and reason of a job; all empty when the queue does not know it any more."""
        text = self.run(["squeue", "-h", "-t", "all", "-j", job_id, "-o", "%T|%N|%r"]).stdout.strip()
        state, node, reason = text.split("|") if text else ("", "", "")
        return {"state": state, "node": node, "reason": reason}

    # --- inside -------------------------------------------------------------------------------------------------------------

    @property
    def _socket(self) -> str:
        return str(self.folder / "munge.socket")

    def _spawn(self, name: str, words: Sequence[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                words, env=self.environ, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _end_strays(self) -> None:
        """Steps and job processes of this cluster, told by their environment, that their own daemons did not end."""
        mark = b"SLURM_CONF=" + os.fsencode(self.conf) + b"\0"
        daemons = {daemon.pid for daemon in self.daemons.values()}
        for pid in process.all_pids():
            environ = process.environment_of(pid)
            stepd = process.command_line(pid).startswith("slurmstepd")
            if pid not in daemons and (stepd or b"\0SLURM_JOB_ID=" in environ) and mark in environ + b"\0":
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _configure(self) -> None:
        folder, host = self.folder, socket.gethostname().partition(".")[0]
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        for number in range(self.gpus):
            (folder / "dev" / f"gpu{number}").symlink_to("/dev/null")  # gres.conf wants a character device
        hosts = Path("/etc/hosts").read_text()
        (folder / "hosts").write_text(f"{hosts.rstrip()}\n127.0.0.1 {' '.join(self.nodes)}\n")
        (folder / "gres.conf").write_text(
            "AutoDetect=off\n"
            + "".join(f"NodeName={node} Name=gpu Type={GPU_TYPE} File={folder}/dev/gpu[0-{self.gpus - 1}] Flags=nvidia_gpu_env\n" for node in self.nodes)
        )
        node_lines = "\n".join(
            f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={free_port()} CPUs=64 RealMemory=1000000 Gres=gpu:{GPU_TYPE}:{self.gpus} State=UNKNOWN"
            for node in self.nodes
        )
        self.conf.write_text(f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={free_port()}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self._socket},cred_expire={REQUEUE_SECONDS}
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=100000
SlurmdParameters=config_overrides
ReturnToService=2
KillWait={KILL_WAIT_SECONDS}
MinJobAge=3600
SlurmctldTimeout=60
SlurmdTimeout=60
GresTypes=gpu
{node_lines}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
