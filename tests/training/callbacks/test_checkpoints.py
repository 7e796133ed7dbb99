"""A run that was stopped and resumed equals an uninterrupted one."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from fixtures.callbacks import StopOnce
from fixtures.trainers import BATCH, RESNET, config, engine_for
from fixtures.training import make, scores
from genbench import train
from genbench.errors import Interrupted
from genbench.runs.history import read_history
from genbench.runs.result import read_result
from genbench.runs.status import read_status
from genbench.training import loading, trainer
from genbench.training.callbacks.averaging import Averaging


def weights(directory: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(directory / "checkpoints" / "final.ckpt", weights_only=True)
    optimizers = {
        f"optimizer {i} {k} {name}": value
        for i, optimizer in enumerate(checkpoint["optimizer_states"])
        for k, state in optimizer["state"].items()
        for name, value in state.items()
    }
    return checkpoint["state_dict"] | optimizers


SETTINGS = {
    "vae": ["model=vae"],
    "gan": ["model=gan"],
    "vae-gan": ["model=vae-gan"],
    "wgan-gp": ["model=wgan-gp"],
    "a schedule, clipped, in parts": [
        "model=gan",
        "schedule=cosine",
        "schedule.warmup=1k",
        "gradient_clip=0.5",
        "trainer.accumulate=2",
    ],
    "conv with BatchNorm and an average": [
        "model=vae-gan",
        "network=conv",
        "network.width=4",
        "ema=standard",
    ],
}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(settings, id=name, marks=[pytest.mark.slow] * (name != "gan"))
        for name, settings in SETTINGS.items()
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, cache, settings):
    settings = [*settings, "budget.images=2560", "trainer.steps_per_batch=3"]
    whole = make(tmp_path, cache, *settings, run_id="whole")
    assert train.main([str(whole)]) == 0

    stop = (
        f"+callbacks.stop={{_target_: fixtures.callbacks.StopOnce, marker: {tmp_path}/m, batch: 4}}"
    )
    parts = make(tmp_path, cache, *settings, stop, run_id="parts")
    assert train.main([str(parts)]) == 75
    status = read_status(parts)
    assert (status.status, read_result(parts).status) == ("interrupted", "interrupted")
    assert "SIGTERM" in status.reason
    assert not (parts / "result.json").exists()
    assert train.main([str(parts), "--resume"]) == 0

    assert read_status(parts).status == "finished"
    first, second = weights(whole), weights(parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert scores(whole) == scores(parts)
    counted = ("moves", "real_images", "decoder_rows", "rows", "multiply_adds", "epochs")
    budgets = [read_result(run).budget for run in (whole, parts)]
    assert all(budgets[0][name] == budgets[1][name] for name in counted)
    histories = [read_history(run) for run in (whole, parts)]
    for history in histories:
        history.pop("images_per_second")
        seconds = [value for _, value in history.pop("seconds")]
        assert seconds == sorted(seconds)  # it goes on through a resume
    assert histories[0].keys() == histories[1].keys()
    assert histories[0] == histories[1]
    scheduled = {"schedule=cosine", "model=gan"} & set(settings)
    assert ("lr/generator" in histories[0]) == bool(scheduled)


@pytest.mark.slow
def test_a_resumed_spectral_norm_equals_an_uninterrupted_one_bit_for_bit(tmp_path, cache):
    """Its power iteration is part of a checkpoint, as BatchNorm and the average are."""
    trainer.quieten_lightning()
    found = []
    for name in ("whole", "parts"):
        run, stops = tmp_path / name, [StopOnce(tmp_path / "marker", 2)] if name == "parts" else []
        settings = [*RESNET, f"budget.images={5 * BATCH}", "trainer.steps_per_batch=1"]
        cfg = config(tmp_path, cache, 1, settings)
        for attempt in range(1 + len(stops)):
            made = engine_for(cfg, *loading.build(cfg), run, callbacks=[*stops, Averaging(64)])
            with pytest.raises(Interrupted) if stops and not attempt else nullcontext():
                made.fit(resume=attempt > 0)
        average = torch.load(run / "checkpoints" / "final.ckpt")["callbacks"]["Averaging"][
            "average"
        ]
        found.append(weights(run) | {f"average {key}": value for key, value in average.items()})
    assert (tmp_path / "marker").exists()
    assert "discriminator.head.parametrizations.weight.0._u" in found[0]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
