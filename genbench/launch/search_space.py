"""The space of a search: Hydra's sweep grammar as Optuna distributions."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from genbench.errors import UserMistake
from genbench.launch.settings import Settings


@dataclass
class Space:
    """What varies, as Optuna distributions by key, and what is fixed, as overrides."""

    varying: dict[str, BaseDistribution]
    fixed: list[str]

    @classmethod
    def read(cls, overrides: Sequence[str]) -> "Space":
        """Split overrides into `varying` and `fixed`; the last one for a key counts. UserMistake if none varies."""
        parsed = {
            o.get_key_element(): o for o in OverridesParser.create().parse_overrides([*overrides])
        }
        varying, fixed = {}, []
        for key, override in parsed.items():
            if override.is_sweep_override():
                varying[key] = distribution(override)
            else:
                fixed.append(f"{key}={override.get_value_element_as_str()}")
        if not varying:
            raise UserMistake(
                "a search needs something to vary: "
                "'model.optimizer.lr=tag(log,interval(1e-5,1e-2))', or a comma list"
            )
        return cls(varying, fixed)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial with these `params`."""
        return [*self.fixed, *(f"{key}={params[key]}" for key in self.varying)]

    def described(self) -> list[str]:
        """What varies in words, a line for each key; a study that is continued must have the same."""
        return sorted(f"{key}={_described(values)}" for key, values in self.varying.items())

    def shipped_defaults(self) -> list[dict[str, Any]]:
        """Params of the trials with the shipped defaults, one for each combination of the groups that vary."""
        cache: dict[Any, Any] = {}
        groups = Settings(self.fixed, cache=cache).groups
        chosen = [key for key in self.varying if key in groups]
        found = []
        for options in itertools.product(*(self._options(key) for key in chosen)):
            group_choices = dict(zip(chosen, options, strict=True))
            chosen_groups = [f"{k}={v}" for k, v in group_choices.items()]
            settings = Settings([*self.fixed, *chosen_groups], cache=cache)
            found.append({**group_choices, **self._defaults(settings)})
        return found

    def _options(self, key: str) -> Sequence[Any]:
        options = self.varying[key]
        assert isinstance(options, CategoricalDistribution)
        return options.choices

    def _defaults(self, settings: Settings) -> dict[str, Any]:
        """The defaults that lie in the space; the sampler chooses the other params."""
        found = {}
        for key, values in self.varying.items():
            if key in settings.groups:
                continue
            default = settings.default(key)
            if isinstance(values, CategoricalDistribution):
                near = [c for c in values.choices if _same(c, default)]
                if near:
                    found[key] = near[0]
            elif isinstance(default, int | float) and not isinstance(default, bool):
                value = int(default) if isinstance(values, IntDistribution) else float(default)
                if value == default and _contains(values, value):
                    found[key] = value
        return found

    def grid(self) -> list[dict[str, Any]]:
        """Every combination; raises UserMistake for an interval without steps."""
        return [
            dict(zip(self.varying, values, strict=True))
            for values in itertools.product(*(_values(k, d) for k, d in self.varying.items()))
        ]


def distribution(override: Override) -> BaseDistribution:
    """The Optuna distribution of a choice, range or interval of Hydra's; tag(log, ...): log scale.

    UserMistake for a range on a log scale, and for an empty interval.
    """
    sweep, key = override.value(), override.get_key_element()
    if isinstance(sweep, ChoiceSweep):
        return CategoricalDistribution([*override.sweep_string_iterator()])
    assert isinstance(sweep, IntervalSweep | RangeSweep)
    log = "log" in sweep.tags
    if isinstance(sweep, RangeSweep):
        if log:
            raise UserMistake(f"{key}: a range has steps, so no log scale: use interval(...)")
        values = [float(v) for v in override.sweep_string_iterator()]
        step = abs(sweep.step or 1)
        if all(isinstance(v, int) for v in (sweep.start, sweep.stop, step)):
            return IntDistribution(int(min(values)), int(max(values)), step=int(step))
        return FloatDistribution(min(values), max(values), step=float(step))
    low, high = sweep.start, sweep.end
    if low is None or high is None or low > high or (log and low <= 0):
        raise UserMistake(
            f"{key}: interval({low},{high}) is empty, or reaches 0 on a log scale: "
            "write interval(low,high) with 0 < low < high"
        )
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _described(values: BaseDistribution) -> str:
    if isinstance(values, CategoricalDistribution):
        return ",".join(map(str, values.choices))
    assert isinstance(values, IntDistribution | FloatDistribution)
    step = f" by {values.step}" if values.step else ""
    return f"{values.low}..{values.high}{step}{' on a log scale' if values.log else ''}"


def _contains(values: BaseDistribution, value: float) -> bool:
    assert isinstance(values, IntDistribution | FloatDistribution)
    steps = (value - values.low) / values.step if values.step else 0.0
    return values.low <= value <= values.high and abs(steps - round(steps)) < 1e-8


def _same(choice: Any, default: Any) -> bool:
    if default is None or isinstance(default, bool):
        return str(choice).lower() == {None: "null", True: "true", False: "false"}[default]
    try:
        return float(choice) == float(default)
    except (TypeError, ValueError):
        as_written = yaml.safe_load(str(choice)), yaml.safe_load(str(default))
        return bool(as_written[0] == as_written[1])  # lists, whatever their spaces


def _values(key: str, values: BaseDistribution) -> Sequence[Any]:
    if isinstance(values, CategoricalDistribution):
        return values.choices
    assert isinstance(values, IntDistribution | FloatDistribution)
    if isinstance(values, FloatDistribution) and values.step is None:
        raise UserMistake(
            f"{key}: a grid needs steps: write range(low,high,step) or a comma list, or choose "
            "another hydra.sweeper.sampler"
        )
    step = values.step or 1
    return [
        values.low + i * step
        for i in range(1 + math.floor((values.high - values.low) / step + 1e-9))
    ]
