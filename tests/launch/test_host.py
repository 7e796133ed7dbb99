"""GPUs and cores of machines that these tests imagine."""

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
