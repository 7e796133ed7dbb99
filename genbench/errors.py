"""What may go wrong, in a sentence. Imports nothing, so that every room can raise it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 75


class GenbenchError(Exception):
    """A failure that one sentence explains: what is wrong, with the value, and what to do."""

    exit_code = FAILED
    status = "failed"


class UserMistake(GenbenchError):
    """Something that the user can put right before anything has run."""

    exit_code = MISTAKE


class Diverged(GenbenchError):
    """A loss or a gradient stopped being a number."""

    status = "diverged"


class Interrupted(GenbenchError):
    """The run was asked to stop and can be resumed."""

    exit_code = INTERRUPTED
    status = "interrupted"


class Notice(UserWarning):
    """A sentence for the user, as `warnings.warn(sentence, Notice)`."""


@contextmanager
def heard(say: Callable[[str], None]) -> Iterator[None]:
    """Give each notice to `say`, without the place in the code; other warnings go their usual way."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, Notice):
            say(str(message))
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual
