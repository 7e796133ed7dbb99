"""Whether a run's scores follow from its weights."""

from dataclasses import replace

import pytest

from genbench.errors import UserMistake
from genbench.runs.score import Score
from genbench.runs.verification import (
    Verification,
    differences,
    read_verification,
    weights_of,
    write_verification,
)

FD = Score("fd", 2.0, "", False, {"quantity": "fd"})
KID = Score("kid", 0.01, "", False, {"quantity": "kid"}, low=-0.99, high=1.01)
NOTE = Verification("2026-11-27T10:00:00+00:00", "a CPU", "0.1.0", "", 2, 0.0, 1e-3)


def test_a_difference_is_relative_to_the_value_or_to_half_its_interval():
    found = differences([FD, KID], [replace(KID, value=0.02), replace(FD, value=2.001)])
    assert [one.name for one in found] == ["fd", "kid"]
    assert found[0].relative == pytest.approx(0.0005)
    assert found[1].relative == pytest.approx(0.01)  # the interval is 2 wide


def test_only_scores_of_the_final_weights_under_the_same_protocol_are_held_against_each_other():
    other = Score("fd", 9.0, "", False, {"quantity": "fd", "n": 3})
    best = replace(FD, checkpoint="best")
    assert differences([FD], [other]) == []
    assert differences([best], [FD]) == []


def test_a_score_without_a_value_must_stay_without_one():
    lost = replace(FD, value=None, status="nonfinite")
    assert differences([lost], [lost])[0].relative == 0
    assert differences([FD], [lost])[0].relative == differences([lost], [FD])[0].relative == 1


def test_a_note_holds_for_the_weights_that_it_is_about_alone(tmp_path):
    assert read_verification(tmp_path) is None
    with pytest.raises(UserMistake, match=r"has no checkpoints/final\.ckpt"):
        weights_of(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "final.ckpt").write_bytes(b"weights")
    note = replace(NOTE, weights=weights_of(tmp_path), differing=["fd"])
    write_verification(tmp_path, note)
    assert read_verification(tmp_path) == note and not note.passed
    assert note.words() == "1 differ: 2 scores computed again, 2026-11-27, a CPU"
    (tmp_path / "checkpoints" / "final.ckpt").write_bytes(b"other weights")
    assert read_verification(tmp_path) is None


def test_a_damaged_note_counts_as_none(tmp_path):
    (tmp_path / "verified.json").write_text('{"when": ')
    assert read_verification(tmp_path) is None
