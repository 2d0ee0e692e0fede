"""The support bundle as somebody far away opens it: what is in it, what is not, and that nothing broken here keeps it from being made."""

from __future__ import annotations

import gzip
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.cli import run
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.errors import ExitCode, OpsError
from qwen_fp8_ops.outside import gpus, kernel_log
from qwen_fp8_ops.outside.kernel_log import KernelLog
from qwen_fp8_ops.outside.nvml import GpuSnapshot
from qwen_fp8_ops.report.bundle import archive, files, parts
from qwen_fp8_ops.report.bundle.archive import write_bundle
from qwen_fp8_ops.report.bundle.case import Case, Member
from qwen_fp8_ops.report.bundle.parts import Part
from tests.slurm.commands import Commands, recorded

ALWAYS = {
    "README.txt", "config/config.env.txt", "config/settings.txt", "environment.txt", "versions.txt", "packages.txt", "doctor.txt", "doctor.json", "plan-now.json",
    "status.json", "gpus.txt", "gpus.json", "kernel.txt", "files.txt",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run's folder, with nothing in it; a kernel that has something to say."""
    home = tmp_path / "it's home"
    (home / "run").mkdir(parents=True)
    (home / "logs").mkdir()
    for name in [name for name in os.environ if name.startswith(("QWEN_FP8_", "SLURM_", "HF_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("QWEN_FP8_HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        kernel_log,
        "read",
        lambda: KernelLog(("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus", "eth0: link up", "Out of memory: Killed process 1")),
    )
    return home


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """No SLURM on this machine, until the test makes one."""
    (tmp_path / "bin").mkdir()
    return Commands(tmp_path / "bin", monkeypatch)


@pytest.fixture(autouse=True)
def no_cluster(commands: Commands) -> None: ...


def bundle(*words: str) -> dict[str, str]:
    """The members of a bundle that was made by the command, by name, each as text."""
    file = Path(made(*words)["file"])
    return {name: data.decode() for name, data in opened(file).items()}


def made(*words: str) -> dict[str, Any]:
    case_words = words if any(word.startswith("--output") for word in words) else ("--output", "bundle.tar.gz", *words)
    assert run(["support-bundle", "--profile", "demo", *case_words]) == ExitCode.DONE
    return {"file": next((case_words[number + 1] for number, word in enumerate(case_words) if word == "--output"))}


def opened(file: Path) -> dict[str, bytes]:
    """Every member has a plain name in one folder, and is readable by its owner alone."""
    found = {}
    with tarfile.open(file) as tar:
        tops = {entry.name.split("/")[0] for entry in tar}
        assert len(tops) == 1 and tops.pop().startswith("qwen-fp8-support-")
        for entry in tar:
            assert entry.isfile() and entry.mode == 0o600 and ".." not in entry.name
            content = tar.extractfile(entry)
            assert content is not None
            found[entry.name.partition("/")[2]] = content.read()
    return found


# What is in it ------------------------------------------------------------------------------------------------------------------


def test_without_a_service_and_without_a_gpu_it_is_all_there(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = bundle()
    assert set(found) >= ALWAYS
    assert "PORT=8010  # default" in found["config/settings.txt"] and "GPU_COUNT=0  # profile demo line" in found["config/settings.txt"]
    assert json.loads(found["doctor.json"])["verdict"] in ("pass", "warn", "fail") and "engine0-port" in found["doctor.txt"]
    assert json.loads(found["status.json"])["state"] == "stopped"
    assert json.loads(found["plan-now.json"])["programs"]
    assert found["kernel.txt"].splitlines() == ["NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus", "Out of memory: Killed process 1"]
    for word in ("python", "vllm", "driver", "kernel", "distribution"):
        assert f"\n{word} " in found["versions.txt"]
    assert "click==" in found["packages.txt"]
    assert found["slurm/none.txt"] == "This is no allocation, and there is no SLURM here.\n"
    assert "Nothing: it is all there." in found["README.txt"]
    assert all(part.about in found["README.txt"] for part in parts.PARTS)
    out = capsys.readouterr().out
    assert out.startswith("bundle.tar.gz  (") and "not in it" not in out


def test_records_and_the_end_of_every_log_are_in_it(home: Path) -> None:
    (home / "run/state.json").write_text('{"schema": 1, "state": "stopped"}')
    (home / "run/plan.json").write_text('{"schema": 1}')
    (home / "run/events.jsonl").write_text("".join(f'{{"n": {number}}}\n' for number in range(20)))
    (home / "run/somebodys.txt").write_text("not ours")
    for name in ("service.log", "service.log.1", "media.log", "supervisor.log", "audit.jsonl", "slurm-7.log"):
        (home / "logs" / name).write_text("".join(f"{name} {number}\n" for number in range(20)))
    (home / "logs/service.log").write_text("\n".join(f"line {number}" for number in range(20)))
    found = bundle("--last", "3")
    assert found["run/state.json"] == '{"schema": 1, "state": "stopped"}'
    assert found["run/events.jsonl"] == '{"n": 17}\n{"n": 18}\n{"n": 19}\n'
    assert found["logs/slurm-7.log"] == "slurm-7.log 17\nslurm-7.log 18\nslurm-7.log 19\n"
    assert found["logs/service.log"].splitlines()[-3:] == ["line 17", "line 18", "line 19"]
    assert {"logs/service.log.1", "logs/media.log", "logs/supervisor.log", "logs/audit.jsonl", "run/plan.json"} <= set(found)
    assert not [name for name in found if "somebodys" in name]
    assert "somebodys.txt" in found["files.txt"]


def test_the_job_of_the_last_start_and_those_in_the_queue_are_shown(home: Path, commands: Commands) -> None:
    (home / "run/state.json").write_text(json.dumps({"schema": 1, "state": "stopped", "supervisor": {"job_id": "4711"}}))
    job = recorded("job-running-22.05")
    commands.tell("scontrol", job)
    row = "\x1f".join(["12", "mine", "RUNNING", "main", "node9", "gres:gpu:8", "N/A", "N/A", "1:00:00", "None", f"qwen-fp8:{home}", str(home)])
    commands.tell("squeue", row + "\n")
    found = bundle()
    assert found["slurm/job-4711.txt"] == found["slurm/job-12.txt"] == job
    assert "scontrol --details show job 4711" in commands.asked


def test_a_cluster_that_does_not_answer_costs_its_part_alone(home: Path, commands: Commands) -> None:
    (home / "run/state.json").write_text(json.dumps({"schema": 1, "state": "stopped", "supervisor": {"job_id": "4711"}}))
    for name in ("scontrol", "squeue"):
        commands.refuse(name, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    found = bundle()
    assert set(found) >= ALWAYS
    assert "4711" in found["README.txt"] and "failed/slurm.txt" in found["README.txt"]
    assert "Unable to contact" in found["slurm/job-4711.txt"] or "does not answer" in found["slurm/job-4711.txt"]


def test_as_json(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made("--json")
    value = json.loads(capsys.readouterr().out)
    assert set(value) == {"schema", "ok", "file", "size_bytes", "members", "problems", "masked"}
    assert (value["schema"], value["ok"], value["problems"]) == (1, True, [])
    assert value["size_bytes"] == Path(value["file"]).stat().st_size and set(value["members"]) >= ALWAYS


# Where it goes ------------------------------------------------------------------------------------------------------------------


def test_only_its_owner_may_read_it_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    before = set(os.listdir(tmp_path))
    os.umask(0o022)
    assert run(["support-bundle", "--profile", "demo"]) == ExitCode.DONE
    (file,) = set(os.listdir(tmp_path)) - before
    assert file.startswith("qwen-fp8-support-") and file.endswith(".tar.gz")
    assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


def test_a_folder_takes_it_and_an_older_one_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert run(["support-bundle", "--profile", "demo", "--output", "folder"]) == ExitCode.DONE
    assert len(list((tmp_path / "folder").glob("qwen-fp8-support-*.tar.gz"))) == 1
    (tmp_path / "old.tar.gz").write_text("old")
    (tmp_path / "old.tar.gz").chmod(0o644)
    made("--output", "old.tar.gz")
    assert "README.txt" in opened(tmp_path / "old.tar.gz")
    assert stat.S_IMODE((tmp_path / "old.tar.gz").stat().st_mode) == 0o600


@pytest.mark.parametrize("where", ["nowhere/x.tar.gz", "pipe", "link"])
def test_what_cannot_be_written_is_said_and_left_as_it_was(tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    before = sorted(os.listdir(tmp_path))
    assert run(["support-bundle", "--profile", "demo", "--output", where]) == ExitCode.FAILED
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and where.partition("/")[0] in error and "--output" in error
    assert sorted(os.listdir(tmp_path)) == before


def test_a_full_disk_leaves_no_half_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.os, "fsync", full)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OpsError, match="No space left on device"):
        write_bundle(Case(RunPaths(tmp_path), {}, tmp_path, profiles=("demo",)), None)
    assert sorted(os.listdir(tmp_path)) == before


# What is broken -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99, "state": "ready"}', '{"state": "ready", "programs": 7}', "\udcff\x00", "[" * 100_000, ""])
def test_a_damaged_state_is_in_it_as_it_stands(home: Path, text: str) -> None:
    for name in ("state.json", "plan.json", "endpoint.json", "gate.json", "lock"):
        (home / "run" / name).write_text(text, errors="surrogateescape")
    found = bundle()
    assert set(found) >= {"README.txt", "versions.txt", "doctor.txt", "gpus.json", "run/state.json", "files.txt"}
    assert found["run/state.json"][:1000] == text[:1000].replace("\udcff", "\ufffd")


def test_wrong_settings_cost_only_what_hangs_on_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "config.env").write_text("# remark\nPORT=nothing\n")
    found = bundle()
    assert {"config/config.env.txt", "versions.txt", "status.json", "gpus.json", "kernel.txt", "slurm/none.txt", "files.txt"} <= set(found)
    assert "PORT=nothing" in found["config/config.env.txt"] and "remark" not in found["config/config.env.txt"]
    assert "PORT=nothing" in found["failed/doctor.txt"]
    assert "not in it: doctor: The configuration is wrong" in capsys.readouterr().out
    assert "failed/plan.txt" in found["README.txt"]


def test_a_config_file_that_is_not_there_is_a_note_as_well(home: Path) -> None:
    found = bundle("--config", "missing.env")
    assert "Configuration file not found: missing.env" in found["failed/settings.txt"]
    assert "versions.txt" in found


def test_unreadable_files_are_notes(home: Path, tmp_path: Path) -> None:
    os.mkfifo(home / "logs/service.log")
    (home / "logs/media.log").symlink_to("media.log")
    (home / "logs/gone.log").symlink_to(tmp_path / "nowhere")
    (home / "run/state.json").mkdir()
    (home / "logs/binary.log").write_bytes(bytes(range(256)) * 10)
    (home / "logs/good.log").write_text("good\n")
    found = bundle()
    assert found["logs/service.log"] == "It is no plain file.\n"
    assert "cannot be read" in found["logs/media.log"] and "cannot be read" in found["logs/gone.log"]
    assert found["logs/good.log"] == "good\n" and "logs/binary.log" in found and "run/state.json" in found
    for name in ("service.log", "media.log", "gone.log", "state.json"):
        assert f"{name} " in found["README.txt"].partition("What could not be had")[2]


def test_folders_that_are_not_there(home: Path) -> None:
    (home / "run").rmdir()
    (home / "logs").rmdir()
    found = bundle()
    assert set(found) >= ALWAYS
    assert "cannot be listed" in found["files.txt"]


def test_a_driver_that_does_not_answer_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "snapshot", lambda: GpuSnapshot(problem="the driver hangs", problem_code="driver-broken", problem_fix="reboot"))
    found = bundle()
    assert "the driver hangs" in found["gpus.txt"] and "the driver hangs" in found["versions.txt"]
    assert json.loads(found["gpus.json"])["error"]["code"] == "driver-broken"


def test_a_kernel_log_that_is_kept_from_us_is_a_note(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_log, "read", lambda: KernelLog(problem="dmesg: Operation not permitted"))
    found = bundle()
    assert found["kernel.txt"] == "dmesg: Operation not permitted\n"
    assert "the kernel's log: dmesg: Operation not permitted" in found["README.txt"]


def test_a_part_that_fails_in_the_middle_keeps_what_it_made(home: Path, tmp_path: Path) -> None:
    def half(case: Case) -> Any:
        yield Member("first", "1")
        raise RecursionError("deep")

    found = Part("half", "", half).members(Case(RunPaths(home), {}, tmp_path))
    assert [(member.name, member.problem) for member in found] == [("first", ""), ("failed/half.txt", "half: RecursionError: deep (failed/half.txt)")]


# Its size -----------------------------------------------------------------------------------------------------------------------


def test_a_huge_log_gives_its_end_from_a_whole_line_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    (home / "logs/service.log").write_text("Authorization: Bearer " + "k" * 990 + "\n" + "tail\n" * 10)
    assert files.end_of(home / "logs/service.log", "x", lines=None).text == "tail\n" * 10


def test_a_line_without_an_end_is_cut_after_it_was_masked(home: Path) -> None:
    secret = "secret-0123456789"
    (home / "run/keys").write_text(f"supervisor:{secret}\n")
    (home / "logs/service.log").write_text("x" * (archive.LONGEST_LINE - 5) + secret + "y" * 100_000)
    found = bundle()["logs/service.log"]
    assert "secre" not in found and len(found) < archive.LONGEST_LINE + 100 and found.endswith(" more)")


def test_of_very_many_logs_the_newest_are_taken(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_LOGS", 3)
    for number in range(6):
        (home / f"logs/slurm-{number}.log").write_text("x")
        os.utime(home / f"logs/slurm-{number}.log", (number, number))
    found = bundle()
    assert {name for name in found if name.startswith("logs/")} == {"logs/slurm-5.log", "logs/slurm-4.log", "logs/slurm-3.log", "logs/LEFT_OUT.txt"}
    assert "slurm-0.log" in found["logs/LEFT_OUT.txt"] and "3 older logs are left out" in found["README.txt"]


# Secrets ------------------------------------------------------------------------------------------------------------------------


def test_no_planted_secret_is_in_any_byte_of_it(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    canaries = iter(f"canary{number:02}-q7Zw9" for number in range(100))
    planted: list[str] = []

    def canary() -> str:
        planted.append(next(canaries))
        return planted[-1]

    keys = tmp_path / "the keys"
    client, rotated, internal = canary(), canary(), canary()
    keys.write_text(f"# was alice:{rotated}\n#bob:{rotated}\nalice:{client}\n")
    keys.chmod(0o600)
    (home / "run/keys").write_text(f"supervisor:{internal}\n")
    recorded_keys = tmp_path / "recorded keys"
    recorded_keys.write_text(f"carol:{(recorded_client := canary())}\n")
    (home / "run/gate.json").write_text(json.dumps({"schema": 1, "keys_files": [str(recorded_keys)], "note": recorded_client}))
    (home / "config.env").write_text(
        f"# the old key was {canary()}\nAPI_KEYS_FILE='{keys}'\nHF_TOKEN={(in_config := canary())}\nWHATEVER={canary()}\n{canary()}\n{canary()} = x\n"
        f"alice:{canary()}\nVLLM_EXTRA_ARGS=--api-key {canary()}\nSLURM_EXTRA_ARGS=--export=HF_TOKEN={canary()}\n"
    )
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/token").write_text(hub := canary())
    environment = {
        name: canary() for name in ("HF_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY", "WANDB_API_KEY", "MY_PASSWORD", "QWEN_FP8_API_KEY", "AWS_SECRET_ACCESS_KEY")
    }
    environment["HTTPS_PROXY"] = f"http://user:{canary()}@proxy.example:3128"
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    everything = [client, rotated, internal, in_config, hub, recorded_client, *environment.values()]
    lines = [f"plain {secret} text" for secret in everything]
    lines += [
        f"Authorization: Bearer {canary()}",
        f"[(b'authorization', b'Bearer {canary()}')]",
        f'{{"X-API-Key": "{canary()}"}}',
        f"curl -H 'Authorization: Bearer {canary()}'",
    ]
    lines += [f"GET /v1/models?api_key={canary()}", f"got https://u:{canary()}@host/x", f"hf_{canary().replace('-', '') * 2}", f"password={canary()}"]
    for path in ("logs/service.log", "logs/service.log.1", "logs/supervisor.log", "logs/media.log", "logs/audit.jsonl", "logs/slurm-7.log"):
        (home / path).write_text("\n".join(lines) + "\n")
    for name in ("events.jsonl", "state.json", "plan.json", "endpoint.json", "job.sbatch", "lock"):
        (home / "run" / name).write_text("\n".join(json.dumps({"line": line}) for line in lines) + "\n")
    monkeypatch.setattr(kernel_log, "read", lambda: KernelLog(tuple(f"NVRM: Xid {line}" for line in lines)))

    file = Path(made("--output", "bundle.tar.gz", "--set", f"API_KEYS={canary()}")["file"])
    members = opened(file)
    whole = gzip.decompress(file.read_bytes()) + capsys.readouterr().out.encode()
    for secret in planted:
        for spelled in (secret, secret.replace("-", "")):
            assert spelled.encode() not in whole, (spelled, [name for name, data in members.items() if spelled.encode() in data])
    assert b"q7Zw9" not in whole
    assert members["logs/service.log"].count(b"<masked: ") >= len(lines)
    assert not [name for name in members if name.endswith("keys")]
    assert b"known secret" in members["README.txt"]


def test_a_key_that_was_written_where_its_files_name_belongs_is_a_secret(home: Path) -> None:
    (home / "config.env").write_text("API_KEYS_FILE=canary-q7Zw9\n")
    found = bundle()
    assert not [name for name, text in found.items() if "q7Zw9" in text]
    assert "API_KEYS_FILE" in found["config/config.env.txt"]


def test_names_of_settings_are_no_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_FP8_MAX_TOKENS", "400000")
    monkeypatch.setenv("HF_TOKEN_PATH", str(home))
    found = bundle()
    assert "MAX_TOKENS=400000  # QWEN_FP8_MAX_TOKENS" in found["config/settings.txt"]
    assert "QWEN_FP8_MAX_TOKENS=400000" in found["environment.txt"]
    assert str(home) in found["files.txt"]
