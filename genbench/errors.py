"""Errors, exit codes and notices. Imports nothing of genbench, so that every module can raise them."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 75


class GenbenchError(Exception):
    """An error whose message is a sentence: what is wrong, with the value, and what to do."""

    exit_code = FAILED
    status = "failed"


class UserMistake(GenbenchError):
    """A wrong setting, argument or file, found before anything has run."""

    exit_code = MISTAKE


class Diverged(GenbenchError):
    """A loss or a gradient is NaN or infinite."""

    status = "diverged"


class Interrupted(GenbenchError):
    """The run was stopped by a signal and can be resumed."""

    exit_code = INTERRUPTED
    status = "interrupted"


class Notice(UserWarning):
    """Category of warnings whose text is meant for the user: `warnings.warn(sentence, Notice)`."""


@contextmanager
def notices_to(say: Callable[[str], None]) -> Iterator[None]:
    """Pass the text of every `Notice` to `say`; other warnings are shown as before."""
    shown_before = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            say(str(message))
        else:
            shown_before(message, category, *place, **more)

    with warnings.catch_warnings():  # restores `showwarning` too
        warnings.showwarning = show
        warnings.simplefilter("default", Notice)  # whatever filters turn warnings into errors
        yield
