"""Scores as an index stores them: what they share with the scores of other runs is stored once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from typing import Any, overload

from genbench.runs.score import Score

OWN = ("value", "low", "high")  # fields that differ between runs


class StoredScores(Sequence[Score]):
    """The scores of one run, made when they are first read: a table of 100,000 runs needs few.

    `kinds` has the shared fields of each score, `values` its OWN fields one after the other.
    """

    def __init__(self, kinds: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> None:
        self._kinds, self._values = kinds, values

    @staticmethod
    def split(scores: Sequence[Score]) -> dict[str, Any]:
        """Both parts of `scores`, to be put into an index."""
        names = [field.name for field in fields(Score) if field.name not in OWN]
        return {
            "score_kinds": {"all": [{name: getattr(s, name) for name in names} for s in scores]},
            "score_values": [getattr(score, name) for score in scores for name in OWN],
        }

    @cached_property
    def _scores(self) -> list[Score]:
        values = iter(self._values)
        return [
            Score.with_protocol({**kind, **dict(zip(OWN, own, strict=True))})
            for kind, own in zip(self._kinds, zip(values, values, values, strict=True), strict=True)
        ]

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, place: int) -> Score: ...
    @overload
    def __getitem__(self, place: slice) -> list[Score]: ...
    def __getitem__(self, place: int | slice) -> Score | list[Score]:
        return self._scores[place]

    def __iter__(self) -> Iterator[Score]:
        return iter(self._scores)

    def __eq__(self, other: object) -> bool:
        return self._scores == list(other) if isinstance(other, Sequence) else NotImplemented
