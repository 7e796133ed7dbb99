"""Which device a process takes, on machines that these tests imagine."""

import warnings

import pytest
import torch

from fixtures.places import slow_but
from fixtures.rows import TRAINED, build, takes_labels
from genbench import device
from genbench.errors import Notice, UserMistake

CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Let there be so many GPUs; returns the index of each that was chosen."""
    chosen: list[int] = []

    def there_are(count: int) -> list[int]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    return there_are


def test_every_rank_takes_its_own_gpu_before_it_uses_any(gpus, monkeypatch):
    chosen = gpus(4)
    assert device.device_of("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("SLURM_LOCALID", "2")
    assert device.device_of("gpu") == torch.device("cuda", 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device.device_of("cuda") == torch.device("cuda", 3)
    assert chosen == [0, 2, 3]
    gpus(1)  # as a task of srun that is bound to its GPU
    assert device.device_of("gpu") == torch.device("cuda", 0)
    assert device.device_of("cpu") == CPU


@pytest.mark.parametrize("accelerator", ["mps", "tpu", "gpuu"])
def test_an_accelerator_that_is_none_does_not_train_on_the_cpu(gpus, accelerator):
    gpus(0)
    with pytest.raises(UserMistake, match=f"trainer.accelerator={accelerator} is not one of auto"):
        device.device_of(accelerator)
    assert device.device_of("auto") == CPU
    with pytest.raises(UserMistake, match="PyTorch sees no GPU here"):
        device.device_of("gpu")


def test_apple_gpus_are_refused_by_their_name(gpus):
    gpus(0)
    with pytest.raises(UserMistake, match="does not compute on Apple GPUs"):
        device.device_of("mps")


@pytest.mark.parametrize(
    ("count", "trained", "asked", "taken", "told"),
    [
        (0, "gpu", None, "cpu", "trained on a GPU, and this is computed on the CPU"),
        (0, "auto", None, "cpu", ""),
        (0, "gpu", "cpu", "cpu", ""),
        (2, "gpu", None, "cuda", ""),
        (2, "cpu", None, "cuda", "trained on the CPU, and this is computed on a GPU"),
        (2, "cpu", "cpu", "cpu", ""),
    ],
)
def test_a_run_is_used_where_there_is_a_device(gpus, count, trained, asked, taken, told):
    gpus(count)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert device.device_of_run(trained, asked).type == taken
    notices = [str(one.message) for one in said if one.category is Notice]
    assert len(notices) == bool(told)
    assert all(told in notice for notice in notices)


def test_a_device_that_is_asked_for_must_be_there(gpus):
    gpus(0)
    with pytest.raises(UserMistake, match="--device=cuda, but PyTorch sees no GPU"):
        device.device_of_run("gpu", "cuda")


@pytest.mark.parametrize("devices", [0, -2, 1.5, True, "all"])
def test_a_number_of_devices_is_one_or_more_or_all(gpus, devices):
    gpus(2)
    for place in (CPU, torch.device("cuda", 0)):
        with pytest.raises(UserMistake, match=f"trainer.devices={devices}: give 1 or more"):
            device.resolve_devices(devices, place)
    assert device.resolve_devices(-1, torch.device("cuda", 0)) == 2
    assert device.resolve_devices(-1, CPU) == 1
    with pytest.raises(UserMistake, match="trainer.devices=3, but this machine has 2"):
        device.resolve_devices(3, torch.device("cuda", 0))


def test_an_evaluation_with_more_gpus_than_there_are_is_refused(gpus):
    gpus(2)
    device.check_extracting(2, torch.device("cuda", 0))
    device.check_extracting(8, CPU)  # processes
    with pytest.raises(UserMistake, match="evaluation.devices is above the 2 GPUs"):
        device.check_extracting(3, torch.device("cuda", 0))


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


SEVERAL = [
    (name, *rest)
    for name in TRAINED
    for rest in [[], *([["class"], ["attributes"]] if takes_labels(name) else [])]
]


@pytest.mark.parametrize(
    "case", slow_but(map("-".join, SEVERAL), "gan", "gan-class", "flow-matching")
)
def test_the_work_of_every_model_is_counted_where_there_are_several_threads(case, two_threads):
    name, kind = next((n, k) for n, *k in SEVERAL if "-".join([n, *k]) == case)
    model = build(name, *(f"arena.condition={one}" for one in kind))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    device.choose_threads(model, 16)
    assert torch.get_num_threads() == 1  # it is small
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("network", ["conv", "infogan"])
def test_counting_leaves_batch_norm_as_it_is_and_threads_where_they_help(network, two_threads):
    model = build("gan", "dataset=cifar10", f"network={network}", "network.width=4")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    device.choose_threads(model, 1_000_000)
    assert torch.get_num_threads() == 2
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
