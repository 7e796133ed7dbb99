"""The site builds without a warning; what the pages tell to type is understood, and the tutorial runs."""

import os
import re
import subprocess
import sys
from importlib import import_module

import pytest
import yaml

from fixtures.forks import genbench
from fixtures.pages import DOCS, PAGES, typed
from fixtures.places import ROOT


def typed_once(verbs):
    """Commands of all pages, each once, as words after `genbench`."""
    found = {line.words[1:] for page in PAGES for line in typed(page) if line.verb in verbs}
    return sorted(words for words in found if not any("my-model" in word for word in words))


def single(settings):
    """The last run of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in OverridesParser.create().parse_overrides(list(settings)):
        if not override.is_sweep_override():
            yield override.input_line
        elif override.is_choice_sweep() or override.is_range_sweep():  # a search draws from others
            *_, value = override.sweep_string_iterator()
            yield f"{override.get_key_element()}={value}"


@pytest.mark.slow
def test_every_training_in_the_docs_can_be_composed():
    from genbench.cli import _with_home
    from genbench.launch.mistakes import compose_checked

    lines = typed_once({"train"})
    assert len(lines) > 30
    for words in lines:
        compose_checked([*single(_with_home(word) for word in words[1:] if "=" in word)])


def test_every_option_in_the_docs_is_one_of_its_verb(capsys):
    from genbench.commands import VERBS

    texts = {}
    for verb, *words in typed_once(set(VERBS) - {"train"}):
        options = [word for word in words if word.startswith("--")]
        if not options:
            continue
        if verb in ("data", "extractor", "runs", "wandb") and not words[0].startswith("--"):
            verb = f"{verb} {words[0]}"
        if verb not in texts:
            name, *sub = verb.split()
            module = import_module(f"genbench.commands.{name.replace('-', '_')}")
            try:
                module.main([*sub, "--help"])
            except SystemExit as end:
                assert end.code == 0
            texts[verb] = capsys.readouterr().out
        for option in options:
            assert re.search(rf"{option}\b", texts[verb]), f"genbench {verb} has no {option}"
    assert len(texts) > 5


def test_every_row_has_a_page_and_every_page_a_place():
    sys.path.insert(0, str(DOCS))
    try:
        hooks = import_module("hooks")
    except ImportError:
        pytest.skip("mkdocs is not installed")
    finally:
        sys.path.remove(str(DOCS))
    page = hooks.row("wgan-gp")  # its class is named by another config
    assert "class GAN(GenerativeModel)" in page and "Wasserstein" in page
    assert all(hooks.row(name).startswith(f"# `model={name}`") for name in hooks.rows())
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    named = re.findall(r"[\w/-]+\.md", str(site["nav"]))
    assert sorted(named) == sorted(str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md"))


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tolstikhin" in (tmp_path / "rows" / "wae-mmd" / "index.html").read_text()
    contract = (tmp_path / "reference" / "contract" / "index.html").read_text()
    assert "GenerativeModel" in contract


@pytest.mark.slow
def test_the_tutorial_can_be_typed(room, cache, monkeypatch):
    budgets = room / "genbench_configs" / "budget"  # one's own configs come before the shipped ones
    budgets.mkdir(parents=True)
    standard = (ROOT / "configs" / "budget" / "standard.yaml").read_text()
    (budgets / "standard.yaml").write_text(standard.replace("${arena.images}", "1280"))
    (room / "genbench_configs" / "prior").mkdir()
    mixture = (ROOT / "configs" / "prior" / "mixture.yaml").read_text()
    (room / "genbench_configs" / "prior" / "mixture.yaml").write_text(
        mixture.replace("[1, 5, 10, 20, 40]", "2")
    )
    monkeypatch.setenv("WANDB_MODE", "disabled")
    lines = [line.words[1:] for line in typed(DOCS / "tutorial.md") if not line.needs]
    assert len(lines) > 8
    for words in lines:
        words = ["seed=0" if word == "seed=0,1,2" else word for word in words]
        done = genbench(*words, cwd=room, cache=cache)
        assert done.returncode == 0, f"{words}: {done.stderr}"
    assert (room / "tutorial.html").exists() and (room / "samples.png").exists()
