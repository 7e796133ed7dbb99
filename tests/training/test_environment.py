"""What is recorded of the machine."""

import torch

from genbench.training import environment

CPU = torch.device("cpu")


def test_peak_memory_is_the_largest_of_all_ranks(monkeypatch):
    def other_has_more(tensor, operation):
        assert operation == torch.distributed.ReduceOp.MAX
        tensor.fill_(1 << 50)

    own = environment.peak_memory(CPU)
    assert 10 << 20 < own < 1 << 50
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", other_has_more)
    assert environment.peak_memory(CPU) == 1 << 50
