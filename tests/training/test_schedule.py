"""Learning rate schedules, gradient clipping, and batches in accumulated parts."""

import math
from functools import partial

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import Trainer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR

from fixtures.trainers import BATCH, CASES, STEPS, change_pace, config, engine_for
from genbench.errors import UserMistake
from genbench.runs.method import fingerprint
from genbench.training import loading
from genbench.training import trainer as trainer_module
from genbench.training.precision import HalfPrecision
from genbench.training.schedule import Schedule

BATCH, STEPS = BATCH, STEPS


def made_for(folder, *overrides):
    trainer_module.quieten_lightning()
    cfg = config(folder, folder / "cache", 1, list(overrides))
    model, data = loading.build(cfg)
    return engine_for(cfg, model, data, folder / "run")


def rates_of(scheduler, steps):
    """Ten steps of one of PyTorch's schedulers on a rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    made = scheduler(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [
        (
            Schedule("linear", final=0.25),
            partial(LinearLR, start_factor=1.0, end_factor=0.25, total_iters=10),
        ),
        (Schedule("cosine"), partial(CosineAnnealingLR, T_max=10)),
        (Schedule("cosine", final=0.1), partial(CosineAnnealingLR, T_max=10, eta_min=0.1)),
    ],
)
def test_schedules_equal_those_of_pytorch(schedule, theirs):
    ours = [schedule.factor(8 * step, 8, 80) for step in range(10)]
    assert ours == pytest.approx(rates_of(theirs, 10), abs=1e-12)


def test_warmup_rises_to_the_full_rate_and_hold_keeps_it():
    schedule = Schedule("linear", warmup="0.04k", hold=0.5)
    factors = [schedule.factor(10 * step, 10, 200) for step in range(20)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4:11] == [1.0] * 7
    assert factors[11:] == pytest.approx([1 - step / 10 for step in range(1, 10)])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shape": "exponential"}, "schedule.shape='exponential' is not one of"),
        ({"warmup": "2x"}, "schedule.warmup='2x' is not a number of images"),
        ({"hold": 1.0}, "schedule.hold=1.0 is not a share"),
        ({"final": -0.1}, "schedule.final=-0.1 is below 0"),
    ],
)
def test_a_wrong_schedule_is_refused(change, sentence):
    with pytest.raises(UserMistake, match=sentence):
        Schedule(**{"shape": "linear"} | change)


def test_every_player_follows_the_schedule(tmp_path):
    settings = ["schedule=cosine", "schedule.warmup=160", "model.generator_optimizer.lr=0.002"]
    engine, seen = made_for(tmp_path, "model=gan", *settings), []
    engine.training.after_step.append(lambda t: seen.append(list(t.learning_rates().values())))
    engine.fit(resume=False)
    cosine = [0.5 * (1 + math.cos(math.pi * step / STEPS)) for step in range(STEPS)]
    expected = [0.002 * min(1, (i + 1) / 10) * c for i, c in enumerate(cosine)]
    assert [rate for _, rate in seen] == pytest.approx(expected)
    assert all(first == second for first, second in seen)  # both players', 0.002 for each


@pytest.mark.parametrize(
    "case",
    ["vae-gan", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vae", "gan", "wgan-gp"))],
)
def test_accumulated_parts_train_as_the_whole_batch(tmp_path, case):
    settings = [*CASES[case], f"budget.images={20 * BATCH}"]
    whole = made_for(tmp_path, *settings)
    parts = made_for(tmp_path, *settings, "trainer.accumulate=4")
    rows = [{}, {}]
    for row, engine in zip(rows, (whole, parts), strict=True):
        engine.fit(resume=False)
        row.update(engine.training.state_dict())
    assert any(not torch.equal(rows[0][name], rows[1][name]) for name in rows[0])  # added otherwise
    for name, value in rows[0].items():
        torch.testing.assert_close(rows[1][name], value, rtol=0, atol=2e-5)


def test_accumulation_is_refused_with_batch_norm_or_unequal_parts(tmp_path):
    with pytest.raises(UserMistake, match="normalises over its batch"):
        made_for(tmp_path, "model=gan", "network=conv", "trainer.accumulate=2")
    with pytest.raises(
        UserMistake, match="batch_size=16 cannot be split over 1 devices in 3 parts"
    ):
        made_for(tmp_path, "model=gan", "trainer.accumulate=3")


def moves_of(training, trainer):
    """How far each step of plain descent at rate 1 moves the players."""
    moves = []

    def note(training):
        players = training.model.players()
        now = {n: [p.detach().clone() for p in q.parameters()] for n, q in players.items()}
        if note.before:
            moves.append(
                {n: math.dist(*(torch.cat([p.flatten() for p in x]).tolist() for x in (now[n], b)))
                 for n, b in note.before.items()}
            )  # fmt: skip
        note.before = now

    note.before = None
    training.after_step.append(note)
    trainer.fit(training)
    return moves


@pytest.mark.parametrize("half", [False, True])
def test_clipping_bounds_the_gradient_that_moves_a_player(tmp_path, half):
    """With loss scaling too, where the gradients are 1024 times as large until just before."""
    descent = [f"model.generator_optimizer.{x}" for x in ("_target_=torch.optim.SGD", "lr=1.0")] + [
        "~model.generator_optimizer.betas",
        "budget.images=160",
    ]
    clip = "gradient_clip={discriminator: 1e-3}"
    engine = made_for(tmp_path, "model=gan", "schedule=constant", *descent, clip)
    make = partial(torch.amp.GradScaler, "cpu", init_scale=1024.0)
    if half:
        change_pace(engine, make_scaler=make)
    plugins = [HalfPrecision("cpu")] if half else []
    quiet = dict.fromkeys(
        ["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False
    )
    trainer = Trainer(max_epochs=1, accelerator="cpu", plugins=plugins, **quiet)
    moves = moves_of(engine.training, trainer)
    assert len(moves) == 9
    assert [m["discriminator"] for m in moves] == pytest.approx([1e-3] * 9, rel=1e-2)
    assert all(m["generator"] > 2e-3 for m in moves)


@pytest.mark.parametrize(
    ("clip", "sentence"),
    [
        ("{decoder: 1}", "gradient_clip names 'decoder', but the players of this model are disc"),
        ("0", "gradient_clip=0 for discriminator is not a norm"),
    ],
)
def test_a_wrong_gradient_clip_is_refused(tmp_path, clip, sentence):
    with pytest.raises(UserMistake, match=sentence):
        made_for(tmp_path, "model=gan", f"gradient_clip={clip}")


@pytest.mark.slow
def test_schedule_and_clip_change_the_fingerprint_and_accumulation_does_not(tmp_path):
    def name(*overrides):
        cfg = config(tmp_path, tmp_path / "cache", 1, list(overrides))
        return fingerprint(OmegaConf.to_container(cfg))

    plain = name()
    before = config(tmp_path, tmp_path / "cache", 1, [])
    del before.schedule, before.gradient_clip  # as in configs of runs older than both settings
    same = [
        fingerprint(OmegaConf.to_container(before)),
        name("schedule.warmup=0k"),
        name("trainer.accumulate=2"),
    ]
    assert same == [plain] * 3
    others = ["schedule=linear", "schedule=cosine", "schedule.warmup=1k", "gradient_clip=1"]
    assert len({plain, *map(name, others)}) == 5
