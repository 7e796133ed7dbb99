"""The order in which images are shown."""

import numpy as np
import pytest
import torch

from genbench.data.stream import ImageStream, Order, StreamPlan
from genbench.errors import UserMistake


def make_stream(images=10, flip=False, **plan):
    plan = {"seed": 0, "batch_size": 4, "pieces": 2, "steps": 9, "steps_per_batch": 2} | plan
    return ImageStream(StreamPlan(**plan), images, torch.from_numpy, flip=flip)


def steps_of(stream):
    """The indices and flips of every step of a stream, flattened out of its batches."""
    size = stream.plan.pieces * stream.plan.batch_size // stream.plan.world_size
    batches = list(stream)
    indices = torch.cat([batch.content for batch in batches]).split(size)
    if batches[0].flips is None:
        return [step.tolist() for step in indices]
    flips = torch.cat([batch.flips for batch in batches]).split(size)
    return [(i.tolist(), f.tolist()) for i, f in zip(indices, flips, strict=True)]


def test_every_image_is_shown_once_per_epoch():
    shown = np.concatenate(steps_of(make_stream(images=10, steps=10, pieces=2, batch_size=4)))
    epochs = shown.reshape(8, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert not (epochs[0] == epochs[1]).all()


def test_the_order_equals_the_recorded_one():
    assert Order(10, 0).indices(np.arange(10)).tolist() == [7, 4, 1, 2, 3, 5, 0, 6, 8, 9]
    assert Order(10, 3).indices(np.arange(10, 20)).tolist() == [5, 4, 1, 9, 6, 8, 2, 3, 0, 7]
    assert Order(10, 0).flips(np.arange(12)).astype(int).tolist() == [
        0,
        0,
        1,
        0,
        1,
        1,
        0,
        1,
        1,
        0,
        1,
        1,
    ]


def test_order_and_flips_depend_on_the_seed():
    assert steps_of(make_stream(flip=True)) != steps_of(make_stream(flip=True, seed=1))
    assert steps_of(make_stream(flip=True)) == steps_of(make_stream(flip=True))


@pytest.mark.parametrize("steps_per_batch", [1, 3, 4, 100])
def test_the_order_does_not_depend_on_the_steps_per_batch(steps_per_batch):
    expected = steps_of(make_stream(flip=True, steps_per_batch=1))
    assert steps_of(make_stream(flip=True, steps_per_batch=steps_per_batch)) == expected
    assert len(expected) == 9


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("steps_per_batch", [1, 4])
def test_the_ranks_together_get_the_images_of_one_process(world_size, steps_per_batch):
    alone = steps_of(make_stream(flip=True, batch_size=8))
    ranks = [
        steps_of(
            make_stream(
                flip=True,
                batch_size=8,
                steps_per_batch=steps_per_batch,
                rank=rank,
                world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        for what in (0, 1):  # indices, flips: by piece, then by rank
            pieces = [np.array(rank[step][what]).reshape(2, -1) for rank in ranks]
            assert np.concatenate(pieces, axis=1).ravel().tolist() == whole[what]


def test_a_batch_that_the_ranks_cannot_share_is_refused():
    with pytest.raises(UserMistake, match="batch_size=6 cannot be split over 4"):
        make_stream(batch_size=6, world_size=4)


@pytest.mark.parametrize("done", range(10))
@pytest.mark.parametrize("portions", [1, 4])
def test_a_restored_stream_continues_where_it_was_saved(done, portions):
    expected = steps_of(make_stream(flip=True))
    stopped = make_stream(flip=True, steps_per_batch=1)
    for _, _batch in zip(range(done), stopped, strict=False):
        pass
    resumed = make_stream(flip=True, steps_per_batch=portions)
    resumed.load_state_dict(stopped.state_dict())
    assert (steps_of(resumed) if done < 9 else list(resumed)) == expected[done:]


def test_flips_are_balanced_and_uncorrelated():
    flips = Order(10, 5).flips(np.arange(100_000))
    assert abs(flips.mean() - 0.5) < 0.01
    assert abs((flips[1:] == flips[:-1]).mean() - 0.5) < 0.01
    assert abs((flips == Order(10, 6).flips(np.arange(100_000))).mean() - 0.5) < 0.01


def test_all_that_goes_to_a_gpu_is_pinned(monkeypatch):
    """What is not pinned is copied while the host waits."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 100)
    plan = StreamPlan(0, batch_size=2, pieces=1, steps=2, steps_per_batch=2)
    labels = torch.arange(10)
    stream = ImageStream(
        plan, 10, torch.from_numpy, flip=True, numbered=True, labels=labels, pin_memory=True
    )
    assert all((part >= 100).all() for part in stream.batch(0))
