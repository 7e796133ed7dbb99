"""Where a model's Frechet distance comes from: from what is real to what it samples, step by step.

The distance to the training images of as many new ones (the floor), of reconstructions, of samples from
the best fitted prior, and of samples as in training: from N(0, I), or of a model of tokens from the prior
that it has learned. What is added from one to the next is called the decoder's, the latents' and the prior's part. Distances do not add up by nature: a part says how much
higher the distance stands, not how much of it would go if its cause went. Imports no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev
from typing import Any, NamedTuple

from genbench.comparison.rows import Row
from genbench.comparison.significance import SEEDS_FOR_SPREAD
from genbench.comparison.tables import number
from genbench.runs.result import Result
from genbench.runs.score import Score, digest

FLOOR, DECODED, FITTED, SAMPLED = "floor", "reconstructions", "best prior", "N(0, I)"
OWN = "its own prior"  # what a model of tokens is sampled from in place of N(0, I)
PARTS = {DECODED: "decoder", FITTED: "latents", SAMPLED: "prior"}  # what ends at each step
NOT_CHOSEN = ("truncated", "aggregated")  # one narrows on purpose, the other copies training images
NOT_ADDITIVE = (
    "differences of Frechet distances are not additive: a part says how much higher the distance stands "
    "after a step, not how much of it would go with its cause"
)
TOLD = (
    "told labels, each with codes of its own: no prior is fitted to these, so that the latents' and the prior's "
    "part are not told apart"
)
Values = Mapping[str, float]  # by run


@dataclass(frozen=True)
class Step:
    """The distance at one step, by run; `detail` has the floor's bounds, or names images or the prior."""

    name: str
    values: Values
    detail: str = ""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.values.values())


@dataclass(frozen=True)
class Part:
    """What is added from one step to the next, by run of both."""

    name: str
    begin: float
    values: Values

    @property
    def mean(self) -> float:
        """Over seeds; may be below 0."""
        return mean(self.values.values())


@dataclass(frozen=True)
class Gap:
    """The steps of one method under one protocol, those that are known, in order.

    `missing` says which step is not known and what fills it; `notes` what else must be known to read them;
    `source` what samples are drawn from in training.
    """

    label: str
    dataset: str
    extractor: str
    num_samples: int
    has_encoder: bool
    steps: Sequence[Step]
    missing: Sequence[str]
    notes: Sequence[str]
    source: str = SAMPLED

    @cached_property
    def parts(self) -> Sequence[Part]:
        """Between the steps that are known; where one between them is not, two parts are one.

        Of the first step none is told: below the floor lies what no model can mend.
        """
        found, names, before = list[Part](), list[str](), self.steps[0]
        for name in (DECODED, FITTED, SAMPLED):
            names.append(PARTS[name])
            step = self.step(name)
            if step is None:
                continue
            shared = [run for run in step.values if run in before.values]
            added = {run: step.values[run] - before.values[run] for run in shared}
            if added and step is not before:
                title = " and ".join(names) if self.has_encoder else "decoder and prior"
                found.append(Part(title, before.mean, added))
            names, before = [], step
        return found

    def step(self, name: str) -> Step | None:
        """A step by its name; None if it is not known."""
        return next((step for step in self.steps if step.name == name), None)


def spread(values: Iterable[float], signed: bool = False) -> str:
    """Mean ± standard deviation, from three seeds on where they differ: `16.5 ± 0.4`."""
    own = list(values)
    text = number(mean(own), 3)
    text = f"+{text}" if signed and mean(own) >= 0 else text
    told = len(own) >= SEEDS_FOR_SPREAD and max(own) > min(
        own
    )  # a floor is that of the images alone
    return f"{text} ± {number(stdev(own), 2)}" if told else text


def gaps(rows: Sequence[Row]) -> list[Gap]:
    """The gap of every trained method, best first; of the rows of a method, one for each prior, one gap.

    Without an FD there is none.
    """
    merged: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.runs and not row.untrained:
            key = row.dataset, row.model, row.runs[0].fingerprint
            merged.setdefault(key, []).append(row)
    known = [gap for gap in map(_gap, merged.values()) if gap is not None]
    return sorted(known, key=lambda gap: gap.steps[-1].mean)


class _Entry(NamedTuple):
    """A score of one method: the kind of its fitted prior if it has one, an example, a value by run."""

    prior: str | None
    score: Score
    values: dict[str, float]


class _Scores:
    """The test scores of raw final weights of one method, by prior and card."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._entries: dict[tuple[str, str, str], _Entry] = {}
        for row in rows:
            for run in row.runs:
                self._add(row, run)

    def _add(self, row: Row, run: Result) -> None:
        for score in run.scores:
            if _counts(score) and score.value is not None:
                prior = _prior(row, score)
                key = digest(prior), score.name, score.protocol
                kind = None if prior is None else str(prior.get("prior"))
                entry = self._entries.setdefault(key, _Entry(kind, score, {}))
                entry.values[run.run_id] = score.value

    def of(self, quantity: str, fitted: bool = False) -> list[_Entry]:
        """Those of a quantity: of latents as in training, or of those from fitted priors."""
        return [
            entry
            for entry in self._entries.values()
            if entry.score.quantity == quantity and (entry.prior is not None) == fitted
        ]


def _counts(score: Score) -> bool:
    fake = score.card.get("fake", {})
    return (
        score.checkpoint == "final"
        and score.split == "test"
        and fake.get("weights", "raw") == "raw"
    )


def _prior(row: Row, score: Score) -> Mapping[str, Any] | None:
    """What defines a fitted prior, by the card of a score or by its row; None for latents as in training."""
    latents = score.card.get("fake", {}).get("latents")
    if isinstance(latents, Mapping):
        return latents
    return row.defined or None


def _gap(rows: Sequence[Row]) -> Gap | None:
    scores = _Scores(rows)
    bases = scores.of("fd")
    if not bases:
        return None
    row = next((own for own in rows if not getattr(own, "defined", None)), rows[0])
    encoder = any(_encodes(run) for own in rows for run in own.runs)
    found = [_of_base(base, scores, row, encoder) for base in bases]
    return max(found, key=lambda gap: (len(gap.steps), gap.num_samples))


def _encodes(run: Result) -> bool:
    """Whether a run's model has an encoder: by its networks, or by its scores."""
    networks = run.cost.get("parameters") or {}
    return "encoder" in networks or any("reconstructed" in score.card for score in run.scores)


def _of_base(entry: _Entry, scores: _Scores, row: Row, encoder: bool) -> Gap:
    base, missing, notes = entry.score, list[str](), list[str]()
    count = int(base.card["fake"]["n"])
    steps = [step for step in [_floor(base, scores, notes)] if step]
    if encoder:
        decoded = _decoded(base, scores, steps, notes)
        steps += [decoded] if decoded else []
        if decoded is None:
            missing.append(f"reconstructions: {_command(row, 'reconstruction')}")
        best = _best_prior(base, scores, notes)
        steps += [best] if best else []
        if best is None and _told(row):
            notes.append(TOLD)
        elif best is None:
            missing.append(f"the best prior: {_command(row, 'prior')}")
    else:
        notes.append(_without_encoder(row, scores))
    source = OWN if _has_tokens(row) else SAMPLED
    steps.append(Step(SAMPLED, entry.values, source if source == OWN else ""))
    notes += _of_latents(scores) if encoder else []
    extractor = str(base.card.get("extractor", {}).get("name", ""))
    label = row.training or row.label
    return Gap(label, row.dataset, extractor, count, encoder, steps, missing, notes, source)


def _floor(base: Score, scores: _Scores, notes: list[str]) -> Step | None:
    """What as many new images would get; None where it is not known."""
    count = base.card["fake"]["n"]
    for entry in scores.of("fd_floor"):
        if entry.score.card.get("estimator", {}).get("n") == count and _alike(entry, base):
            low, high = entry.score.low, entry.score.high
            known = low is not None and high is not None
            bounds = f"[{number(low, 2)}, {number(high, 2)}]" if known else ""
            return Step(FLOOR, entry.values, bounds)
    notes.append(f"the floor of {count:,} images is not known, so that the first step has no part")
    return None


def _decoded(base: Score, scores: _Scores, steps: Sequence[Step], notes: list[str]) -> Step | None:
    """Reconstructions, at the number of images that samples have: their bias in n is that of the originals."""
    count, found = base.card["fake"]["n"], list[tuple[int, Values, Values]]()
    for rebuilt in scores.of("fd_reconstructed"):
        for own in scores.of("fd_originals"):
            heldout = rebuilt.score.card.get("heldout", {})
            same = heldout == own.score.card.get("heldout", {})
            if same and _alike(rebuilt, base) and _alike(own, base):
                found.append((_images(heldout), rebuilt.values, own.values))
    if not found:
        return None
    images, values, bases = min(found, key=lambda one: abs(one[0] - count))
    if not steps or images == count:
        if images != count:
            notes.append(
                f"reconstructions are {images:,} and samples {count:,}, and their biases differ"
            )
        return Step(DECODED, values, f"{images:,} reconstructions")
    floor = steps[0].values
    shifted = {
        run: value + floor[run] - bases[run]
        for run, value in values.items()
        if run in floor and run in bases
    }
    if not shifted:
        return None
    shift = mean(shifted[run] - values[run] for run in shifted)
    notes.append(
        f"the FD of its {images:,} reconstructions, {spread(values.values())}, is moved by {number(shift, 3)}, "
        f"what their originals at that number are above {count:,} new images, as an FD depends on the number"
    )
    return Step(DECODED, shifted, f"{images:,} reconstructions, at {count:,} images")


def _best_prior(base: Score, scores: _Scores, notes: list[str]) -> Step | None:
    """The fitted prior with the smallest mean distance, of those that neither copy nor narrow."""
    wanted, found, others = _without_prior(base), dict[str, Values](), dict[str, float]()
    for kind, score, values in scores.of("fd", fitted=True):
        if _without_prior(score) != wanted:
            continue
        level = mean(values.values())
        if kind in NOT_CHOSEN:
            others[kind] = min(level, others.get(kind, level))
        elif kind is not None and (kind not in found or level < mean(found[kind].values())):
            found[kind] = values
    if "aggregated" in others:
        notes.append(
            f"from posteriors of training images, a ceiling that copies: {number(others['aggregated'], 3)}"
        )
    if not found:
        return None
    # of those that most seeds have: one seed may be a lucky one
    best = min(found, key=lambda kind: (-len(found[kind]), mean(found[kind].values())))
    if len(found) > 1:
        rest = [f"{kind} {spread(own.values())}" for kind, own in found.items() if kind != best]
        notes.append(f"the best of {len(found)} priors, chosen by this FD; {', '.join(rest)}")
    return Step(FITTED, found[best], best)


def _without_prior(score: Score) -> str:
    """A hash of the card without what the prior changes in it."""
    fake = {k: v for k, v in score.card["fake"].items() if k not in ("latents", "batch_norm")}
    return digest({**score.card, "fake": fake})


def _alike(entry: _Entry, base: Score) -> bool:
    """Whether two scores have the same features, and the same training images."""
    card = entry.score.card
    return all(card.get(key) == base.card.get(key) for key in ("extractor", "real"))


def _images(card: Mapping[str, Any]) -> int:
    """How many images of a split a card names: its subset, or all."""
    return int(card.get("subset", card).get("n", 0))


def _command(row: Row, what: str) -> str:
    """What fills a step for the runs of a row."""
    runs = " ".join(run.run_id for run in row.runs)
    if what == "prior":
        return (
            f"genbench evaluate {runs} prior={'autoregressive' if _has_tokens(row) else 'mixture'}"
        )
    config = row.runs[0].config
    known = (config.get("evaluation") or {}).get("reconstruction")
    chosen = (config.get("choices") or {}).get("evaluation")
    protocol = chosen if chosen in ("quick", "standard", "full") else "quick"
    return f"genbench evaluate {runs}" + ("" if known else f" evaluation={protocol}")


def _has_tokens(row: Row) -> bool:
    """Whether its model is one of tokens (vq, fsq), which is sampled from a prior of its own over them."""
    prior = (row.runs[0].config.get("model") or {}).get("prior")
    return isinstance(prior, Mapping) and "tokens" in prior


def _told(row: Row) -> bool:
    """Whether its model is told labels."""
    arena = row.runs[0].config.get("arena") or {}
    return str(arena.get("condition", "none")) != "none"


def _of_latents(scores: _Scores) -> list[str]:
    """What the latents carry, in a line; none where it was not scored."""
    said = []
    for quantity, words in (
        ("active_units", "{} of {width} latents are active"),
        (
            "mutual_information",
            "{} nats of information on the image (its estimate ends at {bound})",
        ),
        ("marginal_kl", "at most {} nats between the codes of all images and N(0, I)"),
    ):
        for _, score, values in scores.of(quantity)[-1:]:
            width = score.card.get("encoded", {}).get("latent_dim", "?")
            bound = str(score.card.get("estimator", {}).get("bound", "")).rpartition("= ")[2]
            said.append(words.format(spread(values.values()), width=width, bound=bound))
    return [", ".join(said)] if said else []


def _without_encoder(row: Row, scores: _Scores) -> str:
    found = scores.of("inversion_psnr")
    if found:
        values = spread(found[-1].values.values())
        return (
            "no encoder, so that its parts are not told apart; held-out images are found in its latent space "
            f"by inversion at {values} dB"
        )
    runs = " ".join(run.run_id for run in row.runs)
    return (
        "no encoder, so that its parts are not told apart; what its latent space holds of held-out images: "
        f"genbench evaluate {runs} evaluation.inversion=true"
    )
