"""The record of a finished run on disk."""

import pytest

from fixtures.comparison import elbo, fd
from genbench.errors import GenbenchError, UserMistake
from genbench.runs.result import read_result, write_result


def test_a_result_is_written_once_and_reads_back_equal(finished):
    run = finished([fd(10.0), elbo(-80.0)])
    result = read_result(run)
    assert [score.value for score in result.scores] == [10.0, -80.0]
    with pytest.raises(GenbenchError, match="written once"):
        write_result(run, result)


def test_a_broken_record_is_named(finished):
    run = finished([fd(10.0)])
    (run / "result.json").write_text("{")
    with pytest.raises(UserMistake, match=r"result\.json is not a result"):
        read_result(run)
