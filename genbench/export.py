"""The weights of a run for other programs: `python -m genbench.work export RUN --onnx model.onnx`.

Exported are the weights that scores are of: those that `genbench sample` draws from, the decoder's BatchNorm with the
statistics of samples from its prior (`models.batch_statistics`). A discriminator is not exported.
"""

import argparse
import io
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genbench import __version__
from genbench.data.contract import ImageData
from genbench.errors import DONE, GenbenchError, UserMistake
from genbench.models.batch_statistics import recalibrated
from genbench.models.contract import (
    Encodes,
    GenerativeModel,
    HasPosterior,
    HasTokens,
    Reconstructs,
)
from genbench.models.drawing import SEED, evaluating
from genbench.runs.files import atomic_write, explain_os_error, first_line
from genbench.training import loading, trainer

OPSET = 18
TRACED, TRIED = 4, 3  # images in the batch that is traced, and in the one that the file is tried on
TOLERANCE = 1e-4  # of what onnxruntime computes, relative to the largest value, from 1 on
Inputs = tuple[Tensor, ...]
Names = tuple[list[str], list[str]]  # of inputs and of outputs
REMEDY = "pip install 'genbench[onnx]'"


def parser() -> argparse.ArgumentParser:
    """The options of `genbench export` for one run's weights."""
    result = argparse.ArgumentParser(prog="genbench export RUN", description=__doc__.split(":")[0])
    result.add_argument("run", type=Path, help="a run directory")
    result.add_argument("--onnx", type=Path, help="the decoder; the encoder goes beside it")
    result.add_argument("--safetensors", type=Path, help="all tensors in one file")
    result.add_argument("--weights", choices=("raw", "ema"), default="raw", help="of the decoder")
    return result


def main(argv: list[str]) -> int:
    """Write the files that were asked for, all or none; returns the exit code."""
    options = parser().parse_args(argv)
    if options.onnx:
        _needs_onnx()
    trainer.quieten_lightning()
    model, data, config = loading.load_model(options.run)
    if options.weights == "ema" and loading.load_average(options.run, model) is None:
        raise UserMistake(
            f"{options.run.name} kept no average of its weights: train with ema=standard, or leave "
            "--weights away"
        )
    if not tensors(model):
        raise UserMistake(f"{config['choices']['model']} has no weights that could be exported")
    facts = _facts(options, config, data, model)
    with recalibrated(model), evaluating(model):
        written = write(model, facts, options.onnx, options.safetensors)
    print("\n".join(written))
    return DONE


def _facts(
    options: argparse.Namespace, config: Mapping[str, Any], data: ImageData, model: GenerativeModel
) -> dict[str, str]:
    """What a reader of a file must know, as its metadata."""
    told = model.condition
    labels = {} if told is None else {"condition": told.kind, "labels": ", ".join(told.names)}
    return labels | {
        "genbench": __version__,
        "run": options.run.resolve().name,
        "model": str(config["choices"]["model"]),
        "dataset": str(config["choices"]["dataset"]),
        "weights": options.weights,
        "images": "float32 (N, C, H, W) from -1 to 1",
        "levels": str(data.levels),  # of the stored images: round((x + 1) / 2 * (levels - 1))
    }


def write(
    model: GenerativeModel,
    facts: Mapping[str, str],
    onnx: Path | None = None,
    safetensors: Path | None = None,
) -> list[str]:
    """Write a model as it is; a line for each file. UserMistake if one cannot be written: then none is."""
    lines = []
    with ExitStack() as files:
        if safetensors:
            with _writing(safetensors):
                temporary = files.enter_context(_replacing(safetensors))
                lines.append(f"{safetensors}: {_save_tensors(model, temporary, facts)}")
        if onnx:
            z = model.latents(TRACED, torch.Generator().manual_seed(SEED)).to(model.device)
            labels, label = _example(model), ["labels"] if model.condition else []
            graphs: list[tuple[Path, nn.Module, Inputs, Names]] = [
                (onnx, Decoder(model), (z, *labels), (["z", *label], ["images"]))
            ]
            if isinstance(model, Reconstructs):
                outputs = ["mean", "logvar"] if isinstance(model, HasPosterior) else ["z"]
                place = onnx.with_name(f"{onnx.stem}-encoder{onnx.suffix}")
                images = model.sample(z, *labels)
                graphs.append(
                    (place, Encoder(model), (images, *labels), (["images", *label], outputs))
                )
            for place, graph, inputs, names in graphs:
                with _writing(place):
                    temporary = files.enter_context(_replacing(place))
                    line = _save_graph(graph, inputs, names, temporary, facts)
                lines.append(f"{place}: {line}")
    return lines


def _example(model: GenerativeModel) -> tuple[Tensor, ...]:
    """Labels of a batch, as a conditional model takes them; nothing without a condition."""
    if model.condition is None:
        return ()
    rows = model.condition.rows()
    return (rows[torch.arange(TRACED) % len(rows)].long().to(model.device),)


class Decoder(nn.Module):
    """Latents z (N, ...), and labels of a conditional model, to images (N, C, H, W) in [-1, 1]: its `sample`."""

    def __init__(self, model: GenerativeModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, *labels: Tensor) -> Tensor:
        """The mean images of latents."""
        return self.model.sample(z, *labels)


class Encoder(nn.Module):
    """Images (N, C, H, W) in [-1, 1] to the posterior's mean and log variance, or to the latents alone."""

    def __init__(self, model: GenerativeModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, *labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Mean and log variance, (N, latent_dim) each; without a posterior the latents that are decoded."""
        model = self.model
        if isinstance(model, HasPosterior):
            return model.posterior(images, *labels)
        if isinstance(model, Encodes):
            return model.encode(images, *labels)
        if isinstance(model, HasTokens):
            return model.alphabet[model.tokens(images, *labels)].flatten(1)
        assert isinstance(model, Reconstructs)
        # `reconstruct` is to encode and to `sample`: with a `sample` that does nothing it encodes
        vars(model)["sample"] = lambda z, *labels: z
        try:
            return model.reconstruct(images, *labels)
        finally:
            del vars(model)["sample"]


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """What is exported of a model's state, by name: all but discriminators; copies on the CPU."""
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
        if "discriminator" not in name.partition(".")[0] and value.numel()
    }


def _save_tensors(model: GenerativeModel, path: Path, facts: Mapping[str, str]) -> str:
    from safetensors.torch import save

    content = tensors(model)
    path.write_bytes(save(content, metadata=dict(facts)))
    parts = sorted({name.partition(".")[0] for name in content})
    return f"{', '.join(parts)}: {sum(value.numel() for value in content.values()):,} values"


# --- ONNX -----------------------------------------------------------------------------------------
def _needs_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserMistake(
            f"--onnx needs onnx, onnxscript and onnxruntime ({first_line(error)}): {REMEDY}"
        ) from None


def _save_graph(
    graph: nn.Module, example: Inputs, names: Names, path: Path, facts: Mapping[str, str]
) -> str:
    """Trace a graph, write it, and compute it again with onnxruntime; how far the two are apart.

    UserMistake if it cannot be traced, GenbenchError if onnxruntime computes something else.
    """
    inputs, outputs = names
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of exporters about themselves
            program = torch.onnx.export(
                graph,
                example,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=_free_batch(len(example)),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise UserMistake(
            f"{_name(graph)} cannot be traced for ONNX ({first_line(error)}): --safetensors writes its weights"
        ) from error
    assert program is not None
    program.model.metadata_props.update(facts)
    program.save(path)
    apart = _apart(graph, tuple(one[:TRIED] for one in example), path)
    if not apart <= TOLERANCE:
        raise GenbenchError(
            f"onnxruntime computes other values of {_name(graph)} than PyTorch (by {apart:.1e}): nothing is written"
        )
    return (
        f"{', '.join(inputs)} -> {', '.join(outputs)}, opset {OPSET}; within {apart:.1e} of PyTorch"
    )


def _free_batch(inputs: int) -> tuple[Any, ...]:
    """How `torch.export` is told that all inputs have one batch of any size: labels are arguments with a star."""
    batch = {0: torch.export.Dim("batch")}
    return (batch, (batch,) * (inputs - 1)) if inputs > 1 else (batch,)


def _apart(graph: nn.Module, example: Inputs, path: Path) -> float:
    """The largest difference between onnxruntime and PyTorch, relative to values above 1."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    expected = graph(*example)
    given = {
        i.name: one.cpu().numpy() for i, one in zip(session.get_inputs(), example, strict=True)
    }
    try:
        found = session.run(None, given)
    except Exception as error:
        raise UserMistake(
            f"the traced {_name(graph)} does not run on another batch ({first_line(error)}): a model that is to "
            "be exported takes sizes as x.shape[0], not as len(x)"
        ) from error
    differences = [
        float((torch.from_numpy(one) - value.cpu()).abs().max() / value.abs().max().clamp_min(1))
        for one, value in zip(found, [expected] if torch.is_tensor(expected) else expected, strict=True)
    ]  # fmt: skip
    return max(differences)


def _name(graph: nn.Module) -> str:
    return f"the {type(graph).__name__.lower()} of {type(graph.model).__name__}"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserMistake(f"cannot write {path}: {explain_os_error(error)}") from None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """`atomic_write`, its last step with a sentence too."""
    if path.is_dir():
        raise UserMistake(f"cannot write {path}: it is a folder; name a file in it")
    with _writing(path), atomic_write(path) as temporary:
        yield temporary


if __name__ == "__main__":
    sys.exit("genbench: start this as `python -m genbench.work export RUN`")
