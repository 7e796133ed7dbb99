"""What the docs say works as they say it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.places import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.slow
def test_the_model_of_the_docs_trains_and_is_compared(tmp_path):
    page = ROOT / "docs" / "adding-a-model.md"
    (code,), (config,) = blocks(page, "python"), blocks(page, "yaml")
    (tmp_path / "my_model.py").write_text(code)
    models = tmp_path / "genbench_configs" / "model"
    models.mkdir(parents=True)
    (models / "my-model.yaml").write_text(config)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "GENBENCH_CACHE": str(tmp_path / "c")}
    smoke = ["trainer=smoke", "budget=smoke", "evaluation.num_samples=256"]
    command = [sys.executable, "-m", "genbench", "train", "model=my-model", *smoke]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "genbench", "compare"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "my-model" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_docs_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_the_docs_is_a_verb(page):
    from genbench.cli import VERBS

    for block in blocks(page, "(?:sh|bash|console|)"):
        for verb in re.findall(r"^\$? ?genbench ([a-z]+)", block, flags=re.MULTILINE):
            assert verb in VERBS


def test_the_citation_can_be_read():
    import yaml

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["license"] == "Apache-2.0"
