"""A NaN step is skipped, many of them end the run, and failing trainings get warnings."""

import csv
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fixtures.callbacks import poisoned
from fixtures.ranks import run_on_ranks
from genbench import sample
from genbench.commands import compare, show
from genbench.errors import GenbenchError
from genbench.runs.result import read_result
from genbench.runs.status import read_status
from genbench.training.alarms import Alarms
from genbench.training.guards import DeviceGuard, HostGuard, Skipped, guard_of
from genbench.training.means import PORTION, RunningMeans

ADAM = partial(torch.optim.Adam, lr=0.1, fused=True)
NAN, INF = math.nan, math.inf


def descend(kind, make, gradients):
    """Steps on given gradients as a player takes them; parameters, optimizer state, guard."""
    p = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = make([p])
    cpu = torch.device("cpu")
    guard = HostGuard([p], cpu) if kind == "host" else DeviceGuard([p], cpu, optimizer)
    for gradient in gradients:
        p.grad = torch.tensor(gradient)
        if not guard.judge():
            optimizer.step()
    state = [v for one in optimizer.state.values() for v in one.values() if v is not None]
    return [p.detach(), *state], guard


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("host", ADAM),
        ("host", partial(torch.optim.RMSprop, lr=0.1)),
        ("device", ADAM),
        ("device", partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True)),
    ],
)
@pytest.mark.parametrize("bad", [[NAN, 1.0], [0.5, INF], [-INF, NAN]])
def test_a_skipped_step_leaves_parameters_and_optimizer_as_they_were(kind, make, bad):
    good = [[0.3, -0.7], [-0.0, 1e-30], [2.0, 0.1]]
    clean, _ = descend(kind, make, good)
    disturbed, guard = descend(kind, make, [good[0], bad, good[1], bad, bad, good[2]])
    assert all(torch.equal(a, b) for a, b in zip(clean, disturbed, strict=True))
    assert guard.skipped == Skipped(3, 0)
    _, guard = descend(kind, make, [good[0], bad, good[1], bad, bad])
    assert guard.skipped == Skipped(3, 2)


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, 3.0])
def test_a_nan_or_infinite_loss_makes_every_gradient_nan(kind, value):
    p = torch.nn.Parameter(torch.ones(2))
    cpu, optimizer = torch.device("cpu"), ADAM([p])
    guard = HostGuard([p], cpu) if kind == "host" else DeviceGuard([p], cpu, optimizer)
    loss = (3 * p).sum() + (value - 3.0)  # its own gradient is finite: 3
    loss.backward(gradient=guard.seed(loss))
    guard.judge()
    expected = 3.0 if math.isfinite(value) else NAN
    torch.testing.assert_close(p.grad, torch.full((2,), expected), equal_nan=True)
    assert guard.skipped.total == (not math.isfinite(value))


def test_the_kind_of_guard_depends_on_optimizer_device_and_scaler():
    p, meta = torch.nn.Parameter(torch.ones(2)), torch.device("meta")
    fused, plain = ADAM([p]), torch.optim.RMSprop([p])
    assert isinstance(guard_of([p], fused, torch.device("cpu"), scaled=False), HostGuard)
    assert isinstance(guard_of([p], plain, meta, scaled=False), HostGuard)
    assert isinstance(guard_of([p], plain, meta, scaled=True), DeviceGuard)
    assert not hasattr(plain, "found_inf")  # the scaler is its master
    assert isinstance(guard_of([p], fused, meta, scaled=False), DeviceGuard)
    assert fused.found_inf.device == meta


def test_means_leave_out_nan_and_infinity_and_do_not_depend_on_interruptions():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(3 * PORTION + 5, generator=generator)
    values[7], values[PORTION] = NAN, INF
    whole, parts = RunningMeans(), RunningMeans()
    for place, value in enumerate(values):
        for means in (whole, parts):
            means.add("loss", value)
            means.add("nothing", torch.tensor(NAN))
        if place in (3, PORTION - 1, 2 * PORTION + 9):
            state, parts = parts.state_dict(), RunningMeans()
            parts.load_state_dict(state)
    found = whole.take(1)
    assert found["loss"] == pytest.approx(values[values.isfinite()].double().mean().item())
    assert math.isnan(found["nothing"])
    assert found["loss"] == parts.take(1)["loss"]
    assert whole.take(1) == {}


def final(directory: Path):
    return torch.load(directory / "checkpoints" / "final.ckpt", weights_only=True)


@pytest.mark.slow
def test_one_bad_batch_costs_one_step_and_is_in_the_record(start, capsys):
    settings = ["model=gan", "trainer.steps_per_batch=1", "trainer.log_every_images=128"]
    directory, code = start(*settings, *poisoned(3, 4))
    assert code == 0
    state = final(directory)
    assert state["genbench_skipped"] == {"discriminator": (1, 0), "generator": (0, 0)}
    assert all(w.isfinite().all() for w in state["state_dict"].values())
    steps = [next(iter(o["state"].values()))["step"].item() for o in state["optimizer_states"]]
    assert steps == [9, 10]
    with (directory / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["skipped/discriminator"] for row in rows] == ["", "1.0", "1.0", "1.0", "1.0"]
    assert all(math.isfinite(float(row["loss/discriminator"])) for row in rows)
    assert "skipped/generator" not in rows[0]
    assert read_result(directory).budget["skipped_steps"] == {"discriminator": 1}
    assert show.main([str(directory)]) == 0
    assert "1 steps of the discriminator" in capsys.readouterr().out


def test_too_many_skipped_steps_are_divergence_and_name_the_player(start, capsys):
    settings = ["model=gan", "trainer.steps_per_batch=1", "trainer.log_every_images=64"]
    directory, code = start(*settings, "trainer.max_skipped=3", *poisoned(2, 9))
    assert code == 1
    status = read_status(directory)
    assert status.status == "diverged"
    assert "the discriminator is NaN or infinite: its last 3 steps" in status.reason
    assert "after 320 images" in status.reason
    assert "gradient_clip=1.0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_bad_batch_of_one_rank_is_skipped_by_all(tmp_path, cache):
    """Only rank 1 gets NaN images; the checkpoint of rank 0 counts the skipped step too."""
    settings = ["model=gan", "trainer.steps_per_batch=1", "budget.images=640", *poisoned(3, 4, 1)]
    done = run_on_ranks(tmp_path, cache, *settings)
    assert done.returncode == 0, done.stderr
    state = final(tmp_path / "outputs" / "x")
    assert state["genbench_skipped"] == {"discriminator": (1, 0), "generator": (0, 0)}
    assert all(w.isfinite().all() for w in state["state_dict"].values())


@pytest.mark.parametrize(
    ("method", "remedy"),
    [
        ("genbench.models.vae.VAE.step", "trainer.accumulate=2"),
        ("genbench.metrics.evaluation.Evaluation._features", "evaluation.batch_size=128"),
    ],
)
def test_out_of_memory_names_what_to_change(start, capsys, monkeypatch, method, remedy):
    def too_much(*_, **__):
        torch.empty(2**58, dtype=torch.uint8)

    monkeypatch.setattr(method, too_much)
    directory, code = start("model=vae")
    assert code == 1
    assert "out of memory while" in capsys.readouterr().err
    assert remedy in read_status(directory).reason


def test_out_of_memory_while_sampling_names_the_number(start, monkeypatch):
    directory, _ = start("model=noise")
    too_many = torch.zeros(()).expand(2**50, 1)
    monkeypatch.setattr("genbench.sample.draw_samples", lambda *_: too_many.contiguous())
    with pytest.raises(GenbenchError, match=r"drawing 16 images: try --num 8"):
        sample.main([str(directory), "--num", "16"])


DISCRIMINATOR = "{_target_: torch.optim.Adam, _partial_: true, lr: 1e-3, fused: true}"
BEATEN = [
    "model=gan",
    "model.generator_optimizer.lr=0",
    f"model.discriminator_optimizer={DISCRIMINATOR}",
    "model.r1_gamma=0",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (BEATEN, ["the discriminator tells all fakes"]),
        (["model=vae", "model.beta=1000"], ["all samples are alike", "less than one bit"]),
        (["model=gan"], []),
    ],
)
def test_a_failing_training_gets_a_warning(start, capsys, settings, words):
    directory, code = start(*settings, "budget.images=16k")
    assert code == 0
    warnings = read_result(directory).warnings
    assert all(any(said in warning for warning in warnings) for said in words)
    assert words or not warnings
    show.main([str(directory)])
    compare.main([directory.name, "--outputs", str(directory.parent)])
    printed = capsys.readouterr().out
    assert all(printed.count(said) == 3 for said in words)
    assert words or "Try" not in printed


def test_an_untrained_decoder_is_not_reported_as_collapsed():
    data = SimpleNamespace(
        pixels=lambda split: np.random.default_rng(0).integers(0, 17, (64, 1, 4, 4), np.uint8),
        to_images=lambda pixels: pixels.float() / 8 - 1,
    )
    said: list[str] = []
    alarms = Alarms(data, 0, said.append)
    alarms.look_at_samples(torch.zeros(8, 1, 4, 4), 0)
    assert not said
    alarms.look_at_samples(torch.zeros(8, 1, 4, 4), 64)
    assert len(said) == 1  # the same grid after training is one
