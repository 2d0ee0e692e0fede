"""The stand-in for NVIDIA's driver library: build it, say which GPUs it shows, and the environment that finds it.

    python -m tests.fake_nvml.fake FOLDER "count=8 used=0:70000"     builds it there and prints what to export

A program finds the library by its name through LD_LIBRARY_PATH, so what looks at these GPUs must be a process of its own. The words
that describe GPUs are explained in nvml.c.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
LIBRARY = "libnvidia-ml.so.1"
COMPILERS = ("cc", "gcc", "clang")


def compiler() -> str | None:
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


@dataclass(frozen=True)
class FakeDriver:
    """``folder`` holds the library, ``gpus`` is the file of words that it reads at every call."""

    folder: Path

    @property
    def gpus(self) -> Path:
        return self.folder / "gpus"

    def show(self, words: str) -> None:
        """These GPUs from now on, at once for every reader."""
        fresh = self.gpus.with_suffix(f".{os.getpid()}")
        fresh.write_text("\n".join(words.split()) + "\n")
        fresh.replace(self.gpus)

    def environ(self) -> dict[str, str]:
        """What a program's environment needs to see them."""
        return {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML_FILE": str(self.gpus)}

    def whole_environ(self, **more: str) -> dict[str, str]:
        """Ours without what would change the answer, with the driver and ``more``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("QWEN_FP8_", "CUDA_", "SLURM_"))}
        return {**kept, **self.environ(), "PYTHONPATH": str(REPOSITORY), **more}

    def ask(self, program: str, gpus: str, **environ: str) -> Any:
        """Run a program before these GPUs that leaves its ``answer``."""
        self.show(gpus)
        whole = f"import json\nfrom pathlib import Path\nfrom qwen_fp8_ops.config.paths import RunPaths\n{program}\nprint(json.dumps(answer))"
        done = subprocess.run([sys.executable, "-c", whole], cwd=self.folder, env=self.whole_environ(**environ), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run(self, gpus: str, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `qwen-fp8 WORDS` before these GPUs."""
        self.show(gpus)
        command = [sys.executable, "-m", "qwen_fp8_ops", *words]
        return subprocess.run(command, cwd=self.folder, env=self.whole_environ(**environ), capture_output=True, text=True, timeout=120)


def build(folder: Path, *, without: Sequence[str] = ()) -> FakeDriver:
    """
    Args:
        without: symbols to leave out, as a driver that is too old to have them.
    """
    found = compiler()
    assert found, "needs a C compiler"
    left_out = [f"-D{symbol}=left_out_{symbol}" for symbol in without]
    command = [found, "-Wall", "-Wextra", "-Werror", *left_out, "-shared", "-fPIC", "-o", str(folder / LIBRARY), str(HERE / "nvml.c")]
    subprocess.run(command, check=True, timeout=120)
    driver = FakeDriver(folder)
    driver.show("count=8")
    return driver


def engine_on(pids: Iterable[int], mib: int) -> str:
    """Words for the memory of an engine: its workers' pids in the order of the ranks, one GPU each."""
    return " ".join(f"proc={gpu}:{pid}:{mib}" for gpu, pid in enumerate(pids))


if __name__ == "__main__":
    made = build(Path(sys.argv[1]).resolve())
    made.show(sys.argv[2] if len(sys.argv) > 2 else "count=8")
    print("export", *(f"{name}={value}" for name, value in made.environ().items()))
