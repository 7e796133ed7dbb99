"""Equal tuning: the same search for each model on validation scores, then fresh seeds on test scores.

The trials have the study `<study>-search`, the runs at the winners `<study>` and a record of the search
in their config (`search`), which is no part of the method. All of it goes on where it was.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState

from genbench.errors import GenbenchError, UserMistake
from genbench.launch import scored_split
from genbench.launch.search import outputs_of, run_search
from genbench.launch.search_space import Space
from genbench.launch.search_study import SearchSettings, open_storage, read_settings
from genbench.launch.search_trials import LOST, SURPLUS, Search

EDGE = 0.05  # of a range's length: a winner so near to an end may lie beyond it
OWN_SETTINGS = {
    "seed": "set hydra.sweeper.trial_seed and hydra.sweeper.seeds",
    scored_split.KEY: "the trials are scored on the validation split, the fresh seeds on the test split",
    "search": "it is the record of the search",
}


# --- the whole ----------------------------------------------------------------------------------
def tune(sweeper: Any, arguments: Sequence[str]) -> None:
    """Search for each model of a TunedSweeper, then run fresh seeds at the winners.

    `arguments` are the overrides that all runs share. Raises StopSweep on Ctrl-C, UserMistake for
    settings that do not fit, GenbenchError where a search is not over or has no winner.
    """
    settings = read_settings(TunedSettings, sweeper.settings)
    config, task = sweeper.config, sweeper.task
    if config.study is None:
        raise UserMistake("a search needs a name under which it can go on: add study=NAME")
    study, dataset = str(config.study), config.hydra.runtime.choices["dataset"]
    models, common = _chosen(settings, arguments)
    spaces = {model: _space(settings, study, model, common) for model in models}
    sweeper.validate_batch_is_legal([_example(space) for space in spaces.values()])
    storage = open_storage(settings.storage, outputs_of(config), f"{study}-search")
    found = []
    for model, space in spaces.items():
        name = f"{study}-search/{model}/{dataset}"
        print(
            f"\ngenbench: {settings.n_trials} trials of {model}, on validation scores", flush=True
        )
        search = run_search(sweeper.launcher, task, settings.search, space, storage, name)
        found.append(Tuned(model, search))
    task.tolerant = False
    winners = [one for one in found if one.winner is not None]
    jobs = [one.overrides(study, seed) for one in winners for seed in settings.seeds]
    print(f"\ngenbench: {len(jobs)} runs of fresh seeds, on test scores", flush=True)
    if jobs:
        returns = sweeper.launcher.launch(jobs, initial_job_idx=0)
        task.collect(returns)
    print("\n".join(["", f"study {study}, selected on validation scores:", *map(str, found)]))
    lost = [one.model for one in found if one.winner is None]
    if lost:
        raise GenbenchError(
            f"no trial of {' and '.join(lost)} has a score {settings.objective}: see "
            f"`genbench runs study={study}-search`"
        )


@dataclass(frozen=True)
class Tuned:
    """One model and its search, which is over."""

    model: str
    search: Search

    def __post_init__(self) -> None:
        running = self._trials(TrialState.RUNNING)
        if running:
            raise GenbenchError(
                f"{len(running)} trials of {self.model} run in another process: start the same command "
                "again when they have ended"
            )

    @property
    def winner(self) -> FrozenTrial | None:
        """The best trial; None if none has a score."""
        return self.search.study.best_trial if self._trials(TrialState.COMPLETE) else None

    def overrides(self, study: str, seed: int) -> list[str]:
        """Those of a run at the winner with a fresh seed, scored on the test split."""
        assert self.winner is not None
        own = {"study": study, "seed": seed, scored_split.KEY: scored_split.TEST}
        settings = self.search.space.overrides(self.winner.params)
        kept = [o for o in settings if o.partition("=")[0] not in own]
        return [*kept, *(f"{k}={v}" for k, v in own.items()), self._record(self.winner)]

    def _record(self, winner: FrozenTrial) -> str:
        """The search in a run's config, from which a table says the budget."""
        chosen = ",".join(f"{key}:{value}" for key, value in winner.params.items())
        facts = {
            "trials": self.search.counted(),
            "failed": len(self._failed()),
            "objective": self.search.settings.objective,
            "split": scored_split.VALIDATION,
            "value": winner.value,
            "chosen": f"{{{chosen}}}",
            "edge": f"[{','.join(self._at_an_edge(winner))}]",
        }
        return f"search={{{','.join(f'{k}:{v}' for k, v in facts.items())}}}"

    def __str__(self) -> str:
        """A line for people."""
        count = f"{self.search.counted()} trials, {len(self._failed())} failed"
        if self.winner is None:
            return f"  {self.model}: {count}, no winner"
        settings = " ".join(f"{key}={_short(value)}" for key, value in self.winner.params.items())
        edge = self._at_an_edge(self.winner)
        doubt = f"; at an end of its range, which may be too narrow: {', '.join(edge)}"
        value = f"{self.search.settings.objective}={self.winner.value:.4g}"
        return f"  {self.model}: {value} of {count}: {settings}{doubt if edge else ''}"

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self.search.study.get_trials(deepcopy=False, states=(state,))

    def _failed(self) -> list[FrozenTrial]:
        failed = self._trials(TrialState.FAIL)
        return [trial for trial in failed if not {SURPLUS, LOST} & set(trial.user_attrs)]

    def _at_an_edge(self, winner: FrozenTrial) -> list[str]:
        """The numbers of the winner that lie at an end of their ranges."""
        varying = self.search.space.varying
        return [key for key, value in winner.params.items() if _is_at_an_end(varying[key], value)]


def _space(settings: "TunedSettings", study: str, model: str, common: Sequence[str]) -> Space:
    """What varies for a model; what the command line fixes is fixed for all."""
    own = [
        f"model={model}",
        f"study={study}-search",
        f"seed={settings.trial_seed}",
        f"{scored_split.KEY}={scored_split.VALIDATION}",
    ]
    return Space.read([*settings.varying(model), *common, *own])


def _example(space: Space) -> list[str]:
    """The overrides of one point of a space."""
    return space.overrides(
        {
            key: values.choices[0] if isinstance(values, CategoricalDistribution) else values.low
            for key, values in space.varying.items()
            if isinstance(values, CategoricalDistribution | FloatDistribution | IntDistribution)
        }
    )


def _is_at_an_end(values: BaseDistribution, value: Any) -> bool:
    """Is a number in the outer 5 % of its range, on the range's own scale?"""
    if not isinstance(values, FloatDistribution | IntDistribution) or values.low == values.high:
        return False
    scale = math.log if values.log else float
    low, high = scale(values.low), scale(values.high)
    return not EDGE <= (scale(value) - low) / (high - low) <= 1 - EDGE


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# --- settings -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class TunedSettings:
    """What is searched, for how long, and which seeds follow: the keys of hydra/sweeper=tuned."""

    models: Mapping[str, Mapping[str, Any]]
    shared: Mapping[str, Any]
    n_trials: int
    seeds: Sequence[int]
    trial_seed: int = 0
    objective: str = "fd"
    sampler: str = "tpe"
    seed: int = 0
    storage: str | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.objective, str):
            raise UserMistake(
                f"hydra.sweeper.objective={self.objective}: one winner needs one score, as in fd"
            )
        _ = self.search  # raises for what no search can have
        if self.sampler == "grid":
            raise UserMistake(
                "hydra.sweeper.sampler=grid has another number of trials for each model: choose tpe, "
                "random or cmaes"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserMistake(f"hydra.sweeper.seeds={list(self.seeds)}: name seeds, each once")
        if self.trial_seed in self.seeds:
            raise UserMistake(
                f"hydra.sweeper.seeds={list(self.seeds)} has the seed of the trials "
                f"({self.trial_seed}), which the winner was selected on: leave it out"
            )
        for model, entry in self.models.items():
            if set(entry) - {"optimizer", "own"} or not isinstance(entry.get("optimizer"), str):
                raise UserMistake(
                    f"hydra.sweeper.models.{model} names `optimizer`, the key of the optimizer whose "
                    "settings are searched (as in model.optimizer), and in `own` what else varies"
                )

    @property
    def search(self) -> SearchSettings:
        """Those of the search of one model."""
        return SearchSettings(
            self.objective, self.n_trials, self.sampler, self.seed, self.storage, batch=self.batch
        )

    def varying(self, model: str) -> list[str]:
        """The overrides that span the space of a model."""
        entry = self.models[model]
        shared = {
            key.replace("optimizer", str(entry["optimizer"]), 1)
            if key.split(".")[0] == "optimizer"
            else key: values
            for key, values in _flat(self.shared)
        }
        return [f"{k}={v}" for k, v in [*shared.items(), *_flat(entry.get("own") or {})]]


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _chosen(settings: TunedSettings, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The models to tune, and the overrides that all runs share. UserMistake for what varies otherwise."""
    models, common = list(settings.models), []
    for override in OverridesParser.create().parse_overrides([*arguments]):
        key = override.get_key_element()
        if key in OWN_SETTINGS:
            raise UserMistake(f"{override.input_line} does not fit here: {OWN_SETTINGS[key]}")
        if key == "model":
            models = _values(override)
        elif override.is_sweep_override():
            raise UserMistake(
                f"{override.input_line} names several values: start the command once for each; what "
                "is searched stands in hydra.sweeper.shared and hydra.sweeper.models"
            )
        elif key != "study":
            common.append(str(override.input_line))
    unknown = [model for model in models if model not in settings.models]
    if unknown:
        raise UserMistake(
            f"model={unknown[0]} has no ranges to be tuned in: there are "
            f"{', '.join(settings.models)}; another one needs an entry in hydra.sweeper.models"
        )
    return models, common


def _values(override: Override) -> list[str]:
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]
