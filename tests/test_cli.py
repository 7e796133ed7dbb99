"""The front door: verbs, their help, what a wrong one gets, and completion."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from genbench import cli
from genbench.cli import main
from genbench.errors import Notice, heard

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


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_an_example(verb):
    done = call(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert f"genbench {verb}" in done.stdout
    assert not done.stderr


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
        ("zzz", "There are train, resume"),
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


def test_the_front_door_opens_without_torch():
    code = (
        "import sys; import genbench.cli, genbench.launch.task, genbench.runs.directory, genbench.commands.doctor\n"
        "assert not {'torch', 'pytorch_lightning', 'torchvision', 'wandb'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_lists_the_groups_that_a_user_chooses_from():
    done = call("train", "--help")
    assert "dataset: celeba, cifar10" in done.stdout
    assert "_parts" not in done.stdout


def test_help_imports_nothing_that_takes_time():
    code = (
        "import sys; before = set(sys.modules); from genbench.cli import main; main(['--help'])\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"hydra", "omegaconf", "numpy", "yaml", "rich"} & set(done.stderr.split())


def test_a_reader_who_stops_reading_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*GENBENCH, "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 0
    assert done.stderr == b""


def doctor(capsys):
    code = main(["doctor", "--format", "json"])
    return code, {finding["topic"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_doctor_says_that_digits_can_be_trained_here(room, capsys):
    code, findings = doctor(capsys)
    assert code == 0
    assert findings["torchvision"]["found"].endswith("fits this torch")
    assert findings["dataset digits"]["state"] == "ok"
    assert all(finding["state"] != "broken" for finding in findings.values())
    assert not list(room.iterdir())


def test_doctor_fails_where_nothing_can_be_written(room, monkeypatch, capsys):
    (room / "file").write_text("")
    monkeypatch.setenv("GENBENCH_OUTPUTS", "file/outputs")
    code, findings = doctor(capsys)
    assert code == 1
    assert findings["outputs"]["state"] == "broken"
    assert main(["doctor"]) == 1
    assert "set GENBENCH_OUTPUTS" in capsys.readouterr().out


# --- completion ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("genbench ", set(cli.VERBS)),
        ("genbench ev", {"evaluate"}),
        ("genbench train model=ga", {"model=gan", "model=gan-hinge"}),
        ("genbench train model=gan model.gen", {"model.generator_optimizer."}),
        ("genbench completion ", {"bash", "zsh", "fish"}),
        ("genbench show ", {"latest", "first"}),
        ("genbench resume fi", {"first"}),
        ("genbench data pr", {"prepare"}),
        ("genbench doctor ", set()),
    ],
)
def test_completion_knows_verbs_runs_and_settings(room, capsys, line, candidates):
    run = room / "outputs" / "first"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    assert main(["completion", "query", line]) == 0
    assert set(capsys.readouterr().out.split()) == candidates


def test_completion_works_in_bash(room):
    bin_directory = Path(sys.executable).parent
    script = """
    eval "$(genbench completion bash)"
    COMP_LINE='genbench train model=vae-'; COMP_POINT=${#COMP_LINE}
    COMP_WORDS=(genbench train model=vae-); COMP_CWORD=2
    _genbench
    echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["model=vae-gan"], done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_a_script_for_other_shells(capsys, shell):
    assert main(["completion", shell]) == 0
    assert "genbench" in capsys.readouterr().out


def test_completion_of_an_unknown_shell_names_the_known(capsys):
    assert main(["completion", "cmd"]) == 2
    assert "bash, zsh or fish" in capsys.readouterr().err


def test_feature_networks_are_listed_and_a_wrong_word_is_answered(capsys):
    assert main(["extractor", "list"]) == 0
    assert "lenet-digits-v1" in capsys.readouterr().out
    assert main(["extractor", "tarin"]) == 2
    assert "extractor train" in capsys.readouterr().err


def test_a_notice_is_a_sentence_for_the_user_and_other_warnings_go_their_usual_way():
    heard_of = []
    with warnings.catch_warnings(record=True) as usual:
        warnings.simplefilter("always")
        with heard(heard_of.append):
            warnings.warn("the server is slow", Notice, stacklevel=1)
            warnings.warn("an old name", UserWarning, stacklevel=1)
        warnings.warn("too late", Notice, stacklevel=1)
    assert heard_of == ["the server is slow"]
    assert [str(w.message) for w in usual] == ["an old name", "too late"]
