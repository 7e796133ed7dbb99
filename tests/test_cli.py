"""The command line: commands, their help, answers to wrong ones, and completion."""

import os
import subprocess
import sys

import pytest

from fixtures.places import slow_but
from genbench import cli
from genbench.cli import main

GENBENCH = [sys.executable, "-m", "genbench"]


def call(*argv, **options):
    return subprocess.run([*GENBENCH, *argv], capture_output=True, text=True, **options)


def test_help_names_every_verb(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {verb} " in printed for verb in cli.VERBS)


def test_without_a_verb_the_help_is_printed_and_the_code_is_a_mistake(capsys):
    assert main([]) == 2
    assert "usage: genbench VERB" in capsys.readouterr().out


# the settings of `train` take a while, and are looked at below
@pytest.mark.parametrize("verb", slow_but(cli.VERBS, *(v for v in cli.VERBS if v != "train")))
def test_every_verb_has_help_with_an_example(verb, capsys):
    try:
        assert main([verb, "--help"]) == 0
    except SystemExit as end:
        assert not end.code
    printed = capsys.readouterr()
    assert f"genbench {verb}" in printed.out
    assert not printed.err


def test_version_is_the_packages(capsys):
    import genbench

    assert main(["--version"]) == 0
    assert genbench.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("trian", "did you mean train?"),
        ("evalute", "did you mean evaluate?"),
        ("model=gan", "did you mean genbench train model=gan?"),
        ("frobnicate", "choose one of train, resume"),
    ],
)
def test_an_unknown_verb_names_the_nearest(capsys, argument, sentence):
    assert main([argument]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_mistake_has_a_traceback_only_if_asked_for(room):
    assert "Traceback" not in call("resume", "nowhere").stderr
    asked = call("resume", "nowhere", env={**os.environ, "GENBENCH_DEBUG": "1"})
    assert "Traceback" in asked.stderr
    assert asked.returncode != 0


def test_the_command_line_imports_no_torch():
    code = (
        "import sys; import genbench.cli, genbench.launch.task, genbench.runs.directory, genbench.commands.doctor\n"
        "assert not {'torch', 'pytorch_lightning', 'torchvision', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_lists_the_groups_that_a_user_chooses_from():
    done = call("train", "--help")
    assert "dataset: celeba, cifar10" in done.stdout
    assert "_parts" not in done.stdout


def test_help_imports_no_slow_module():
    code = (
        "import sys; before = set(sys.modules); from genbench.cli import main; main(['--help'])\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"hydra", "omegaconf", "numpy", "yaml", "rich"} & set(done.stderr.split())


def test_a_closed_pipe_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*GENBENCH, "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0
    assert done.stderr == b""


def test_a_tilde_in_a_value_is_the_home_folder(monkeypatch, capsys):
    monkeypatch.setenv("HOME", "/somewhere")
    assert main(["train", "dataset=image-folder", "dataset.root=~/cats", "--cfg", "job"]) == 0
    assert "root: /somewhere/cats" in capsys.readouterr().out
