"""What a user should hear and no run stops for: warnings that are a line on the terminal."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


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
