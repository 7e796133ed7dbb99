"""`genbench sample`."""

from pathlib import Path

import pytest

from fixtures.launching import seen
from genbench.commands import sample
from genbench.errors import UserMistake


def test_sample_passes_its_arguments_through(train):
    train("run_id=run")
    assert sample.main(["latest", "--num", "4"], worker="stub_worker") == 0
    assert seen(Path("outputs/run"))["arguments"] == ["--num", "4"]
    with pytest.raises(UserMistake, match="sample needs a run first"):
        sample.main(["--num", "4"])
