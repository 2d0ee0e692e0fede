"""Services as jobs of a real cluster: submitted, followed, drained, requeued, and gone without a trace."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from qwen_fp8_ops.outside import process
from qwen_fp8_ops.outside.net import can_bind
from tests.slurm.cluster import KILL_WAIT_SECONDS, Cluster
from tests.slurm.job_service import JobService
from tests.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]  # a busy machine is slow, and so is SLURM by design

CHECKOUT = Path(__file__).parent.parent.parent


def engine_environ(service: JobService) -> dict[str, str]:
    pid = next(program["pid"] for program in service.recorded["programs"] if program["role"] == "engine")
    return dict(entry.decode().split("=", 1) for entry in process.environment_of(pid).split(b"\0") if b"=" in entry)


def processes_of(service: JobService) -> list[int]:
    return [pid for pid in process.all_pids() if b"QWEN_FP8_RUN=" + os.fsencode(service.paths.run) + b"\0" in process.environment_of(pid)]


def test_submitted_followed_seen_and_stopped(service: JobService) -> None:
    said = service.submit("--wait")
    assert said.code == 0, said.err + service.log()
    node, port = service.cluster.job(service.job_id)["node"], service.endpoint["port"]
    assert f"READY: job {service.job_id}" in said.out
    assert f"host  {node}\n" in said.out and f"ssh -N -L {port}:127.0.0.1:{port} {node}" in said.out
    assert service.chat(0).ended() == 200

    listed = service.cli("jobs", "--json").json["jobs"]
    assert [(job["job_id"], job["state"], job["home"]) for job in listed] == [(service.job_id, "RUNNING", str(service.paths.home))]
    seen = service.cli("status", "--job", service.job_id, "--json")
    assert (seen.code, seen.json["service"]["state"], seen.json["service"]["slurm"]["job_id"]) == (0, "ready", service.job_id)
    assert seen.json["service"]["processes"] == [], "no process of another node is judged"
    assert "READY" in service.cli("jobs", "logs", service.job_id).out

    # A request that takes longer than SLURM's own patience is still answered.
    chat, pids = service.chat(KILL_WAIT_SECONDS + 4), processes_of(service)
    stopped = service.cli("jobs", "stop", service.job_id)
    assert stopped.code == 0, stopped.err + service.log()
    assert "every process is gone, the ports are free" in stopped.out
    assert chat.ended() == 200
    assert [event["to"] for event in service.events("state")][-3:] == ["draining", "stopping", "stopped"]
    assert pids and not any(Path(f"/proc/{pid}").exists() for pid in pids) and not processes_of(service)
    assert can_bind("127.0.0.1", port) and not service.paths.lock.exists()
    assert service.cluster.job(service.job_id)["state"] == "COMPLETED"


def test_scancel_ends_it_within_killwait(service: JobService) -> None:
    service.submitted()
    chat = service.chat(600)
    service.cluster.told("scancel", service.job_id)
    service.wait_job("CANCELLED", "COMPLETED")
    assert service.recorded["state"] == "stopped", "it ended by itself, before SIGKILL"
    assert service.recorded["leftovers"] == []
    assert chat.ended() != 200
    assert not processes_of(service)


def test_a_pending_job_says_why_and_is_taken_out_of_the_queue(service: JobService) -> None:
    assert service.submit(SLURM_EXTRA_ARGS="--gres=gpu:4 --begin=now+1hour").code == 0
    seen = service.cli("status", "--job", service.job_id)
    assert seen.code == 3
    assert f"job {service.job_id} PENDING (BeginTime: its time to begin has not come), starts in about" in seen.out
    again = service.submit()
    assert again.code == 1 and "has the folder" in again.err
    assert "taken out of the queue" in service.cli("jobs", "stop", service.job_id).out
    assert service.cluster.job(service.job_id)["state"] == "CANCELLED"


def test_a_start_that_fails_ends_the_wait_with_its_reason(service: JobService) -> None:
    service.behave(die_with="ValueError: No available memory for the cache blocks. Try increasing it.\n")
    said = service.submit("--wait")
    assert said.code == 1
    assert "No available memory for the cache blocks" in said.err


def test_a_job_that_cannot_start_anything_shows_its_log(service: JobService, tmp_path: Path) -> None:
    service.settings["MODEL_PATH"] = str(tmp_path / "nowhere")
    said = service.submit("--wait")
    assert said.code in (1, 4)
    assert "nowhere" in said.err


def test_near_the_end_of_the_wall_time_it_drains(service: JobService) -> None:
    """The real signal of a real time limit; a client sees all of it."""
    service.submitted(SLURM_TIME="2", DRAIN_TIMEOUT=20)
    ends_at = service.endpoint["ends_at"]
    assert ends_at == service.recorded["slurm"]["ends_at"] is not None
    assert json.loads(service.paths.gate.read_text())["ends_at"] == ends_at, "what the gate stamps on every answer"
    chats = [service.chat(600)]
    wait_for(lambda: service.recorded["state"] == "draining", "the wall time is near", 300)
    assert service.chat(0).ended() == 503
    service.wait_job("COMPLETED", "TIMEOUT")
    assert service.recorded["state"] == "stopped" and service.recorded["leftovers"] == []
    assert service.events("wall-time-near")[0]["then"] == "stop"
    assert chats[0].ended() != 200, "it did not end within DRAIN_TIMEOUT"
    assert service.cluster.job(service.job_id)["state"] == "COMPLETED", "it ended before the limit"


def test_without_a_signal_the_clock_tells(service: JobService) -> None:
    """As in a shell that came by ssh, or salloc's on the node: SLURM tells it nothing before the end, and did not start it."""
    service.settings |= {"DRAIN_TIMEOUT": 20}
    words = ["srun", "--ntasks=1", "--gres=gpu:1", "--time=2", "env", "-i", f"SLURM_CONF={service.cluster.conf}", f"PATH={os.environ['PATH']}"]
    words += [f"PYTHONPATH={CHECKOUT}", *shlex.split(service.standin_line(service.paths.home).removeprefix("exec "))]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as step:
        try:
            service.wait_recorded("ready")
            assert service.recorded["supervisor"]["job_id"] is None and service.recorded["slurm"]["gpus"] == 1
            wait_for(lambda: service.recorded["state"] in ("draining", "stopping", "stopped"), "the clock has told", 300)
            assert step.wait(timeout=300) == 0
        finally:
            step.terminate()
    assert service.events("wall-time-near")[0]["how"] == "by the clock"
    assert service.recorded["state"] == "stopped" and not processes_of(service)


def test_requeued_it_serves_again(service: JobService) -> None:
    service.submitted(SLURM_AT_END="requeue")
    chat = service.chat(3)
    service.cluster.told("scancel", "--batch", "--signal=USR1", service.job_id)  # what the controller sends near the end
    assert chat.ended() == 200
    wait_for(lambda: service.restarts() == 1, "SLURM has requeued it")
    wait_for(lambda: service.recorded["state"] == "ready" and service.restarts() == 1, "it serves again", 300)
    assert service.log().count("READY after") == 2, "one log for both lives"
    assert service.events("wall-time-near")[0]["then"] == "requeue"
    assert service.cli("jobs", "stop", service.job_id).code == 0


def test_chained_a_new_job_follows(service: JobService) -> None:
    service.submitted(SLURM_AT_END="chain")
    service.cluster.told("scancel", "--batch", "--signal=USR1", service.job_id)
    service.wait_job("COMPLETED")
    successor = service.events("chained")[0]["job_id"]
    assert successor != service.job_id
    wait_for(lambda: service.recorded["state"] == "ready" and service.recorded["supervisor"]["job_id"] == successor, "the next job serves", 300)
    assert service.cli("jobs", "stop", successor).code == 0


def test_after_a_node_failure_another_node_takes_over(service: JobService) -> None:
    service.submitted(SLURM_AT_END="requeue")
    node = service.cluster.job(service.job_id)["node"]
    stepds = [pid for pid in process.all_pids() if process.command_line(pid).startswith(f"slurmstepd: [{service.job_id}.")]
    service.cluster.end(node, signal.SIGKILL)
    # The power went out: nobody could tell the controller, nor give anything back. Whoever would tell goes first.
    for pid in [*stepds, service.recorded["supervisor"]["pid"], *processes_of(service)]:
        os.kill(pid, signal.SIGKILL)
    assert service.paths.lock.exists()
    service.cluster.told("scontrol", "update", f"nodename={node}", "state=down", "reason=power")
    try:
        wait_for(lambda: service.recorded["state"] == "ready" and service.recorded["supervisor"]["host"] != node, "another node serves", 300)
        assert service.cluster.job(service.job_id)["node"] != node
        assert service.cli("jobs", "stop", service.job_id).code == 0
    finally:
        service.cluster.start_node(node)
        service.cluster.run(["scontrol", "update", f"nodename={node}", "state=resume"])
        wait_for(lambda: service.cluster.states()[node] == "idle", f"{node} is back")


def test_a_supervisor_that_was_killed_is_not_called_ready(service: JobService) -> None:
    service.submitted()
    os.kill(service.recorded["supervisor"]["pid"], signal.SIGKILL)
    service.wait_job("FAILED", "COMPLETED", "CANCELLED")
    assert service.recorded["state"] == "ready", "nobody could say otherwise"
    seen = service.cli("status", "--job", service.job_id, "--json")
    assert (seen.code, seen.json["service"]["state"], seen.json["error"]["code"]) == (3, "failed", "job-over")


def test_two_services_on_one_node(service: JobService, tmp_path: Path) -> None:
    other = JobService(service.cluster, tmp_path / "other")
    try:
        here = "--gres=gpu:4 --nodelist=node1"
        assert service.submit(SLURM_EXTRA_ARGS=here).code == 0
        standin, service.standin_line = service.standin_line, lambda home: other.standin_line(home) if home == other.paths.home else standin(home)  # type: ignore[method-assign]
        other.submitted(SLURM_EXTRA_ARGS=here)
        service.wait_recorded("ready")
        both = (service, other)
        assert {one.cluster.job(one.job_id)["node"] for one in both} == {"node1"}
        assert len({one.endpoint["port"] for one in both} | {int(one.endpoint["media_url"].rpartition(":")[2]) for one in both}) == 4
        gpus = [engine_environ(one)["CUDA_VISIBLE_DEVICES"] for one in both]
        assert sorted(gpus) == ["0,1,2,3", "4,5,6,7"]
        assert [one.chat(0).ended() for one in both] == [200, 200]
        assert len(service.cli("jobs", "--json").json["jobs"]) == 2
        assert service.cli("jobs", "stop", service.job_id).code == 0
        assert other.chat(0).ended() == 200, "the other one goes on"
    finally:
        other.close()


@pytest.mark.parametrize("how", ["away", "silent"])
def test_without_its_controller_the_service_goes_on_and_questions_get_one_line(service: JobService, how: str) -> None:
    service.submitted()
    silence = service.cluster.controller_away() if how == "away" else service.cluster.controller_silent()
    with silence:
        for words in (["jobs"], ["jobs", "stop", service.job_id], ["status", "--job", service.job_id]):
            said = service.cli(*words, "--json")
            # Which of the two depends on whether SLURM's client or we lose patience first.
            assert said.code == 1 and said.json["error"]["code"] in ("slurm-unreachable", "slurm-silent"), said.out
            assert len(said.json["error"]["message"].splitlines()) == 1
        assert service.chat(0).ended() == 200
    assert service.cli("jobs", "stop", service.job_id).code == 0


def test_outside_of_an_allocation_a_start_is_refused_with_the_line_that_gets_one(cluster: Cluster, service: JobService) -> None:
    said = service.cli("start", "--set", "GPU_COUNT=8", "--set", "TENSOR_PARALLEL_SIZE=8", "--set", "SLURM_PARTITION=main")
    assert said.code == 4
    assert "Error: Requested 8 GPUs but only 0 available" in said.err
    assert "Error: Not inside a SLURM allocation" in said.err
    assert "salloc -p main --job-name=qwen-vl-fp8 --gres=gpu:8 --mem=320G --cpus-per-task=32 --time=24:00:00" in said.err
