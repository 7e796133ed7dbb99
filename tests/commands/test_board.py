"""A board: a static site from runs of many machines, read as a browser would read it."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from fixtures.comparison import elbo, fd, score
from genbench.cli import main
from genbench.comparison.reproduction import read_claims
from genbench.runs.files import write_json
from genbench.runs.paths import reproduce_root
from genbench.runs.verification import Verification, write_verification

ATTACK = "\"'></script><script>alert(1)</script>"
WEIGHTS = b"weights"


class Page(HTMLParser):
    """Text, tables as rows of texts, links, and what a browser would run or fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links, self.fetched, self.scripts, self.text = [], [], 0, []
        self.rows, self.handlers, self._inside = [], [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self._inside = tag
        self.scripts += tag == "script"
        self.handlers += [name for name in named if name.startswith("on")]
        self.links += [named["href"]] if tag == "a" else []
        self.fetched += [named[k] for k in ("src", "href") if k in named and tag != "a"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", named.get("data-card")])

    def handle_data(self, data):
        if self._inside == "script":
            return
        self.text.append(data)
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1][0] += data.strip()


@pytest.fixture
def runs(tmp_path, finished, unfinished):
    """Runs of two data sets and two machines, one of them verified, and one that says evil things."""
    folder = tmp_path
    mnist = score("fd", 3.0, False, extractor={"name": "other"})
    for seed, host in enumerate(("mine-secret-host", "other-secret-host")):
        run = finished([fd(5.0 + seed), elbo(-80.0 - seed)], f"run-{seed}", seed=seed, study="a")
        content = json.loads((run / "result.json").read_text())
        content["environment"] = {
            "host": host,
            "device": f"machine {seed}",
            "command": "genbench train",
        }
        write_json(run / "result.json", content)
        (run / "samples").mkdir()
        Image.new("L", (8, 8)).save(run / "samples" / "samples-000000004.png")
    finished([mnist], "run-2", dataset="mnist", model=ATTACK, study=ATTACK, **{"model.lr": ATTACK})
    unfinished("failed", ATTACK, model="gan")
    verified = folder / "run-1"
    (verified / "checkpoints").mkdir()
    (verified / "checkpoints/final.ckpt").write_bytes(WEIGHTS)
    found = Verification(
        "2026-01-02T00:00:00", ATTACK, "0", hashlib.sha256(WEIGHTS).hexdigest(), 2, 0.0, 1e-3
    )
    write_verification(verified, found)
    return folder


def board(folder: Path, *more: str) -> Path:
    out = folder / ".site"
    assert main(["board", str(folder), "--out", str(out), *more]) == 0
    return out


def test_a_board_has_tables_by_dataset_marks_claims_and_a_page_per_run(runs, capsys):
    site = board(runs)
    assert "4 runs, 5 pages" in capsys.readouterr().out
    index = Page(site / "index.html")
    rows = {row[0][0]: [text for text, _ in row] for row in index.rows if row}
    assert rows["run-0"][:6] == ["run-0", "vae", "0", "B", "", "finished"]
    assert rows["run-1"][:6] == ["run-1", "vae", "1", "C", "✓ verified", "finished"]
    assert rows["run-0"][6:] == ["5", "-80"] and rows["run-1"][6:] == ["6", "-81"]
    claims = read_claims(reproduce_root())
    assert {claim.name for claim in claims} <= set(rows)
    assert len(rows["vae-mnist-static"]) == 5
    for link in index.links:
        assert (site / link).is_file()
    run = Page(site / "runs/run-1.html")
    text = " ".join(" ".join(run.text).split())
    assert "vae on digits, seed 1" in text and "equal to the bit: 2 scores computed again" in text
    assert "0.001" in text and "fd_lenet" in text and '"sha256": "abab' in text
    assert all((site / "runs" / place).is_file() for place in run.fetched)
    assert "../pictures/run-1-samples.png" in run.fetched


def test_a_score_of_another_card_never_shares_a_column(runs):
    index = Page(board(runs) / "index.html")
    (header,) = [row for row in index.rows if row and [t for t, _ in row][:2] == ["run", "method"]][
        :1
    ]
    cards = [card for _, card in header if card]
    assert len(cards) == len(set(cards)) == 2
    (row,) = [row for row in index.rows if row and row[0][0] == "run-0"]
    assert [card for _, card in row] == [card for _, card in header]
    options = re.findall(
        r'<option value="([0-9a-f]{10})">', (runs / ".site/index.html").read_text()
    )
    assert set(cards) < set(options) and len(options) == 3


def test_what_runs_say_is_text_and_hosts_are_not_said(runs):
    site = board(runs, "--title", ATTACK)
    pages = [Page(path) for path in sorted(site.rglob("*.html"))]
    assert [page.scripts for page in pages] == [1, *[0] * (len(pages) - 1)]
    assert not [handler for page in pages for handler in page.handlers]
    assert sum("alert(1)" in text for page in pages for text in page.text) >= 8
    everything = "".join(path.read_text() for path in site.rglob("*.html"))
    assert "secret-host" not in everything
    assert not [url for page in pages for url in [*page.links, *page.fetched] if ":" in url]


def test_a_folder_that_was_pushed_to_is_read_with_the_verification_of_its_record(runs, capsys):
    team = runs / ".team"
    assert main(["push", str(team), "--outputs", str(runs)]) == 0
    site = runs / ".board"
    assert main(["board", str(team), "--out", str(site), "study=a"]) == 0
    assert "2 runs, 3 pages" in capsys.readouterr().out
    assert "as its record says" in (site / "runs/run-1.html").read_text()
    assert "as its record says" not in (site / "runs/run-0.html").read_text()


def test_other_weights_than_the_verified_ones_are_not_called_verified(runs):
    (runs / "run-1/checkpoints/final.ckpt").write_bytes(b"others")
    assert "✓" not in "".join(" ".join(row[4]) for row in _runs(Page(board(runs) / "index.html")))


def _runs(page: Page) -> list:
    return [
        [(text,) for text, _ in row] for row in page.rows if row and row[0][0].startswith("run-")
    ]


def test_a_board_is_written_again_without_what_is_gone_and_nothing_else_is_overwritten(
    runs, capsys
):
    site = board(runs)
    before = (site / "board.css").read_bytes()
    board(runs, "run-0")
    assert [path.name for path in (site / "runs").iterdir()] == ["run-0.html"]
    assert [path.name for path in (site / "pictures").iterdir()] == ["run-0-samples.png"]
    assert (site / "board.css").read_bytes() == before
    other = runs / ".other"
    other.mkdir()
    (other / "index.html").write_text("mine")
    assert main(["board", str(runs), "--out", str(other)]) == 2
    assert "holds other files than a board's" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["index.html"]


def test_what_cannot_be_shown_is_a_sentence(runs, capsys):
    (runs / ".file").write_text("")
    for folder, words in [("nowhere", "is no folder"), (str(runs / ".site"), "is no folder")]:
        assert main(["board", folder, "--out", str(runs / ".x")]) == 2
        assert words in capsys.readouterr().err
    (runs / ".empty").mkdir()
    assert main(["board", str(runs / ".empty"), "--out", str(runs / ".x")]) == 2
    assert "there are no runs" in capsys.readouterr().err
    assert main(["board", str(runs), "--out", str(runs / ".file")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not (runs / ".x").exists()
