"""What a memory plan and a load strategy ask the world: the checkpoint, the GPUs, earlier starts, the disk. Reads only."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_fp8_ops.config.load import Configuration
from qwen_fp8_ops.config.paths import RunPaths
from qwen_fp8_ops.config.settings import Settings
from qwen_fp8_ops.engine import version
from qwen_fp8_ops.engine.startup_log import EngineMemory
from qwen_fp8_ops.errors import OpsError
from qwen_fp8_ops.outside import clock, gpus, host_memory, process, storage
from qwen_fp8_ops.outside.files import read_json
from qwen_fp8_ops.outside.lock import holder
from qwen_fp8_ops.plan import calibration, cards
from qwen_fp8_ops.plan.launch import LaunchPlan, make_plan
from qwen_fp8_ops.plan.load_strategy import LoadChoice, Storage, choose
from qwen_fp8_ops.plan.memory import MemoryPlan, memory_plan
from qwen_fp8_ops.plan.overhead import Overhead, assumed
from qwen_fp8_ops.plan.ports import with_ports
from qwen_fp8_ops.plan.rank import rank_bytes
from qwen_fp8_ops.plan.visible import visible
from qwen_fp8_ops.weights.facts import CheckpointFacts, facts_for


@dataclass(frozen=True)
class Situation:
    """Whose plan: the settings, the model's folder, the run's files, the environment the engine would start in."""

    settings: Settings
    model: Path
    paths: RunPaths
    environ: Mapping[str, str]

    def facts(self) -> CheckpointFacts:
        """
        Raises:
            OpsError: nothing is known of the model, or its files are damaged.
        """
        return facts_for(self.model, self.settings.model_id)

    def hardware(self) -> cards.Hardware:
        """The GPUs that the driver shows, where there are enough of them; else those that GPU_NAME and GPU_MEMORY_GIB describe."""
        settings = self.settings
        if settings.on_cpu:
            return cards.host(host_memory.available_bytes(), host_memory.total_bytes())
        seen = visible(self.environ, gpus.snapshot().gpus)
        found = cards.live(seen, settings.tensor_parallel_size)
        if found is None:
            return cards.described(settings.gpu_name, settings.gpu_memory_gib)
        # What our own running engine holds is given back before the next one starts.
        return replace(found, free_bytes=()) if self._is_running() else found

    def vllm_version(self) -> str:
        return version.installed() or version.PLANNED

    def measured(self, vllm_version: str) -> calibration.Measured | None:
        return calibration.recall(self.paths.calibration, self._calibration_key(vllm_version))

    def overhead(self, facts: CheckpointFacts, vllm_version: str) -> Overhead:
        measured = None if self.settings.on_cpu else self.measured(vllm_version)
        found = calibration.overhead_of(measured, rank_bytes(self.settings, facts)) if measured else None
        return found or assumed(self.settings, vllm_version)

    def memory_plan(self, *, hardware: cards.Hardware | None = None, vllm_version: str | None = None, given: Overhead | None = None) -> MemoryPlan:
        """The plan; what is given takes the place of what is here.

        Raises:
            OpsError: nothing is known of the model, or its files are damaged.
        """
        facts, release = self.facts(), vllm_version or self.vllm_version()
        return memory_plan(self.settings, facts, hardware or self.hardware(), release, given or self.overhead(facts, release))

    def remember_start(self, memory: EngineMemory) -> None:
        """Record what an engine that became ready has logged; nothing when it logged nothing.

        Raises:
            OpsError: the run's folder refuses the write.
        """
        if memory.kv_cache_tokens is None:
            return
        hardware = None if self.settings.on_cpu else self.hardware()
        usable = hardware.usable_bytes if hardware and hardware.is_live else None
        measured = calibration.measured_start(at=clock.now(), host=process.host_name(), settings=self.settings, memory=memory, usable_bytes=usable)
        calibration.remember(self.paths.calibration, self._calibration_key(self.vllm_version()), measured)

    def storage(self) -> Storage:
        mount = storage.mount_of(self.model)
        return Storage(mount.type if mount else "", host_memory.available_bytes(), importlib.util.find_spec("instanttensor") is not None)

    def load_choice(self) -> LoadChoice | None:
        """None when nothing is known of the model yet: then the engine reads it as it does by itself."""
        try:
            return choose(self.settings, self.facts(), self.storage())
        except OpsError:
            return None

    def largest_shard(self) -> Path | None:
        """For a short read that tells how fast the disk is."""
        try:
            return max(self.model.glob("*.safetensors"), key=lambda path: path.stat().st_size, default=None)
        except OSError:
            return None

    def _calibration_key(self, vllm_version: str) -> str:
        return calibration.key_of(process.host_name(), self.model, self.settings, vllm_version)

    def ports_in_use(self) -> dict[str, int]:
        """The ports of the service that runs in this folder, by key; a restart keeps them."""
        if not self._is_running():
            return {}
        try:
            running = LaunchPlan.from_json(read_json(self.paths.plan))
        except OpsError:
            return {}  # damaged, or of another version
        return {"PORT": running.engines[0].port, "MEDIA_PORT": running.media.port}

    def _is_running(self) -> bool:
        """Does another process supervise this run?"""
        try:
            owner = holder(self.paths.lock)
        except OpsError:
            return False
        return owner is not None and owner.pid != os.getpid() and owner.alive


def plan_here(configuration: Configuration, paths: RunPaths, environ: Mapping[str, str], *, like: LaunchPlan | None = None) -> LaunchPlan:
    """The launch plan for this machine, with LOAD_STRATEGY=auto and PORT=auto decided.

    Args:
        like: a plan whose weights may stay where they are, so that its LOAD_STRATEGY=auto holds.

    Raises:
        ConfigError: VLLM_EXTRA_ARGS sets what a key of ours sets.
        OpsError: no port is free.
    """
    settings = configuration.settings
    situation = Situation(settings, settings.folder(settings.model_path, paths.home), paths, environ)
    if like and like.texts["LOAD_STRATEGY"] == configuration.sources["LOAD_STRATEGY"].text:
        strategy = like.load_strategy
    else:
        choice = situation.load_choice()
        strategy = choice.strategy if choice else None
    seed = f"{environ.get('SLURM_JOB_ID', '')} {paths.home}"
    configuration = with_ports(configuration, seed=seed, keep=situation.ports_in_use())
    return make_plan(configuration, paths, load_strategy=strategy)


def expected_memory(plan: LaunchPlan, paths: RunPaths, environ: Mapping[str, str]) -> dict[str, int] | None:
    """What the memory plan expects of each rank, in the engine's own terms; None on the CPU, and when no plan can be made."""
    if plan.settings.on_cpu:
        return None
    try:
        made = Situation(plan.settings, plan.model_path, paths, environ).memory_plan()
    except OpsError:
        return None  # a start without a plan is told of by its check
    rank = made.fit.rank
    return {
        "weights_bytes_per_rank": rank.logged_bytes,
        "kv_cache_bytes_per_rank": made.fit.kv_room_bytes,
        "overhead_bytes_per_rank": made.overhead.bytes - rank.mrope_bytes,  # the engine logs these with the weights
    }
