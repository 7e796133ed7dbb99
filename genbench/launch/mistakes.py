"""Errors of Hydra, OmegaConf and YAML as sentences that name the setting and the remedy."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import yaml
from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigTypeError,
    GrammarParseError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from genbench.errors import GenbenchError, UserMistake
from genbench.launch.hydra_internals import complaint_of
from genbench.launch.own_files import not_mappings, unreadable
from genbench.launch.settings import (
    Settings,
    check_deleted,
    check_values,
    close_matches,
    composing,
)
from genbench.runs.files import explain_os_error, first_line

WRONG_CONFIG = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


# --- composing ----------------------------------------------------------------------------------
@contextmanager
def explained(overrides: Sequence[str]) -> Iterator[None]:
    """Context in which Hydra can compose, and errors in `overrides` or config files raise UserMistake."""
    try:
        with composing():
            yield
    except (*WRONG_CONFIG, TypeError) as error:
        raise explain(error, overrides) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise explain(error, overrides) from error


def compose_checked(overrides: Sequence[str], blamed: Sequence[str] | None = None) -> DictConfig:
    """The composition of `train` with `overrides`, whose values are checked; UserMistake otherwise.

    `blamed` are the overrides that the user typed, if `overrides` has more: only they are named in errors.
    """
    with explained(overrides if blamed is None else blamed):
        cfg = compose("train", overrides=[*overrides])
        check_values(overrides)
        check_groups(cfg, overrides)
    return cfg


def check_groups(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a chosen config file that holds a list, and a model or dataset without `_target_`.

    Call inside `composing` or a Hydra job. Raises UserMistake.
    """
    chosen = OmegaConf.to_container(cfg)  # without resolving, which has errors of its own
    assert isinstance(chosen, dict)
    lists = [str(key) for key, value in chosen.items() if isinstance(value, list)]
    if set(lists) - {"tags"}:  # asking Hydra for its groups takes a while, so only then
        for group in set(lists) & set(Settings(overrides).groups):
            raise UserMistake(_not_a_mapping(f"what is chosen for {group}", overrides))
    for group in ("model", "dataset"):
        if "_target_" not in (chosen[group] or {}):
            raise UserMistake(
                f"what is chosen for {group} names no class: its config file needs a line "
                "`_target_: module.Class`"
            )


# --- exceptions ---------------------------------------------------------------------------------
def explain(error: Exception, overrides: Sequence[str]) -> GenbenchError:
    """The error with a sentence for what Hydra, OmegaConf or the file system raised for `overrides`.

    Raises `error` itself if it is none of these.
    """
    if isinstance(error, GenbenchError):
        return error
    if isinstance(error, yaml.YAMLError):
        return UserMistake(_broken_yaml(error))
    if isinstance(error, OSError) and not isinstance(error, MissingConfigException):
        return _os_error(error, overrides)
    # a TypeError is Hydra's for a list of numbers where a group is chosen
    found = _no_names(overrides) if isinstance(error, TypeError) else _own_file(error, overrides)
    if found is not None:
        return UserMistake(found)
    if not isinstance(error, WRONG_CONFIG):
        raise error
    with composing():
        return _composition_error(error, overrides)


def _own_file(error: Exception, overrides: Sequence[str]) -> str | None:
    """A sentence about a config file that is at fault; None if none is known to be."""
    if not isinstance(error, WRONG_CONFIG):
        return None
    if isinstance(error, UnicodeDecodeError) or isinstance(error.__cause__, GrammarParseError):
        found = unreadable(error, overrides)
        if found is not None:
            return found
    if isinstance(error.__context__, ConfigTypeError) and not_mappings(overrides):
        return _not_a_mapping("a config file", overrides)
    return None


def _composition_error(error: Exception, overrides: Sequence[str]) -> UserMistake:
    if "Error resolving interpolation" in str(error):  # of `tuned`, where a group was deleted
        try:
            for override in OverridesParser.create().parse_overrides([*overrides]):
                if override.is_delete():
                    check_deleted(override.get_key_element().removeprefix("~"))
        except UserMistake as deleted:
            return deleted
    return UserMistake(_sentence(error, Settings(overrides)))


def _os_error(error: OSError, overrides: Sequence[str]) -> UserMistake:
    if error.errno is None:  # OmegaConf's, for a YAML file that holds a number
        return UserMistake(_not_a_mapping("a config file", overrides))
    where = f" {error.filename}" if error.filename else ""
    return UserMistake(
        f"cannot write{where}: {explain_os_error(error)}; "
        "choose another place with paths.outputs=..."
    )


def _broken_yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"a config file is not valid YAML: {first_line(error)}"
    problem = getattr(error, "problem", None) or first_line(error)
    return (
        f"{mark.name}, line {mark.line + 1}, is not valid YAML: {problem}; correct it (mind the "
        "indentation, and quote values that contain ': ', '{' or '#')"
    )


def _not_a_mapping(what: str, overrides: Sequence[str]) -> str:
    named = " or ".join(map(str, not_mappings(overrides))) or "it"
    return f"{what} does not hold `key: value` lines but a list or a single value: correct {named}"


def _sentence(error: Exception, settings: Settings) -> str:
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, settings)
    if isinstance(error, MissingConfigException):
        return _missing_option(error, settings)
    if isinstance(error, OmegaConfBaseException):
        return explain_value(error)
    kind, subject = complaint_of(error)
    if kind == "unknown key":
        return _unknown_key(subject, settings)
    if kind == "several values":
        return (
            f"{subject} names several values: add -m to run them one after the other, "
            f"or write a list as {subject.replace('=', '=[', 1)}]"
        )
    if kind == "group without name":
        return _no_option(settings)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return f"{first_line(error)}: {explain_value(error.__cause__)}"
    return first_line(error)


def _unreadable(override: str, settings: Settings) -> str:
    if "=" not in override:
        groups = [name for name, options in settings.groups.items() if override in options]
        example = f"{groups[0]}={override}" if groups else "model=gan"
        return f"{override!r} is not a setting: write key=value, for example {example}"
    key, value = override.split("=", 1)
    if not re.fullmatch(r"[+~]*[\w./@:-]+", key):
        return f"{override!r} is not a setting: {key!r} is not a key; write key=value"
    return (
        f"the value in {override!r} cannot be read: quote it for genbench and for the shell, "
        f"""as in '{key}="{value}"'"""
    )


def _missing_option(error: MissingConfigException, settings: Settings) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if group not in settings.groups:
        return first_line(error)
    options = settings.groups[group]
    if not option:
        return f"{group}= names nothing: there are {', '.join(options)}"
    near = close_matches(option, options, cutoff=0.5)
    question = f"did you mean {group}={near[0]}? There" if near else "there"
    return f"there is no {group} {option}: {question} are {', '.join(options)}"


def _no_names(overrides: Sequence[str]) -> str | None:
    """A sentence about options of a group that are no names; None if there are none."""
    with composing():
        settings = Settings(overrides)
        for override in OverridesParser.create().parse_overrides([*overrides]):
            key, chosen = override.key_or_group, override.value()
            named = not isinstance(chosen, list) or all(isinstance(one, str) for one in chosen)
            if key in settings.groups and not named:
                options = ", ".join(settings.groups[key])
                return f"{override.input_line} is not a choice: there are {options}"
    return None


def _no_option(settings: Settings) -> str:
    for override in settings.overrides:
        key, _, value = override.partition("=")
        if not key:
            return _unreadable(override, settings)
        if key in settings.groups and value not in settings.groups[key]:
            return f"{override} is not a choice: there are {', '.join(settings.groups[key])}"
    return "a group takes the name of one of its options, as in model=gan"


def _unknown_key(key: str, settings: Settings) -> str:
    key = key.lstrip("+~")
    lacking = settings.options_without(key)
    if lacking:
        return f"{' and '.join(lacking)} of this sweep has no setting {key}: sweep it in a command of its own"
    near = settings.nearest(key)
    if not near:
        return (
            f"there is no setting {key}: `genbench train --cfg job` shows all there are "
            f"(a new one for a class of yours: +{key}=...)"
        )
    return f"there is no setting {key}: did you mean {' or '.join(near)}?"


def explain_value(error: OmegaConfBaseException) -> str:
    """A sentence that says which value cannot be resolved, and why."""
    key = f"{error.full_key}: " if error.full_key else ""
    text = (error.msg or str(error)).strip().partition("\n")[0]
    if error.full_key and isinstance(error, MissingMandatoryValue):
        return f"{error.full_key} has no value: give {error.full_key}=..."
    return f"{key}{text}"
