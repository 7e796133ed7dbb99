"""A run's weights in ONNX and safetensors: read with their own readers, they give the pictures of `sample`."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from fixtures.places import TESTS
from fixtures.rows import build
from genbench import cli, export
from genbench.commands import export as command
from genbench.errors import GenbenchError, UserMistake
from genbench.models.batch_statistics import recalibrated
from genbench.models.contract import HasPosterior
from genbench.models.drawing import draw_samples, evaluating
from genbench.runs.paths import config_root
from genbench.training.loading import load_model

NEEDED = ("onnx", "onnxruntime", "onnxscript")
needs_onnx = pytest.mark.skipif(
    not all(find_spec(name) for name in NEEDED), reason="the extra onnx is not installed"
)


@pytest.fixture
def outputs(room, monkeypatch) -> Path:
    """Runs of a few steps; their weights are exported in this process."""
    shutil.copytree(TESTS / "fixtures" / "old_runs", room / "outputs")
    monkeypatch.setattr(command, "run_verb", lambda arguments, *_: export.main([*arguments]))
    return room / "outputs"


def small(*overrides: str):
    """A small untrained model of the real configs, its BatchNorms moved from where they begin."""
    with initialize_config_dir(str(config_root()), version_base="1.3"):
        model = instantiate(compose("train", [*overrides, "arena.latent_dim=8"]).model)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def session(path: Path):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def check(model, path: Path, batches=(1, 5)) -> None:
    """The files are the model's sampling and encoding, to 1e-5, in batches of any size."""
    decoder, encoder = session(path), path.with_name(f"{path.stem}-encoder.onnx")
    for n in batches:
        z = model.latents(n, torch.Generator().manual_seed(n))
        with evaluating(model):
            images = model.sample(z)
            (found,) = decoder.run(["images"], {"z": z.numpy()})
            assert np.abs(found - images.numpy()).max() <= 1e-5
            assert np.abs(found).max() <= 1 and found.std() > 0.001
            if isinstance(model, HasPosterior):
                mean, logvar = session(encoder).run(["mean", "logvar"], {"images": images.numpy()})
                expected = model.posterior(images)
                assert np.allclose(mean, expected[0].numpy(), rtol=1e-5, atol=1e-5)
                assert np.allclose(logvar, expected[1].numpy(), rtol=1e-5, atol=1e-5)


@needs_onnx
@pytest.mark.slow
def test_a_run_becomes_a_decoder_and_an_encoder_that_onnxruntime_computes_alike(outputs, capsys):
    out = outputs.parent / "vae.onnx"
    assert cli.main(["export", "vae", "--onnx", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "vae.onnx: z -> images, opset 18; within" in lines[0]
    assert "vae-encoder.onnx: images -> mean, logvar, opset 18" in lines[1]
    model, data, _ = load_model(outputs / "vae")
    check(model, out)
    facts = session(out).get_modelmeta().custom_metadata_map
    assert (facts["run"], facts["model"], facts["levels"]) == ("vae", "vae", str(data.levels))
    assert not list(outputs.parent.glob("*.partial")) + list(outputs.parent.glob(".*.partial"))


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("model=vae-gan", "network=conv", "network.width=4", "dataset=mnist"),
        ("model=vae", "network=resnet", "network.width=4", "dataset=cifar10", "network.attention=16"),
        ("model=gan", "network=infogan", "network.width=4", "dataset=mnist"),
        ("model=r3gan", "network=r3", "network.width=4", "dataset=cifar10"),
    ],
    ids=["conv", "resnet", "infogan", "r3"],
)  # fmt: skip
def test_other_networks_are_computed_alike_with_the_batch_norm_that_scores_are_of(
    tmp_path, overrides
):
    model = small(*overrides)
    with recalibrated(model), evaluating(model):
        export.write(model, {}, onnx=tmp_path / "model.onnx")
        check(model, tmp_path / "model.onnx")


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq", "fsq", "aae"])
def test_an_encoder_without_a_posterior_gives_the_latents_that_are_decoded(tmp_path, name):
    model = small(f"model={name}", "network=mlp", "network.width=16", "dataset=digits")
    with evaluating(model):
        export.write(model, {}, onnx=tmp_path / "model.onnx")
        images = draw_samples(model, 6)
        (z,) = session(tmp_path / "model-encoder.onnx").run(["z"], {"images": images.numpy()})
        assert torch.allclose(
            model.sample(torch.from_numpy(z)), model.reconstruct(images), atol=1e-5
        )
    assert "sample" not in vars(model)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [("vae", "class"), ("gan", "attributes"), ("vq", "class")]
)
def test_a_conditional_model_takes_labels_in_the_file_too(tmp_path, name, kind):
    model = build(name, f"arena.condition={kind}", "arena.label_dropout=0.1").eval()
    with evaluating(model):
        export.write(model, {}, onnx=tmp_path / "model.onnx")
        for n in (1, 6):
            z = model.latents(n, torch.Generator().manual_seed(n))
            labels = model.condition.training[:n].long()
            images = model.sample(z, labels)
            told = {"labels": labels.numpy()}
            (found,) = session(tmp_path / "model.onnx").run(["images"], {"z": z.numpy()} | told)
            assert np.abs(found - images.numpy()).max() <= 1e-5
            if isinstance(model, HasPosterior):
                encoder = session(tmp_path / "model-encoder.onnx")
                (mean,) = encoder.run(["mean"], {"images": images.numpy()} | told)
                expected = model.posterior(images, labels)[0].numpy()
                assert np.allclose(mean, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vae-gan", "gan"])
def test_safetensors_hold_the_weights_that_are_sampled_from_without_discriminators(outputs, name):
    from safetensors import safe_open

    assert cli.main(["export", name, "--safetensors", "model.safetensors"]) == 0
    with safe_open("model.safetensors", "pt") as file:
        content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        assert (file.metadata()["run"], file.metadata()["weights"]) == (name, "raw")
    model, _, _ = load_model(outputs / name)
    assert {key.partition(".")[0] for key in content} >= {"decoder"}
    assert not [key for key in content if key.startswith("discriminator")]
    lacking, unknown = model.load_state_dict(
        {key: torch.zeros_like(value) for key, value in content.items()}, strict=False
    )
    assert not unknown and all(key.startswith("discriminator") for key in lacking)
    before = load_model(outputs / name)[0]
    model.load_state_dict(content, strict=False)
    assert torch.equal(draw_samples(model, 4), draw_samples(before, 4))


def test_batch_norm_in_the_file_is_that_of_samples(tmp_path):
    from safetensors.torch import load_file

    model = small("model=gan", "network=conv", "network.width=4", "dataset=mnist")
    trained = export.tensors(model)
    with recalibrated(model):
        export.write(model, {}, safetensors=tmp_path / "m.safetensors")
        written = draw_samples(model, 3)
    content = load_file(tmp_path / "m.safetensors")
    moved = [key for key in content if not torch.equal(content[key], trained[key])]
    assert moved and all("running" in key or "tracked" in key for key in moved)
    model.load_state_dict(content, strict=False)
    assert torch.equal(draw_samples(model, 3), written)


# --- what cannot be exported ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vae-killed", "--safetensors", "m"], "vae-killed has no checkpoint 'final'"),
        (["vae", "--safetensors", "no/such/m"], "cannot write no/such/m: no such file or directory"),
        (["vae", "--safetensors", "outputs"], "cannot write outputs: it is a folder"),
        (["vae", "--safetensors", "m", "--weights", "ema"], "vae kept no average of its weights"),
        (["noise", "--safetensors", "m"], "noise has no weights that could be exported"),
        (["--safetensors", "m"], "weights are exported of one run"),
        (["vae", "gan", "--safetensors", "m"], "weights are exported of one run"),
        (["vae", "--safetensors", "m", "--to", "x.parquet"], "two commands"),
        (["vae"], "export needs --to with a database or a parquet file"),
        (["vae", "--weights", "raw", "--to", "x.parquet"], "export needs --to with"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_a_sentence_and_nothing_is_written(
    outputs, capsys, arguments, words
):
    with pytest.raises(UserMistake, match=words.replace("(", r"\(")):
        command.main(arguments)
    assert {path.name for path in outputs.parent.iterdir()} <= {"outputs", "cache"}


def test_without_the_extra_the_command_says_what_to_install(outputs, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserMistake, match=r"--onnx needs onnx.*pip install 'genbench\[onnx\]'"):
        command.main(["vae", "--onnx", "m.onnx"])


@needs_onnx
@pytest.mark.slow
def test_a_graph_that_computes_something_else_replaces_no_file(outputs, monkeypatch):
    Path("m.onnx").write_bytes(b"cut off")
    monkeypatch.setattr(export, "_apart", lambda *_: float("nan"))
    with pytest.raises(
        GenbenchError, match=r"onnxruntime computes other values.*nothing is written"
    ):
        command.main(["vae", "--onnx", "m.onnx", "--safetensors", "m.safetensors"])
    assert Path("m.onnx").read_bytes() == b"cut off"
    assert {path.name for path in outputs.parent.iterdir()} == {"outputs", "m.onnx"}
