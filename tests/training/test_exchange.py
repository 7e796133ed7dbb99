"""Gradients of large players: sent in portions while backward runs, the same means as in one collective."""

from functools import partial

import pytest
import torch

from genbench.training import exchange
from genbench.training.exchange import Exchange, Votes
from genbench.training.guards import HostGuard
from genbench.training.seat import Seat


class Collective:
    """An `all_reduce` with another rank, whose gradients are twice these; notes what is sent, and when."""

    def __init__(self):
        self.events = []

    def __call__(self, tensor, async_op=False):
        self.events.append(("sent", tensor.numel(), async_op))
        tensor.mul_(3)
        return self

    def wait(self):
        self.events.append("waited")


@pytest.fixture
def collective(monkeypatch):
    made = Collective()
    monkeypatch.setattr(torch.distributed, "all_reduce", made)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    return made


def network():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3), torch.nn.Linear(3, 1)]
    return torch.nn.Sequential(*layers)


def loss(model, images=None):
    return model(torch.ones(2, 4) if images is None else images).square().sum()


def test_portions_are_sent_while_backward_runs_and_received_before_the_move(collective):
    model = network()
    expected = torch.autograd.grad(loss(model), list(model.parameters()))
    made = Exchange(list(model.parameters()), size=20)
    assert [sum(p.numel() for p in b.parameters) for b in made.buckets] == [7, 20, 20]
    model[0].weight.register_post_accumulate_grad_hook(
        lambda _: collective.events.append("last gradient")
    )
    with made.during():
        loss(model).backward()
    sent = collective.events.index("last gradient")
    assert [event[1:] for event in collective.events[:sent] if event[0] == "sent"][:2] == [
        (7, True),
        (20, True),
    ]
    assert "waited" not in collective.events
    made.end()
    assert collective.events.count("waited") == 3
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, 1.5 * gradient)


def test_a_small_player_has_one_collective(collective):
    model = network()
    made = Exchange(list(model.parameters()))
    with made.during():
        loss(model).backward()
    assert not collective.events
    made.end()
    assert collective.events == [("sent", 47, False)]


def test_of_a_batch_in_parts_the_last_backward_sends(collective):
    model = network()
    parts = [torch.ones(1, 4), 2 * torch.ones(1, 4)]
    whole = sum(loss(model, part) / 2 for part in parts)
    expected = torch.autograd.grad(whole, list(model.parameters()))
    own = list(model.parameters())
    seat = Seat(
        torch.optim.SGD(own, lr=0), own, [], HostGuard(own, torch.device("cpu")), None, [0.0],
        exchange=Exchange(own, size=20),
    )  # fmt: skip
    for number, part in enumerate(parts):
        seat.descend(partial(loss, model, part), 2, torch.autograd.backward, last=number == 1)
        assert len(collective.events) == 3 * number
    seat.move([])
    for parameter, gradient in zip(own, expected, strict=True):
        torch.testing.assert_close(parameter.grad, 1.5 * gradient)


def test_what_backward_does_not_reach_is_exchanged_before_the_move(collective):
    """A portion that is never full must not be waited for, and parameters that are fixed have no part."""
    model = network()
    model[3].weight.requires_grad_(False)
    idle = torch.nn.Parameter(torch.ones(2))
    made = Exchange([*model.parameters(), idle], size=4)
    expected = torch.autograd.grad(loss(model), [model[3].bias, model[2].bias])
    for _ in range(2):  # nothing is left over from a step
        model.zero_grad()
        with made.during():
            loss(model).backward()
        made.end()
        assert idle.grad is None
        for parameter, gradient in zip((model[3].bias, model[2].bias), expected, strict=True):
            torch.testing.assert_close(parameter.grad, 1.5 * gradient)
    assert ("sent", 1, False) in collective.events  # the bias beside what is idle


def test_portions_have_one_type():
    halves = [
        torch.nn.Parameter(torch.ones(2, dtype=torch.float64)),
        torch.nn.Parameter(torch.ones(3)),
    ]
    assert [len(part) for part in exchange._portions(halves, 100)] == [1, 1]


def test_votes_are_answered_a_batch_late_and_one_yes_is_enough(monkeypatch):
    """So nobody waits for the batch that is on its way."""
    others = [[0, 1], [0, 0], [0, 0]]
    monkeypatch.setattr(
        torch.distributed, "all_reduce", lambda votes: votes.add_(torch.tensor(others.pop(0)))
    )
    votes = Votes(torch.device("cpu"))
    assert [[*votes.ask(own, False)] for own in (False, True, False)] == [
        [False, False],
        [False, True],
        [True, False],
    ]
