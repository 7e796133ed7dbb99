"""Images of a trained run, without training: `python -m genbench.work sample RUN --num 64 --out grid.png`."""

import argparse
import re
import sys
from pathlib import Path

from torch import Tensor

from genbench.data.contract import ImageData
from genbench.device import device_of_run, memory_for
from genbench.errors import DONE, UserMistake, notices_to
from genbench.models.batch_statistics import recalibrated
from genbench.models.condition import asked, parsed_attributes
from genbench.models.contract import GenerativeModel
from genbench.models.drawing import (
    SEED,
    draw_grid,
    draw_interpolations,
    draw_reconstructions,
    draw_samples,
)
from genbench.models.reconstruction import reconstructing
from genbench.priors.fitting import drawing_from, kept
from genbench.runs.files import explain_os_error
from genbench.runs.priors import slug
from genbench.runs.walk import FOLDER
from genbench.training import loading, trainer
from genbench.training.pictures import save_grid
from genbench.training.walk import keep_walk


def parser() -> argparse.ArgumentParser:
    """The options of `genbench sample`."""
    result = argparse.ArgumentParser(prog="genbench sample RUN", description=__doc__.split(",")[0])
    result.add_argument("run", type=Path, help="a run directory")
    result.add_argument(
        "--num",
        type=int,
        help="number of images (default 64; of a model told labels, a row for each)",
    )
    result.add_argument("--columns", type=int, default=8, help="images in a row (default 8)")
    result.add_argument("--seed", type=int, default=SEED, help="of the latents")
    result.add_argument("--checkpoint", default="final", help="final or last (default final)")
    result.add_argument(
        "--weights", choices=("raw", "ema"), default="raw", help="of the decoder (default raw)"
    )
    result.add_argument(
        "--prior",
        default="normal",
        help="what latents are drawn from: normal (default), or a prior that the run keeps a fit of, by the "
        "beginning of its name in RUN/priors (mixture, truncated-scale-0.7)",
    )
    told = result.add_mutually_exclusive_group()
    told.add_argument("--label", help="the class of all samples, by its name or its index")
    told.add_argument(
        "--attributes",
        help="of all samples, 1 or 0 each: Smiling=1,Male=0; others as training images have them",
    )
    result.add_argument(
        "--device", choices=("cpu", "cuda"), help="where (default: a GPU if there is one)"
    )
    result.add_argument("--out", type=Path, help="the PNG (default RUN/samples/<kind>-<seed>.png)")
    kind = result.add_mutually_exclusive_group()
    kind.add_argument("--interpolate", action="store_true", help="rows between two latents each")
    kind.add_argument(
        "--reconstruct", action="store_true", help="validation images above their reconstructions"
    )
    kind.add_argument(
        "--walk", action="store_true", help="write the decoder for the latent walk of a report"
    )
    return result


def main(argv: list[str]) -> int:
    """Write one picture; returns the exit code."""
    options = parser().parse_args(argv)
    num = 64 if options.num is None else options.num
    if num < 1 or options.columns < 1:
        raise UserMistake(f"--num {num} --columns {options.columns}: both must be 1 or more")
    label = parsed_attributes(options.attributes) if options.attributes else options.label
    if label is not None and (options.interpolate or options.reconstruct):
        raise UserMistake(
            "--label and --attributes are of samples: leave --interpolate and --reconstruct away"
        )
    trainer.quieten_lightning()
    model, data, config = loading.load_run(options.run, options.checkpoint)
    with notices_to(lambda notice: print(f"genbench: {notice}", file=sys.stderr)):
        model.to(device_of_run(config["trainer"]["accelerator"], options.device))
    if options.walk:
        return _walk(options.run, model, data)
    prior = None if options.prior == "normal" else kept(options.run, options.prior, model)
    if options.weights == "ema" and loading.load_average(options.run, model) is None:
        raise UserMistake(
            f"{options.run.name} kept no average of its weights: train with ema=standard, or leave "
            "--weights away"
        )
    kind = _kind(options)
    columns = 8 if options.reconstruct else options.columns
    less = f"try --num {max(1, num // 2)}"
    labels = asked(model.condition, label, num, options.seed)
    drawing = drawing_from(model, prior)
    with memory_for(f"drawing {num} images", less), drawing, recalibrated(model):
        images = _draw(options, num, labels, model, data, config["choices"]["model"])
    tail = f"-{slug(prior.protocol)}" if prior else ""
    tail += (
        f"-{re.sub(r'[^A-Za-z0-9._-]+', '-', options.attributes or options.label)}" if label else ""
    )
    out = options.out or options.run / "samples" / f"{kind}-seed{options.seed}{tail}.png"
    try:
        print(save_grid(data.to_pixels(images), data.levels, out, columns))
    except OSError as error:
        raise UserMistake(
            f"cannot write {out}: {explain_os_error(error)}; choose another file with --out"
        ) from None
    except ValueError:
        raise UserMistake(f"--out {out}: give the name of a .png or .jpg file") from None
    return DONE


def _walk(run: Path, model: GenerativeModel, data: ImageData) -> int:
    if why := keep_walk(run, model, data):
        raise UserMistake(f"{run.name} cannot be walked through in a report: {why}")
    print(run / FOLDER)
    return DONE


def _kind(options: argparse.Namespace) -> str:
    if options.interpolate:
        return "interpolations"
    return "reconstructions" if options.reconstruct else "samples"


def _draw(
    options: argparse.Namespace,
    num: int,
    labels: Tensor | None,
    model: GenerativeModel,
    data: ImageData,
    name: str,
) -> Tensor:
    if options.interpolate:
        rows = -(-num // options.columns)
        return draw_interpolations(model, rows, options.columns, options.seed)
    if not options.reconstruct:
        if labels is None and options.num is None:
            return draw_grid(model, num, options.columns, options.seed)
        return draw_samples(model, num, options.seed, labels)
    with reconstructing(model, data):
        rebuilt = draw_reconstructions(model, data, num)
    if rebuilt is None:
        raise UserMistake(
            f"{name} has no encoder, so it cannot reconstruct: leave --reconstruct away, or choose "
            "a vae or a vae-gan run"
        )
    return rebuilt


if __name__ == "__main__":
    sys.exit("genbench: start this as `python -m genbench.work sample RUN`")
