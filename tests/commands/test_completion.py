"""`genbench completion`: what a shell offers after the words typed so far."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genbench import cli
from genbench.cli import main


@pytest.mark.parametrize(
    ("line", "candidates"),
    [
        ("genbench ", set(cli.VERBS)),
        ("genbench ev", {"evaluate"}),
        (
            "genbench train model=ga",
            {f"model={n}" for n in ("gan", "gan-hinge", "gan-san", "gan-sn")},
        ),
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
