"""Scores of a model under one protocol. For a run that exists: `python -m genbench.work evaluate RUN config.yaml`."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from genbench.callable_module import make_callable
from genbench.data.contract import ImageData
from genbench.data.splits import SPLITS
from genbench.device import check_extracting, choose_threads, device_of_run, gpu_of_rank
from genbench.errors import DONE, UserMistake, notices_to
from genbench.metrics.evaluation import AVERAGED, PRIOR, Evaluation
from genbench.metrics.feature_workers import FeatureWorkers
from genbench.metrics.held_apart import check_apart
from genbench.metrics.under_priors import fits, scores_under
from genbench.models.contract import GenerativeModel
from genbench.priors.contract import Prior
from genbench.priors.fitting import check_priors, drawing_from, kept
from genbench.runs.config import read_yaml
from genbench.runs.files import write_json
from genbench.runs.per_image import write_per_image
from genbench.runs.priors import ALONE, prior_label, prior_of
from genbench.runs.score import Score, digest, interval_notes
from genbench.runs.verification import OUT
from genbench.training import loading, targets, trainer
from genbench.training.pictures import draw_grids
from genbench.training.ranks import die_with_the_first
from genbench.training.walk import keep_walk


def show(scores: Sequence[Score]) -> None:
    """Print a line for each score, and what the intervals are."""
    names = [_name(score) for score in scores]
    width = max(map(len, names), default=0)
    for score, name in zip(scores, names, strict=True):
        value = score.status if score.value is None else f"{score.value:.4g}"
        bounds = "" if score.low is None else f"  [{score.low:.4g}, {score.high:.4g}]"
        doubt = "" if score.value is None or score.status == "ok" else f"  {score.status}"
        print(f"  {name:<{width}}  {value:>10} {score.unit}{bounds}{doubt}".rstrip())
    for note in interval_notes(scores):
        print(f"  {note}")


def _name(score: Score) -> str:
    prior = prior_of(score)
    return f"{score.name} ({prior_label(prior)})" if prior else score.name


def run_feature_worker(
    directory: Path,
    evaluation: Evaluation,
    model: GenerativeModel,
    data: ImageData,
    device: torch.device,
    argv: Sequence[str],
    asked: Sequence[Prior] = (),
) -> None:
    """Extract features in one of an evaluation's other processes.

    `argv` is RANK/WORLD FOLDER [WORD...]: the splits to extract, AVERAGED to sample from the averaged
    weights, and PRIOR with the name of a kept fit to draw latents from it. `asked` are the protocol's priors.
    """
    die_with_the_first()
    rank, world = (int(number) for number in argv[0].split("/"))
    if device.type == "cuda":
        device = torch.device("cuda", gpu_of_rank(rank))
    stems = [word.removeprefix(PRIOR) for word in argv[2:] if word.startswith(PRIOR)]
    priors = [
        kept(directory, stem, model, asked) for stem in stems
    ]  # to the raw weights, as they are now
    if AVERAGED in argv[2:]:
        loading.load_average(directory, model)
    workers = FeatureWorkers(rank, world, Path(argv[1]))
    splits = [split for split in SPLITS if split in argv[2:]]
    with drawing_from(model, priors[0] if priors else None):
        evaluation.contribute(model.to(device), data, device, workers, splits)


def score(
    evaluation: Evaluation,
    model: GenerativeModel,
    data: ImageData,
    directory: Path,
    path: Path,
    priors: Sequence[Prior],
) -> list[Score]:
    """Scores of the final weights and of their average, as in training and under `priors`.

    `path` is the file of the protocol. Under the priors alone if it says so.
    """
    device, alone = model.device, bool(read_yaml(path).get(ALONE))
    with suppress(OSError):  # nothing of the scores: a run of others may be read-only
        keep_walk(directory, model, data)
    scores = [] if alone else evaluation(model, data, device, directory, protocol=path)
    fitted = fits(evaluation, priors, model, data, directory)
    draw_grids(fitted, model, data, directory)
    scores += scores_under(evaluation, fitted, model, data, directory, None, path)
    averaging = loading.load_average(directory, model)
    if averaging is not None:
        if not alone:
            scores += evaluation(model, data, device, directory, averaging, protocol=path)
        scores += scores_under(evaluation, fitted, model, data, directory, averaging, path)
    return scores


def main(argv: list[str]) -> int:
    """Score a run directory under the protocol of a file; returns the exit code.

    `argv` is RUN PROTOCOL [--device cpu|cuda] [--share ...]: see `run_feature_worker`. The scores go to the
    run's folder evaluations/, or to the file that the protocol names under `scores_to`, without a word.
    """
    asked = argv[3] if argv[2:3] == ["--device"] else None
    argv = argv[:2] + argv[4:] if asked else argv
    if len(argv) != 2 and "--share" not in argv[2:3]:
        raise UserMistake("genbench.evaluate takes a run directory and a file with its protocol")
    directory, path = Path(argv[0]), Path(argv[1])
    trainer.quieten_lightning()
    if len(argv) == 2:  # else the process that has started this one did so
        targets.check(directory)  # the protocol has parts of the run's
    content = read_yaml(path)
    if OUT not in content and not os.access(directory, os.W_OK):
        raise UserMistake(
            f"{directory} cannot be written, and scores are kept in a run's own folder: score a copy of it"
        )
    protocol = content["evaluation"]
    evaluation: Evaluation = instantiate(OmegaConf.create(protocol))
    model, data, config = loading.load_run(directory, checked=True)
    priors = loading.build_priors(content.get("prior"))
    check_priors(priors, model, data)
    choose_threads(model, config["budget"]["batch_size"])  # those of the training: the same sums
    evaluation.prepare(data, trained=True)
    check_apart(model, evaluation)
    with notices_to(lambda notice: print(f"genbench: {notice}", file=sys.stderr)):
        device = device_of_run(config["trainer"]["accelerator"], asked)
    if len(argv) > 2:
        run_feature_worker(directory, evaluation, model, data, device, argv[3:], priors)
        return DONE
    check_extracting(evaluation.devices, device)  # before its helpers say it one by one
    scores = score(evaluation, model.to(device), data, directory, path, priors)
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{digest(sorted(score.protocol for score in scores))}.json"
    target = Path(content.get(OUT) or directory / "evaluations" / name)
    target.parent.mkdir(exist_ok=True)
    write_json(
        target,
        {
            "created": now.isoformat(timespec="seconds"),
            "evaluation": protocol,
            "seconds": evaluation.watch.rounded(),
            "scores": [score.to_dict() for score in scores],
        },
    )
    if OUT not in content:
        write_per_image(target.with_suffix(".npz"), evaluation.per_image)
        show(scores)
        print(target)
    return DONE


make_callable(__name__)  # `genbench.evaluate(...)` is `genbench.library.evaluate`

if __name__ == "__main__":
    sys.exit("genbench: start this as `python -m genbench.work evaluate RUN PROTOCOL`")
