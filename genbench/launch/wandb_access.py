"""Whether a run logs to wandb, decided before it starts, in its parent process. Imports no torch."""

import netrc
import os
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from genbench.errors import Notice

LOGIN_SECONDS = 30.0  # timeout of `wandb.login`
ANSWER_SECONDS = 3.0  # timeout of a connection to the server


def decide_mode(loggers: Mapping[str, Any]) -> str:
    """How a run uses wandb: `online` if a user is logged in, else `offline`, or `none`.

    `none` if the logger has `only_if_logged_in` and nobody is. `offline` also if the server cannot be
    reached, as from the nodes of many clusters. So neither an account nor a network can delay
    training. wandb itself is started only if there is an API key. `loggers` is the config's `logger`.
    """
    entry = loggers.get("wandb")
    if entry is None or os.environ.get("WANDB_MODE") == "disabled":
        return "none"
    access = check_access()
    if access.state == "logged out":
        return "none" if entry.get("only_if_logged_in") else "offline"
    if access.state == "unreachable":
        warnings.warn(
            f"wandb: {access.server} does not answer; logging offline, "
            "`genbench wandb sync` uploads it later",
            Notice,
            stacklevel=2,
        )
    return "online" if access.state == "online" else "offline"


class Access(NamedTuple):
    """Whether this machine can send to wandb, and the address of the server if it is known."""

    state: Literal["disabled", "logged out", "offline", "unreachable", "online"]
    server: str = ""

    def obstacle(self) -> str:
        """Why this machine cannot send to wandb, with the remedy; empty if it can."""
        return {
            "disabled": "WANDB_MODE switches wandb off: unset it",
            "logged out": "nobody is logged in to wandb: `wandb login`",
            "offline": "WANDB_MODE keeps wandb offline: unset it",
            "unreachable": f"{self.server} does not answer: try later, or set WANDB_BASE_URL",
            "online": "",
        }[self.state]


def check_access() -> Access:
    """Find out whether wandb is switched off, whether a user is logged in, and whether the server answers.

    `logged out`, with a warning, also if `wandb.login` fails or exceeds its timeout.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return Access("disabled")
    if not _has_key():
        return Access("logged out")
    if mode in ("offline", "dryrun"):
        return Access("offline")
    server = _log_in()
    if server is None:
        return Access("logged out")
    return Access("online" if _is_reachable(server) else "unreachable", server)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    own = os.environ.get("WANDB_BASE_URL", "").removeprefix("https://").rstrip("/")
    return any("wandb" in host or host == own for host in hosts)


# os._exit: wandb's exit handlers wait for its service, at times for ever
_LOGIN = """
import os, sys, wandb
known = wandb.login(prompt=False, verify=False)
print("server", wandb.setup().settings.base_url if known else "", flush=True)
os._exit(0)
"""


def _log_in() -> str | None:
    """Address of the server that a user is logged in to; None if nobody is.

    In a process of its own: in this one wandb would start a service and set WANDB_SERVICE, which the
    worker would inherit.
    """
    command = [sys.executable, "-c", _LOGIN]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=LOGIN_SECONDS)
    except subprocess.TimeoutExpired:
        warnings.warn("wandb: the login did not end in time; logging offline", Notice, stacklevel=3)
        return None
    lines = [line.split() for line in answer.stdout.splitlines() if line.startswith("server")]
    if not lines:
        words = (answer.stderr.strip() or "no answer").splitlines()[-1]
        warnings.warn(f"wandb: {words}; logging offline", Notice, stacklevel=3)
        return None
    return lines[-1][1] if len(lines[-1]) > 1 else None


def _is_reachable(server: str) -> bool:
    """Whether a connection can be opened. Behind a proxy this is not checked: True."""
    from urllib.request import getproxies

    parts = urlsplit(server)
    if parts.scheme in getproxies() or not parts.hostname:
        return True
    address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    opened = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=ANSWER_SECONDS).close()
        except OSError:
            return
        opened.set()

    # in a thread: the timeout of the connection does not cover the DNS lookup
    connecting = threading.Thread(target=connect, daemon=True)
    connecting.start()
    connecting.join(ANSWER_SECONDS)
    return opened.is_set()
