"""`genbench export`: runs and scores in a database or a parquet file, or the weights of one run.

`--to` writes two tables, `runs` and `scores`; docs/studies.md describes their columns. Rows are matched by key and
only those that differ are written, in one transaction, so that a second export changes nothing.
`--onnx` and `--safetensors` write a decoder and an encoder (docs/sharing.md); `genbench.export` does it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genbench.commands.arguments import runs_arguments
from genbench.errors import DONE, UserMistake
from genbench.launch.run import run_verb
from genbench.runs import trust
from genbench.runs.directory import find_run
from genbench.runs.files import atomic_write, explain_os_error, first_line
from genbench.runs.records import Record, read_records
from genbench.runs.result import Result

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table
    from sqlalchemy.engine import URL, Engine


# type of each column; KEYS below names the primary keys
RUNS = {
    "run_id": "text", "study": "text", "tags": "json", "status": "text", "reason": "text",
    "model": "text", "dataset": "text", "seed": "integer", "fingerprint": "text",
    "images": "integer", "generator_steps": "integer", "discriminator_steps": "integer",
    "started": "number", "seconds": "number", "parameters": "integer",
    "peak_memory_bytes": "integer", "train_images_per_second": "number",
    "sample_images_per_second": "number", "device": "text", "host": "text", "command": "text",
    "version": "text", "git_commit": "text", "config": "json",
}  # fmt: skip
SCORES = {
    "run_id": "text", "name": "text", "checkpoint": "text", "protocol": "text", "quantity": "text",
    "value": "number", "low": "number", "high": "number", "unit": "text",
    "higher_is_better": "boolean", "score_status": "text", "card": "json",
}  # fmt: skip
KEYS = {"runs": ("run_id",), "scores": ("run_id", "name", "checkpoint", "protocol")}
REMEDY = "pip install 'genbench[export]'"
Rows = dict[tuple[Any, ...], dict[str, Any]]


def main(argv: Sequence[str], worker: str = "genbench.work export") -> int:
    """Write the selected runs to `--to`, or the weights of one; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench export",
        parents=[runs_arguments("runs, or selections: model=gan dataset=mnist")],
        description="Put runs and scores where other programs read them (--to; a second export writes only what "
        "changed), or the weights of one run (--onnx, --safetensors).",
        epilog="examples: genbench export --to sqlite:///runs.db · genbench export study=objectives "
        "--to postgresql://me@host/db --prune · genbench export --to scores.parquet · "
        "genbench export latest --onnx model.onnx --safetensors model.safetensors",
    )
    table = parser.add_argument_group("runs and scores as a table")
    table.add_argument("--to", help="postgresql://, sqlite:/// or FILE.parquet")
    table.add_argument(
        "--prune", action="store_true", help="also delete the rows of runs that are not selected"
    )
    weights = parser.add_argument_group("the weights of one run")
    weights.add_argument(
        "--onnx",
        metavar="FILE",
        help="the decoder, z to images; the encoder in FILE-encoder.onnx beside it",
    )
    weights.add_argument(
        "--safetensors", metavar="FILE", help="the tensors of decoder and encoder by their names"
    )
    weights.add_argument(
        "--weights",
        choices=("raw", "ema"),
        help="trained (default) or averaged weights of the decoder",
    )
    weights.add_argument(
        "--trust", action="store_true", help="a run from elsewhere may name code of others"
    )
    options = parser.parse_intermixed_args(list(argv))
    if options.onnx or options.safetensors:
        return _export_weights(options, argv, worker)
    if options.to is None or options.weights or options.trust:
        raise UserMistake(
            "export needs --to with a database or a parquet file for runs and scores, or --onnx or "
            "--safetensors with a file for the weights of a run"
        )
    records = _readable(read_records(options.select, options.outputs), options)
    runs, scores = tables(records)
    if options.to.endswith(".parquet"):
        if options.prune:
            raise UserMistake("--prune is for databases: a parquet file is written anew each time")
        count = write_parquet(Path(options.to), runs, scores)
        print(f"{options.to}: {len(runs):,} runs, {count:,} rows")
        return DONE
    print(write_database(options.to, runs, scores, options.prune))
    return DONE


def _readable(found: Sequence[Record], options: argparse.Namespace) -> list[Record]:
    """The runs that can be read; the others are named, and keep `--prune` from deleting their rows."""
    for record in found:
        if record.result is None:
            print(f"genbench: left out: {record.damage}", file=sys.stderr)
    records = [record for record in found if record.result is not None]
    if options.prune and len(records) < len(found):
        raise UserMistake(
            f"--prune would delete the rows of {len(found) - len(records)} runs that cannot be read: restore "
            "them, move them out of the folder, or leave --prune out"
        )
    if not records:
        raise UserMistake(f"there are no runs in {options.outputs} that could be exported")
    return records


def _export_weights(options: argparse.Namespace, argv: Sequence[str], worker: str) -> int:
    if options.to or options.prune:
        raise UserMistake(
            "--to is for runs and scores, --onnx and --safetensors for weights: two commands"
        )
    if len(options.select) != 1:
        raise UserMistake(
            "weights are exported of one run: genbench export latest --onnx model.onnx"
        )
    directory = find_run(options.select[0], options.outputs)
    trust.admitted(directory, options.trust)
    chosen = [(n, getattr(options, n)) for n in ("onnx", "safetensors", "weights")]
    arguments = [word for name, value in chosen if value for word in (f"--{name}", value)]
    return run_verb([str(directory), *arguments], "export", argv, worker)


# --- rows -----------------------------------------------------------------------------------------
def tables(records: Sequence[Record]) -> tuple[Rows, Rows]:
    """Rows of both tables by key; a later score with the same key replaces the earlier one.

    A value that a run lacks is None.
    """
    runs: Rows = {}
    scores: Rows = {}
    for record in records:
        result = record.result
        assert result is not None
        runs[(result.run_id,)] = _run(record, result)
        for score in result.scores:
            key = (result.run_id, score.name, score.checkpoint, score.protocol)
            own = {"quantity": score.quantity, "score_status": score.status}
            own |= dict(zip(KEYS["scores"], key, strict=True))
            same = {name: getattr(score, name) for name in SCORES if name not in own}
            scores[key] = {name: (own | same)[name] for name in SCORES} | {"card": dict(score.card)}
    return runs, scores


def _run(record: Record, result: Result) -> dict[str, Any]:
    budget, cost, where = result.budget, result.cost, result.environment
    parameters = (cost.get("parameters") or {}).values()
    row = {
        "tags": list(result.tags),
        "status": record.status.status,
        "reason": record.status.reason,
        "started": record.status.started,
        "parameters": sum(parameters) if parameters else None,
        "host": where.get("host"),
        "command": where.get("command"),
        "version": (where.get("versions") or {}).get("genbench"),
        "git_commit": (where.get("code") or {}).get("commit"),
        "config": dict(result.config),
    }
    facts = {name: getattr(result, name, None) for name in RUNS}
    return {name: (facts | dict(budget) | dict(cost) | row).get(name) for name in RUNS}


# --- a database -----------------------------------------------------------------------------------
def write_database(url: str, runs: Rows, scores: Rows, prune: bool) -> str:
    """Bring both tables up to date; returns a sentence per table. UserMistake if that fails."""
    try:
        import sqlalchemy
    except ImportError:
        raise UserMistake(f"a database needs SQLAlchemy: {REMEDY}") from None
    engine = _engine(url)
    try:
        return _write_all(engine, runs, scores, prune)
    except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.InvalidRequestError) as error:
        reason = first_line(getattr(error, "orig", None) or error)
        shown = engine.url.render_as_string(hide_password=True)
        raise UserMistake(f"cannot export to {shown}: {reason}") from None
    finally:
        engine.dispose()


def _engine(text: str) -> "Engine":
    import sqlalchemy

    kinds = "postgresql://user@host/db, sqlite:///FILE or FILE.parquet"
    try:
        url: URL = sqlalchemy.make_url(text)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise UserMistake(f"--to {text} is not a place that export knows: give {kinds}") from None
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("postgresql", "sqlite"):
        raise UserMistake(
            f"--to {url.drivername}:// is not a place that export knows: give {kinds}"
        )
    try:
        return sqlalchemy.create_engine(url)
    except ImportError:
        raise UserMistake(f"{url.drivername} needs its driver: {REMEDY}") from None


def _write_all(engine: "Engine", runs: Rows, scores: Rows, prune: bool) -> str:
    from sqlalchemy import MetaData

    metadata = MetaData()
    run_table, score_table = _table("runs", RUNS, metadata), _table("scores", SCORES, metadata)
    sentences = []
    with engine.begin() as connection:
        metadata.create_all(connection)
        known = _stored(connection, run_table), _stored(connection, score_table)
        # scores that an exported run no longer has are deleted; rows of other runs only by --prune
        gone_scores = [k for k in known[1] if k not in scores and (prune or (k[0],) in runs)]
        gone_runs = [k for k in known[0] if k not in runs] if prune else []
        _delete(connection, score_table, gone_scores)
        _delete(connection, run_table, gone_runs)
        for table, rows, before in (
            (run_table, runs, known[0]), (score_table, scores, known[1]),
        ):  # fmt: skip
            differing = [row for key, row in rows.items() if before.get(key) != row]
            _upsert(connection, table, differing)
            new = sum(key not in before for key in rows)
            gone = len(gone_runs if table is run_table else gone_scores)
            sentences.append(
                f"{table.name}: {len(rows):,} rows, {new:,} new, {len(differing) - new:,} changed, "
                f"{gone:,} deleted"
            )
    return "\n".join(sentences)


def _table(name: str, columns: Mapping[str, str], metadata: Any) -> "Table":
    import sqlalchemy as sa
    from sqlalchemy.dialects.postgresql import JSONB

    json = sa.JSON(none_as_null=True)
    types: dict[str, Any] = {
        "text": sa.Text(),
        "integer": sa.BigInteger(),
        "number": sa.Double(),
        "boolean": sa.Boolean(),
        "json": json.with_variant(JSONB(none_as_null=True), "postgresql"),
    }
    own = [sa.Column(c, types[kind], primary_key=c in KEYS[name]) for c, kind in columns.items()]
    return sa.Table(name, metadata, *own)


def _stored(connection: "Connection", table: "Table") -> Rows:
    rows = [dict(row) for row in connection.execute(table.select()).mappings()]
    return {tuple(row[name] for name in KEYS[table.name]): row for row in rows}


def _delete(connection: "Connection", table: "Table", keys: Sequence[tuple[Any, ...]]) -> None:
    from sqlalchemy import bindparam, delete

    names = KEYS[table.name]
    if keys:
        statement = delete(table).where(*(table.c[n] == bindparam(f"key_{n}") for n in names))
        own = [{f"key_{n}": v for n, v in zip(names, key, strict=True)} for key in keys]
        connection.execute(statement, own)


def _upsert(connection: "Connection", table: "Table", rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; update those that another export has inserted in the meantime."""
    from sqlalchemy.dialects import postgresql, sqlite

    if not rows:
        return
    if connection.dialect.name == "postgresql":
        statement: Any = postgresql.insert(table)
    else:
        statement = sqlite.insert(table)
    names = KEYS[table.name]
    changes = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in names}
    statement = statement.on_conflict_do_update(index_elements=list(names), set_=changes)
    connection.execute(statement, list(rows))


# --- a file ---------------------------------------------------------------------------------------
def write_parquet(path: Path, runs: Rows, scores: Rows) -> int:
    """Write a row for each score with its run's columns, and one for each run without scores.

    Returns the number of rows. UserMistake without pyarrow or if the file cannot be written.
    """
    import json

    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserMistake(f"a parquet file needs pyarrow: {REMEDY}") from None
    by_run: dict[str, list[dict[str, Any]]] = {}
    for score in scores.values():
        by_run.setdefault(score["run_id"], []).append(score)
    rows = [
        run | score
        for run in runs.values()
        for score in by_run.get(run["run_id"]) or [dict.fromkeys(set(SCORES) - {"run_id"})]
    ]
    kinds = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(),
             "boolean": pa.bool_(), "json": pa.string()}  # fmt: skip
    columns = RUNS | SCORES
    for row in rows:
        for name in ("tags", "config", "card"):
            row[name] = None if row[name] is None else json.dumps(row[name], ensure_ascii=False)
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    try:
        with atomic_write(path) as temporary:
            parquet.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
    except OSError as error:
        raise UserMistake(f"cannot write {path}: {explain_os_error(error)}") from None
    return len(rows)
