"""`genbench verify`: a run's scores are computed again from its weights."""

import json

import pytest

from genbench import evaluate
from genbench.commands import show, verify
from genbench.errors import UserMistake


@pytest.fixture
def here(start, monkeypatch):
    """A finished run, whose verification scores in this process."""
    run, code = start("model=vae")
    assert code == 0

    def scored_here(arguments, verb, argv, worker):
        assert verb == "verify" and arguments[0].endswith(f"/{run.name}")
        return evaluate.main([*arguments])

    monkeypatch.setattr(verify, "run_verb", scored_here)
    return run


@pytest.mark.slow
def test_a_run_s_scores_follow_from_its_weights_and_show_says_so(here, capsys):
    assert verify.main([str(here)]) == 0
    told = capsys.readouterr().out
    assert "equal to the bit" in told and not (here / "evaluations").exists()
    show.main([str(here)])
    assert "verified     equal to the bit" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_cannot_be_written_is_verified_in_a_copy(here, capsys, monkeypatch):
    def refuse(run, outcome):
        raise OSError(30, "Read-only file system")

    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    monkeypatch.setattr(verify.os, "access", lambda path, mode: False)
    monkeypatch.setattr(verify, "write_verification", refuse)
    assert verify.main([str(here)]) == 0
    told = capsys.readouterr()
    assert "equal to the bit" in told.out and "not kept in" in told.err
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


@pytest.mark.slow
def test_a_record_that_does_not_follow_is_found(here, capsys):
    path = here / "result.json"
    content = json.loads(path.read_text())
    score = next(one for one in content["scores"] if one["name"].startswith("fd_lenet"))
    score["value"] *= 0.5
    path.write_text(json.dumps(content))
    assert verify.main([str(here)]) == 1
    told = capsys.readouterr().out
    assert "1 differ" in told and f"{score['name']}: {score['value']:.6g} recorded" in told
    assert verify.main([str(here), "--tolerance", "2"]) == 0


def test_a_run_without_scores_or_without_weights_is_a_sentence(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 0\n")
    with pytest.raises(UserMistake, match="run has not finished: there are no scores to verify"):
        verify.main([str(run)])
    (run / "result.json").write_text('{"scores": []}')
    with pytest.raises(UserMistake, match=r"has no checkpoints/final\.ckpt"):
        verify.main([str(run)])
