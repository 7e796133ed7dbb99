"""Both ways of installing: the checkout itself, and a wheel in an environment of its own."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile

import pytest

from fixtures.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that `pip install .` would make."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Another environment with the wheel; the heavy packages are looked up in this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    pip += ["--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    # found through a .pth, this environment's own .pth files (the editable install) are not read
    (site / "heavy.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def call(program, *argv, **options):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(program), *argv], capture_output=True, text=True, env=environment, **options
    )


def test_the_wheel_holds_configs_plugins_and_extractors(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"genbench/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.yaml")}
    shipped |= {
        str(p.relative_to(ROOT))
        for suffix in ("safetensors", "json")
        for p in (ROOT / "genbench" / "metrics" / "extractors").glob(f"*.{suffix}")
    }
    assert shipped <= names
    assert "hydra_plugins/genbench_configs.py" in names
    assert "hydra_plugins/__init__.py" not in names
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "docs/"))]


def test_every_dependency_has_a_tested_version():
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    tested = {line.split("==")[0] for line in lines if "==" in line}
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(r for extra in extras.values() for r in extra)]
    names = {re.split(r"[<>=!~ \[]", requirement)[0].lower() for requirement in wanted}
    assert names <= tested


def test_the_checkout_uses_its_own_configs():
    from genbench.runs.paths import config_root

    if not (ROOT / "genbench" / "configs").exists():
        assert config_root() == ROOT / "configs"


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_folder(installed, room):
    where = call(installed / "python", "-c", "import genbench; print(genbench.__file__)")
    assert str(installed.parent) in where.stdout
    assert "usage: genbench VERB" in call(installed / "genbench", "--help").stdout
    composed = call(installed / "genbench", "train", "--cfg", "job", "model=gan")
    assert "genbench.models.gan.GAN" in composed.stdout, composed.stderr
    mistake = call(installed / "genbench", "train", "modle=gan")
    assert (mistake.returncode, "did you mean model?" in mistake.stderr) == (2, True)
    assert not list(room.iterdir())


@pytest.mark.slow
def test_the_wheel_finds_the_users_own_configs(installed, room):
    (room / "genbench_configs" / "model").mkdir(parents=True)
    (room / "genbench_configs" / "model" / "own.yaml").write_text("_target_: mine.Own\n")
    composed = call(installed / "genbench", "train", "--cfg", "job", "model=own")
    assert "mine.Own" in composed.stdout, composed.stderr


@pytest.mark.slow
def test_the_wheel_trains_and_compares_in_an_empty_folder(installed, room):
    arguments = ["budget=smoke", "trainer=smoke", "evaluation.num_samples=100"]
    done = call(installed / "genbench", "train", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (room / "outputs").iterdir()
    assert (run / "result.json").exists()
    table = call(installed / "genbench", "compare")
    assert "vae" in table.stdout, table.stderr


def test_one_version_everywhere_and_a_small_wheel(wheel):
    import genbench

    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"^## \[(.+?)\] - ", changelog, flags=re.MULTILINE)[1] == genbench.__version__
    assert f"version: {genbench.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert wheel.stat().st_size <= 5 * 1024**2
