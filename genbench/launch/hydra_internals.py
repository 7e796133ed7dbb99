"""Everything that genbench uses of Hydra beyond its documented API.

Two functions that Hydra's own example plugins use too, a method of its loader, and patterns of its
English error messages, because some errors name the override they are about only there. tests/launch has a
test for each, which fails if a new version of Hydra changes one.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.utils import run_job, setup_globals
from omegaconf import open_dict


def group_options(
    group: str,
    kind: ObjectType = ObjectType.CONFIG,
    config_name: str | None = None,
    overrides: Sequence[str] = (),
) -> list[str]:
    """Names in a config group, sorted: its options, or with ObjectType.GROUP its subgroups.

    Call while Hydra is initialised. `hydra.searchpath=...` among the `overrides` adds folders; Hydra
    ignores it without a `config_name`.
    """
    loader = GlobalHydra.instance().config_loader()
    return loader.get_group_options(group, kind, config_name, list(overrides) or None)


def options_of_groups(config_name: str, overrides: Sequence[str] = ()) -> dict[str, list[str]]:
    """The options of every group, sorted; call while Hydra is initialised.

    As `group_options` for each group, but Hydra's search path is read once instead of for each of them,
    which saves a quarter of a second in every command.
    """
    loader = GlobalHydra.instance().config_loader()
    read: Any = loader._parse_overrides_and_create_caching_repo  # type: ignore[attr-defined]
    _, repository = read(config_name, list(overrides))
    groups = repository.get_group_options("", ObjectType.GROUP)
    return {name: repository.get_group_options(name) for name in groups}


def run_in_this_process(
    function: Any, hydra_context: Any, config: Any, overrides: Sequence[str], number: int
) -> Any:
    """Compose one job of a sweep as a launcher does, and return `function(composed config)`.

    `config` is that of the sweep, `number` that of the job. Raises what composing or `function` raises.
    """
    setup_globals()
    composed = hydra_context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = composed.hydra.job.num = number
    job = run_job(
        task_function=function,
        config=composed,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=hydra_context,
    )
    return job.return_value


class Complaint(NamedTuple):
    """What a Hydra error message is about; `subject` is the key or override it names, or empty."""

    kind: Literal["unknown key", "several values", "group without name", "other"]
    subject: str = ""


MESSAGES: dict[Literal["unknown key", "several values", "group without name"], str] = {
    "unknown key": r"Could not (?:override|delete(?: from config\.)?) '([^'=]+)(?:=[^']*)?'",
    "several values": r"(?:Sweep parameters|Ambiguous value for argument) '([^']+)'",
    "group without name": r"Config group override must be a string()",
}


def complaint_of(error: Exception) -> Complaint:
    """Classify a Hydra error by its message; `other` if no pattern matches."""
    for kind, pattern in MESSAGES.items():
        found = re.search(pattern, str(error))
        if found:
            return Complaint(kind, found[1])
    return Complaint("other")
