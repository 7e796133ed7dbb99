"""A study on one page, made from run directories as they are on disk."""

import io
import json
import math
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.comparison import elbo, fd, seeds_of
from genbench.cli import main
from genbench.commands import report
from genbench.comparison.page.content import joined_commands, shipped_question
from genbench.comparison.page.curves import Curve, Panel, over_seeds
from genbench.comparison.page.plots import log_ticks, plot
from genbench.comparison.page.styles import ALIKE, PALETTE, of_losses, of_methods
from genbench.runs.score import Score

ATTACK = "</script><script>alert('x')</script>"


@pytest.fixture
def study(tmp_path, finished, unfinished):
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
    assert page.scripts == 5  # plots, decoders, what plays them, the library, what draws the plots
    assert "".join(page.text).count("alert('x')") >= 4  # title twice, question, reason: as text


def test_a_page_holds_table_verdicts_curves_cost_cards_and_failures(study):
    page = Reader(page_of(study, "--versus", "vae"))
    text = " ".join(" ".join(page.text).split())
    assert "What does the objective alone change?" in text
    assert "20.2 ± 0.16" in text
    assert "gan against vae: better only if lost runs are left out: FD by 14 [13.8," in text
    assert "None by gan: no encoder." in text
    assert "177,248" in text  # parameters of the vae
    assert '"name": "lenet"' in text
    assert "it said" in text
    by_title = [[t["name"] for t in p["data"] if "name" in t] for p in page.plots.values()]
    assert by_title[0] == ["gan", "vae"]  # best first
    assert by_title[1:] == [["one"], ["one"]]


def keys_of(page: str) -> set[tuple[str, str]]:
    """(style, name) of every key that the page draws beside a name."""
    drawn = re.findall(r'<svg class="key"(.*?)</svg>([^<]+)', page)
    return {(re.sub(r'viewBox="[^"]*"', "", key), name) for key, name in drawn}


def test_a_method_has_one_style_on_the_whole_page(study):
    text = page_of(study)
    methods = {(key, name) for key, name in keys_of(text) if name in ("vae", "gan")}
    assert len(methods) == 2
    lines = [t for t in Reader(text).plots["plot0"]["data"] if "name" in t]
    for line in lines:
        [key] = [key for key, name in methods if name == line["name"]]
        assert f"--own: var(--{line['meta']['colour']})" in key
    assert len({line["meta"]["colour"] for line in lines}) == 2


def test_a_method_keeps_its_style_where_another_is_best(study, finished):
    for model, value in (("vae", 1.0), ("gan", 2.0)):
        finished([fd(value)], model=model, dataset="mnist", study="objectives")
    methods = {(key, name) for key, name in keys_of(page_of(study)) if name in ("vae", "gan")}
    assert len(methods) == 2


def test_a_loss_looks_like_no_method_and_the_same_under_all(study):
    text = page_of(study)
    [(key, _)] = {(key, name) for key, name in keys_of(text) if name == "one"}
    assert "var(--ink)" in key
    losses = [t for p in list(Reader(text).plots.values())[1:] for t in p["data"]]
    assert {t["meta"]["colour"] for t in losses} == {"ink"}
    family = of_losses([f"loss {n}" for n in range(10)])
    methods = of_methods([f"model {n}" for n in range(60)])
    assert len(set(family.values())) == 10
    assert not {s.colour for s in family.values()} & {s.colour for s in methods.values()}


def test_without_curves_the_page_says_how_to_get_them(tmp_path, finished):
    finished([fd(3.0)])
    assert "selection=fd" in " ".join(Reader(page_of(tmp_path)).text)


def test_a_curve_that_is_not_there_is_told_with_the_option_that_gives_it(study, finished):
    finished([fd(9.0)], seed=0, model="vae-gan", study="objectives")
    late = finished([fd(9.0)], seed=7, model="vae", study="objectives")
    (late / "history.csv").write_text("images,loss/one\n1,1.0\n")
    apart = [finished([fd(9.0)], seed=n, model="wgan", study="objectives") for n in (1, 2)]
    for place, run in enumerate(apart, start=1):
        (run / "history.csv").write_text(f"images,selection/fd\n{place},1.0\n")
    text = " ".join(" ".join(Reader(page_of(study)).text).split())
    told = text.partition("Not in the curves: ")[2].split(". ")[0]
    assert set(told.split("; ")) == {
        "vae: 1 of 6 seeds, trained without selection=fd",
        "vae-gan: 1 of 1 seeds, trained without selection=fd",
        "wgan: 2 of 2 seeds, which share no point",
    }
    assert text.count("Not in the curves") == 1  # a loss that a method has not is no gap


def test_reconstructions_stand_beside_their_scores_and_their_curve(study, finished):
    by_name = {"psnr": (21.44, "dB", True), "ssim": (0.9, "", True)}
    for model in ("vae", "vae-gan"):
        card = {"heldout": {"n": 5, "split": "test"}, "reconstructed": {"weights": "raw"}}
        scores = [
            Score(name, value, unit, better, {"quantity": name, **card})
            for name, (value, unit, better) in by_name.items()
        ]
        run = finished([fd(5.0), *scores], seed=8, model=model, study="again")
        (run / "history.csv").write_text("images,validation/psnr\n1,12.0\n2,21.0\n")
        (run / "samples").mkdir()
        Image.new("L", (16, 16)).save(run / "samples" / "reconstructions-000000002.png")
    text = " ".join(" ".join(Reader(page_of(study, "study=again")).text).split())
    assert text.count("PSNR 21.44 dB, SSIM 0.9") == 2
    assert "PSNR on the validation split" in text
    out = study / "page" / "again.md"
    argv = ["--outputs", str(study), "--out", str(out), "--format", "md", "study=again"]
    assert report.main(argv) == 0
    assert "| PSNR 21.44 dB, SSIM 0.9 | PSNR 21.44 dB, SSIM 0.9 |" in out.read_text()


def test_the_page_says_how_the_seconds_were_spent(tmp_path, finished):
    for seed, bounds in ((0, 3.0), (1, 5.0)):
        path = finished([fd(3.0)], seed=seed) / "result.json"
        content = json.loads(path.read_text())
        content["cost"]["scoring_seconds"] = {"sample": 0.25, "copy_rate": 1.5, "bounds": bounds}
        path.write_text(json.dumps(content))
    finished([fd(4.0)], model="gan")  # of before it was noted
    text = " ".join(" ".join(Reader(page_of(tmp_path)).text).split())
    assert (
        "How the seconds were spent: model training sample copy rate bounds vae 10 0.25 1.5 4"
        in text
    )


def test_markdown_has_its_pictures_beside_it(study, tmp_path):
    out = tmp_path / "page" / "RESULTS.md"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    text = out.read_text()
    named = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(named) == 5 + 1 + 2  # the grids, the scores over images, the losses of two methods
    assert all((out.parent / name).exists() for name in named)
    assert "| gan | 6.2 ± 0.16 |" in text.replace("**", "")
    assert "- vae against gan: worse only if lost runs are left out: FD by 14" in text


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


def test_sixty_methods_look_different_and_from_the_seventh_on_not_by_colour_alone():
    styles = list(of_methods([str(n) for n in range(60)]).values())
    assert len(set(styles)) == 60
    first, rest = styles[:ALIKE], styles[ALIKE : len(PALETTE)]
    assert {(s.dash, s.marker) for s in first} == {("", "circle")}
    assert all(s.dash and s.marker != "circle" for s in rest)


def linear(colour: str) -> list[float]:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def contrast(one: str, other: str) -> float:
    """WCAG 2: relative luminances, each plus 0.05, the larger over the smaller."""
    levels = [np.dot(linear(c), [0.2126, 0.7152, 0.0722]) + 0.05 for c in (one, other)]
    return max(levels) / min(levels)


def oklab(colour: str) -> np.ndarray:
    """Ottosson 2020: distances in it are those that eyes see."""
    cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    cones += [[0.0883024619, 0.2817188376, 0.6299787005]]
    axes = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
    ]
    axes += [[0.0259040371, 0.7827717662, -0.8086757660]]
    return np.array(axes) @ np.cbrt(np.array(cones) @ linear(colour))


@pytest.mark.parametrize(("theme", "paper"), [(0, "#fdfdfc"), (1, "#14171a")])
def test_colours_stand_out_from_the_paper_and_from_each_other(study, theme, paper):
    assert f"--paper: {paper}" in page_of(study)
    colours = [pair[theme] for pair in PALETTE]
    assert min(contrast(colour, paper) for colour in colours) >= 3  # WCAG 2, graphics
    apart = [np.linalg.norm(oklab(a) - oklab(b)) for a, b in combinations(colours, 2)]
    assert min(apart) > 0.075  # 0.02 is just seen where two fields touch


def test_numbers_at_a_logarithmic_axis_are_few_round_and_inside():
    assert log_ticks(4, 130) == [5, 10, 20, 50, 100]
    assert log_ticks(0.03, 5.3) == [0.03, 0.1, 0.3, 1, 3]
    assert log_ticks(1e-6, 1) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]
    assert log_ticks(1e-12, 1e9) == [1e-12, 1e-8, 1e-4, 1, 1e4, 1e8]
    for low in np.geomspace(1e-3, 1, 50):
        for ratio in np.geomspace(30.1, 1e9, 50):
            assert 3 <= len(log_ticks(low, low * ratio)) <= 9


def test_a_wide_range_is_drawn_on_a_logarithmic_axis_with_its_numbers_written():
    curve = Curve("fd", [1, 2, 3], [400.0, math.nan, 4.0], [], [], 1)
    drawn = plot(Panel("fd", "", [curve]), of_losses(["fd"]))
    axis = drawn["layout"]["yaxis"]
    assert (axis["type"], axis["ticktext"]) == ("log", ["5", "10", "20", "50", "100", "200"])
    assert drawn["data"][0]["y"] == [400.0, None, 4.0]  # JSON has no NaN


def test_mistakes_are_answered(room, capsys):
    assert main(["report", "study=nothing"]) == 2
    assert "there are no runs in outputs that fit study=nothing" in capsys.readouterr().err


# What is wider than the screen, and what the buttons and printing do; the page is as before afterwards.
PROBE = """() => {
  const root = document.documentElement, seen = {};
  const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  seen.wide = [...document.querySelectorAll("body *:not(svg *):not(script)")].filter(
    (e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !scrolls(e.parentElement)
  ).map((e) => e.tagName + "." + e.className).join(" ");
  seen.wide += root.scrollWidth > innerWidth ? " page" : "";
  const lines = () => document.querySelectorAll(".plot .scatterlayer path.js-line").length;
  seen.drawn = lines();
  document.querySelector(".legend button").click();
  seen.one_off = lines();
  document.querySelector(".legend button").click();
  document.getElementById("theme").click();
  seen.theme = root.dataset.theme;
  seen.dark = getComputedStyle(document.body).backgroundColor;
  dispatchEvent(new Event("beforeprint"));
  seen.printed_closed = document.querySelectorAll("details:not([open])").length;
  seen.printed_theme = root.dataset.theme;
  seen.printed_width = Math.max(...[...document.querySelectorAll(".plot svg")].map((e) => e.width.baseVal.value));
  dispatchEvent(new Event("afterprint"));
  seen.after_open = document.querySelectorAll("details[open]").length;
  seen.after_theme = root.dataset.theme;
  return seen;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_draws_the_page_on_a_phone_on_a_desk_in_the_dark_and_on_paper(
    study, open_page, width
):
    page_of(study)
    page = open_page(study / "page" / "report.html", width)
    page.wait_for_selector(".plot svg")
    seen = page.evaluate(PROBE)
    assert seen["wide"] == ""
    assert seen["drawn"] == 12  # a line and two edges of two scores and two losses
    assert seen["one_off"] == 9
    assert (seen["theme"], seen["dark"]) == ("dark", "rgb(20, 23, 26)")
    assert (seen["printed_closed"], seen["printed_theme"]) == (0, "light")
    assert 0 < seen["printed_width"] <= 640  # a sheet of A4 has 700 between its margins
    assert (seen["after_open"], seen["after_theme"]) == (0, "dark")
    picture = Image.open(io.BytesIO(page.screenshot()))
    assert len(picture.convert("RGB").getcolors(2**20)) > 50  # it is not blank


def test_a_row_that_the_page_chose_for_its_score_is_compared_over_all_pairs(tmp_path, finished):
    for model, level in (("gan", 10.0), ("vae", 11.158), ("vae-gan", 11.158)):
        seeds_of(finished, level, model=model)  # p = 0.02: times 2 below 0.05, times 3 above
    given = Reader(page_of(tmp_path, "--versus", "gan")).text
    chosen = Reader(page_of(tmp_path)).text
    for text, verdict in ((given, "worse on FD"), (chosen, "not told apart on FD")):
        assert sum(f"against gan: {verdict}" in part for part in text) == 2
    assert sum("all pairs of rows" in part for part in chosen) == 1
    assert not any("all pairs of rows" in part for part in given)
