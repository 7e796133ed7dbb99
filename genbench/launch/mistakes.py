"""Hydra's and OmegaConf's errors, told as a sentence with the nearest right setting. Imports no torch."""

import re
from collections.abc import Sequence
from pathlib import Path

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import OmegaConfBaseException

from genbench.errors import GenbenchError, UserMistake
from genbench.launch.settings import Settings, close_matches, composing


# --- exceptions ---------------------------------------------------------------------------------
def explain(error: Exception, overrides: Sequence[str], config_root: Path) -> GenbenchError:
    """Turn what Hydra or OmegaConf raised for `overrides` into a sentence with the remedy.

    Raises `error` itself if it is none of the user's making.
    """
    if isinstance(error, GenbenchError):
        return error
    if isinstance(error, OSError) and not isinstance(error, MissingConfigException):
        where = f" {error.filename}" if error.filename else ""
        return UserMistake(
            f"cannot write{where}: {(error.strerror or str(error)).lower()}; "
            "choose another place with paths.outputs=..."
        )
    if not isinstance(error, HydraException | OmegaConfBaseException | ValueError):
        raise error
    with composing(config_root):
        return UserMistake(_sentence(error, Settings(overrides)))


def _sentence(error: Exception, settings: Settings) -> str:
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, settings)
    if isinstance(error, MissingConfigException):
        return _missing_option(error, settings)
    if isinstance(error, OmegaConfBaseException):
        return explain_value(error)
    text = str(error)
    key = re.search(r"Could not (?:override|delete(?: from config\.)?) '([^']+)'", text)
    if isinstance(error, ConfigCompositionException) and key:
        return _unknown_key(key[1].split("=")[0], settings)
    sweep = re.search(r"(?:Sweep parameters|Ambiguous value for argument) '([^']+)'", text)
    if sweep:
        return (
            f"{sweep[1]} names several values: add -m to run them one after the other, "
            f"or write a list as {sweep[1].replace('=', '=[', 1)}]"
        )
    if "Config group override must be a string" in text:
        return _no_option(settings)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return f"{_first_line(text)}: {explain_value(error.__cause__)}".removeprefix(": ")
    return _first_line(text)


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
    found = re.search(r"Could not (?:find|load) '([^']+)'", str(error))
    group, _, option = (found[1] if found else str(error.missing_cfg_file)).rpartition("/")
    if group not in settings.groups:
        return _first_line(str(error))
    options = settings.groups[group]
    if not option:
        return f"{group}= names nothing: there are {', '.join(options)}"
    near = close_matches(option, options, cutoff=0.5)
    question = f"did you mean {group}={near[0]}? " if near else ""
    return f"there is no {group} {option}: {question}There are {', '.join(options)}"


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
    near = settings.nearest(key)
    if not near:
        return (
            f"there is no setting {key}: `genbench train --cfg job` shows all there are "
            f"(a new one for a class of yours: +{key}=...)"
        )
    return f"there is no setting {key}: did you mean {' or '.join(near)}?"


def explain_value(error: OmegaConfBaseException) -> str:
    """Say which value cannot be worked out, and why."""
    key = f"{error.full_key}: " if error.full_key else ""
    text = _first_line(error.msg or str(error))
    if error.full_key and "Missing mandatory value" in text:
        return f"{error.full_key} has no value: give {error.full_key}=..."
    return f"{key}{text}"


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else ""
