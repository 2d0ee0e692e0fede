"""Each check, with the fault it looks for made for real."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.outside.media_health import health
from qwen_fp8_ops.preflight import network
from qwen_fp8_ops.preflight.checks import CHECKS, CODES, Subject, is_known, run_checks
from qwen_fp8_ops.preflight.finding import Finding, verdict
from tests.preflight.site import REPOSITORY, Site, running, taken
from tests.waiting import wait_for


@contextmanager
def media_server(root: Path, port: int) -> Iterator[int]:
    with running("-m", "qwen_fp8_ops.media", "--root", str(root), "--port", str(port)) as process:
        wait_for(lambda: health("127.0.0.1", port, 5.0), "the media server answers")
        yield process.pid


def in_shell(command: str) -> None:
    """Do what a fix says, as an operator would."""
    subprocess.run(["/bin/sh", "-c", command], check=True, timeout=60)


def test_a_good_site_passes_every_check(site: Site) -> None:
    found = site.findings()
    if find_spec("vllm") is None:
        del found["engine-installed"]
    assert {code: finding.seen for code, finding in found.items() if finding.level != "pass"} == {}
    assert len(found) >= 8


def test_a_taken_port_names_its_owner(site: Site) -> None:
    with taken(site.settings["PORT"]) as pid:
        finding = site.findings()["engine0-port"]
    assert finding.level == "fail"
    assert finding.seen.startswith(f"Port {site.settings['PORT']} is already in use (pid {pid}: {sys.executable} -c ")
    assert f"kill {pid}" in finding.fix
    assert "--set PORT=" in finding.fix


def test_a_media_port_that_a_stranger_has_is_refused(site: Site) -> None:
    port = site.settings["MEDIA_PORT"]
    with taken(port) as pid:
        finding = site.findings()["media-port"]
    assert (finding.level, finding.seen.partition(" (")[0]) == ("fail", f"Port {port} is already in use")
    assert f"kill {pid}" in finding.fix
    assert "--set MEDIA_PORT=" in finding.fix


def test_a_media_server_of_ours_on_the_same_root_is_used(site: Site) -> None:
    with media_server(site.home / "media", site.settings["MEDIA_PORT"]):
        finding = site.findings()["media-port"]
        assert finding.level == "pass"
        assert "it is used" in finding.seen
        (site.home / "link").symlink_to("media")
        assert site.findings(MEDIA_ROOT="link")["media-port"].level == "pass"


def test_a_media_server_of_ours_on_another_root_is_refused(site: Site) -> None:
    (site.home / "other").mkdir()
    with media_server(site.home / "other", site.settings["MEDIA_PORT"]) as pid:
        finding = site.findings()["media-port"]
    assert finding.level == "fail"
    assert f"pid {pid}" in finding.seen


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a" * 70, "a..b"])
def test_a_host_that_is_not_this_machine_is_told(site: Site, host: str) -> None:
    finding = site.findings(HOST=host, MEDIA_HOST=host, API_KEYS_FILE=site.keys("me:0123456789"))
    assert {finding[code].level for code in ("engine0-port", "media-port")} == {"fail"}
    assert finding["engine0-port"].seen.startswith(f"Cannot listen on {host}:")
    assert finding["engine0-port"].fix == "Set HOST to an address of this machine."
    assert finding["media-port"].fix == "Set MEDIA_HOST to an address of this machine."


def test_a_port_that_only_root_may_have_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(host: str, port: int) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(network, "port_owner", refused)
    finding = site.findings(PORT=80)["engine0-port"]
    assert finding == Finding("engine0-port", "fail", "Cannot listen on 127.0.0.1:80: Permission denied", "Set PORT to 1024 or more.")


def test_a_missing_model_is_told_with_the_way_to_get_it(site: Site) -> None:
    finding = site.findings(MODEL_PATH="nowhere")["model-present"]
    assert finding.seen == f"Model not found at {site.home}/nowhere"
    assert finding.fix.startswith("./download_model.sh\n")


def test_a_demo_model_is_made_at_the_start(site: Site) -> None:
    assert site.findings(MODEL_ID="demo", MODEL_PATH="nowhere")["model-present"].level == "pass"


def test_the_network_without_a_key_is_refused_and_the_fix_works(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = site.findings(HOST="0.0.0.0")["access"]
    assert (finding.level, finding.seen) == ("fail", "HOST=0.0.0.0 would open the API to the network without a key")
    monkeypatch.chdir(site.home)
    in_shell(finding.fix.splitlines()[0])
    assert site.findings(HOST="0.0.0.0", API_KEYS_FILE="api_keys")["access"].level == "pass"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "127.0.0.1.example.org", "node07"])
def test_every_address_but_loopback_needs_a_key(site: Site, host: str) -> None:
    assert site.findings(HOST=host)["access"].level == "fail"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(site: Site, host: str) -> None:
    assert site.findings(HOST=host)["access"].level == "pass"


@pytest.mark.parametrize(
    ("text", "mode", "seen"),
    [
        ("me:0123456789", 0o644, "is open to others (mode 0644)"),
        ("me:0123456789", 0o640, "is open to others (mode 0640)"),
        ("", 0o600, "No key in"),
        ("# only a comment\n\n", 0o600, "No key in"),
        ("0123456789", 0o600, "Line 1 of"),
        ("me:x", 0o600, "Line 1 of"),
        ("supervisor:0123456789", 0o600, "the service's own"),
    ],
)
def test_a_keys_file_that_will_not_do_is_told(site: Site, text: str, mode: int, seen: str) -> None:
    finding = site.findings(API_KEYS_FILE=site.keys(text, mode))["access"]
    assert finding.level == "fail"
    assert seen in finding.seen
    assert "0123456789" not in finding.seen + finding.fix


def test_a_keys_file_that_is_missing_is_told(site: Site) -> None:
    finding = site.findings(API_KEYS_FILE="nowhere")["access"]
    assert finding.level == "fail"
    assert str(site.home / "nowhere") in finding.seen


def test_an_empty_keys_file_is_filled_by_its_fix(site: Site) -> None:
    finding = site.findings(API_KEYS_FILE=site.keys(""))["access"]
    in_shell(finding.fix.splitlines()[0])
    assert site.findings(API_KEYS_FILE="keys file")["access"].seen.startswith("1 keys in")


def test_a_missing_media_root_is_told_and_its_fix_works(site: Site) -> None:
    finding = site.findings(MEDIA_ROOT="my films")["media-root"]
    assert (finding.level, finding.seen) == ("fail", f"MEDIA_ROOT {site.home}/my films is missing")
    in_shell(finding.fix.splitlines()[0])
    assert site.findings(MEDIA_ROOT="my films")["media-root"].level == "pass"


def test_a_media_root_that_is_a_file_is_told(site: Site) -> None:
    assert "is not a folder we can read" in site.findings(MEDIA_ROOT="model/config.json")["media-root"].seen


@pytest.mark.parametrize(("folder", "code"), [("logs", "logs-writable"), ("run", "run-writable")])
@pytest.mark.parametrize("stand_in", ["file", "runnable file", "link to nowhere"])
def test_a_folder_that_cannot_be_written_is_told(site: Site, folder: str, code: str, stand_in: str) -> None:
    place = site.home / folder
    place.rmdir()
    if stand_in == "link to nowhere":
        place.symlink_to("nowhere")
    else:
        place.write_text("")
        place.chmod(0o755 if stand_in == "runnable file" else 0o644)
    finding = site.findings()[code]
    assert (finding.level, finding.seen) == ("fail", f"Cannot write in {place}")
    assert "QWEN_FP8_HOME" in finding.fix


def test_a_folder_that_another_user_owns_is_told(site: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    program = (
        "import sys; from pathlib import Path; from qwen_fp8_ops.config.load import load; from qwen_fp8_ops.config.paths import RunPaths\n"
        "from qwen_fp8_ops.plan.launch import make_plan; from qwen_fp8_ops.preflight.checks import Subject, check_folders; import os\n"
        "paths = RunPaths(Path('.')); subject = Subject(make_plan(load(profiles=['demo']), paths), paths, {})\n"
        "list(check_folders(subject)); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(*(finding.level for finding in check_folders(subject)))"
    )
    for name in ("logs", "run"):
        (site.home / name).chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=site.home, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "fail fail\n", done.stderr


@pytest.mark.parametrize(
    ("settings", "code", "level"),
    [({"DTYPE": "float16"}, "dtype-float16", "warn"), ({"MAX_BODY_MB": 2}, "body-limit", "warn")],
)
def test_settings_that_are_allowed_and_unwise(site: Site, settings: dict[str, Any], code: str, level: str) -> None:
    finding = site.findings(**settings)[code]
    assert finding.level == level
    assert finding.fix


def test_without_a_gpu_eight_are_not_there(site: Site) -> None:
    finding = site.findings(GPU_COUNT=8, REQUIRE_SLURM="off")["gpu-count"]
    if find_spec("pynvml") and "no NVIDIA driver answers" not in finding.seen:
        pytest.skip("this machine has a driver")
    assert finding.seen.startswith("Requested 8 GPUs but only 0 available (no NVIDIA driver answers: ")
    assert (
        finding.fix
        == "salloc --job-name=qwen-vl-fp8 --gres=gpu:8 --mem=320G --cpus-per-task=32 --time=24:00:00\nOr without a GPU: ./start_service.sh --profile demo"
    )


def test_the_first_line_of_a_refused_start_is_the_one_that_operators_know(site: Site) -> None:
    words = [word for key, value in {**site.settings, "GPU_COUNT": 8, "REQUIRE_SLURM": "off"}.items() for word in ("--set", f"{key}={value}")]
    environ = {**os.environ, "QWEN_FP8_HOME": str(site.home), "LD_LIBRARY_PATH": "", "PYTHONPATH": str(REPOSITORY)}
    start = [sys.executable, "-m", "qwen_fp8_ops", "start", "--profile", "demo", *words]
    done = subprocess.run(start, env=environ, cwd=site.home, capture_output=True, text=True, timeout=120)
    if "GPUs" not in done.stderr:
        pytest.skip("this machine has eight GPUs")
    assert done.returncode == 4
    assert done.stderr.splitlines()[0].startswith("Error: Requested 8 GPUs but only 0 available")
    assert "  Or without a GPU: ./start_service.sh --profile demo" in done.stderr.splitlines()


@pytest.fixture
def slurm_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scontrol").write_text("#!/bin/sh\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("settings", "inside", "level"),
    [
        ({"REQUIRE_SLURM": "auto", "GPU_COUNT": 8}, False, "fail"),
        ({"REQUIRE_SLURM": "on", "GPU_COUNT": 0}, False, "fail"),
        ({"REQUIRE_SLURM": "auto", "GPU_COUNT": 0}, False, None),
        ({"REQUIRE_SLURM": "off", "GPU_COUNT": 8}, False, None),
        ({"REQUIRE_SLURM": "auto", "GPU_COUNT": 8}, True, "pass"),
    ],
)
def test_where_slurm_is_gpus_need_an_allocation(site: Site, slurm_here: None, settings: dict[str, Any], inside: bool, level: str | None) -> None:
    found = site.findings({"SLURM_JOB_ID": "4711"} if inside else {}, **settings).get("slurm-allocation")
    assert (found.level if found else None) == level
    if found and level == "fail":
        assert found.seen == "Not inside a SLURM allocation"
        assert found.fix.startswith("salloc ")


def test_where_slurm_is_not_nobody_asks_for_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "slurm-allocation" not in site.findings(GPU_COUNT=8, REQUIRE_SLURM="auto")


@pytest.mark.parametrize(("profile", "extra"), [("demo", "cpu"), ("h100x8", "gpu")])
def test_a_python_without_vllm_is_told(tmp_path: Path, profile: str, extra: str) -> None:
    program = (
        "import sys, importlib.util as util\nfrom pathlib import Path\n"
        "from qwen_fp8_ops.config.load import load; from qwen_fp8_ops.config.paths import RunPaths; from qwen_fp8_ops.plan.launch import make_plan\n"
        "from qwen_fp8_ops.preflight.checks import Subject, check_engine; import json\n"
        f"plan = make_plan(load(profiles=[{profile!r}]), RunPaths(Path('.')))\n"
        f"sys.path[:] = [{str(REPOSITORY)!r}]; sys.meta_path[:] = [one for one in sys.meta_path if 'PathFinder' in str(one)]; sys.path_importer_cache.clear()\n"
        "print(json.dumps([finding.as_json() for finding in check_engine(Subject(plan, RunPaths(Path('.')), {}))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        {"code": "engine-installed", "level": "fail", "seen": "vLLM is not installed in this Python", "fix": f"python3 scripts/setup_venv.py --extra {extra}"}
    ]


LONG = "x" * 5000
NASTY: dict[str, Callable[[Site], Subject]] = {
    "long paths": lambda site: site.subject(MODEL_PATH=LONG, MEDIA_ROOT=LONG, API_KEYS_FILE=LONG),
    "long home": lambda site: replace(site.subject(), paths=RunPaths(site.home / LONG)),
    "paths through a file": lambda site: site.subject(MODEL_PATH="model/config.json/x", MEDIA_ROOT="model/config.json/x", API_KEYS_FILE="model/config.json/x"),
    "a NUL": lambda site: replace(
        site.subject(), paths=RunPaths(Path("/tmp/a\0b")), plan=replace(site.subject().plan, model_path=Path("\0"), media_root=Path("\0"))
    ),
    "a relative home": lambda site: replace(site.subject(), paths=RunPaths(Path("not/there"))),
    "hosts that are none": lambda site: site.subject(HOST="a" * 200, MEDIA_HOST="a..b"),
    "a folder for a keys file": lambda site: site.subject(API_KEYS_FILE="media"),
    "devices": lambda site: site.subject(MODEL_PATH="/dev/null", MEDIA_ROOT="/dev/zero", API_KEYS_FILE="/dev/zero"),
    "a loop": lambda site: site.subject(MODEL_PATH="loop/x", MEDIA_ROOT="loop", API_KEYS_FILE="loop"),
}


@pytest.mark.parametrize("case", NASTY)
def test_no_check_ever_raises(site: Site, case: str) -> None:
    (site.home / "loop").symlink_to("loop")
    found = run_checks(NASTY[case](site))
    assert len(found) >= 8
    assert all(finding.seen and (finding.fix or finding.level == "pass") for finding in found)


def test_a_check_that_cannot_look_says_so_and_the_others_go_on(site: Site) -> None:
    found = site.findings(MODEL_PATH=LONG)
    assert found["model-present"].level == "fail"
    assert found["model-present"].seen.startswith("model-present could not be checked: [Errno 36] File name too long: ")
    assert found["logs-writable"].level == "pass"


def test_a_stranger_on_the_media_port_that_never_stops_talking_is_no_hang(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "HEALTH_SECONDS", 0.3)
    program = (
        "import socket, sys, threading, time\n"
        f"server = socket.create_server(('127.0.0.1', {site.settings['MEDIA_PORT']})); print('up', flush=True)\n"
        "client, _ = server.accept()\nclient.sendall(b'HTTP/1.1 200 OK\\r\\n\\r\\n')\n"
        "try:\n    while True: client.sendall(b'x'); time.sleep(0.02)\nexcept OSError: time.sleep(600)"  # hung up on, it still listens
    )
    with running("-c", program) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        assert site.findings()["media-port"].level == "fail"


def test_every_code_belongs_to_one_check_and_is_in_the_list(site: Site) -> None:
    assert sum(len(check.codes) for check in CHECKS) == len(CODES)
    for check in CHECKS:
        codes = [finding.code for finding in check(site.subject())]
        assert set(codes) <= set(check.codes)
        assert len(codes) == len(set(codes))


def test_every_code_in_the_sources_is_in_the_list() -> None:
    sources = [path.read_text() for path in (REPOSITORY / "qwen_fp8_ops" / "preflight").glob("*.py")]
    calls = [node for source in sources for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding"]
    named = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    assert len(named) > 25
    assert named <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_made_to_happen_in_a_test(code: str) -> None:
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    assert any(f'"{code}"' in text for text in tests)


def test_the_ports_of_further_engines_are_known_too() -> None:
    assert is_known("engine1-port")
    assert not is_known("engine-port")


def test_the_verdict_is_that_of_the_worst() -> None:
    def of(*levels: Any) -> str:
        return verdict(Finding("x", level, "") for level in levels)

    assert [of(), of("pass"), of("pass", "warn"), of("warn", "fail", "pass")] == ["pass", "pass", "warn", "fail"]
