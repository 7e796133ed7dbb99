"""GPUs and cores of machines that these tests imagine."""

from types import SimpleNamespace

import pytest

from genbench.errors import Notice
from genbench.launch import host, pool, run


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["proc/driver/nvidia/gpus/0000:01:00.0/x", "proc/driver/nvidia/gpus/0000:02:00.0/x"],
            "01",
        ),
        (["dev/nvidia0", "dev/nvidiactl", "dev/nvidia-uvm"], "0"),
        (["dev/kfd", "sys/class/kfd/kfd/topology/nodes/0/gpu_id"], ""),
        (["dev/kfd", *(f"sys/class/kfd/kfd/topology/nodes/{n}/gpu_id" for n in (0, 1, 2))], "01"),
        ([], ""),
    ],
)
def test_gpus_are_found_without_nvidia_smi(room, files, expected):
    for name in files:
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_text("0\n" if "nodes/0" in name else "51234\n")
    assert host._gpus_of_driver(room) == list(expected)


def test_amd_gpus_that_are_allowed_are_those_that_are_seen(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1,3")
    assert host.visible_gpus() == ["1", "3"]
    assert host.only_gpus(["3"]) == {"CUDA_VISIBLE_DEVICES": "3", "HIP_VISIBLE_DEVICES": "3"}
    monkeypatch.delenv("HIP_VISIBLE_DEVICES")
    monkeypatch.setenv(
        "ROCR_VISIBLE_DEVICES", "4,6"
    )  # as SLURM sets it: what follows counts from 0
    assert host.visible_gpus() == ["0", "1"]
    assert host.only_gpus(["1"]) == {"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "1"}


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("2, 5", ["2", "5"]),
        ("GPU-8f1c,GPU-03ab", ["GPU-8f1c", "GPU-03ab"]),
        (
            "MIG-1b2c,MIG-4d5e",
            ["MIG-1b2c", "MIG-4d5e"],
        ),  # a run each, since a process sees one alone
        ("", []),
        ("-1", []),
        ("0,-1,2", ["0"]),  # CUDA reads no further
        ("NoDevFiles", []),  # SLURM's word for a job without GPUs
    ],
)
def test_gpus_are_those_that_cuda_would_see(monkeypatch, named, expected):
    for name in ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert host.visible_gpus() == expected
    assert host.only_gpus(expected[:1]) == {"CUDA_VISIBLE_DEVICES": ",".join(expected[:1])}


@pytest.mark.parametrize(
    ("gpus", "devices", "accelerator", "expected"),
    [("0,1,2", -1, "auto", 3), ("", -1, "auto", 1), ("0,1", -1, "cpu", 1), ("0,1", 4, "auto", 4)],
)
def test_all_devices_are_as_many_processes(monkeypatch, gpus, devices, accelerator, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    trainer = {"devices": devices, "accelerator": accelerator}
    assert run.processes({"trainer": trainer}) == expected


def test_more_processes_than_cores_are_told(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(run, "physical_cores", lambda: 2)
    run.warn_of_cores({"trainer": {"devices": 2, "accelerator": "cpu"}})
    with pytest.warns(Notice, match="trainer.devices=4 starts 4 processes on 2 cores"):
        run.warn_of_cores({"trainer": {"devices": 4, "accelerator": "auto"}})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    run.warn_of_cores({"trainer": {"devices": 4, "accelerator": "auto"}})


def test_a_sweep_over_trainers_has_slots_for_each_kind(monkeypatch):
    monkeypatch.setattr(pool, "physical_cores", lambda: 3)
    monkeypatch.setattr(pool, "available_memory", lambda: 1 << 40)

    def kinds(gpus):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        made = pool.Pool("worker", pool.PoolSettings(), 10, lambda *_: None)
        found = [made._slots_for({"trainer": {"accelerator": a}}) for a in ("gpu", "cpu", "auto")]
        assert found[0] is found[2]
        return [[slot.gpus for slot in own] for own in found[:2]]

    assert kinds("4,6") == [[("4",), ("6",)], [(), (), ()]]
    assert kinds("") == [[(), (), ()]] * 2


@pytest.mark.parametrize("devices", [0, -3, "auto", [1, 3], 1.5])
def test_devices_that_are_no_number_of_gpus_are_left_to_the_run_to_refuse(monkeypatch, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    config = {"trainer": {"accelerator": "gpu", "devices": devices}}
    made = pool.make_slots(pool.PoolSettings(), config, 10)
    assert [slot.gpus for slot in made] == [("0",), ("1",)]


def test_a_sweep_over_devices_gives_each_run_its_number_of_gpus(monkeypatch):
    """A GPU has no run too many, whatever the sizes of the runs on it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")

    def free(made, devices):
        own = made._slots_for({"trainer": {"accelerator": "auto", "devices": devices}})
        return [slot for slot in own if made._is_free(slot)]

    def begin(made, slot):
        slot.busy = True
        made.running.append(SimpleNamespace(slot=slot))

    made = pool.Pool("worker", pool.PoolSettings(), 10, lambda *_: None)
    assert [slot.gpus for slot in free(made, 1)] == [("0",), ("1",), ("2",), ("3",)]
    begin(made, free(made, 1)[0])
    assert [slot.gpus for slot in free(made, 2)] == [("2", "3")]
    assert free(made, 4) == free(made, -1) == []
    begin(made, free(made, 2)[0])
    assert [slot.gpus for slot in free(made, 1)] == [("1",)]
    assert made._has_room()
    assert [pool.at_once(run.slot, made.slots.values()) for run in made.running] == [4, 2]
    packed = pool.Pool("worker", pool.PoolSettings(slots=2, jobs_per_gpu=2), 10, lambda *_: None)
    for _ in range(2):
        begin(packed, free(packed, 1)[0])
    assert free(packed, 1) == []
