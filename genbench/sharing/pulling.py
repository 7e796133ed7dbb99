"""Shared runs become run directories: new ones at once, existing ones file by file."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from genbench.errors import UserMistake
from genbench.runs.files import atomic_write, explain_os_error
from genbench.sharing.manifest import WEIGHTS, File, Manifest, manifest_of
from genbench.sharing.store import Store

Outcome = Literal["new", "updated", "known", "another"]


def pull_run(store: Store, shared: Sequence[Manifest], outputs: Path) -> Outcome:
    """Write one run of a name below `outputs`; `another` if a different run has the name there.

    What is there stays unless the shared file is later. UserMistake if nothing can be written, or
    a content is damaged; then the run is as it was.
    """
    target = outputs / shared[0].run_id
    try:
        if not os.path.lexists(target):
            _make(store, shared[0], target)
            return "new"
        own = manifest_of(target, weights=(target / WEIGHTS).exists())
        theirs = next((one for one in shared if one.is_of_the_run_of(own)), None)
        if theirs is None:
            return "another"
        return "updated" if _update(store, own, theirs, target) else "known"
    except OSError as error:
        raise UserMistake(f"cannot write {target}: {explain_os_error(error)}") from None


def _make(store: Store, shared: Manifest, target: Path) -> None:
    """Write all files of a run aside, then give the directory its name."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    aside.mkdir(parents=True)
    try:
        for path, file in shared.files.items():
            _write(aside / path, store.content(file.sha256), file)
        os.rename(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _update(store: Store, own: Manifest, shared: Manifest, target: Path) -> bool:
    later = {
        path: file
        for path, file in shared.files.items()
        if path not in own.files or own.files[path].age < file.age
        if path not in own.files or own.files[path].sha256 != file.sha256
    }
    contents = {path: store.content(file.sha256) for path, file in later.items()}
    for path, content in contents.items():
        place = target / path
        if place.parent.resolve() != target.resolve() / Path(path).parent:
            raise UserMistake(f"{place} leads out of the run by a link: remove the link")
        _write(place, content, later[path])
    return bool(later)


def _write(path: Path, content: bytes, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
        os.utime(temporary, (file.modified, file.modified))  # pushed again, it is the same
