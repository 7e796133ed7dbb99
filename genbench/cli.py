"""The command `genbench VERB ...`: imports the module of that verb alone, so that it starts fast."""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from genbench.commands import VERBS
from genbench.errors import (
    DONE,
    FAILED,
    INTERRUPTED,
    MISTAKE,
    GenbenchError,
    UserMistake,
    notices_to,
)

HELP = """\
usage: genbench VERB ...

Train VAEs, GANs and VAE-GANs side by side and compare them under one protocol.

{verbs}

  genbench train                                       a VAE on the embedded digits
  genbench train -m model=vae,gan,vae-gan seed=0,1,2   nine runs
  genbench compare                                     the table

`genbench VERB --help` says more. GENBENCH_DEBUG=1 prints the traceback of an error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 a mistake, 75 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with notices_to(lambda notice: print(f"genbench: {notice}", file=sys.stderr)):
            code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `genbench runs | head`: `head` has closed the pipe, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("genbench: stopped", file=sys.stderr)
        return INTERRUPTED
    except GenbenchError as error:
        if os.environ.get("GENBENCH_DEBUG") == "1":
            raise
        print(f"genbench: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if os.environ.get("GENBENCH_DEBUG") == "1":
            raise
        print(
            f"genbench: {type(error).__name__}: {error} (a bug in genbench: "
            "GENBENCH_DEBUG=1 prints the traceback)",
            file=sys.stderr,
        )
        return FAILED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {n:<12}{text}" for n, text in VERBS.items())))
        return DONE if arguments else MISTAKE
    verb, rest = arguments[0], [_with_home(argument) for argument in arguments[1:]]
    if verb in ("-V", "--version"):
        from genbench import __version__

        print(f"genbench {__version__}")
        return DONE
    if verb not in VERBS:
        raise UserMistake(_unknown(verb))
    code: int = import_module(f"genbench.commands.{verb.replace('-', '_')}").main(rest)
    return code


def _with_home(argument: str) -> str:
    """`dataset.root=~/cats` with the home folder in place of `~`: shells leave it, and Hydra cannot read it."""
    key, equals, value = argument.partition("=")
    return f"{key}={os.path.expanduser(value)}" if equals and value.startswith("~") else argument


def _unknown(verb: str) -> str:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    if near:
        return f"there is no command {verb}: did you mean {near[0]}?"
    if "=" in verb:
        return f"there is no command {verb}: did you mean genbench train {verb}?"
    (nearest,) = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.0)
    return (
        f"there is no command {verb}: choose one of {', '.join(VERBS)} (the nearest is {nearest})"
    )
