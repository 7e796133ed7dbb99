"""Rows: the runs of one method on one dataset, seeds together; the names of the rows.

A method has a row more for each prior that its samples were scored under: one training, several rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from genbench.comparison.settings import differences, settings_of
from genbench.runs.method import method
from genbench.runs.priors import as_in_training, prior_labels, prior_of
from genbench.runs.result import Result
from genbench.runs.score import Score, digest
from genbench.runs.status import PRUNED

ScoreKey = tuple[str, str, str]  # name, checkpoint, protocol
MethodKey = tuple[str, str, str, str]  # dataset, model, method without precision, precision


@dataclass
class Row:
    """The runs of one method on one dataset. `runs` is complete from the start.

    `prior` names the prior of its samples, empty if that is the one of training; such a row has the
    scores of these samples alone, and `training` is the label of the row that has the others.
    """

    label: str
    dataset: str
    model: str
    runs: list[Result]  # finished, newest of each seed, by seed
    unfinished: list[Result] = field(default_factory=list)
    repeated: int = 0  # finished runs that a newer one of the same seed replaces
    prior: str = ""
    training: str = ""
    defined: Mapping[str, Any] = field(default_factory=dict)  # what defines the prior, for its note

    @property
    def untrained(self) -> bool:
        """All its runs finished without a step of training: a floor."""
        return all(not run.budget.get("images") for run in self.runs) and bool(self.runs)

    @property
    def lost(self) -> list[Result]:
        """Runs that ended without a result, one per seed: diverged, failed, or stopped by a search.

        Interrupted runs are not lost, since they can be resumed. Neither is a failed run of a seed that
        another run finished; a diverged one is, since divergence is a result.
        """
        done = {run.seed for run in self.runs}
        found: dict[int, Result] = {}
        for run in self.unfinished:
            pruned = run.status == "interrupted" and run.reason == PRUNED
            failed = pruned or run.status == "failed"
            if run.status == "diverged" or (failed and run.seed not in done):
                found[run.seed] = run
        return [found[seed] for seed in sorted(found)]

    def scores(self, key: ScoreKey) -> Sequence[tuple[Result, Score]]:
        """The score of each seed that has it, with or without a value; of several the newest."""
        return self._by_key.get(key, ())

    @cached_property
    def _by_key(self) -> Mapping[ScoreKey, Sequence[tuple[Result, Score]]]:
        """All scores by key, sorted once: a table reads each cell several times."""
        found: dict[ScoreKey, dict[int, tuple[Result, Score]]] = defaultdict(dict)
        for place, run in enumerate(self.runs):
            for score in run.scores:
                found[score_key(score)][place] = run, score
        return {key: list(by_run.values()) for key, by_run in found.items()}

    @cached_property
    def examples(self) -> Mapping[ScoreKey, Score]:
        """One score of each key that any run has."""
        return {key: own[0][1] for key, own in self._by_key.items()}

    def values(self, key: ScoreKey) -> dict[str, float]:
        """The score's value by run, one per seed that has one."""
        return {r.run_id: s.value for r, s in self.scores(key) if s.value is not None}

    def doubtful(self, key: ScoreKey) -> bool:
        """Whether any of its values has a status that forbids a comparison; shown in brackets."""
        return any(s.value is not None and s.status != "ok" for _, s in self.scores(key))

    def any_run(self) -> Result:
        """A run of the method, finished if there is one: all have the same settings."""
        return (self.runs or self.unfinished)[0]


def score_key(score: Score) -> ScoreKey:
    """What a score must share with another to be compared with it."""
    return score.name, score.checkpoint, score.protocol


def make_rows(results: Iterable[Result]) -> list[Row]:
    """Group runs by dataset and method; the newest finished run of a seed counts."""
    finished: dict[MethodKey, list[Result]] = defaultdict(list)
    unfinished: dict[MethodKey, list[Result]] = defaultdict(list)
    for result in sorted(results, key=lambda r: r.run_id):
        precise = result.status == "finished"
        (finished if precise else unfinished)[_method_key(result)].append(result)
    rows = {}
    for key, runs in finished.items():
        newest = {run.seed: run for run in runs}
        rows[key] = Row(
            key[1], key[0], key[1], [newest[seed] for seed in sorted(newest)], [],
            len(runs) - len(newest),
        )  # fmt: skip
    for key, runs in unfinished.items():
        home = _home(key, finished)
        if home is None:
            rows[key] = Row(key[1], key[0], key[1], [], runs)
        else:
            rows[home].unfinished += [r for r in runs if not _finished_later(r, rows[home])]
    _tell_sizes_apart([*rows.values()])
    _label(list(rows.values()))
    parts = [part for row in rows.values() for part in _by_prior(row)]
    return sorted(parts, key=lambda row: (row.dataset, row.label))


_SHAPE = {"image_size": "{0} x {0}", "channels": "{} channels", "levels": "{} levels"}


def _tell_sizes_apart(rows: Sequence[Row]) -> None:
    """Pictures of one name in several sizes are as many data sets, which no score compares: `pets, 32 x 32`."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.dataset].append(row)
    for alike in by_name.values():
        shapes = [[row.any_run().config["dataset"].get(key) for key in _SHAPE] for row in alike]
        if any(None in shape for shape in shapes):  # of a user's own class
            continue
        differing = [len({*values}) > 1 for values in zip(*shapes, strict=True)]
        for row, shape in zip(alike, shapes, strict=True):
            parts = zip(_SHAPE.values(), shape, differing, strict=True)
            words = [text.format(value) for text, value, differs in parts if differs]
            row.dataset = ", ".join([row.dataset, *words])


def as_trained(rows: Iterable[Row]) -> list[Row]:
    """The rows that have latents as in training: one for each method."""
    return [row for row in rows if not row.prior]


def groups(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one prior each, those of training first: what may be tested against each other."""
    found: dict[str, list[Row]] = {"": []}
    for row in rows:
        found.setdefault(row.prior, []).append(row)
    return [own for own in found.values() if own]


def _by_prior(row: Row) -> list[Row]:
    """A row with the scores of training's prior, then one for each other prior; names that tell apart."""
    row.training = row.label
    cards = {id(score.card): score for run in row.runs for score in run.scores}  # many share one
    if all(prior_of(score) is None for score in cards.values()):
        return [row]
    priors: dict[str, Mapping[str, Any]] = {}
    of_runs: list[dict[str, list[Score]]] = []
    for run in row.runs:
        by_prior: dict[str, list[Score]] = defaultdict(list)
        for score in run.scores:
            prior = prior_of(score)
            key = "" if prior is None else digest(prior)
            if prior is not None:
                priors.setdefault(key, prior)
                score = as_in_training(score)
            by_prior[key].append(score)
        of_runs.append(by_prior)
    names = dict(zip(priors, prior_labels([*priors.values()]), strict=True))

    def with_scores(key: str) -> list[Result]:
        pairs = zip(row.runs, of_runs, strict=True)
        return [
            replace(run, scores=own.get(key, [])) for run, own in pairs if own.get(key) or not key
        ]

    found = [replace(row, runs=with_scores(""))]
    for key, prior in priors.items():
        part = replace(row, label=f"{row.label}, {names[key]}", runs=with_scores(key), repeated=0)
        part.prior, part.defined = names[key], prior
        found.append(part)
    return found


def _method_key(result: Result) -> MethodKey:
    """Dataset, model, method without its precision, precision."""
    rest = method(result.config)
    precision = rest.pop("precision")
    return result.dataset, result.model, digest(rest), str(precision)


def _home(key: MethodKey, finished: Iterable[MethodKey]) -> MethodKey | None:
    """Find the row of an unfinished run, whose precision `auto` may not have been resolved yet."""
    alike = [k for k in finished if k == key or (k[:3] == key[:3] and key[3] == "auto")]
    return alike[0] if alike else None


def _finished_later(run: Result, row: Row) -> bool:
    """Whether this run was interrupted (or is running), and a later run finished its seed."""
    return run.status in ("interrupted", "running") and any(
        other.seed == run.seed and other.run_id > run.run_id for other in row.runs
    )


def _label(rows: Sequence[Row]) -> None:
    """Name rows by their model, and where that is not enough by the settings that differ."""
    for row in rows:
        if row.untrained and row.any_run().cost.get("parameters"):
            row.label = f"{row.model} (untrained)"
    for alike in _same_label(rows):
        settings = [settings_of(row.any_run().config) for row in alike]
        for row, differing in zip(alike, differences(settings), strict=True):
            if differing:
                row.label = f"{row.label} ({differing})"
    for alike in _same_label(rows):  # where no setting tells them apart
        for row in alike:
            row.label = f"{row.label} [{row.any_run().fingerprint}]"


def _same_label(rows: Iterable[Row]) -> list[list[Row]]:
    by_label: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        by_label[row.dataset, row.label].append(row)
    return [alike for alike in by_label.values() if len(alike) > 1]
