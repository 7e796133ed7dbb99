"""Published numbers beside our own: what a row of `reproduce/` claims, and what was measured of it.

A row is a YAML file: who published what under which protocol, the band in which a reproduction must fall,
the settings of `genbench train` that run it, and what was measured, on which machine. A value beyond the
good end of the band is outside as well: then the protocol differs, or something is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from genbench.errors import UserMistake
from genbench.runs.config import read_yaml
from genbench.runs.result import Result

REQUIRED = ("title", "source", "published", "band", "train", "seeds", "score", "cost")
OPTIONAL = ("needs", "differs", "measured")
STUDY = "reproduce-"  # and the row's name: the study of its runs


@dataclass(frozen=True)
class Measured:
    """A value of the row's score: the mean over `seeds` runs on `machine`."""

    value: float
    seeds: int
    machine: str
    date: str = ""
    seconds: float | None = None  # of training, of one run


@dataclass(frozen=True)
class Claim:
    """A row of `reproduce/`: a published number and how it is run here."""

    name: str
    title: str
    source: str
    value: float | None  # as published; None where a paper gives none
    unit: str
    protocol: str  # of the published number
    band: tuple[float, float] | None
    train: tuple[str, ...]  # settings of `genbench train`
    seeds: tuple[int, ...]
    score: str  # name of the score that is compared
    times: (
        float  # the score times this is in the published unit: -1 turns log p(x) into its negative
    )
    cost: str  # what a run takes, in words
    needs: tuple[str, ...] = ()  # in words: a GPU, a dataset, weights
    differs: tuple[str, ...] = ()  # from the published protocol, in words
    measured: tuple[Measured, ...] = ()

    @property
    def study(self) -> str:
        """The study that its runs belong to."""
        return STUDY + self.name

    @property
    def overrides(self) -> list[str]:
        """Settings of `genbench train -m` for all seeds."""
        seeds = ",".join(map(str, self.seeds))
        return [*self.train, f"seed={seeds}", f"study={self.study}"]

    def verdict(self, value: float) -> str:
        """Where `value` lies: inside or outside of the band, and on which side."""
        if self.band is None:
            return "no number is published to hold it against"
        low, high = self.band
        if low <= value <= high:
            return "inside"
        side, by = ("below", low - value) if value < low else ("above", value - high)
        return f"outside, {by:.3g} {side}"

    def of_runs(self, results: Sequence[Result]) -> Measured | None:
        """The mean score of finished runs of the row's study, one for each seed; None without any."""
        values: dict[int, float] = {}
        machines: dict[str, None] = {}
        seconds: list[float] = []
        for result in sorted(results, key=lambda r: r.run_id):
            if result.study != self.study or result.status != "finished":
                continue
            for score in result.scores:
                named = (score.name, score.checkpoint) == (self.score, "final")
                if named and score.value is not None:
                    values[result.seed] = score.value * self.times
                    machines[str(result.cost.get("device", "an unknown machine"))] = None
                    seconds.append(float(result.budget.get("seconds") or 0))
        if not values:
            return None
        return Measured(
            fmean(values.values()), len(values), ", ".join(machines), "here", fmean(seconds)
        )


def read_claims(folder: Path) -> list[Claim]:
    """Every row of a folder, by name. Raises UserMistake for a file that is none."""
    return [read_claim(path) for path in sorted(folder.glob("*.yaml"))]


def read_claim(path: Path) -> Claim:
    """Read a row. Raises UserMistake, with the file, for missing or unknown keys."""
    content = read_yaml(path)
    missing = [key for key in REQUIRED if key not in content]
    unknown = [key for key in content if key not in (*REQUIRED, *OPTIONAL)]
    if missing or unknown:
        what = (
            f"lacks {', '.join(missing)}" if missing else f"has unknown keys {', '.join(unknown)}"
        )
        raise UserMistake(f"{path} {what}: a row has {', '.join((*REQUIRED, *OPTIONAL))}")
    published: Mapping[str, Any] = content["published"]
    band = content["band"]
    return Claim(
        name=path.stem,
        title=content["title"],
        source=content["source"],
        value=published["value"],
        unit=published["unit"],
        protocol=published["protocol"],
        band=None if band is None else (float(band[0]), float(band[1])),
        train=tuple(content["train"]),
        seeds=tuple(content["seeds"]),
        score=content["score"]["name"],
        times=float(content["score"].get("times", 1)),
        cost=content["cost"],
        needs=tuple(content.get("needs") or ()),
        differs=tuple(content.get("differs") or ()),
        measured=tuple(
            Measured(**{**one, "date": str(one.get("date", ""))})
            for one in content.get("measured") or ()
        ),
    )


def find_claim(name: str, claims: Sequence[Claim]) -> Claim:
    """The row of that name. Raises UserMistake, with all names, if there is none."""
    for claim in claims:
        if claim.name == name:
            return claim
    known = ", ".join(claim.name for claim in claims)
    raise UserMistake(f"there is no row {name} to reproduce: choose one of {known}")


def described(claim: Claim) -> list[str]:
    """Lines that say what is claimed, how it is run, and what was measured."""
    published = f"{claim.value:g} {claim.unit}" if claim.value is not None else "no number"
    band = f", band {claim.band[0]:g} to {claim.band[1]:g}" if claim.band else ""
    lines = [
        f"{claim.name}: {claim.title}",
        f"  source     {claim.source}",
        f"  published  {published}{band}; {claim.protocol}",
        *(f"  differs    {words}" for words in claim.differs),
        f"  needs      {', '.join(claim.needs) or 'nothing beside this machine'}",
        f"  cost       {claim.cost}",
        f"  command    genbench train -m {' '.join(map(quoted, claim.overrides))}",
    ]
    return lines + [f"  measured   {measured_words(claim, one)}" for one in claim.measured]


def measured_words(claim: Claim, one: Measured) -> str:
    """A measured value with its verdict, its machine and its date."""
    runs = "1 run" if one.seeds == 1 else f"{one.seeds} runs"
    minutes = "" if one.seconds is None else f", {one.seconds / 60:.0f} min of training each"
    where = f"{one.machine}, {one.date}" if one.date else one.machine
    return f"{one.value:.4g} {claim.unit}: {claim.verdict(one.value)} ({runs}; {where}{minutes})"


def quoted(override: str) -> str:
    """An override as a shell takes it."""
    return f"'{override}'" if any(sign in override for sign in "[]{}~ *") else override


def table(claims: Sequence[Claim], here: Mapping[str, Measured]) -> list[list[str]]:
    """Rows of `genbench reproduce`: name, claimed, band, measured, verdict; `here` is by row."""
    rows = []
    for claim in claims:
        one = here.get(claim.name) or (claim.measured[-1] if claim.measured else None)
        claimed = "none" if claim.value is None else f"{claim.value:g} {claim.unit}"
        band = f"{claim.band[0]:g} to {claim.band[1]:g}" if claim.band else ""
        if one is None:
            why = f"needs {', '.join(claim.needs)}" if claim.needs else f"{claim.cost}"
            rows.append([claim.name, claimed, band, "", f"not run here: {why}"])
        else:
            rows.append([claim.name, claimed, band, f"{one.value:.4g}", claim.verdict(one.value)])
    return rows
