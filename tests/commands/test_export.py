"""Runs and scores in SQLite, PostgreSQL and parquet, read back with their own readers."""

import json
import re
import sqlite3
from pathlib import Path

import pytest

from fixtures.places import ROOT
from genbench import cli
from genbench.runs.config import write_config
from genbench.runs.files import write_json
from genbench.runs.result import Result, write_result, write_tags
from genbench.runs.score import Score
from genbench.runs.status import Status, write_status

DOCS = ROOT / "docs" / "studies.md"
CONFIG = {
    "tags": ["first"],
    "choices": {"model": "vae", "dataset": "digits"},
    "model": {"beta": 1.5},
    "dataset": {"name": "digits"},
    "budget": {"images": 64},
    "trainer": {"precision": "32-true"},
}


def score(value, n=10, **more):
    return Score("fd_lenet", value, "", False, {"quantity": "fd", "n": n, "it's": 'a "ü"'}, **more)


def write(name, scores, seed):
    run = Path("outputs") / name
    run.mkdir(parents=True)
    config = CONFIG | {"seed": seed}
    write_config(run, config)
    write_status(run, Status("finished", started=12.5))
    result = Result(
        name, "objectives", ["first"], "finished", "vae", "digits", seed, "abc", config,
        {"images": 5_000_000_000, "seconds": 2.5}, {"parameters": {"a": 1, "b": 2}}, scores,
    )  # fmt: skip
    write_result(run, result)


@pytest.fixture
def runs(room):
    """Two finished ones, one with a missing value and two protocols, and a failed one."""
    write("a", [score(1 / 3, low=0.25), score(None, 20, status="nonfinite")], 0)
    write("b", [score(0.5)], 1)
    failed = room / "outputs" / "c"
    failed.mkdir()
    write_config(failed, CONFIG | {"seed": 2})
    write_status(failed, Status("failed", "no memory"))
    return room


@pytest.fixture(params=["sqlite", "postgresql"])
def export(request, runs, capsys):
    """Export to a real database; returns what was printed, and a function that queries the database."""
    url = "sqlite:///runs.db"
    if request.param == "postgresql":
        import psycopg

        url = request.getfixturevalue("postgresql").replace("+psycopg", "")
        place = url

    def ask(query):
        if request.param == "sqlite":
            connection = sqlite3.connect("runs.db")
        else:
            connection = psycopg.connect(place)
        try:
            cursor = connection.execute(query)
            rows = cursor.fetchall() if cursor.description else []
            connection.commit()
            return rows
        finally:
            connection.close()

    def export(*argv):
        assert cli.main(["export", "--to", url, *argv]) == 0
        return [
            list(map(int, re.findall(r"\d+", line)))
            for line in capsys.readouterr().out.splitlines()
        ]

    export.ask = ask
    yield export
    ask("DROP TABLE IF EXISTS runs")
    ask("DROP TABLE IF EXISTS scores")


def test_a_second_export_changes_nothing(export):
    assert export() == [[3, 3, 0, 0], [3, 3, 0, 0]]  # rows, new, changed, deleted
    assert export() == [[3, 0, 0, 0], [3, 0, 0, 0]]


def test_rows_equal_the_records_with_null_for_missing_values(export):
    export()
    query = "SELECT seed, images, seconds, parameters, device, reason FROM runs ORDER BY run_id"
    assert list(map(tuple, export.ask(query))) == [
        (0, 5_000_000_000, 2.5, 3, None, None),
        (1, 5_000_000_000, 2.5, 3, None, None),
        (2, 0, None, None, None, "no memory"),
    ]
    query = (
        "SELECT value, low, higher_is_better, score_status, card FROM scores ORDER BY run_id, value"
    )
    found = export.ask(query)
    assert {(row[0], row[1], bool(row[2]), row[3]) for row in found} == {
        (1 / 3, 0.25, False, "ok"), (None, None, False, "nonfinite"), (0.5, None, False, "ok"),
    }  # fmt: skip
    cards = [json.loads(row[4]) if isinstance(row[4], str) else row[4] for row in found]
    assert {card["it's"] for card in cards} == {'a "ü"'}


def test_only_what_changed_is_written_and_only_what_is_gone_is_pruned(export, runs):
    import shutil

    export()
    write_tags(runs / "outputs" / "b", ["second"])
    (runs / "outputs" / "b" / "evaluations").mkdir()
    again = {"scores": [score(0.75).to_dict(), score(4.0, n=99).to_dict()]}
    write_json(runs / "outputs" / "b" / "evaluations" / "x.json", again)
    assert export() == [[3, 0, 1, 0], [4, 1, 1, 0]]
    shutil.rmtree(runs / "outputs" / "a")
    assert export("model=vae") == [[2, 0, 0, 0], [2, 0, 0, 0]]
    assert len(export.ask("SELECT * FROM runs")) == 3
    assert export("--prune") == [[2, 0, 0, 1], [2, 0, 0, 2]]
    assert sorted(export.ask("SELECT value FROM scores")) == [(0.75,), (4.0,)]


def test_a_damaged_run_is_named_and_pruning_does_not_delete_its_rows(runs, capsys):
    to = ["export", "--to", "sqlite:///damaged.db"]
    assert cli.main(to) == 0
    (runs / "outputs" / "a" / "result.json").write_text("{")
    capsys.readouterr()
    assert cli.main([*to, "--prune"]) == 2
    said = capsys.readouterr().err
    assert "left out: " in said and "--prune would delete the rows of 1 runs" in said
    assert cli.main(to) == 0
    with sqlite3.connect("damaged.db") as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (3,)


def test_the_query_of_the_docs_is_answered(export):
    export()
    (query,) = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    rows = [row for row in export.ask(query) if row[2] is not None]
    assert [(row[0], row[3]) for row in rows if row[2] == (1 / 3 + 0.5) / 2] == [("vae", 2)]


def test_parquet_has_a_typed_row_per_score(runs, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    for _ in range(2):
        assert cli.main(["export", "--to", "scores.parquet"]) == 0
    assert capsys.readouterr().out.endswith("scores.parquet: 3 runs, 4 rows\n")
    table = parquet.read_table("scores.parquet")
    assert {name: str(table.schema.field(name).type) for name in ("seed", "value", "model")} == {
        "seed": "int64", "value": "double", "model": "string",
    }  # fmt: skip
    rows = {(row["run_id"], row["protocol"]): row for row in table.to_pylist()}
    assert rows["c", None]["value"] is None
    assert [row["value"] for row in rows.values() if row["run_id"] == "b"] == [0.5]
    assert json.loads(rows["c", None]["config"])["model"] == {"beta": 1.5}
    assert not [path for path in runs.iterdir() if "scores.parquet." in path.name]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", "is not a place that export knows"),
        ("mysql://me:secret@host/db", "mysql:// is not a place that export knows"),
        (
            "sqlite:////no/such/folder/x.db",
            "cannot export to sqlite:////no/such/folder/x.db: unable",
        ),
        ("no/such/x.parquet", "cannot write no/such/x.parquet"),
    ],
)
def test_an_unwritable_place_is_a_mistake(runs, capsys, place, words):
    assert cli.main(["export", "--to", place]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert "secret" not in told
