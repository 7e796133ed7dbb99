"""Notes below a table: how scores were taken, what they cover, and which runs are missing."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from genbench.comparison.columns import ScoreColumn, bare, card_differences
from genbench.comparison.family import null_copy_rate
from genbench.comparison.priors import notes_on_priors
from genbench.comparison.rows import Row, ScoreKey, as_trained, score_key
from genbench.comparison.searched import notes_on_search
from genbench.comparison.significance import SEEDS_FOR_SPREAD
from genbench.comparison.tables import number
from genbench.runs.result import Result
from genbench.runs.score import Score, digest

WORSE = 1.25  # final over best distance from which a note says so
COPYING = (
    5  # copy rate over that of new images from which a note says so; chance alone gives up to 3
)


def notes_on(rows: Sequence[Row], columns: Sequence[ScoreColumn]) -> list[str]:
    """Say in words how the scores were taken, what they cover, and which runs are missing."""
    by_protocol: dict[str, list[str]] = defaultdict(list)
    for column in columns:
        by_protocol[_protocol(column.example)].append(bare(column))
    notes = [f"{', '.join(names)}: {words}" for words, names in by_protocol.items() if words]
    notes += list(dict.fromkeys(words for c in columns if (words := _ceiling(c.example))))
    notes += _judges(rows, columns)
    notes += _protocols_of_one_name(columns)
    most = max((len(row.values(c.key)) for row in rows for c in columns), default=0)
    if most >= SEEDS_FOR_SPREAD:
        notes.append(
            "±: standard deviation over training seeds, the chance of the sampled images within it; the "
            "interval of a single run (`genbench show`) is over images alone"
        )
    elif most == 1 and len(rows) > 1:
        notes.append(
            "one seed a row: another seed or another processor gives other numbers; seeds are the error bar "
            "(-m seed=0,1,2,3,4)"
        )
    if any(column.key[1] == "best" for column in columns):
        notes.append(
            "best: the weights of a run that were best on its validation split (selection)"
        )
    if any(column.example.split == "validation" for column in columns):
        notes.append(
            "validation: scored on the validation split, with latents of its own, to choose settings; "
            "what is chosen so is reported by its test scores"
        )
    notes += notes_on_priors(rows)
    notes += notes_on_search(as_trained(rows))
    notes += [f"{row.label}: {words}" for row in as_trained(rows) if (words := _outside(row))]
    notes += [f"{row.label}: {words}" for row in rows if (words := _copies(row))]
    notes += [words for row in as_trained(rows) if (words := _other_pictures(row))]
    notes += [f"{row.label}: {words}" for row in rows for words in _worse_than_best(row)]
    repeated = sum(row.repeated for row in rows)
    if repeated:
        runs = "1 earlier run" if repeated == 1 else f"{repeated} earlier runs"
        notes.append(f"not counted: {runs} of the same seed and method")
    for row in rows:
        warned = [] if row.prior else row.runs  # once for each training
        notes += _warnings(row.label, warned)
        notes += [f"{row.label}, {words}" for words in _missing(row, columns)]
    return notes


def _warnings(label: str, runs: Sequence[Result]) -> Iterator[str]:
    """What trainings warned of, those that differ in numbers alone once, with their seeds and the first's words."""
    alike: dict[str, list[tuple[int, str]]] = {}
    for run in runs:
        for text in run.warnings:
            alike.setdefault(re.sub(r"[\d.,]+", "#", text), []).append((run.seed, text))
    for same in alike.values():
        seeds = [str(seed) for seed, _ in dict(same).items()]
        word = "seed" if len(seeds) == 1 else "seeds"
        yield f"{label}, {word} {', '.join(seeds)}: {same[0][1]}"


def _protocols_of_one_name(columns: Sequence[ScoreColumn]) -> Iterable[str]:
    """Say in what the cards of columns of one name differ, unless their headers say it: raw and averaged."""
    by_name: dict[str, list[ScoreColumn]] = defaultdict(list)
    for column in columns:
        by_name[column.key[0]].append(column)
    for name, same in by_name.items():
        if len({column.key[2] for column in same}) > 1:
            cards = [column.example.card for column in same]
            if len({digest(_without_weights(card)) for card in cards}) == 1:
                continue
            differences = card_differences(cards)
            for column, difference in zip(same, differences, strict=True):
                yield f"{column.header}: {name} with {difference or column.key[1]}"


def _without_weights(card: Mapping[str, Any]) -> dict[str, Any]:
    fake = {k: v for k, v in card.get("fake", {}).items() if k not in ("weights", "averaging")}
    return {**card, "fake": fake}


def _ceiling(score: Score) -> str:
    """What a perfect model would get: E[coverage] = 1 - prod (N - i) / (2N - i), Naeem et al. 2020."""
    card = score.card
    k, real, fake = card.get("estimator", {}).get("k"), card.get("real"), card.get("fake")
    if score.quantity != "coverage" or not k or not real or not fake:
        return ""
    n = min(real["n"], fake["n"], card["estimator"].get("max_images", real["n"]))
    missed = math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    return f"of images like the real ones, coverage is {1 - missed:.3f} and density 1 (k = {k})"


def _outside(row: Row) -> str:
    """Say that a row's decoder is not the one that the network group gives to all models."""
    for run in row.runs:
        own, arena = (run.config.get(part, {}).get("decoder") for part in ("model", "network"))
        if not (isinstance(own, Mapping) and isinstance(arena, Mapping)):
            continue
        if (name := str(own.get("_target_"))) != str(arena.get("_target_")):
            return (
                f"not in the arena: it makes images by {name.rpartition('.')[2]}, the others by "
                f"{str(arena.get('_target_')).rpartition('.')[2]} (parameters and time: --cost)"
            )
    return ""


def _copies(row: Row) -> str:
    """Say that a row's images are copies, whether the column is shown or not."""
    for key, example in row.examples.items():
        null, values = null_copy_rate(example), list(row.values(key).values())
        if null is not None and values and mean(values) > COPYING * null:
            return (
                f"copies training images: copy rate {number(mean(values), 2)}, of new images {null}"
            )
    return ""


def _judges(rows: Sequence[Row], columns: Sequence[ScoreColumn]) -> Iterator[str]:
    """Say how many real images the judge of a label accuracy names rightly: what it is to be read beside."""
    for column in columns:
        name = column.key[0].replace("label_accuracy_", "label_accuracy_heldout_", 1)
        if column.example.quantity != "label_accuracy" or name == column.key[0]:
            continue
        keys = {key for row in rows for key in row.examples if key[0] == name}
        values = [v for row in rows for key in keys for v in row.values(key).values()]
        if values:
            least, most = number(min(values)), number(max(values))
            share = least if least == most else f"{least} to {most}"
            yield f"{bare(column)}: its judge gives {share} of the real held-out images their label"


def _other_pictures(row: Row) -> str:
    """Say that runs of a row were trained on different pictures of one name; empty if they were not."""
    seeds: dict[str, list[str]] = defaultdict(list)  # by the pictures
    for run in row.runs:
        cards = (score.card.get("real", {}) for score in run.scores)
        real: Mapping[str, Any] = next((card for card in cards if "fingerprint" in card), {})
        if real.get("fingerprint"):
            seeds[f"{real['n']:,} images, sha256 {real['fingerprint'][:8]}"].append(str(run.seed))
    if len(seeds) < 2:
        return ""
    said = "; ".join(
        f"seed{'s' * (len(own) > 1)} {', '.join(own)} on {of}" for of, own in seeds.items()
    )
    return (
        f"{row.label}: trained on DIFFERENT pictures that are all called {row.any_run().dataset} ({said}): "
        "these are no seeds of one method; dataset.name=... tells pictures apart"
    )


def _worse_than_best(row: Row) -> Iterable[str]:
    """Say where a row's final weights are much worse than its best ones."""
    pairs: dict[tuple[str, str], dict[str, ScoreKey]] = defaultdict(dict)
    for run in row.runs:
        for score in run.scores:
            if score.quantity in ("fd", "fid", "fid_clean") and score.value is not None:
                pairs[score.name, score.protocol][score.checkpoint] = score_key(score)
    for (name, _), keys in pairs.items():
        if {"final", "best"} <= set(keys):
            final, best = (mean(row.values(keys[which]).values()) for which in ("final", "best"))
            if best > 0 and final / best > WORSE:
                yield (
                    f"final {name} {number(final)} is {final / best:.1f} times its best "
                    f"({number(best)}, chosen on the validation split): it got worse in the end"
                )


def _missing(row: Row, columns: Sequence[ScoreColumn]) -> Iterable[str]:
    """Say of each run of a row why it, or a score of it, is not in the numbers."""
    seeds: dict[str, list[int]] = {}  # by what is said of them
    for seed, words in _missing_by_seed(row, columns):
        seeds.setdefault(words, []).append(seed)
    for words, own in seeds.items():
        yield f"seed{'s' if len(own) > 1 else ''} {', '.join(map(str, sorted(own)))}: {words}"


def _missing_by_seed(row: Row, columns: Sequence[ScoreColumn]) -> Iterable[tuple[int, str]]:
    for run in [] if row.prior else row.unfinished:
        reason = f": {' '.join(run.reason.split())}" if run.reason else ""
        yield run.seed, f"{run.status}{reason}"
    for column in columns:
        for run, score in row.scores(column.key):
            if score.value is None:
                yield run.seed, f"no {bare(column)}, {score.status}"
            elif score.status != "ok":
                yield run.seed, f"{bare(column)} in brackets, {score.status}"


def _protocol(score: Score) -> str:
    card = score.card
    parts = [_curve(card)] if "curve" in card else []
    if extractor := card.get("extractor"):
        parts.append(f"features {extractor.get('name')}@{str(extractor.get('sha256', ''))[:8]}")
    if likelihood := card.get("likelihood"):
        parts.append(f"likelihood {likelihood}")
    sets = [_images_of(card[role]) for role in ("real", "heldout") if role in card]
    if fake := card.get("fake"):
        origin = f"({fake.get('weights', 'raw')} weights, seed {fake.get('seed')})"
        sets.insert(0, f"{fake['n']:,} samples {origin}")
    if sets:
        parts.append(" against ".join([sets[0], " and ".join(sets[1:])] if sets[1:] else sets))
    return ", ".join(parts)


def _curve(card: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in card["settings"].items())
    return f"{card['curve']} of history.csv{f' ({settings})' if settings else ''}"


def _images_of(data: Mapping[str, Any]) -> str:
    count = data.get("first") or data.get("subset", data).get("n", 0)  # `first`: earlier versions
    return f"{count:,} images of the {data.get('split')} split"
