"""A mistake on the command line is answered in one sentence, with the remedy."""

from pathlib import Path

import pytest

from fixtures.launching import runs
from fixtures.places import slow_but
from genbench.cli import main
from genbench.launch import settings

MISTAKES = {
    "modle=gan": "there is no setting modle: did you mean model?",
    "model=gann": "there is no model gann: did you mean model=gan? There are aae, ",
    "model=vae_gan": "did you mean model=vae-gan?",
    "logger=[csv,2]": "logger=[csv,2] is not a choice: there are auto, csv",
    "model=1": "model=1 is not a choice: there are aae, ",
    "model=": "model= names nothing: there are aae, ",
    "dataset=fashion_mnist": "did you mean dataset=fashion-mnist?",
    "network=cnn": "there is no network cnn: did you mean network=conv? There are conv, infogan, mlp, r3, resnet",
    "lr=1e-3": "there is no setting lr: did you mean model.optimizer.lr?",
    "model.lr=1e-3": "did you mean model.optimizer.lr?",
    "beta=2": "did you mean model.beta?",
    "model.optimiser.lr=1e-3": "did you mean model.optimizer.lr?",
    "budjet.images=500k": "did you mean budget.images?",
    "seeed=1": "did you mean seed?",
    "+seeed=1": "+seeed adds a setting that nothing reads: did you mean seed?",
    "zzz=1": "there is no setting zzz: `genbench train --cfg job` shows all",
    "gan": "'gan' is not a setting: write key=value, for example model=gan",
    "=3": "'=3' is not a setting",
    "tags=[a": "cannot be read: quote it",
    "evaluation.metrics={}": "evaluation.metrics={} removes nothing, because a mapping is merged with the "
    "default: leave out what you do not want, as in ~evaluation.metrics.frechet (there are frechet,",
    "logger={}": "choose another one with logger=... (there are auto, csv,",
    "trainer.devices=[1,3]": "write a value like 1; CUDA_VISIBLE_DEVICES=1,3 before the command says",
    "tags=a": "tags=a is not a list: write tags=[a]",
    "model=vae,gan": "names several values: add -m",
    "model.optimizer.lr=fast": "model.optimizer.lr=fast is not a number: write a value like 0.0034",
    "trainer.progress=maybe": "trainer.progress=maybe is not true or false",
    "budget.images=lots": "budget.images=lots is not a number of images: write 2_000_000, 500k",
    "arena.images=1x": "arena.images=1x is not a number of images",
    "~model": "~model leaves the run without model",
    "seed=${nix}": "Interpolation key 'nix' not found",
}


# one of each kind of answer
QUICK = ("model=gann", "beta=2", "seeed=1", "+seeed=1", "zzz=1", "gan", "tags=[a", "evaluation.metrics={}",
         "model=vae,gan", "budget.images=lots", "~model")  # fmt: skip


@pytest.mark.parametrize("argument", slow_but(MISTAKES, *QUICK))
def test_a_mistake_is_one_sentence_with_the_remedy(room, capfd, argument):
    assert main(["train", argument]) == 2
    error = capfd.readouterr().err
    assert MISTAKES[argument] in error
    assert error.startswith("genbench: ")
    assert error.count("\n") == 1
    assert not Path("outputs").exists() or runs() == []


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["-m", "model=vae,gann"], "did you mean model=gan?"),
        (["model=gan", "lr=1"], "did you mean model.generator_optimizer.lr"),
        (
            ["-m", "model=gan,vae", "model.generator_optimizer.lr=1"],
            "model=vae of this sweep has no setting model.generator_optimizer.lr",
        ),
        (
            ["-m", "dataset=digits,cifar10", "network.decoder_norm=group"],
            "dataset=digits of this sweep has no setting network.decoder_norm",
        ),
        (["-m", "model=gan,lsgan", "model.nix=1"], "there is no setting model.nix"),
        (["--config-dir", "nowhere"], "nowhere' not found"),
        (["--config-name", "tarin"], "Cannot find primary config 'tarin'"),
        (["--cfg", "job", "--info"], "Only one of"),
    ],
)
def test_mistakes_with_flags_are_one_sentence(room, capfd, argv, sentence):
    assert main(["train", *argv]) == 2
    error = capfd.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_an_unknown_flag_is_refused(room, capfd):
    with pytest.raises(SystemExit) as refused:
        main(["train", "--frobnicate"])
    assert refused.value.code == 2
    assert "--frobnicate" in capfd.readouterr().err


@pytest.mark.parametrize(
    "argument",
    ["budget.images=500k", "arena.images=1.5M", "model.beta=2", "study=null", "tags=[a]"],
)
def test_right_values_are_accepted(room, argument, capfd):
    with settings.composing():
        settings.check_values([argument])


# --- the user's own files -------------------------------------------------------------------------
WHAT = "what is chosen for {} does not hold `key: value` lines"
SHAPES = [  # every group in both places, and every content
    ("genbench_configs", "model", "- a", WHAT.format("model")),
    ("elsewhere", "model", "word", "what is chosen for model names no class"),
    ("genbench_configs", "model", "beta: 1", "what is chosen for model names no class"),
    ("genbench_configs", "dataset", "- a", WHAT.format("dataset")),
    ("elsewhere", "dataset", "- a", WHAT.format("dataset")),
    ("genbench_configs", "experiment", "- a", WHAT.format("experiment")),
    (
        "elsewhere",
        "experiment",
        "# @package _global_\n- a",
        "a config file does not hold `key: value` lines",
    ),
    ("genbench_configs", "network", "3", "a config file does not hold `key: value` lines"),
    ("elsewhere", "network", "3", "a config file does not hold `key: value` lines"),
]


@pytest.mark.parametrize(
    ("where", "group", "content", "sentence"),
    [*SHAPES[:3], *(pytest.param(*case, marks=pytest.mark.slow) for case in SHAPES[3:])],
)
def test_a_config_file_of_another_shape_is_named(room, capfd, where, group, content, sentence):
    file = Path(where, group, "mine.yaml").absolute()
    file.parent.mkdir(parents=True)
    file.write_text(content)
    added = ["--config-dir", where] if where == "elsewhere" else []
    assert main(["train", f"{group}=mine", *added]) == 2
    error = capfd.readouterr().err
    assert sentence in error
    assert str(file) in error or "names no class" in error
    assert error.count("\n") == 1
    assert runs() == []


@pytest.mark.parametrize(
    "argv", [["budget.images=lots", "-m"], ["seed=1,2", "-m", "budget.images=lots"]]
)
def test_flags_may_stand_between_overrides_and_behind_them(room, capfd, argv):
    assert main(["train", *argv]) == 2
    assert "budget.images=lots is not a number of images" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a: 1\nb: [1, 2\nc: 3\n", ", line 3, is not valid YAML"),
        (b"a: 1\nname: caf\xe9\n", ", line 2, is not UTF-8 text"),
        (
            b"a: 1\n\nb: ${broken\n",
            ", line 3, has an interpolation that cannot be read, '${broken'",
        ),
    ],
)
def test_a_broken_file_of_the_user_s_own_is_named_with_its_line(room, capfd, content, sentence):
    folder = room / "genbench_configs" / "model"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_bytes(content)
    (folder / "another.yaml").write_bytes(b"a: ${other\n")
    assert main(["train", "model=mine"]) == 2
    error = capfd.readouterr().err
    assert f"genbench: {folder / 'mine.yaml'}{sentence}" in error
    assert error.count("\n") == 1 and "bug" not in error
