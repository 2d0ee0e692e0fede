from __future__ import annotations

import pytest

from qwen_fp8_ops.outside.nvml import Gpu
from qwen_fp8_ops.plan.visible import visible

EIGHT = tuple(Gpu(index, uuid=f"GPU-{index}{index}aa0000-0000", mig_enabled=index == 6) for index in range(8))
FOUR = EIGHT[:4]
ALL = list(range(8))


@pytest.mark.parametrize(
    ("environ", "ours"),
    [
        ({}, ALL),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"CUDA_VISIBLE_DEVICES": "4,5, 6,7"}, [4, 5, 6, 7]),
        ({"CUDA_VISIBLE_DEVICES": "3,1"}, [3, 1]),
        ({"CUDA_VISIBLE_DEVICES": "0,1,-1,2"}, [0, 1]),  # CUDA stops at the first word that names nothing
        ({"CUDA_VISIBLE_DEVICES": "0,9,1"}, [0]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-22aa0000-0000,GPU-5"}, [2, 5]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-"}, []),  # the beginning of eight
        ({"CUDA_VISIBLE_DEVICES": "GPU-99"}, []),
        ({"CUDA_VISIBLE_DEVICES": "MIG-GPU-33aa0000-0000/1/0,MIG-GPU-33aa0000-0000/2/0"}, [3]),
        ({"CUDA_VISIBLE_DEVICES": "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"}, [6]),
        ({"SLURM_JOB_GPUS": "4,5,6,7"}, [4, 5, 6, 7]),
        ({"SLURM_JOB_GPUS": "0,4-6"}, [0, 4, 5, 6]),
        ({"SLURM_JOB_GPUS": "4,5,6,7", "SLURM_STEP_GPUS": "4,5"}, [4, 5]),
        ({"SLURM_JOB_GPUS": "0,1,2,3", "CUDA_VISIBLE_DEVICES": "2,3"}, [2, 3]),
        ({"SLURM_JOB_GPUS": "MIG-1"}, ALL),  # not a form that names whole GPUs: nothing is known
        ({"SLURM_JOB_GPUS": ""}, ALL),
    ],
)
def test_what_an_environment_leaves(environ: dict[str, str], ours: list[int]) -> None:
    assert [gpu.index for gpu in visible(environ, EIGHT)] == ours


@pytest.mark.parametrize("environ", [{"SLURM_JOB_GPUS": "4,5,6,7"}, {"SLURM_JOB_GPUS": "4,5,6,7", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}])
def test_under_device_constraint_all_that_the_driver_shows_is_ours(environ: dict[str, str]) -> None:
    """SLURM names what it granted as the node counts it; the driver shows four GPUs and counts them from 0, and so does CUDA_VISIBLE_DEVICES."""
    assert visible(environ, FOUR) == FOUR


def test_no_gpus_leave_none() -> None:
    assert visible({"CUDA_VISIBLE_DEVICES": "0"}, ()) == visible({}, ()) == ()
