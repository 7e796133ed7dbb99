"""Scores and curves of a run as lists and mappings, and as data frames where pandas is installed."""

import html
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from genbench.comparison.tables import number
from genbench.errors import UserMistake
from genbench.runs.history import read_history
from genbench.runs.score import Score

Points = list[tuple[float, float]]


def data_frame(content: Any, **settings: Any) -> Any:
    """A pandas.DataFrame; UserMistake where pandas is not installed."""
    try:
        pandas: Any = import_module("pandas")
    except ImportError:
        raise UserMistake("a frame needs pandas: pip install 'genbench[frames]'") from None
    return pandas.DataFrame(content, **settings)


class Scores(list[Score]):
    """The scores of a run, those of later evaluations last; each is a `genbench.runs.score.Score`."""

    def frame(self) -> Any:
        """A pandas.DataFrame with a row per score, without the cards. UserMistake without pandas."""
        return data_frame([_row(score) for score in self])

    def __getitem__(self, which: Any) -> Any:
        """A score by its place, or by its name: the newest one of the final weights, else of any.

        KeyError for a name that none has.
        """
        if not isinstance(which, str):
            return super().__getitem__(which)
        found = [score for score in self if score.name == which]
        if not found:
            raise KeyError(f"{which}: there are {', '.join(dict.fromkeys(s.name for s in self))}")
        final = [score for score in found if score.checkpoint == "final"]
        return (final or found)[-1]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(score.name)}</td><td>{html.escape(value_text(score))}</td>"
            f"<td>{html.escape(score.unit)}</td><td>{html.escape(score.checkpoint)}</td></tr>"
            for score in self
        )
        return f"<table><tbody>{rows}</tbody></table>"


def value_text(score: Score) -> str:
    """The value with its interval, or why there is none."""
    if score.value is None:
        return score.status
    low, high = score.low, score.high
    interval = "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
    return f"{number(score.value)}{interval}"


def _row(score: Score) -> dict[str, Any]:
    names = ("name", "value", "low", "high", "unit", "higher_is_better", "checkpoint", "status")
    return {name: getattr(score, name) for name in (*names, "protocol")}


class History(dict[str, Points]):
    """The curves of a run: under each name of history.csv the points (images, value)."""

    @classmethod
    def of(cls, directory: Path, axis: str = "images") -> "History":
        """Read history.csv; empty if there is none. `axis` may be seconds or multiply_adds."""
        return cls(read_history(directory, axis))

    def frame(self) -> Any:
        """A pandas.DataFrame with a row per place on the axis and a column per name.

        NaN where there is no point. UserMistake without pandas.
        """
        columns: Mapping[str, Mapping[float, float]] = {
            n: dict(points) for n, points in self.items()
        }
        places = sorted({place for points in columns.values() for place in points})
        rows: Sequence[Any] = [
            {name: points.get(place) for name, points in columns.items()} for place in places
        ]
        return data_frame(rows, index=places, dtype=float)
