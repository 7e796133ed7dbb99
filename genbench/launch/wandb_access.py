"""Whether a run may talk to wandb, decided before it starts and outside it. Imports no torch."""

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

LOGIN_SECONDS = 30.0  # that wandb may take to say who is logged in
ANSWER_SECONDS = 3.0  # that the server's address may take to answer


def decide(loggers: Mapping[str, Any]) -> str:
    """Say how wandb is to be used: `online` if somebody is logged in, else `offline`; `none`.

    `none` where wandb is wanted only by the logged in; `offline` also where the server is out of
    reach, as on many a cluster's nodes. Nothing about an account or a network can then delay
    training; wandb is asked only where there is a key.
    """
    entry = loggers.get("wandb")
    if entry is None or os.environ.get("WANDB_MODE") == "disabled":
        return "none"
    access = look()
    if access.state == "nobody":
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
    """How this machine stands with wandb, and the address of the server where it is known."""

    state: Literal["disabled", "nobody", "offline", "unreachable", "online"]
    server: str = ""

    def obstacle(self) -> str:
        """What keeps this machine from the server, with the remedy; empty where nothing does."""
        return {
            "disabled": "WANDB_MODE switches wandb off: unset it",
            "nobody": "nobody is logged in to wandb: `wandb login`",
            "offline": "WANDB_MODE keeps wandb offline: unset it",
            "unreachable": f"{self.server} does not answer: try later, or set WANDB_BASE_URL",
            "online": "",
        }[self.state]


def look() -> Access:
    """Find out whether wandb is switched off, who is logged in, and whether the server answers.

    `nobody` also where wandb does not say who, which it warns of.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return Access("disabled")
    if not _has_key():
        return Access("nobody")
    if mode in ("offline", "dryrun"):
        return Access("offline")
    server = _log_in()
    if server is None:
        return Access("nobody")
    return Access("online" if _answers(server) else "unreachable", server)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc.netrc().hosts
    except (OSError, netrc.NetrcParseError):
        return False
    own = os.environ.get("WANDB_BASE_URL", "").removeprefix("https://").rstrip("/")
    return any("wandb" in host or host == own for host in hosts)


# leaves at once: wandb's own way out waits for its service, and has been seen to wait for ever
_QUESTION = """
import os, sys, wandb
known = wandb.login(prompt=False, verify=False)
print("server", wandb.setup().settings.base_url if known else "", flush=True)
os._exit(0)
"""


def _log_in() -> str | None:
    """Address of the server that somebody is logged in to; None where nobody is.

    wandb is asked in a process of its own: in this one it would leave a service behind, which the
    worker would be told to use.
    """
    asked = [sys.executable, "-c", _QUESTION]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=LOGIN_SECONDS)
    except subprocess.TimeoutExpired:
        warnings.warn(
            "wandb: it does not say who is logged in; logging offline", Notice, stacklevel=3
        )
        return None
    lines = [line.split() for line in answer.stdout.splitlines() if line.startswith("server")]
    if not lines:
        words = (answer.stderr.strip() or "no answer").splitlines()[-1]
        warnings.warn(f"wandb: {words}; logging offline", Notice, stacklevel=3)
        return None
    return lines[-1][1] if len(lines[-1]) > 1 else None


def _answers(server: str) -> bool:
    """Can a connection be opened? Behind a proxy that is for the proxy to know: yes."""
    from urllib.request import getproxies

    parts = urlsplit(server)
    if parts.scheme in getproxies() or not parts.hostname:
        return True
    address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    opened = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection(address, timeout=ANSWER_SECONDS).close()
        except OSError:
            return
        opened.set()

    # in a thread, for no timeout covers the look-up of a name
    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    knocking.join(ANSWER_SECONDS)
    return opened.is_set()
