"""Warnings about training that waits for data, on a clock that the tests set."""

import threading
from types import SimpleNamespace

import pytest

from genbench.training.alarms import Alarms
from genbench.training.callbacks.data_wait import Waiting


class Clock:
    """Stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def waiting():
    """A training of 100 seconds, and what was said of it."""
    said: list[str] = []
    telemetry = SimpleNamespace(seconds_so_far=100.0)
    made = Waiting(telemetry, Alarms(None, 0, said.append), Clock(), look_every=0.001)
    yield made, said
    made.close()


def batch(made: Waiting, wait: float, step: float) -> None:
    made.clock.now += wait
    made.before_batch(None)
    made.clock.now += step
    made.after_batch(None, 0)


@pytest.mark.parametrize(("wait", "warned"), [(3.0, False), (6.0, True)])
def test_a_training_that_mostly_waits_for_data_ends_with_a_warning(waiting, wait, warned):
    made, said = waiting
    made.on_start(None)
    for _ in range(10):
        batch(made, wait, 10 - wait)
    made.before_end(None)
    assert made.seconds == pytest.approx(10 * wait)
    assert [("waited for its data 60 of 100 seconds" in one) for one in said] == [True] * warned


def test_a_gpu_that_has_not_finished_the_batch_before_has_not_waited(waiting):
    made, _ = waiting
    works = [True, False]
    made._done = SimpleNamespace(query=lambda: not works.pop(0), record=lambda: None)
    made.on_start(None)
    batch(made, 3.0, 1.0)  # the host waited while the GPU worked
    batch(made, 5.0, 1.0)
    assert made.seconds == 5.0


def test_a_short_training_gets_no_warning(waiting):
    made, said = waiting
    made.telemetry.seconds_so_far = 5.0
    made.on_start(None)
    batch(made, 4.0, 1.0)
    made.before_end(None)
    assert not said


def test_a_late_batch_is_reported_once_while_waiting(waiting):
    made, said = waiting
    told = threading.Event()
    made.alarms.say = lambda sentence: (said.append(sentence), told.set())
    made.on_start(None)
    batch(made, 59.0, 1000.0)
    made.look()
    assert not said  # a long step is no wait
    made.clock.now += 61.0
    assert told.wait(30)  # by the thread itself
    made.look()
    assert len(said) == 1
    assert "no batch for 60 seconds" in said[0]
    assert "genbench data prepare" in said[0]


def test_a_resumed_run_adds_to_the_time_waited(waiting):
    made, _ = waiting
    made.on_start(None)
    batch(made, 2.0, 1.0)
    again = Waiting(made.telemetry, made.alarms, made.clock)
    again.load_state_dict(made.state_dict())
    assert again.seconds == 2.0


def test_a_host_that_waits_while_the_gpu_works_has_not_waited(waiting):
    made, _ = waiting
    made._done = SimpleNamespace(record=lambda: None, query=lambda: False)
    made.on_start(None)
    batch(made, 5.0, 1.0)
    assert made.seconds == 0
    made._done.query = lambda: True
    batch(made, 5.0, 1.0)
    assert made.seconds == 5.0
