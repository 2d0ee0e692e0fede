"""What is checked of the GPUs, over a stand-in for NVIDIA's driver library."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.preflight.finding import Finding
from tests.fake_nvml.fake import FakeDriver, build
from tests.preflight.site import REPOSITORY, Site, running

EIGHT = {"GPU_COUNT": 8, "TENSOR_PARALLEL_SIZE": 8, "EXPERT_PARALLEL": "on", "REQUIRE_SLURM": "off"}
FOUR = {**EIGHT, "GPU_COUNT": 4, "TENSOR_PARALLEL_SIZE": 4}


class Node:
    """A site on a machine with GPUs."""

    def __init__(self, site: Site, driver: FakeDriver) -> None:
        self.site, self.driver = site, driver

    def findings(self, gpus: str, environ: dict[str, str] | None = None, **settings: Any) -> dict[str, Finding]:
        self.driver.show(gpus)
        return self.site.doctor(environ={**self.driver.environ(), **(environ or {})}, **{**EIGHT, **settings})


@pytest.fixture
def node(site: Site, fake_driver: FakeDriver) -> Node:
    return Node(site, fake_driver)


def test_eight_healthy_gpus_pass(node: Node) -> None:
    found = {code: finding for code, finding in node.findings("count=8 links=18").items() if code.startswith("gpu-")}
    assert {code: finding.seen for code, finding in found.items()} == {
        "gpu-count": "8 GPUs",
        "gpu-model": "8 x NVIDIA H100 80GB HBM3",
        "gpu-memory": "79.6 GiB each",
        "gpu-mig": "MIG is off",
        "gpu-ecc": "no uncorrected memory error",
        "gpu-nvlink": "18 links up on each GPU",
        "gpu-free-memory": "at least 79.18 GiB free (GPU 0), 71.26 needed",
        "gpu-processes": "no process of anybody else",
    }
    assert {finding.level for finding in found.values()} == {"pass"}


# fmt: off
FAULTS = {
    "too few":         ("count=7", "gpu-count", "fail", "Requested 8 GPUs but only 7 available"),
    "no driver":       ("init=9", "gpu-count", "fail", "Requested 8 GPUs but only 0 available (no NVIDIA driver answers: Driver Not Loaded"),
    "a lost one":      ("count=9 lost=3", "gpu-lost", "warn", "GPU 3 is lost (GPU is lost); CUDA may refuse to start beside it"),
    "another model":   ("count=8 name=5:NVIDIA_L40S", "gpu-model", "fail", "GPU_NAME=H100, but GPU 5 is NVIDIA L40S"),
    "several others":  ("count=8 name=NVIDIA_A100-SXM4-80GB", "gpu-model", "fail", "GPU_NAME=H100, but GPUs 0, 1, 2, 3, 4, 5, 6 and 7 are NVIDIA A100-SXM4-80GB"),
    "too small":       ("count=8 total=2:40960", "gpu-memory", "fail", "GPU_MEMORY_GIB=80, but GPU 2 has 40.0 GiB"),
    "memory untold":   ("count=8 no=MemoryInfo_v2 no=MemoryInfo", "gpu-memory", "warn", "The driver does not tell how much memory the GPUs have"),
    "MIG":             ("count=8 mig=1:1 mig=4:1", "gpu-mig", "fail", "MIG is on for GPUs 1 and 4: the engine would see slices and no whole GPU"),
    "ECC":             ("count=8 ecc=2:3 ecc=6:1", "gpu-ecc", "warn", "Memory errors that could not be corrected: 3 on GPU 2, 1 on GPU 6"),
    "row to remap":    ("count=8 remap=7:pending", "gpu-remap-pending", "warn", "GPU 7 has a bad memory row that is replaced at the next reset"),
    "row not mapped":  ("count=8 remap=7:failed", "gpu-remap-failed", "fail", "GPU 7 has a bad memory row that cannot be replaced any more"),
    "too hot":         ("count=8 events=4:0x48", "gpu-slowdown", "warn", "Clocks are held down: GPU 4: hardware slowdown, too hot"),
    "power brake":     ("count=8 events=0:0x80", "gpu-slowdown", "warn", "Clocks are held down: GPU 0: power brake"),
    "links down":      ("count=8 links=18 down=3:2", "gpu-nvlink", "warn", "NVLinks are down: 2 of 18 on GPU 3"),
    "no link":         ("count=8 links=18 down=18", "gpu-nvlink", "warn", "No NVLink is up on any GPU: without its fabric manager, an NVSwitch board starts no CUDA program"),
    "little memory":   ("count=8 used=6:20000", "gpu-free-memory", "fail", "Too little memory is free: GPU 6 has 59.65 of 71.26 GiB; no process is shown that holds it: "
                        "perhaps one of another container, or one that is just ending"),
}
# fmt: on


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_with_a_way_out(node: Node, fault: str) -> None:
    gpus, code, level, seen = FAULTS[fault]
    finding = node.findings(gpus)[code]
    assert (finding.level, finding.seen[: len(seen)]) == (level, seen)
    assert finding.fix


def test_normal_states_are_no_fault(node: Node) -> None:
    found = node.findings("count=8 events=0x5 links=18 ecc=0 no=2:Ecc")
    assert not {"gpu-slowdown", "gpu-remap-failed", "gpu-remap-pending", "gpu-lost"} & set(found)
    assert found["gpu-ecc"].level == "pass"


def test_a_weight_cache_wants_memory_beside_the_engines_share(node: Node) -> None:
    assert node.findings("count=8", WEIGHT_CACHE="on")["weight-cache"].level == "pass"
    assert node.findings("count=8 used=6:8000")["gpu-free-memory"].level == "pass"
    finding = node.findings("count=8 used=6:8000", WEIGHT_CACHE="on")["gpu-free-memory"]
    assert finding.seen.startswith("Too little memory is free: GPU 6 has 71.37 of 72.26 GiB")
    share = finding.fix.partition("GPU_MEMORY_UTIL=")[2].partition(";")[0]
    assert node.findings("count=8 used=6:8000", WEIGHT_CACHE="on", GPU_MEMORY_UTIL=share)["gpu-free-memory"].level == "pass"


def test_gpus_without_nvlink_are_no_fault(node: Node) -> None:
    assert "gpu-nvlink" not in node.findings("count=8 links=0")
    assert "gpu-nvlink" not in node.findings("count=8 links=18 down=18", GPU_COUNT=1, TENSOR_PARALLEL_SIZE=1)


def test_a_lost_gpu_is_left_out_by_its_fix(node: Node) -> None:
    finding = node.findings("count=9 lost=3")["gpu-lost"]
    chosen = finding.fix.splitlines()[0].partition("CUDA_VISIBLE_DEVICES=")[2]
    found = node.findings("count=9 lost=3", {"CUDA_VISIBLE_DEVICES": chosen})
    assert "gpu-lost" not in found
    assert found["gpu-count"].level == "pass"


def test_only_the_gpus_that_the_service_would_use_count(node: Node) -> None:
    ill = "count=8 mig=5:1 ecc=6:1 used=7:70000 name=4:NVIDIA_L40S"
    assert {finding.level for code, finding in node.findings(ill, **FOUR).items() if code.startswith("gpu-")} == {"pass"}
    others = node.findings(ill, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}, **FOUR)
    assert {code for code, finding in others.items() if code.startswith("gpu-") and finding.level != "pass"} == {
        "gpu-model",
        "gpu-mig",
        "gpu-ecc",
        "gpu-free-memory",
    }


def test_in_an_allocation_the_granted_gpus_count(node: Node) -> None:
    ill = "count=8 mig=1:1"
    step = {"SLURM_JOB_ID": "4711", "PATH": "/usr/bin:/bin"}
    assert node.findings(ill, {**step, "SLURM_JOB_GPUS": "4,5,6,7"}, **FOUR)["gpu-mig"].level == "pass"
    assert node.findings(ill, {**step, "SLURM_JOB_GPUS": "0-3"}, **FOUR)["gpu-mig"].level == "fail"


def test_too_few_visible_gpus_name_the_variable(node: Node) -> None:
    finding = node.findings("count=8", {"CUDA_VISIBLE_DEVICES": "0,1"})["gpu-count"]
    assert finding.seen == "Requested 8 GPUs but only 2 available (CUDA_VISIBLE_DEVICES=0,1 leaves 2 of 8)"


def test_a_strangers_process_is_named(node: Node) -> None:
    with running("-c", "input()", "somebody's training") as stranger:
        found = node.findings(f"count=8 used=6:20500 proc=6:{stranger.pid}:20000 proc=1:{2**22 + 1}:300 used=1:300")
    command = f"{sys.executable} -c input() somebody's training"[:40]  # a long one is cut
    named = f"pid {stranger.pid} (root: {command}" if os.geteuid() == 0 else f"pid {stranger.pid} ("
    assert found["gpu-free-memory"].level == "fail"
    assert named in found["gpu-free-memory"].seen
    assert "GPU 1" not in found["gpu-free-memory"].seen
    assert f"-p {stranger.pid}\n" in found["gpu-free-memory"].fix
    assert found["gpu-processes"].level == "warn"
    assert f"pid {2**22 + 1} (?) holds 0.29 GiB on GPU 1" in found["gpu-processes"].seen
    assert found["gpu-processes"].seen.endswith("holds 19.53 GiB on GPU 6")


def test_the_fix_for_too_little_memory_works(node: Node) -> None:
    finding = node.findings("count=8 used=6:20000")["gpu-free-memory"]
    share = finding.fix.partition("--set GPU_MEMORY_UTIL=")[2].partition(";")[0]
    assert share == "0.75"
    assert node.findings("count=8 used=6:20000", GPU_MEMORY_UTIL=share)["gpu-free-memory"].level == "pass"


def test_what_our_own_processes_hold_will_be_given_back(node: Node) -> None:
    """A leftover is swept before a start looks; a running service gives its memory back before it loads again."""
    with running("-c", "input()", environ={"QWEN_FP8_RUN": str(node.site.paths.run)}) as ours:
        gpus = f"count=8 proc=0:{ours.pid}:70000"
        found = node.findings(gpus)
        assert (found["gpu-free-memory"].level, found["gpu-processes"].level, found["leftovers"].level) == ("pass", "pass", "warn")
        identity = process.identify(ours.pid)
        assert identity
        assert lock.acquire(node.site.paths.lock, identity) is None
        found = node.findings(gpus)
        assert (found["gpu-free-memory"].level, found["gpu-processes"].level) == ("pass", "pass")
        assert "leftovers" not in found


def test_what_outlives_the_sweep_of_a_start_fails(node: Node) -> None:
    """In the supervisor itself, which holds the lock and has swept, a process of ours on a GPU is one that SIGKILL did not end."""
    program = f"""
import json, os
from pathlib import Path
from qwen_fp8_ops.config.load import load
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.outside import lock, process
from qwen_fp8_ops.plan.launch import make_plan
from qwen_fp8_ops.preflight.checks import Subject, run_checks
paths = RunPaths(Path({str(node.site.home)!r}))
lock.acquire(paths.lock, process.identify(os.getpid()))
plan = make_plan(load(profiles=["demo"], overrides={node.site.texts(EIGHT)!r}), paths)
answer = [finding.as_json() for finding in run_checks(Subject(plan, paths, os.environ))]
"""
    with running("-c", "input()", environ={"QWEN_FP8_RUN": str(node.site.paths.run)}) as ours:
        found = {one["code"]: one for one in node.driver.ask(program, f"count=8 proc=0:{ours.pid}:70000")}
    assert found["leftovers"]["level"] == "fail"
    assert f"pid {ours.pid} " in found["leftovers"]["seen"]
    assert found["gpu-free-memory"]["level"] == "fail"
    assert f"pid {ours.pid} (" in found["gpu-free-memory"]["seen"]


@pytest.fixture
def python_with(tmp_path: Path) -> Any:
    """The PYTHONPATH of packages that say they are torch and vLLM of these builds."""

    def make(cuda: str | None, vllm: str = "0.32.0", distribution: str = "vllm") -> str:
        folder = tmp_path / "packages"
        for name in ("torch", "vllm", f"{distribution}-{vllm}.dist-info"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
        (folder / "torch" / "version.py").write_text(f"from typing import Optional\n__version__ = '2.13.0+build'\ncuda: Optional[str] = {cuda!r}\n")
        (folder / "vllm" / "__init__.py").write_text("raise SystemExit('vllm was imported')\n")
        (folder / f"{distribution}-{vllm}.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {vllm}\n")
        return f"{folder}:{REPOSITORY}"

    return make


# fmt: off
DRIVERS = [
    ("driver=580.95.05 cuda=13000", "13.0", "pass", "driver 580.95.05 runs CUDA 13.0; torch is built for 13.0"),
    ("driver=580.95.05 cuda=13000", "12.8", "pass", "driver 580.95.05 runs CUDA 13.0; torch is built for 12.8"),
    ("driver=570.86.15 cuda=12080", "13.0", "fail", "The installed torch is built for CUDA 13.0, which needs driver 580 or newer; this is driver 570.86.15"),
    ("driver=550.54.15 cuda=13000", "13.0", "pass", "driver 550.54.15 runs CUDA 13.0; torch is built for 13.0"),  # with cuda-compat
    ("driver=570.86.15 cuda=12080", "12.9", "pass", "driver 570.86.15 runs CUDA 12.8; torch is built for 12.9"),
]
# fmt: on


@pytest.mark.parametrize(("driver", "cuda", "level", "seen"), DRIVERS)
def test_the_driver_must_run_torchs_cuda(node: Node, python_with: Any, driver: str, cuda: str, level: str, seen: str) -> None:
    found = node.findings(f"count=8 {driver}", {"PYTHONPATH": python_with(cuda)})
    assert (found["driver-cuda"].level, found["driver-cuda"].seen) == (level, seen)
    assert level == "pass" or "cuda-compat" in found["driver-cuda"].fix
    assert (found["engine-build"].level, found["torch-build"].level) == ("pass", "pass")


def test_a_driver_that_tells_no_version_is_a_warning(site: Site, fake_driver: FakeDriver, python_with: Any, tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    silent = Node(site, build(tmp_path / "driver", without=["nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2"]))
    finding = silent.findings("count=8", {"PYTHONPATH": python_with("13.0")})["driver-cuda"]
    assert (finding.level, finding.seen) == ("warn", "The driver does not tell its version; torch is built for CUDA 13.0")


def test_a_build_for_cpus_is_refused_where_gpus_are_wanted(node: Node, python_with: Any) -> None:
    found = node.findings("count=8", {"PYTHONPATH": python_with(None, "0.32.0+cpu")})
    assert (found["engine-build"].level, found["engine-build"].seen) == ("fail", "vLLM 0.32.0+cpu is a build for CPUs and knows no GPU")
    assert (found["torch-build"].level, found["torch-build"].seen) == ("fail", "torch 2.13.0+build is built without CUDA")
    assert "driver-cuda" not in found
    assert found["engine-build"].fix.splitlines()[0] == "python3 scripts/setup_venv.py --extra gpu"


def test_a_build_for_gpus_is_refused_on_the_cpu(site: Site, python_with: Any) -> None:
    found = site.doctor(environ={"PYTHONPATH": python_with("13.0")})
    assert (found["engine-build"].level, found["torch-build"].level) == ("fail", "pass")


@pytest.mark.parametrize("vllm", ["0.33.0", "0.21.1", "0.1.dev1+gabcdef"])
def test_another_release_of_the_engine_is_a_warning(site: Site, python_with: Any, vllm: str) -> None:
    finding = site.doctor(environ={"PYTHONPATH": python_with(None, vllm)})["engine-version"]
    assert (finding.level, finding.seen) == ("warn", f"vLLM {vllm} is installed; this version was made with 0.32.0")


def test_a_torch_that_tells_nothing_is_refused(site: Site, python_with: Any) -> None:
    path = python_with(None)
    (Path(path.partition(":")[0]) / "torch" / "version.py").unlink()
    assert site.doctor(environ={"PYTHONPATH": path})["torch-build"].level == "fail"


def test_findings_are_json_of_four_keys(node: Node) -> None:
    found = node.findings("count=8 mig=0:1")
    assert all(set(json.loads(json.dumps(finding.as_json()))) == {"code", "level", "seen", "fix"} for finding in found.values())
