"""Curves, grids and scores on a Visdom page, https://github.com/fossasia/visdom: `logger=visdom`."""

import html
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake
from genbench.runs.priors import score_address
from genbench.runs.score import Score
from genbench.training.loggers.sink import RemoteDashboard

THREAD = "visdom"


class Visdom(RemoteDashboard):
    """One environment per run, named after it; images (steps x batch) are the x-axis of every curve.

    A server that does not answer, or goes away, is told once; the run goes on without it. Raises
    UserMistake where the package is not installed.
    """

    def __init__(self, directory: Path, server: str, port: int, seconds: float = 5.0) -> None:
        super().__init__(directory)
        try:
            import visdom  # noqa: F401
        except ImportError:
            raise UserMistake(
                "logger=visdom needs the package visdom, which is not installed: see docs/studies.md, "
                "or choose logger=tensorboard"
            ) from None
        self.environment = f"genbench_{directory.name}"
        self._address, self._seconds = (server, port), seconds
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._thread.start()

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a point at `step` images to the curve of each name."""
        points = dict(metrics)

        def draw(page: Any) -> None:
            for name, value in points.items():
                about = {"title": name, "xlabel": "images (steps x batch)"}
                page.line(Y=[value], X=[step], win=name, update="append", opts=about)

        self._submit(draw)

    def log_picture(self, key: str, path: Path, images: int) -> None:
        """Show a PNG in the window of its kind, which keeps the earlier ones."""

        def show(page: Any) -> None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
            about = {"title": key, "caption": f"{images:,} images", "store_history": True}
            page.image(pixels, win=key, opts=about)

        self._submit(show)

    def log_final(self, scores: Sequence[Score]) -> None:
        """Show the scores as a table."""
        rows = "".join(
            f"<tr><td>{html.escape(score_address(s))}</td>"
            f"<td>{html.escape(s.status if s.value is None else f'{s.value:.4g} {s.unit}')}</td></tr>"
            for s in scores
        )
        self._submit(lambda page: page.text(f"<table>{rows}</table>", win="scores"))

    def close(self, status: str) -> None:
        """Send what is left and have the server keep it; waits for `seconds` at most."""
        self._tasks.put(None)
        self._thread.join(self._seconds)
        if self._thread.is_alive():
            self._warnings.put("visdom: the server is too slow for what is left; it is dropped")
        self._warn()

    def _work(self) -> None:
        """Do what is asked, in order, until the end is; runs in the thread."""
        try:
            page = self._open()
            for task in iter(self._tasks.get, None):
                task(page)
            page.save([self.environment])
        except Exception as error:
            self._broken = True
            server, port = self._address
            said = next(iter(str(error).splitlines()), "") or type(error).__name__
            self._warnings.put(
                f"visdom: {server}:{port}: {said}; training goes on without it. Start one with "
                "`python -m visdom.server`, or set logger.visdom.server and logger.visdom.port"
            )

    def _open(self) -> Any:
        import logging

        import visdom

        logging.getLogger("visdom").setLevel(logging.CRITICAL)  # we say it, once
        server, port = self._address
        return visdom.Visdom(
            server=server,
            port=port,
            env=self.environment,
            raise_exceptions=True,
            use_incoming_socket=False,
        )
