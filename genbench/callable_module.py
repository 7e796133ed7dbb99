"""Modules that are also functions: `genbench.train(...)`, though `genbench.train` is a module too."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module whose call is the function of the same name in `genbench.library`."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function; it is imported then."""
        library = import_module("genbench.library")
        return getattr(library, self.__name__.rpartition(".")[2])(*arguments, **named)


def make_callable(name: str) -> None:
    """Let the module `name`, which is being imported, be called."""
    sys.modules[name].__class__ = CallableModule
