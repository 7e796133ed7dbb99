"""One run on one page: build, fit, evaluate, record. In a worker: `python -m genbench.work train RUN`."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from genbench.callable_module import make_callable
from genbench.data.contract import ImageData
from genbench.data.splits import SPLITS
from genbench.device import check_extracting, keep_freed_memory, training_memory
from genbench.errors import DONE, FAILED, UserMistake, notices_to
from genbench.metrics.evaluation import Evaluation
from genbench.metrics.held_apart import check_apart
from genbench.metrics.under_priors import fits, said_of, scores_under
from genbench.metrics.while_training import ValidationScores
from genbench.priors.contract import Prior
from genbench.priors.fitting import check_priors
from genbench.runs import ended_ranks
from genbench.runs.config import read_config
from genbench.runs.dataset_name import dataset_name
from genbench.runs.files import write_json
from genbench.runs.heartbeat import Heartbeat
from genbench.runs.history import SPENT, read_history
from genbench.runs.method import fingerprint, method
from genbench.runs.per_image import FILENAME as PER_IMAGE
from genbench.runs.per_image import write_per_image
from genbench.runs.priors import prior_label, prior_of
from genbench.runs.result import FILENAME, Result, write_result
from genbench.runs.score import OF_WEIGHTS, Score, bound_notes
from genbench.runs.versions import versions, with_versions
from genbench.training import loading, loggers, ranks, targets, trainer
from genbench.training.callbacks.averaging import Averaging
from genbench.training.callbacks.selection import Selection
from genbench.training.checks import check_optimizers, check_penalty, check_sizes
from genbench.training.endings import explain, ignore_signals, record_failure, stoppable
from genbench.training.environment import describe, describe_device, parameter_counts, peak_memory
from genbench.training.pictures import draw_grids, save_curves
from genbench.training.trainer import Brief, Engine
from genbench.training.walk import keep_walk
from genbench.training.workload import forward_multiply_adds, measure

log = logging.getLogger("genbench")


def run(
    directory: Path,
    cfg: DictConfig,
    heartbeat: Heartbeat | None,
    resume: bool,
    sinks: list[Logger],
) -> None:
    """Train and score what `cfg` describes; only the process with a heartbeat writes the record.

    The loggers that it makes are added to `sinks`, so that the caller can close them after an error.
    """
    if resume and (directory / FILENAME).exists():
        return  # it was killed between its result and its status
    made = prepare(directory, cfg, heartbeat, resume, sinks)
    config, engine, evaluation = made.config, made.engine, made.evaluation
    if heartbeat:
        announce(config, engine, evaluation)
        if made.priors:
            say(f"  {said_of(made.priors, engine.brief.model)}")
    accumulate = config["trainer"].get("accumulate", 1)
    with training_memory(engine.brief.budget.batch_size, accumulate):
        engine.fit(resume)
    if torch.distributed.is_initialized():  # the ranks part here; nothing below may synchronise
        torch.distributed.destroy_process_group()
    if not heartbeat:
        return
    keep_walk(directory, engine.brief.model.to(engine.device), engine.brief.data)
    scores = score(evaluation, engine, made)
    ignore_signals()
    write_per_image(directory / PER_IMAGE, evaluation.per_image if evaluation else ())
    engine.alarms.look_at_scores(scores, engine.training.images_shown)
    result = record(directory, recorded(config, engine), engine, evaluation, scores)
    write(directory, result, engine, sinks)
    report(result, directory)


class Prepared(NamedTuple):
    """What a run is made of, and that nothing has refused."""

    config: dict[str, Any]
    engine: Engine
    evaluation: Evaluation | None
    averaging: Averaging | None
    selection: Selection | None
    priors: Sequence[Prior] = ()


def prepare(
    directory: Path,
    cfg: DictConfig,
    heartbeat: Heartbeat | None,
    resume: bool,
    sinks: list[Logger],
) -> Prepared:
    """Make all that a run needs before it trains; for the arguments see `run`.

    Raises UserMistake for settings that cannot be trained or scored.
    """
    config: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    config = with_versions(config, versions(config))
    model, data = loading.build(cfg)
    if not resume:
        check_penalty(model)
        check_sizes(model, data)
    check_optimizers(model)
    priors = loading.build_priors(config.get("prior"))  # older configs lack the key
    check_priors(priors, model, data)
    work = measure(model, data)
    evaluation = protocol(cfg, data)
    if evaluation is not None:
        check_apart(model, evaluation)
    averaging: Averaging | None = instantiate(cfg.ema) if cfg.ema else None
    selection = choose(cfg, evaluation, data, directory)
    if heartbeat:
        sinks += loggers.build(cfg.logger, directory, config, fingerprint(config))
    brief = Brief(
        model,
        data,
        directory,
        instantiate(cfg.budget),
        cfg.seed,
        method=lambda precision: method(taken(config, precision)),
        trainer=config["trainer"],
        schedule=instantiate(cfg.get("schedule")),  # configs from before it existed lack the key
        clip=config.get("gradient_clip"),
        callbacks=[*instantiate(cfg.callbacks).values(), *filter(None, (averaging, selection))],
        loggers=sinks,
        heartbeat=heartbeat,
        say=say if heartbeat else log.warning,
        work=work,
        score=curves(cfg, evaluation, data),
    )
    engine: Engine = instantiate(cfg.trainer)(brief)
    check_extracting(evaluation.devices if evaluation else 1, engine.device)
    return Prepared(config, engine, evaluation, averaging, selection, priors)


def protocol(cfg: DictConfig, data: ImageData) -> Evaluation | None:
    """The protocol, which can work on these images; None with evaluation=none. Raises UserMistake."""
    evaluation: Evaluation | None = instantiate(cfg.evaluation) if cfg.evaluation else None
    if evaluation is not None:
        evaluation.prepare(data)
    return evaluation


def write(directory: Path, result: Result, engine: Engine, sinks: list[Logger]) -> None:
    """Write the record and the curves, and close the loggers."""
    history = {n: own for n, own in read_history(directory).items() if n not in SPENT}
    curves = save_curves(history, directory / "samples" / "curves.png")
    loggers.log_images(sinks, "curves", curves, engine.training.images_shown)
    write_json(directory / "environment.json", dict(result.environment))
    write_result(directory, result)
    loggers.finish(sinks, result.scores, "finished")
    sinks.clear()


def recorded(config: Mapping[str, Any], engine: Engine) -> dict[str, Any]:
    """The config as it was trained: a resumed run may have had several precisions and versions."""
    trained = engine.checkpoints.method
    return with_versions(taken(config, trained["precision"]), trained.get("versions", {}))


def taken(config: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """The config with the precision that a run was trained in, where it asked for `auto`."""
    return {**config, "trainer": {**config["trainer"], "precision": precision}}


def score(evaluation: Evaluation | None, engine: Engine, made: Prepared) -> list[Score]:
    """Scores of the final weights, of their average, and of the best ones, where there are such.

    Each with latents drawn as in training, then under every prior. None with evaluation=none.
    """
    if evaluation is None:
        return []
    brief, device, selection = engine.brief, engine.device, made.selection
    model, data, run = brief.model.to(device), brief.data, brief.directory
    fitted = fits(evaluation, made.priors, model, data, run)
    draw_grids(fitted, model, data, run)
    final = evaluation(model, data, device, run)
    final += scores_under(evaluation, fitted, model, data, run)
    scores = [*final]
    if made.averaging and engine.steps:
        with made.averaging.applied(model):
            card = made.averaging.card()
            scores += evaluation(model, data, device, run, card)
            scores += scores_under(evaluation, fitted, model, data, run, card)
    if selection and selection.path.exists():
        best = final
        if not loading.has_weights(model, selection.path):
            loading.load_weights(model, selection.path)
            best = evaluation(model, data, device)  # no directory: not the final weights
            fitted = fits(evaluation, made.priors, model, data, run)
            best += scores_under(evaluation, fitted, model, data, None)
        scores += [
            replace(one, checkpoint="best") for one in best if {*OF_WEIGHTS} & one.card.keys()
        ]
    return scores


def record(
    directory: Path,
    config: Mapping[str, Any],
    engine: Engine,
    evaluation: Evaluation | None,
    scores: Sequence[Score],
) -> Result:
    """What the run leaves behind."""
    training, model, choices = engine.training, engine.brief.model, config["choices"]
    moves = training.moves
    others = sum(count for player, count in moves.items() if player != model.counted)
    return Result(
        run_id=directory.name,
        study=config["study"],
        tags=list(config["tags"]),
        status="finished",
        model=choices["model"],
        dataset=dataset_name(config),
        seed=config["seed"],
        fingerprint=fingerprint(config),
        config=config,
        budget={
            "images": training.images_shown,
            "generator_steps": moves.get(model.counted, 0),
            "discriminator_steps": others,
            "moves": moves,
            "epochs": training.tally.real_images / len(engine.brief.data.pixels("train")),
            **training.tally.card(),
            "seconds": engine.telemetry.seconds,
            "skipped_steps": {k: s.total for k, s in training.skipped().items() if s.total},
        },
        cost={
            "parameters": parameter_counts(model),
            "forward_multiply_adds": forward_multiply_adds(engine.brief.work),
            "peak_memory_bytes": engine.peak_memory or peak_memory(engine.device),
            "train_images_per_second": engine.images_per_second,
            "sample_images_per_second": evaluation and evaluation.sample_images_per_second,
            "data_wait_seconds": engine.waiting.seconds,
            "selection_seconds": evaluation
            and evaluation.validation_distance.seconds,  # of the training's
            "curve_seconds": engine.scoring and engine.scoring.seconds,  # apart from the training's
            "scoring_seconds": evaluation and evaluation.watch.rounded(),
            "device": describe_device(engine.device),
        },
        scores=scores,
        environment=describe(engine.device)
        | {"precision": engine.resolved.card(), "trainers": engine.checkpoints.trainers},
        warnings=list(engine.alarms.warnings.values()),
    )


def choose(
    cfg: DictConfig, evaluation: Evaluation | None, data: ImageData, directory: Path
) -> Selection | None:
    """Make the callback that keeps the best weights, if they are wanted. Raises UserMistake."""
    if not cfg.selection:
        return None
    if evaluation is None:
        raise UserMistake(
            "selection keeps the weights of the smallest distance, in the features that evaluation=none "
            "goes without: choose selection=none, or another evaluation"
        )
    evaluation.check_seed(cfg.selection.seed)
    measure = partial(evaluation.validation_distance, data)
    selection: Selection = instantiate(cfg.selection)(measure, directory)
    return selection


def curves(
    cfg: DictConfig, evaluation: Evaluation | None, data: ImageData
) -> ValidationScores | None:
    """What scores the points of `trainer.score_every`; None with evaluation=none. Raises UserMistake."""
    if evaluation is None:
        return None
    scores = ValidationScores(evaluation, data)
    if cfg.trainer.get("score_every") is not None:  # configs from before it existed lack the key
        scores.prepare()
    return scores


def announce(config: Mapping[str, Any], engine: Engine, evaluation: Evaluation | None) -> None:
    """Print what is about to happen, and by which features it is scored where that needs a word."""
    choices, model = config["choices"], engine.brief.model
    counts = parameter_counts(model)
    players = " · ".join(f"{name} {count:,}" for name, count in counts.items())
    say(f"{choices['model']} on {dataset_name(config)}, seed {config['seed']}")
    sizes = [f"{len(engine.brief.data.pixels(split)):,} {split}" for split in SPLITS]
    say(f"  pictures: {', '.join(sizes)}")
    say(f"  parameters: {players or 'none'}")
    work = forward_multiply_adds(engine.brief.work)
    if each := " · ".join(f"{name} {work[name]:,}" for name in counts if work.get(name)):
        say(f"  multiply-adds of an image, forward: {each}")
    say(
        f"  {engine.total_images:,} images in {engine.steps:,} steps · {engine.precision} on "
        f"{describe_device(engine.device)}"
        + (f" x {engine.world_size}" if engine.world_size > 1 else "")
    )
    if model.objective():
        say(f"  minimises {model.objective()}")
    if evaluation and evaluation.extractor.remark:
        name, remark = evaluation.extractor.name, evaluation.extractor.remark
        say(f"  scored in the features of {name}, {remark}")


def report(result: Result, directory: Path) -> None:
    """Print the scores."""
    for score in result.scores:
        value = score.status if score.value is None else f"{score.value:.4g}"
        weights, prior = score.card.get("fake", {}).get("weights", "raw"), prior_of(score)
        marks = [mark for mark in (weights, score.checkpoint) if mark not in ("raw", "final")]
        marks += [prior_label(prior)] if prior else []
        name = f"{score.name} ({', '.join(marks)})" if marks else score.name
        say(f"  {name:<42} {value} {score.unit}".rstrip())
    for note in bound_notes(result.scores):
        say(f"  {note}")
    if not result.config["evaluation"]:
        say(f"  not scored: `genbench evaluate {result.run_id}`, where the weights are")
    say(f"  {directory}")


def say(line: str) -> None:
    """Print a line, and write it to log.txt."""
    print(line, flush=True)
    log.info(line)


@contextmanager
def open_log(directory: Path) -> Iterator[None]:
    """Write what genbench, Lightning and Python's warnings log to log.txt; print notices too."""
    handler = logging.FileHandler(directory / "log.txt")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a full disk must not hide the error that says so
    sources = [logging.getLogger(n) for n in ("genbench", "pytorch_lightning", "py.warnings")]
    for logger in sources:
        logger.addHandler(handler)
        logger.propagate = False
    log.setLevel(logging.INFO)
    try:
        with notices_to(lambda notice: say(f"warning: {notice}")):
            yield
    finally:
        for logger in sources:
            logger.removeHandler(handler)
            logger.propagate = True
        logging.captureWarnings(False)
        with suppress(OSError):
            handler.close()


def main(argv: list[str]) -> int:
    """Run what a run directory describes; returns the exit code."""
    directory, resume = Path(argv[0]), "--resume" in argv
    keep_freed_memory()
    trainer.quieten_lightning()
    # a new run's directory was made by the command that has started this process
    cfg = OmegaConf.create(targets.check(directory) if resume else read_config(directory))
    if not ranks.is_first_rank():
        return ranks.follow(
            directory, partial(run, directory, cfg, None, resume, []), partial(explain, cfg=cfg)
        )
    sinks: list[Logger] = []
    ended_ranks.forget_words(directory)
    with stoppable(), open_log(directory), Heartbeat(directory) as heartbeat:
        try:
            run(directory, cfg, heartbeat, resume, sinks)
        except BaseException as raised:
            ignore_signals()
            error = explain(raised, cfg)
            refused = resume and isinstance(error, UserMistake)  # it can still be resumed
            status = "interrupted" if refused else error.status
            record_failure(heartbeat, status, error, raised)
            # after the record, because a dashboard may take a while
            loggers.finish(sinks, [], status)
            if os.environ.get("GENBENCH_DEBUG"):
                raise
            print(f"genbench: {error}", file=sys.stderr)
            return error.exit_code or FAILED
        heartbeat.finish("finished")
    return DONE


make_callable(__name__)  # `genbench.train(...)` is `genbench.library.train`

if __name__ == "__main__":
    sys.exit("genbench: start this as `python -m genbench.work train RUN`")
