"""A folder of shared runs: contents under their hashes, and manifests under theirs.

    objects/ab/abcd...           a content, named by its sha256
    runs/<run id>/<sha256>.json  a manifest, named by the sha256 of its text

Files are only added, each under its final name at once, and a manifest after its contents. So several
processes may write at a time, a push that was cut off leaves nothing half, and merging is a union.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath

from genbench.errors import UserMistake
from genbench.runs.files import explain_os_error
from genbench.runs.selection import unless_damaged
from genbench.sharing.manifest import A_RUN, Manifest, manifest_of, sha256


class Store:
    """The folder that several people push to. UserMistake for what cannot be read or written.

    `sharing.remote` has the same elsewhere: what touches files are the last four methods.
    """

    def __init__(self, root: Path) -> None:
        self.root: PurePath = root
        self.name = str(root)

    def add(self, run: Path, weights: bool = False) -> bool:
        """Add what is shared of a run; whether there was anything new."""
        manifest = manifest_of(run, weights)
        place = self._place(manifest)
        try:
            if self._exists(place):
                return False
            for path, file in manifest.files.items():
                target = self._object(file.sha256)
                if not self._exists(target):
                    self._write(target, (run / path).read_bytes(), file.sha256)
            self._write(place, manifest.text().encode())
        except OSError as error:
            raise UserMistake(
                f"cannot write to {self.name}: {explain_os_error(error)}; what was pushed before is kept: "
                "push again when it can be reached"
            ) from None
        return True

    def manifests(self) -> Iterator[Manifest]:
        """Every manifest that is in order, by run id; for others a line on stderr."""
        try:
            listed = self._listed()
        except OSError as error:
            raise UserMistake(f"{self.name} cannot be read: {explain_os_error(error)}") from None
        if listed is None:
            raise UserMistake(f"{self.name} holds no shared runs: it has no folder `runs`")
        for path in listed:
            manifest = unless_damaged(self._parsed, path)
            if manifest is not None:
                yield manifest

    def content(self, name: str) -> bytes:
        """A content by its sha256. UserMistake if it is missing or is not what its name says."""
        path = self._object(name)
        try:
            content = self._read(path)
        except OSError as error:
            raise UserMistake(f"{path} cannot be read: {explain_os_error(error)}") from None
        if sha256(content) != name:
            raise UserMistake(
                f"{path} is damaged: its content has another sha256; push the run again"
            )
        return content

    def _parsed(self, path: PurePath) -> Manifest:
        try:
            text = self._read(path).decode()
        except (OSError, ValueError) as error:
            raise UserMistake(f"{path} cannot be read: {error}") from None
        manifest = Manifest.parse(text, str(path))
        if manifest.run_id != path.parent.name or not A_RUN.fullmatch(path.parent.name):
            raise UserMistake(
                f"{path} is a manifest of another run, {manifest.run_id}: it is left out"
            )
        return manifest

    def _place(self, manifest: Manifest) -> PurePath:
        name = sha256(manifest.text().encode())
        return self.root / "runs" / manifest.run_id / f"{name}.json"

    def _object(self, name: str) -> PurePath:
        return self.root / "objects" / name[:2] / name

    def _write(self, path: PurePath, content: bytes, expected: str | None = None) -> None:
        """Write a content, which must have the sha256 `expected`."""
        if expected is not None and sha256(content) != expected:
            raise UserMistake(
                f"{path} changed while it was pushed: push again when the run is done"
            )
        self._put(path, content)

    # --- what touches files: OSError if that fails ----------------------------------------------
    def _exists(self, path: PurePath) -> bool:
        return Path(path).exists()

    def _listed(self) -> list[PurePath] | None:
        """The paths of all manifests, sorted; None without a folder of them."""
        runs = Path(self.root) / "runs"
        if not runs.is_dir():
            return None
        return [path for folder in sorted(runs.iterdir()) for path in sorted(folder.glob("*.json"))]

    def _read(self, path: PurePath) -> bytes:
        return Path(path).read_bytes()

    def _put(self, name: PurePath, content: bytes) -> None:
        """Write under a name of this process's own, then under the final one."""
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        # not `atomic_write`: the same process id may write from two machines
        temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def merged(manifests: Iterable[Manifest]) -> dict[str, list[Manifest]]:
    """Manifests by run id, those of one run merged; more than one where several runs have a name."""
    found: dict[str, list[Manifest]] = {}
    # the most complete first: one without a result fits several
    for manifest in sorted(manifests, key=lambda one: (one.result is None, one.text())):
        runs = found.setdefault(manifest.run_id, [])
        for place, other in enumerate(runs):
            if other.is_of_the_run_of(manifest):
                runs[place] = other.merged(manifest)
                break
        else:
            runs.append(manifest)
    return found
