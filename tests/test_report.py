"""A study on one page, made from run directories as they are on disk."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from test_compare import elbo, fd, finished, unfinished  # noqa: F401  (two are fixtures)

from genbench import report
from genbench.cli import main
from genbench.page.content import joined_commands, shipped_question
from genbench.page.curves import over_seeds
from genbench.page.plots import PALETTE, colours

ATTACK = "</script><script>alert('x')</script>"


@pytest.fixture
def study(tmp_path, finished, unfinished):  # noqa: F811
    """Two methods of five seeds each with curves and pictures, and a run that failed."""
    for seed in range(5):
        for model, level in (("vae", 20.0), ("gan", 6.0)):
            score = [fd(level + seed / 10), *([elbo(-90.0 - seed)] if model == "vae" else [])]
            run = finished(score, seed=seed, model=model, study="objectives")
            rows = [f"{n},{level + 100 / n + seed},{level / n}" for n in (1, 2, 4)]
            text = "images,selection/fd,loss/one\n" + "\n".join(rows) + "\n"
            (run / "history.csv").write_text(text)
            (run / "samples").mkdir()
            kinds = ["samples", "interpolations", *(["reconstructions"] * (model == "vae"))]
            for kind in kinds:
                Image.new("L", (16, 16), 7 * seed).save(run / "samples" / f"{kind}-000000004.png")
    unfinished("failed", f"it said {ATTACK}", seed=5, model="gan", study="objectives")
    return tmp_path


def page_of(outputs: Path, *options: str) -> str:
    out = outputs / "page" / "report.html"
    assert report.main(["--outputs", str(outputs), "--out", str(out), *options]) == 0
    return out.read_text()


class Reader(HTMLParser):
    """Text, tags, and the addresses that a browser would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.scripts = 0
        self._inside = ""
        self.plots: dict = {}
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self.scripts += tag == "script"
        named = dict(attrs)
        fetched = named.get("src") or (named.get("href") if tag == "link" else None)
        if fetched:
            self.addresses.append(fetched)

    def handle_data(self, data):
        if self._inside == "script" and data.startswith("{"):
            self.plots = json.loads(data)
        elif self._inside not in ("script", "style"):
            self.text.append(data)


def test_a_page_needs_no_network(study):
    page = Reader(page_of(study))
    assert len(page.addresses) == 5  # the pictures of two methods, one of which has an encoder
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)


def test_what_a_run_says_cannot_break_the_page(study):
    page = Reader(page_of(study, "--title", ATTACK, "--question", ATTACK))
    assert page.scripts == 3  # the plots, the library, what draws them
    assert "".join(page.text).count("alert('x')") >= 4  # title twice, question, reason: as text


def test_a_page_holds_table_verdicts_curves_cost_cards_and_failures(study):
    page = Reader(page_of(study, "--versus", "vae"))
    text = " ".join(" ".join(page.text).split())
    assert "What does the objective alone change?" in text
    assert "20.2 ± 0.16" in text
    assert "gan against vae: better on FD by 14 [13.8, 14.2]" in text
    assert "None by gan: no encoder." in text
    assert "177,248" in text  # parameters of the vae
    assert '"name": "lenet"' in text
    assert "it said" in text
    by_title = [[t["name"] for t in p["data"] if "name" in t] for p in page.plots.values()]
    assert by_title[0] == ["gan", "vae"]  # best first
    assert by_title[1:] == [["one"], ["one"]]


def test_a_method_has_one_colour_on_the_whole_page(study):
    text = page_of(study)
    reader = Reader(text)
    places = {t["name"]: t["meta"]["place"] for t in reader.plots["plot0"]["data"] if "name" in t}
    dots = set(re.findall(r'class="dot p(\d)"></span>(\w+)', text))
    assert {(str(place), name) for name, place in places.items()} == dots


def test_a_method_keeps_its_colour_where_another_is_best(study, finished):  # noqa: F811
    for model, value in (("vae", 1.0), ("gan", 2.0)):
        finished([fd(value)], model=model, dataset="mnist", study="objectives")
    dots = re.findall(r'class="dot p(\d)"></span>(\w+)', page_of(study))
    assert {name for _, name in dots} == {"vae", "gan"}
    assert len(set(dots)) == 2


def test_without_curves_the_page_says_how_to_get_them(tmp_path, finished):  # noqa: F811
    finished([fd(3.0)])
    assert "selection=fd" in " ".join(Reader(page_of(tmp_path)).text)


def test_markdown_has_its_pictures_beside_it(study, tmp_path):
    out = tmp_path / "page" / "RESULTS.md"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    text = out.read_text()
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(named) == 5
    assert all((out.parent / name).exists() for name in named)
    assert "| gan | 6.2 ± 0.16 |" in text.replace("**", "")
    assert "- vae against gan: worse on FD by 14" in text


def test_curves_over_seeds_are_means_with_their_range():
    runs = [[(1, 1.0), (2, 4.0)], [(1, 2.0), (2, 6.0), (3, 9.0)], [(1, 6.0), (2, 8.0)]]
    curve = over_seeds("vae", runs)
    assert (curve.images, curve.middle) == ([1, 2], [3.0, 6.0])  # where all seeds have a point
    assert (curve.low, curve.high) == ([1.0, 4.0], [6.0, 8.0])
    assert over_seeds("vae", runs[:2]).low == []  # no band below three seeds
    assert over_seeds("vae", [[], []]) is None
    long = over_seeds("vae", [[(n, 0.0) for n in range(1001)]])
    assert len(long.images) <= 202
    assert long.images[-1] == 1000


def test_the_commands_of_a_sweep_are_the_sweep():
    runs = [f"genbench train model={m} seed={s} x=1" for m in ("vae", "gan") for s in (0, 1)]
    assert joined_commands(runs) == ["genbench train -m model=vae,gan seed=0,1 x=1"]
    alone = "genbench train model=noise"
    assert joined_commands([alone, "", *runs[:1]]) == [alone, runs[0]]


def test_only_a_study_that_ships_has_a_question_of_its_own():
    assert shipped_question("gamma")
    assert shipped_question("../experiment/gamma") == shipped_question("mine") == ""


def test_colours_repeat_only_when_there_are_more_methods_than_colours():
    places = colours([str(n) for n in range(len(PALETTE) + 1)])
    assert len(set(places.values())) == len(PALETTE)


def test_mistakes_are_answered(room, capsys):
    assert main(["report", "study=nothing"]) == 2
    assert "there are no runs in outputs that fit study=nothing" in capsys.readouterr().err


# the browser writes what it found into the page, since `--dump-dom` is all that it says
PROBE = """<script>
window.onerror = (m) => { document.documentElement.dataset.error = m; };
window.addEventListener("load", () => setTimeout(() => {
  const root = document.documentElement;
  root.dataset.wide = root.scrollWidth > innerWidth;
  root.dataset.drawn = document.querySelectorAll(".plot .scatterlayer path.js-line").length;
  document.getElementById("theme").click();
  root.dataset.after = getComputedStyle(document.body).backgroundColor;
}, 800));
</script></head>"""


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="no Chromium"
)
def test_a_browser_draws_the_page_on_a_phone_and_in_the_dark(study, tmp_path):
    page = tmp_path / "probe.html"
    page.write_text(page_of(study).replace("</head>", PROBE, 1))
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"]
    quiet += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

    def ask(*what: str) -> str:
        profile = f"--user-data-dir={tmp_path}/profile"
        command = [browser, *quiet, profile, "--window-size=500,900", "--virtual-time-budget=5000"]
        done = subprocess.run(
            [*command, *what, f"file://{page}"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    opened = ask("--dump-dom")
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', opened.split("<body", 1)[0]))
    assert "error" not in found
    assert found["wide"] == "false"
    assert int(found["drawn"]) >= 4  # two methods' scores, their losses
    assert found["theme"] == "dark"
    assert found["after"] == "rgb(20, 23, 26)"
    ask(f"--screenshot={tmp_path}/page.png")
    with Image.open(tmp_path / "page.png") as picture:
        assert len(picture.convert("RGB").getcolors(2**20)) > 50  # it is not blank
