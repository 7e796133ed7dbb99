"""What a table says of the search that found the settings of its rows (`search` in their configs)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from genbench.comparison.rows import Row
from genbench.comparison.tables import number


def notes_on_search(rows: Sequence[Row]) -> list[str]:
    """The budget of the search of each row, whether budgets are equal, and what was chosen."""
    known = {row.label: _record(row) for row in rows if not row.untrained}
    on_test = [label for label, record in known.items() if record.get("split") == "test"]
    searched = {label: record for label, record in known.items() if "trials" in record}
    notes = []
    if on_test:
        notes.append(
            f"{', '.join(on_test)}: SELECTED ON TEST SCORES, which are better than on new images"
        )
    if searched:
        notes.append(_budget(searched, [label for label in known if label not in searched]))
        notes += [f"{label}, chosen: {_chosen(record)}" for label, record in searched.items()]
    return notes


def _record(row: Row) -> Mapping[str, Any]:
    record = row.any_run().config.get("search")
    return record if isinstance(record, Mapping) else {}


def _budget(searched: Mapping[str, Mapping[str, Any]], others: Sequence[str]) -> str:
    """How many trials each had; `others` are rows whose settings were not searched for."""
    budgets: dict[str, list[str]] = {}
    for label, record in searched.items():
        objective, split = record.get("objective"), record.get("split")
        count = "1 trial" if record["trials"] == 1 else f"{record['trials']} trials"
        how = f"{count}, selected on {objective} of the {split} protocol"
        budgets.setdefault(how, []).append(label)
    if len(budgets) == 1 and not others:
        return f"each model: {next(iter(budgets))}; the runs here are of seeds that no trial had"
    parts = [f"{', '.join(labels)}: {how}" for how, labels in budgets.items()]
    rest = [f"{', '.join(others)}: none"] if others else []
    return f"UNEQUAL search: {'; '.join([*parts, *rest])}"


def _chosen(record: Mapping[str, Any]) -> str:
    """The winner's settings as they are typed, its score, and what speaks against its ranges."""
    settings = " ".join(f"{k}={_typed(v)}" for k, v in (record.get("chosen") or {}).items())
    facts = [f"{record.get('objective')} {number(record.get('value'))} there"]
    if record.get("failed"):
        facts.append(f"{record['failed']} trials failed")
    if edge := record.get("edge"):
        facts.append(f"at an end of its range: {_listed(edge)}")
    return f"{settings} ({'; '.join(facts)})"


def _typed(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(_typed(one) for one in value)}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names))
