"""Train generative image models side by side and compare them under one protocol.

From Python: `load` a run, select `runs`, `train` and `evaluate` as from the shell (docs/python.md). Each is
imported when it is first used, so that `import genbench` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genbench.library import Run, Runs, evaluate, load, runs, train

__version__ = "0.1.0"
__all__ = ["Run", "Runs", "evaluate", "load", "runs", "train"]


def __getattr__(name: str) -> Any:
    """What `__all__` names: from `genbench.library`, or a module of that name, which can be called."""
    if name not in __all__:
        raise AttributeError(f"module 'genbench' has no attribute {name!r}")
    from importlib import import_module

    if name in ("evaluate", "runs", "train"):
        return import_module(f"genbench.{name}")
    return getattr(import_module("genbench.library"), name)


def __dir__() -> list[str]:
    """What `__all__` names, for tab completion."""
    return [*__all__, "__version__"]
