"""docs/notebook.ipynb runs from top to bottom, and everything that it shows can be shown."""

import ast
import json
from functools import partial
from typing import Any

import pytest

import genbench
from fixtures.places import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def cells() -> list[str]:
    content = json.loads(NOTEBOOK.read_text())
    assert content["nbformat"] == 4
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    return ["".join(cell["source"]) for cell in code]


def shown(source: str, names: dict[str, object]) -> object:
    """Execute a cell; its last expression, as a notebook shows it."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_notebook_runs_cell_by_cell(room, monkeypatch):
    """It trains a run and a sweep and scores again: what these return is looked at too."""
    names: dict[str, Any] = {}
    returned: list[Any] = []
    for name, options in (("train", {"progress": False}), ("evaluate", {"device": "cpu"})):
        command = partial(getattr(genbench, name), **options)

        def recorded(*arguments: Any, command: Any = command) -> Any:
            returned.append(command(*arguments))
            return returned[-1]

        monkeypatch.setattr(genbench, name, recorded)
    values = [value for value in (shown(cell, names) for cell in cells()) if value is not None]
    kinds = [type(value).__name__ for value in values]
    assert {"Run", "Image", "Comparison", "Figure", "Pictures"} <= set(kinds)
    for (
        value
    ) in values:  # matplotlib's figures have these methods too, and a notebook's own picture
        if type(value).__name__ != "Figure":
            for show in ("_repr_html_", "_repr_png_"):
                if hasattr(value, show):
                    assert getattr(value, show)()
    assert "vae" in str(names["comparison"]) and "gan" in str(names["comparison"])

    one, two, again = returned
    assert one.status.status == "finished" and one.result.model == "vae"
    assert one.path.parent == room / "outputs"
    assert one.result.environment["command"].startswith("genbench train trainer=smoke")
    assert sorted(run.result.seed for run in two) == [0, 1]
    assert {one, *two} == {*genbench.runs("study=notebook")}
    assert len(again.scores) > len(one.scores)
    assert again.scores["fd_lenet-digits-v1"].card["fake"]["n"] == 300
