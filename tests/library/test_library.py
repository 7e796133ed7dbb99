"""genbench from Python: runs as objects; the numbers and pictures are those of the command line."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import genbench
from fixtures.comparison import elbo, fd
from fixtures.comparison import run as printed
from fixtures.places import TESTS, environment
from genbench.commands import compare
from genbench.errors import GenbenchError, Interrupted, UserMistake
from genbench.library import frames, process
from genbench.runs.config import read_config, write_config


@pytest.fixture
def outputs(room, monkeypatch) -> Path:
    """Runs of a few steps: vae, gan, replay and more."""
    shutil.copytree(TESTS / "fixtures" / "old_runs", room / "outputs")
    return room / "outputs"


def test_importing_genbench_imports_nothing_else(room):
    source = (
        "import sys, genbench; genbench.__version__; dir(genbench)\n"
        "heavy = {'torch', 'hydra', 'pandas', 'numpy', 'pytorch_lightning', 'matplotlib', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert not [name for name in sys.modules if name.startswith('genbench.')]\n"
        "genbench.load, genbench.runs('study=none')\n"
        "assert not {'torch', 'pandas', 'matplotlib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", source], check=True, env=environment())


def test_what_is_named_can_be_called_whatever_was_imported_before(outputs):
    import genbench.runs.paths
    import genbench.train

    assert genbench.runs.paths.default_outputs() == Path("outputs")
    assert len(genbench.runs("model=vae", "status=finished")) == 1
    assert callable(genbench.train) and callable(genbench.train.main)
    with pytest.raises(AttributeError, match="nothing"):
        genbench.nothing  # noqa: B018


def test_a_run_is_found_by_id_beginning_path_and_time(outputs):
    assert genbench.load("vae-gan").path == Path("outputs/vae-gan")
    assert genbench.load("wgan").id == "wgan-gp"
    assert genbench.load(outputs / "gan") == genbench.load("gan", outputs="outputs")
    with pytest.raises(UserMistake, match="there is no run vea"):
        genbench.load("vea")


def test_scores_and_curves_are_those_on_disk(outputs):
    run = genbench.load("vae")
    written = json.loads((run.path / "result.json").read_text())["scores"]
    assert [(s.name, s.value) for s in run.scores] == [(s["name"], s["value"]) for s in written]
    name = written[0]["name"]
    assert run.scores[name].value == run.scores[0].value == written[0]["value"]
    with pytest.raises(KeyError, match=name):
        run.scores["nothing"]
    with (run.path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    column = next(key for key in rows[-1] if key != "images" and rows[-1][key])
    assert run.history[column][-1] == (float(rows[-1]["images"]), float(rows[-1][column]))
    assert run.config["seed"] == run.result.seed and run.status.status == "finished"


def test_samples_are_the_pictures_that_the_command_writes(outputs, capsys):
    from genbench import sample

    run = genbench.load("vae", device="cpu")
    pictures = run.sample(5, seed=3)
    assert (pictures.shape, pictures.dtype) == ((5, 8, 8, 1), np.uint8)
    sample.main(
        ["outputs/vae", "--num", "5", "--seed", "3", "--out", "grid.png", "--device", "cpu"]
    )
    assert (np.asarray(pictures.grid()) == np.asarray(Image.open("grid.png"))).all()
    assert pictures._repr_png_().startswith(b"\x89PNG") and pictures[0]._repr_png_() is None
    assert len(run.interpolate(rows=2, columns=3)) == 6
    with pytest.raises(UserMistake, match="0 images"):
        run.sample(0)


def test_the_model_needs_no_dataset(outputs):
    config = read_config(outputs / "vae")
    gone = config | {"dataset": config["dataset"] | {"root": "/not/there", "cache": "/not/there"}}
    write_config(outputs / "vae", gone)
    run = genbench.load("vae", device="cpu")
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert not run.model.training
    assert (torch.random.get_rng_state() == before).all()
    assert len(run.sample(2)) == 2


def test_known_answers_read_theirs(outputs):
    assert genbench.load("noise", device="cpu").sample(2).shape == (2, 8, 8, 1)


def test_images_go_through_the_encoder_and_back(outputs):
    import torch

    run = genbench.load("vae", device="cpu")
    pictures = run.sample(3)
    codes = run.encode(pictures)
    assert (codes.shape, codes.dtype) == ((3, run.model.latent_dim), np.float32)
    assert (run.encode(pictures[..., 0]) == codes).all()
    levels = torch.from_numpy((np.asarray(pictures) / 255 * 16).round()).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        images = levels / 8 - 1
        assert np.allclose(codes, run.model.posterior(images)[0].numpy(), atol=1e-6)
        rebuilt = run.model.reconstruct(images).clamp(-1, 1)
    expected = ((rebuilt + 1) * 8).round() * (255 / 16)
    assert (run.reconstruct(pictures) == expected.round().permute(0, 2, 3, 1).numpy()).all()
    with pytest.raises(UserMistake, match="gan has no encoder, so it cannot encode"):
        genbench.load("gan", device="cpu").encode(pictures)
    with pytest.raises(UserMistake, match=r"uint8 arrays \(N, 8, 8, 1\).*float32"):
        run.encode(np.zeros((1, 8, 8, 1), np.float32))


def test_weights_are_asked_for_as_they_were_kept(outputs):
    with pytest.raises(UserMistake, match="kept no average"):
        genbench.load("vae", weights="ema").sample(1)
    with pytest.raises(UserMistake, match="choose raw or ema"):
        genbench.load("vae", weights="best").sample(1)
    with pytest.raises(UserMistake, match="no checkpoint 'final'"):
        genbench.load("vae-killed").sample(1)


def test_a_run_from_elsewhere_is_shown_and_not_called_unless_it_is_trusted(outputs):
    config = read_config(outputs / "vae")
    call = {
        "_target_": "pathlib.Path.touch",
        "_args_": [{"_target_": "pathlib.Path", "_args_": ["m"]}],
    }
    write_config(outputs / "vae", config | {"model": config["model"] | {"extra": call}})
    run = genbench.load("vae")
    assert "vae" in run._repr_html_()
    with pytest.raises(UserMistake, match=r"names pathlib\.Path\.touch as its model\.extra"):
        run.sample(1)
    assert not Path("m").exists()
    with pytest.raises(Exception, match="extra"):  # VAE has no such argument: it was called
        genbench.load("vae", trust=True).sample(1)
    assert Path("m").exists()


def test_cards_are_escaped(finished, tmp_path):
    run = finished([fd(1.0)], "run", study="<script>alert(1)</script>")
    (run / "samples").mkdir()
    Image.new("L", (4, 4)).save(run / "samples" / "samples-0000.png")
    card = genbench.load("run", outputs=tmp_path)._repr_html_()
    assert "&lt;script&gt;" in card and "<script" not in card
    assert "data:image/png;base64,iVBOR" in card
    table = genbench.runs(outputs=tmp_path).compare()._repr_html_()
    assert "<table>" in table and "FD" in table
    (run / "result.json").write_text("{")
    assert "is not a result of genbench" in genbench.load("run", outputs=tmp_path)._repr_html_()


def test_a_comparison_has_the_numbers_of_the_command(finished, tmp_path, capsys):
    for seed in range(3):
        finished([fd(10.0 + seed), elbo(-80.0)], seed=seed, study="s")
        finished([fd(5.0 + seed)], seed=seed, model="gan", study="s")
    runs = genbench.runs("study=s", outputs=tmp_path)
    assert len(runs) == 6 and isinstance(runs[:2], genbench.Runs)
    for options, arguments in [
        ({}, []),
        ({"versus": "vae"}, ["--versus", "vae"]),
        ({"cost": True, "sort": "fd_lenet"}, ["--cost", "--sort", "fd_lenet"]),
    ]:
        ours = json.loads(runs.compare(**options).text("json"))
        theirs = printed(
            capsys, "--outputs", str(tmp_path), "--format", "json", "study=s", *arguments
        )
        assert ours == json.loads(theirs)
    (gan, vae) = runs.compare("fd_lenet").rows
    assert (gan["fd_lenet"]["mean"], vae["fd_lenet"]["mean"]) == (6.0, 11.0)
    assert "gan" in str(runs.compare())
    with pytest.raises(UserMistake, match="fdd"):
        runs.compare("fdd")
    with pytest.raises(UserMistake, match="no runs to compare"):
        genbench.runs("study=t", outputs=tmp_path).compare()
    assert compare.parser().parse_args([]).format is None


def test_plots_are_of_curves_or_of_a_point_per_run(outputs):
    runs = genbench.runs("model=vae,gan", "status=finished")
    name = next(iter(runs[0].history))
    lines = runs.plot("images", name).axes[0].lines
    assert len(lines) == len([run for run in runs if name in run.history])
    assert list(lines[0].get_ydata()) == [y for _, y in runs[0].history[name]]
    fd = "fd_lenet-digits-v1"
    points = runs.plot("config.budget.batch_size", fd).axes[0].collections
    drawn = sorted(y for one in points for _, y in one.get_offsets().tolist())
    assert drawn == sorted(run.scores[fd].value for run in runs)
    with pytest.raises(UserMistake, match="no run has nothing"):
        runs.plot("images", "nothing")


def test_frames_are_pandas_or_a_sentence(outputs, monkeypatch):
    runs = genbench.runs("model=vae", "status=finished")
    monkeypatch.setitem(sys.modules, "pandas", None)
    for frame in (runs.frame, runs[0].scores.frame, runs[0].history.frame, runs.compare().frame):
        with pytest.raises(UserMistake, match=r"genbench\[frames\]"):
            frame()
    # whatever pandas is, this is what it is given
    given = SimpleNamespace(DataFrame=lambda content, **settings: (content, settings))
    monkeypatch.setitem(sys.modules, "pandas", given)
    rows, _ = runs[0].scores.frame()
    assert [row["value"] for row in rows] == [score.value for score in runs[0].scores]
    rows, settings = runs[0].history.frame()
    assert settings["index"] == sorted(
        {x for points in runs[0].history.values() for x, _ in points}
    )
    (row, *_), _ = runs.compare().frame()
    assert row["fd_lenet-digits-v1"] == runs[0].scores["fd_lenet-digits-v1"].value
    assert frames.data_frame([{"a": 1}]) == ([{"a": 1}], {})


def test_frames_of_pandas(outputs):
    pytest.importorskip("pandas", reason="pandas is not installed")
    run = genbench.load("vae")
    assert list(run.scores.frame()["value"]) == [score.value for score in run.scores]
    frame = run.history.frame()
    name = next(iter(run.history))
    assert [(x, y) for x, y in frame[name].dropna().items()] == run.history[name]


@pytest.mark.slow
def test_wrong_settings_raise_the_sentence_of_the_command(room, monkeypatch, capsys):
    with pytest.raises(UserMistake, match=r"^there is no setting modle: did you mean model\?"):
        genbench.train(["modle=gan"])
    with pytest.raises(UserMistake, match=r"train takes a list of arguments: \['model=gan'\]"):
        genbench.train("model=gan")
    with pytest.raises(UserMistake, match="evaluate takes a list of settings"):
        shutil.copytree(TESTS / "fixtures" / "old_runs" / "vae", room / "outputs" / "vae")
        genbench.evaluate("vae", "evaluation=full")
    assert not list((room / "outputs").glob("2*"))


@pytest.mark.parametrize(
    ("code", "kind", "progress"),
    [(1, GenbenchError, True), (2, UserMistake, False), (75, Interrupted, True)],
)
def test_a_command_that_fails_raises_its_last_complaint(code, kind, progress, capsys):
    source = "import sys; print('a line'); print('genbench: it is CODE', file=sys.stderr); sys.exit(CODE)"
    source = source.replace("CODE", str(code))
    with pytest.raises(kind, match=f"^it is {code}$"):
        process.run_command([sys.executable, "-c", source], progress=progress)
    assert ("a line" in capsys.readouterr().out) == progress
