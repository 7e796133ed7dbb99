"""Runs are pushed and pulled: a union, of data alone, in a folder and in a git repository."""

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from fixtures.comparison import elbo, fd
from fixtures.forks import Fork, fork
from fixtures.places import environment
from fixtures.sharing import check_that_all_is_there, machines
from genbench.cli import main
from genbench.errors import UserMistake
from genbench.runs.files import write_json
from genbench.runs.records import load_results
from genbench.runs.result import write_tags
from genbench.runs.status import Status, write_status
from genbench.sharing.git import is_repository
from genbench.sharing.manifest import Manifest, manifest_of, sha256
from genbench.sharing.store import Store, merged

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def home(tmp_path, finished, monkeypatch):
    """Two finished runs in tmp_path, with pictures, curves and weights; the folder."""
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / ".cache"))
    for seed in range(2):
        run = finished([fd(5.0 + seed)], f"run-{seed}", seed=seed)
        (run / "samples").mkdir()
        for images in (100, 200):
            (run / "samples" / f"samples-{images:08}.png").write_bytes(b"png %d" % images)
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "final.ckpt").write_bytes(b"weights")
        (run / "history.csv").write_text("images,loss\n1,2\n")
        (run / "log.txt").write_text("a private path")
    return tmp_path


@pytest.fixture(params=["folder", pytest.param("git", marks=needs_git)])
def team(request, tmp_path):
    """A place to push to."""
    if request.param == "folder":
        return str(tmp_path / ".team")
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / ".team.git")], check=True)
    return str(tmp_path / ".team.git")


def push(team: str, home: Path, *more: str) -> int:
    return main(["push", team, "--outputs", str(home), *more])


def pull(team: str, outputs: Path, *more: str) -> int:
    return main(["pull", team, "--outputs", str(outputs), *more])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_records_arrive_and_weights_only_when_asked_for(home, team, capsys):
    assert push(team, home) == 0
    assert "2 of 2 runs pushed" in capsys.readouterr().out
    there = home / ".there"
    assert pull(team, there) == 0
    assert "2 new, 0 updated, 0 known" in capsys.readouterr().out
    assert set(files(there / "run-0")) == {
        "config.yaml", "result.json", "status.json", "history.csv", "samples/samples-00000200.png",
    }  # fmt: skip
    own, theirs = load_results([], home), load_results([], there)
    assert [one.to_dict() for one in own] == [one.to_dict() for one in theirs]
    assert push(team, home, "run-1", "--weights") == 0
    assert pull(team, there) == 0
    assert "0 new, 1 updated, 1 known" in capsys.readouterr().out
    assert (there / "run-1/checkpoints/final.ckpt").read_bytes() == b"weights"
    assert not (there / "run-0/checkpoints").exists()


def test_pushing_again_does_nothing_from_anywhere(home, team, capsys):
    push(team, home)
    pull(team, home / ".there")
    capsys.readouterr()
    assert push(team, home) == push(team, home / ".there") == 0
    printed = capsys.readouterr().out
    assert printed.count("0 of 2 runs pushed") == 2
    assert pull(team, home / ".there") == 0
    assert "0 new, 0 updated, 2 known" in capsys.readouterr().out


def test_files_that_earlier_versions_do_not_know_make_a_manifest_that_says_so(home, team):
    run = home / "run-0"
    assert json.loads(manifest_of(run).text())["version"] == 1
    write_json(run / "verified.json", {"when": "now"})
    (run / "evaluations").mkdir()
    for path in (run / "per-image.npz", run / "evaluations" / "a.npz"):
        path.write_bytes(b"arrays")
    manifest = manifest_of(run)
    assert json.loads(manifest.text())["version"] == 2
    assert Manifest.parse(manifest.text(), "it") == manifest
    push(team, home)
    pull(team, home / ".there")
    assert {"verified.json", "per-image.npz", "evaluations/a.npz"} <= set(
        files(home / ".there/run-0")
    )


def test_merging_is_a_union_and_the_later_of_two_contents_is_taken(home, team):
    push(team, home)
    there = home / ".there"
    pull(team, there)
    for place, name, when in [(home, "a", 2_000_000_000), (there, "b", 1_900_000_000)]:
        scores = {"scores": [elbo(-80.0).to_dict()]}
        (place / "run-0/evaluations").mkdir()
        write_json(place / "run-0/evaluations" / f"{name}.json", scores)
        write_tags(place / "run-0", [name])
        os.utime(place / "run-0/tags.json", (when, when))
    push(team, there)
    push(team, home)
    for place in (home, there):
        assert pull(team, place) == 0
        assert {p.name for p in (place / "run-0/evaluations").iterdir()} == {"a.json", "b.json"}
        assert json.loads((place / "run-0/tags.json").read_text()) == {"tags": ["a"]}
    shared = ("config.yaml", "result.json", "status.json", "tags.json", "history.csv")
    for name in shared:
        assert (home / "run-0" / name).read_bytes() == (there / "run-0" / name).read_bytes()


def test_another_run_of_the_same_name_is_left_alone_and_told(home, team, finished, capsys):
    push(team, home)
    before = (home / "run-0/result.json").read_bytes()
    shutil.rmtree(home / "run-0")
    finished([fd(99.0)], "run-0", seed=7)
    mine = files(home / "run-0")
    assert pull(team, home) == 0
    assert "run-0 is another run here" in capsys.readouterr().err
    assert files(home / "run-0") == mine
    assert push(team, home) == 0  # both are kept there
    assert pull(team, home / ".there", "run-0") == 0
    assert "run-0 is the name of 2 shared runs" in capsys.readouterr().err
    assert (home / ".there/run-0/result.json").read_bytes() in (before, mine["result.json"])


def test_a_running_run_is_pushed_later(home, team, unfinished, capsys):
    run = unfinished("running", None, seed=5)
    write_status(run, Status("running", heartbeat=4e9))
    assert push(team, home) == 0
    captured = capsys.readouterr()
    assert f"{run.name} is still running: push it later" in captured.err
    assert "2 of 2" in captured.out


# --- what a stranger may have put there ---------------------------------------------------------
ESCAPES = [
    "../escaped.json", "/tmp/escaped.json", "evaluations/../../escaped.json", "samples/../escaped.png",
    "evaluations/..\\escaped.json", "checkpoints/../../final.ckpt", ".git/config", "evaluations/a/b.json",
    "evaluations/.json", "genbench_configs/model/vae.yaml", "my_model.py", "config.yaml\n", "CONFIG.YAML",
]  # fmt: skip


def planted(store: Path, run_id: str, path: str, content: bytes = b"{}", folder: str = "") -> None:
    """Put a manifest with one file into a folder, as anybody could."""
    name = sha256(content)
    (store / "objects" / name[:2]).mkdir(parents=True, exist_ok=True)
    (store / "objects" / name[:2] / name).write_bytes(content)
    file = {"sha256": name, "modified": 2_000_000_000}
    text = json.dumps({"version": 1, "run_id": run_id, "key": "k", "files": {path: file}})
    place = store / "runs" / (folder or run_id) / f"{sha256(text.encode())}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_is_no_file_of_a_run_is_not_written(tmp_path, capsys, path):
    store, outputs = tmp_path / "team", tmp_path / "a" / "outputs"
    planted(store, "run", path)
    planted(store, "good", "config.yaml")
    assert pull(str(store), outputs) == 0
    captured = capsys.readouterr()
    assert "is no file of a run, or leaves its folder" in captured.err
    assert "1 new" in captured.out
    assert set(files(tmp_path / "a")) == {"outputs/good/config.yaml"}
    assert not Path("/tmp/escaped.json").exists()


@pytest.mark.parametrize("run_id", ["..", "../up", "/abs", ".hidden", "-rf", "latest", "a/b", ""])
def test_a_run_whose_name_is_a_path_is_not_written(tmp_path, capsys, run_id):
    store, outputs = tmp_path / "team", tmp_path / "a" / "outputs"
    planted(store, run_id, "config.yaml", folder="x")
    with pytest.raises(UserMistake):
        Manifest.parse(next((store / "runs/x").iterdir()).read_text(), "it")
    assert pull(str(store), outputs) == 2
    assert "leaves its folder" in capsys.readouterr().err
    assert not outputs.exists()


def test_a_link_in_a_run_is_not_followed(home, capsys):
    team = str(home / ".team")
    push(team, home)
    pull(team, home / ".there")
    outside = home / ".outside"
    outside.mkdir()
    (home / ".there/run-0/evaluations").symlink_to(outside)
    (home / "run-0/evaluations").mkdir()
    write_json(home / "run-0/evaluations/a.json", {"scores": []})
    push(team, home)
    assert pull(team, home / ".there") == 1
    assert "leads out of the run by a link" in capsys.readouterr().err
    assert not list(outside.iterdir())


def test_a_damaged_content_is_told_and_the_run_left_as_it_was(home, capsys):
    team = home / ".team"
    push(str(team), home)
    name = manifest_of(home / "run-0").files["result.json"].sha256
    (team / "objects" / name[:2] / name).write_bytes(b"cut off")
    (team / "runs" / "run-1" / "x.json").write_text("{")
    assert pull(str(team), home / ".there") == 1
    captured = capsys.readouterr()
    assert "is damaged: its content has another sha256" in captured.err
    assert "is no manifest of a run" in captured.err
    assert "1 new" in captured.out and "1 failed" in captured.out
    assert [p.name for p in (home / ".there").iterdir()] == ["run-1"]


# --- places that cannot be used -----------------------------------------------------------------
def test_a_place_that_breaks_off_in_the_middle_loses_nothing(home, monkeypatch, capsys):
    team, done = home / ".team", []
    real = Store._write

    def breaks(self, path, content, expected=None):
        if len(done) == 7:
            raise OSError(28, "No space left on device")
        done.append(path)
        real(self, path, content, expected)

    monkeypatch.setattr(Store, "_write", breaks)
    assert push(str(team), home) == 2
    assert "no space left on device; what was pushed before is kept" in capsys.readouterr().err
    assert [m.run_id for m in Store(team).manifests()] == ["run-0"]
    monkeypatch.undo()
    monkeypatch.setenv("GENBENCH_CACHE", str(home / ".cache"))
    assert push(str(team), home) == 0
    assert [m.run_id for m in Store(team).manifests()] == ["run-0", "run-1"]
    assert not list(team.rglob("*.partial"))


@needs_git
def test_places_that_are_none_are_told(home, room, capsys):
    (room / "file").write_text("")
    for place, sentence in [
        (str(room / "file"), "cannot write to"),
        ("https://localhost:1/x.git", "git cannot use https://localhost:1/x.git"),
        (str(room / "gone.git"), "git cannot use"),
        ("ext::sh -c true.git", "is no address of a git repository"),
    ]:
        assert push(place, home) == 2
        assert sentence in capsys.readouterr().err
    assert pull(str(room / "nothing"), home) == 2
    assert "holds no shared runs" in capsys.readouterr().err
    subprocess.run(["git", "init", "-q", "--bare", "empty.git"], check=True)
    assert pull("empty.git", home) == 2
    assert "holds no shared runs yet" in capsys.readouterr().err
    subprocess.run(["git", "init", "-q", "tree"], check=True)
    with pytest.raises(UserMistake, match="is a working tree of git"):
        is_repository("tree")


@needs_git
def test_links_in_a_repository_are_no_links_here(home, capsys):
    """A repository with `objects` as a link out of it: a push must not write there."""
    team, tree, outside = home / ".team.git", home / ".tree", home / ".outside"
    subprocess.run(["git", "init", "-q", "--bare", str(team)], check=True)
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    outside.mkdir()
    (tree / "objects").symlink_to(outside)
    git = ["git", "-C", str(tree), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    subprocess.run([*git, "push", "-q", str(team), "HEAD:refs/heads/genbench-runs"], check=True)
    assert push(str(team), home) == 2
    assert not list(outside.iterdir())


# --- several at once ----------------------------------------------------------------------------
def at_once(team: str, outputs: list[Path]) -> None:
    """Push from processes that have outputs and caches, and so copies, of their own."""
    files, started = [own / ".printed" for own in outputs], []
    for own, path in zip(outputs, files, strict=True):
        command = partial(main, ["push", team, "--outputs", str(own)])
        variables = environment(GENBENCH_CACHE=str(own / ".cache"))
        with path.open("w") as file:
            started.append(Fork(fork(command, file, file, variables)))
    ends = [process.wait() for process in started]
    assert ends == [0] * len(outputs), [path.read_text() for path in files]
    for number, path in enumerate(files):
        assert ("2 of 2" if number else "1 of 1") in path.read_text()


@pytest.mark.slow
def test_sixteen_processes_that_push_at_once_lose_nothing(home, team, finished):
    at_once(team, machines(home, finished, 16))
    there = home / ".there"
    assert pull(team, there) == 0
    check_that_all_is_there(there, 16)
    assert push(team, there) == 0


def test_the_order_of_merging_does_not_matter(home):
    first = manifest_of(home / "run-0")
    (home / "run-0/history.csv").write_text("images,loss\n1,2\n2,1\n")
    os.utime(home / "run-0/history.csv", (2_000_000_000, 2_000_000_000))
    second = manifest_of(home / "run-0", weights=True)
    texts = {merged(order)["run-0"][0].text() for order in ([first, second], [second, first])}
    assert texts == {first.merged(second).text()} == {second.merged(first).text()}
    assert Manifest.parse(second.text(), "it") == second
