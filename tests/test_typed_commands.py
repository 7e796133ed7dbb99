"""Every command that the pages tell to type is run by a test, or composed, or marked with what it needs."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from fixtures.comparison import elbo, fd
from fixtures.pages import PAGES, typed
from fixtures.places import ROOT, TESTS
from genbench.cli import main
from genbench.errors import DONE, MISTAKE
from genbench.runs.result import write_tags

# of other tests, with the test that types them (or their like) and looks at what comes of it
ELSEWHERE = {
    "resume latest": "commands/test_resume.py::test_resume_starts_the_worker_again_on_the_directory",
    "export latest --onnx model.onnx --safetensors model.safetensors": (
        "test_export.py::test_a_run_becomes_a_decoder_and_an_encoder_that_onnxruntime_computes_alike"
    ),
    "wandb workspace study=objectives --out workspace.json": (
        "commands/test_wandb.py::test_a_view_of_a_study_can_be_built_without_a_server"
    ),
    "sample latest --prior mixture --out grid.png": (
        "test_priors.py::test_samples_are_drawn_from_a_kept_prior_of_these_weights_alone"
    ),
}
TUTORIAL = "tutorial.md"  # typed as it is by tests/test_documentation.py
STUDIES = [
    "demo",
    "hundred",
    "mnist",
    "objectives",
    "penalty",
    "photographs",
    "rate-distortion",
    "tuned",
]
MISSING = "data check celeba"  # is about what is not there


def lines():
    """All lines that are not marked, each once."""
    found = {
        one.words
        for page in PAGES
        for one in typed(page)
        if not one.needs and page.name != TUTORIAL
    }
    return sorted(found)


def test_every_line_that_is_typed_is_one_of_genbench_or_of_pip_or_marked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    others = [words for words in lines() if words[0] != "genbench"]
    for words in others:
        named = re.fullmatch(r"pip install genbench\[(\w+)\]", " ".join(words))
        assert named and named[1] in extras, (
            f"{' '.join(words)}: run it in a test, or say `# needs ...`"
        )
    for path in ELSEWHERE.values():
        name, test = path.split("::")
        assert f"def {test}(" in (TESTS / name).read_text()
    for line in ELSEWHERE:
        assert ("genbench", *line.split()) in lines(), f"no page has {line} any more"


@pytest.fixture
def here(room, finished, unfinished, start, cache, monkeypatch):
    """Runs of all studies that the pages name, the last one trained, and runs that others have pushed."""
    for name, value in {"OUTPUTS": room, "CACHE": cache}.items():
        monkeypatch.setenv(f"GENBENCH_{name}", str(value))
    write_tags(unfinished("failed", "no more images", study="objectives"), ["draft"])
    for study in STUDIES:
        for place, model in enumerate(("vae", "gan")):
            scores = [fd(5.0 + place), *([elbo(-80.0)] if model == "vae" else [])]
            finished(scores, f"{study}-{model}", model=model, study=study)
    trained = ("model=vae", "arena.condition=class", "evaluation=quick")
    assert start(*trained, run_id="pulled-run")[1] == DONE
    assert main(["push", str(room / "team"), "study=mnist"]) == DONE
    (room / ".work").mkdir()
    monkeypatch.chdir(room / ".work")
    return room


def as_here(words, room):
    """The words with the places, and the names of runs, that there are."""
    own = {"/team/runs": str(room / "team"), "~/shared": str(room / "shared"), "outputs": str(room),
           "RUN": "pulled-run", "OTHER": "tuned-gan"}  # fmt: skip
    return [own.get(word, word) for word in words]


def run_here(monkeypatch):
    """Let `sample`, `verify` and `push` use the model in this process; `evaluate` ends when its settings are composed."""

    def worker(arguments, verb, argv, module):
        if verb == "evaluate":
            return DONE
        _, program = module.split()
        return import_module(f"genbench.{program}").main(list(arguments))

    for verb in ("sample", "verify", "push", "evaluate"):
        monkeypatch.setattr(f"genbench.commands.{verb}.run_verb", worker)


@pytest.mark.slow
def test_what_is_neither_marked_nor_a_training_does_what_it_says(here, monkeypatch, capsys):
    for package in ("jinja2", "plotly", "pyarrow", "sqlalchemy"):
        pytest.importorskip(package)
    run_here(monkeypatch)
    tried = 0
    for words in lines():
        if words[:2] == ("genbench", "train") or words[0] != "genbench":
            continue  # composed by tests/test_documentation.py
        if " ".join(words[1:]) in ELSEWHERE:
            continue
        code = main([word for word in as_here(words[1:], here) if word != "..."])
        printed = capsys.readouterr()
        expected = MISTAKE if " ".join(words[1:]) == MISSING else DONE
        assert code == expected, f"{' '.join(words)}: {printed.out}{printed.err}"
        tried += 1
    assert tried > 40
    written = ("report.html", "GAP.md", "grid.png", "runs.db", "scores.parquet", "site", "my-model")
    assert [name for name in written if not Path(name).exists()] == []
