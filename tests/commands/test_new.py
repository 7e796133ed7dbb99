"""`genbench new`, `genbench check-model` and `genbench list`: a model of one's own, from a package too."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from fixtures.places import environment
from fixtures.training import go, make
from genbench.cli import main
from genbench.commands import check_model, new
from genbench.errors import UserMistake
from genbench.runs import plugins, trust

COPIES = "import shutil, sys; shutil.copy(sys.argv[1], 'seen.yaml')"  # a worker


@pytest.fixture
def plugin(room, monkeypatch):
    """Install packages as pip does: a folder on the path with a `.dist-info`; returns (install, list)."""

    def install(name: str, package: str, folder: Path = room) -> None:
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[genbench.configs]\n{name} = {package}\n")
        monkeypatch.syspath_prepend(str(folder))
        plugins.plugins.cache_clear()

    yield install
    plugins.plugins.cache_clear()


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_new_model_is_a_package_with_config_and_tests(room, capsys):
    assert main(["new", "model", "my-flow"]) == 0
    assert written(room / "my-flow") == {
        "pyproject.toml",
        "README.md",
        "my_flow/__init__.py",
        "my_flow/model.py",
        "my_flow/configs/model/my-flow.yaml",
        "tests/test_my_flow.py",
    }
    assert "genbench check-model my-flow" in capsys.readouterr().out
    project = tomllib.loads((room / "my-flow" / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"genbench.configs": {"my-flow": "my_flow"}}
    config = yaml.safe_load((room / "my-flow/my_flow/configs/model/my-flow.yaml").read_text())
    assert config["_target_"] == "my_flow.model.MyFlow"
    rest = "".join((room / "my-flow" / name).read_text() for name in written(room / "my-flow"))
    assert "my_model" not in rest and "MyModel" not in rest and "my-model" not in rest


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("vae", "there is a model vae"),
        ("My Model", "use lower-case letters"),
        ("../up", "use lower-case letters"),
        ("class", "use lower-case letters"),
        ("torch", "would hide the package torch"),
    ],
)
def test_names_that_are_none_are_refused(room, name, sentence):
    with pytest.raises(UserMistake, match=sentence):
        new.main(["model", name])
    assert not written(room)


def test_nothing_is_overwritten(room):
    (room / "mine").mkdir()
    with pytest.raises(UserMistake, match="mine exists, and nothing is overwritten"):
        new.main(["model", "mine"])


def test_an_installed_package_brings_models(plugin, room, capsys):
    new.write(room / "src", ["my", "flow"])
    plugin("my-flow", "my_flow", room / "src")
    assert main(["list", "models", "--format", "json"]) == 0
    captured = capsys.readouterr()
    rows = {row["model"]: row for row in json.loads(captured.out)}
    assert rows["my-flow"]["origin"] == "plug-in my-flow"
    assert rows["my-flow"]["class"] == "my_flow.model.MyFlow"
    assert (rows["vae"]["origin"], rows["vae"]["class"]) == ("genbench", "genbench.models.vae.VAE")
    assert trust.is_known("my_flow.model.MyFlow") and not trust.is_known("my_flow_2.model.Evil")
    assert not trust.is_known("my_flow.model.os.system")
    assert "my_flow" not in sys.modules  # listing runs nobody's code
    assert main(["train", "--cfg", "job", "model=my-flow"]) == 0
    assert "my_flow.model.MyFlow" in capsys.readouterr().out


def test_of_equal_names_the_users_comes_first_and_a_plug_in_s_last(plugin, room, capsys):
    for folder in ("rows/configs/model", "genbench_configs/model"):
        (room / folder).mkdir(parents=True)
    (room / "rows/configs/model/vae.yaml").write_text("_target_: rows.VAE\n")
    (room / "rows/configs/model/gan.yaml").write_text("_target_: rows.GAN\n")
    (room / "rows/configs/model/both.yaml").write_text("_target_: rows.Both\n")
    (room / "genbench_configs/model/both.yaml").write_text("_target_: mine.Both\n")
    (room / "genbench_configs/model/gan.yaml").write_text("_target_: mine.GAN\n")
    plugin("rows", "rows")
    main(["list", "models", "--format", "json"])
    targets = {row["model"]: row["class"] for row in json.loads(capsys.readouterr().out)}
    for name, target in [
        ("vae", "genbench.models.vae.VAE"), ("gan", "mine.GAN"), ("both", "mine.Both"),
    ]:  # fmt: skip
        assert targets[name] == target
        main(["train", "--cfg", "job", f"model={name}"])
        assert f"_target_: {target}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "made", "sentence"),
    [
        ("gone", (), "the plug-in rows is left out: gone is no installed package"),
        ("rows", ("rows",), "the plug-in rows is left out: rows has no folder `configs`"),
    ],
)
def test_a_plug_in_without_configs_is_left_out_with_a_word(
    plugin, room, capfd, package, made, sentence
):
    for folder in made:
        (room / folder).mkdir()
        (room / folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    plugin("rows", package)
    assert main(["train", "--cfg", "job"]) == 0
    assert sentence in capfd.readouterr().err


def test_a_plug_in_that_raises_when_it_is_imported_is_told(plugin, room, monkeypatch):
    from genbench import check_model as program

    (room / "rows/configs/model").mkdir(parents=True)
    (room / "rows/__init__.py").write_text("raise RuntimeError('no licence')\n")
    (room / "rows/configs/model/row.yaml").write_text("_target_: rows.net.Row\n")
    plugin("rows", "rows")
    (room / "stub_worker.py").write_text(COPIES)
    check_model.main(["row"], worker="stub_worker")
    with pytest.raises(UserMistake, match=r"rows\.net\.Row.*no licence"):
        program.main(["seen.yaml"])


def test_groups_are_listed_by_their_plural_and_wrong_ones_named(room, capsys):
    for group in ("datasets", "network", "likelihoods"):
        assert main(["list", group]) == 0
    assert "FeatureGaussian" not in capsys.readouterr().err
    assert main(["list", "modles"]) == 2
    assert "there is no group modles: did you mean model?" in capsys.readouterr().err


def test_check_model_composes_what_it_is_given(room):
    (room / "stub_worker.py").write_text(COPIES)
    assert check_model.main(["gan", "network=conv", "dataset=mnist"], worker="stub_worker") == 0
    config = yaml.safe_load((room / "seen.yaml").read_text())
    assert config["model"]["_target_"] == "genbench.models.gan.GAN"
    assert config["model"]["decoder"]["image_size"] == 28
    with pytest.raises(UserMistake, match="there is no model gna: did you mean model=gan"):
        check_model.main(["gna"])
    with pytest.raises(UserMistake, match="needs the name of a model"):
        check_model.main(["network=conv"])


@pytest.mark.slow
def test_the_new_model_passes_its_own_tests_and_the_check_and_trains(
    room, cache, monkeypatch, capsys
):
    from genbench import check_model as program

    folder = room / "my-flow"
    new.write(folder, ["my", "flow"])
    monkeypatch.setenv("GENBENCH_CONFIG_PATH", str(folder / "my_flow/configs"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(check_model, "run_verb", lambda arguments, *_: program.main(arguments))
    assert check_model.main(["my-flow"]) == 0
    assert "my-flow: all passed" in capsys.readouterr().out
    assert go(make(room, cache, "model=my-flow", "evaluation=none")) == 0

    wrong = folder / "my_flow/model.py"
    wrong.write_text(wrong.read_text().replace("(error + kl).mean()", "(error + kl).sum()"))
    for name in ("my_flow.model", "my_flow"):
        monkeypatch.delitem(sys.modules, name)
    assert check_model.main(["my-flow"]) == 1
    printed = capsys.readouterr().out
    assert "return a mean over images" in printed and "my-flow: 1 failed" in printed
    for name in ("my_flow.model", "my_flow"):
        del sys.modules[name]
