"""How errors are told."""

import pytest
import torch
from omegaconf import OmegaConf

from genbench.device import is_out_of_memory, training_memory
from genbench.errors import GenbenchError
from genbench.training.endings import explain

CONFIG = OmegaConf.create({"paths": {"outputs": "here"}})
ASYNCHRONOUS = "\nCUDA kernel errors might be asynchronously reported at some other API call\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(f"CUDA error: unspecified launch failure{ASYNCHRONOUS}"), "launch failure'"),
        (
            torch.AcceleratorError("CUDA error: devices are busy or unavailable"),
            "or unavailable'",
        ),
        (RuntimeError("HIP error: the device is gone"), "is gone'"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB"), "2 MiB'"),
    ],
)
def test_a_gpu_that_is_lost_busy_or_full_is_told_with_what_to_do(error, told):
    said = str(explain(error, CONFIG))
    assert told in said and "genbench resume" in said and "CUDA_VISIBLE_DEVICES" in said
    assert "\n" not in said


def test_other_errors_are_told_as_they_are():
    assert str(explain(RuntimeError("no CUDA error"), CONFIG)).startswith(
        "RuntimeError: no CUDA error"
    )


@pytest.mark.parametrize(
    "words", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"]
)
def test_memory_that_the_driver_has_not_is_memory_that_ran_out(words, monkeypatch):
    """Beside other runs on the GPU, of which there may be too many."""
    assert is_out_of_memory(RuntimeError(words))
    with (
        pytest.raises(GenbenchError, match="trainer.precision=bf16-mixed$"),
        training_memory(64, 1),
    ):
        raise RuntimeError(words)
    monkeypatch.setenv("GENBENCH_JOBS_PER_GPU", "4")
    with (
        pytest.raises(GenbenchError, match="hydra.launcher.jobs_per_gpu=3"),
        training_memory(64, 1),
    ):
        raise RuntimeError(words)
