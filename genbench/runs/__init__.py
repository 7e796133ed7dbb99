"""What is on disk of a run; called, it selects runs (`genbench.library.runs`). Imports no torch."""

from genbench.callable_module import make_callable

make_callable(__name__)
