"""TensorBoard."""

import pytest

from fixtures.loggers import CONFIG, SCORE, TENSORBOARD
from genbench.training import loggers


@pytest.mark.slow
def test_tensorboard_holds_scalars_and_pictures_on_the_axis_of_images(tmp_path, picture):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra"
    )
    sinks = loggers.build({"tensorboard": TENSORBOARD}, tmp_path, CONFIG, "abc123")
    for sink in sinks:
        sink.log_metrics({"loss": 0.7}, step=64)
    loggers.log_images(sinks, "samples", picture, 64)
    loggers.finish(sinks, [SCORE], "finished")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("loss")] == [(64, 0.7)]
    assert [(e.step, e.value) for e in events.Scalars("final/fd_lenet")] == [(64, 4.5)]
    assert events.Images("samples")[0].step == 64
