"""No search for garbage while a worker imports: it finds none and takes a quarter of the start.

A worker's module imports this one before all others and calls `search` when it begins to work.
"""

import gc
import sys

_spec = getattr(sys.modules["__main__"], "__spec__", None)


if _spec is not None and _spec.name.startswith(
    "genbench."
):  # `python -m genbench.train`, no library
    gc.disable()


def search() -> None:
    """Collect garbage again, but never look at what is there by now: modules stay."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
