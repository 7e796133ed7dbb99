"""genbench from Python: runs as objects, for notebooks and scripts; see docs/python.md.

Nothing here imports torch before a model is needed, nor pandas before a frame is asked for.
"""

from genbench.library.comparison import Comparison
from genbench.library.frames import History, Scores
from genbench.library.run import Run
from genbench.library.runs import Runs
from genbench.library.verbs import evaluate, load, runs, train

__all__ = ["Comparison", "History", "Run", "Runs", "Scores", "evaluate", "load", "runs", "train"]
