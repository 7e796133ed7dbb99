"""Atomic writes, and the first line of an error."""

import pytest

from genbench.runs.files import atomic_write, first_line, write_json


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half of it")
        assert path.read_text() == '{\n "a": 1\n}\n'
        _ = 1 / 0
    assert path.read_text() == '{\n "a": 1\n}\n'
    with atomic_write(path, sync=False) as temporary:
        temporary.write_text("other")
    assert path.read_text() == "other"
    assert list(tmp_path.iterdir()) == [path]


def test_values_that_json_does_not_have_leave_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("message", "line"), [("one\ntwo", "one"), ("\n\n one\ntwo", "one"), ("", "ValueError")]
)
def test_the_first_line_of_an_error_is_never_empty(message, line):
    assert first_line(ValueError(message)) == line
