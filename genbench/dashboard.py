"""Whether a run may talk to wandb, decided before it starts and outside it. Imports no torch."""

import netrc
import os
import warnings
from collections.abc import Mapping
from typing import Any


def decide(loggers: Mapping[str, Any]) -> str:
    """Say how wandb is to be used: `online` if somebody is logged in, else `offline`; `none`.

    `none` where wandb is wanted only by the logged in. Nothing about an account can then
    delay training; wandb is imported only where there is a key.
    """
    entry = loggers.get("wandb")
    if entry is None or os.environ.get("WANDB_MODE") == "disabled":
        return "none"
    without_login = "none" if entry.get("only_if_logged_in") else "offline"
    if not _has_key():
        return without_login
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return "offline"
    return "online" if _can_log_in() else without_login


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    own = os.environ.get("WANDB_BASE_URL", "").removeprefix("https://").rstrip("/")
    return any("wandb" in host or host == own for host in hosts)


def _can_log_in() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except Exception as error:
        warnings.warn(f"wandb: {error}; logging offline", stacklevel=2)
        return False
