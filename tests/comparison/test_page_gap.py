"""The report's section on where the distance comes from: bars, sentences, the rate of each latent."""

import json
from html.parser import HTMLParser

import pytest

from genbench.commands import report
from genbench.comparison.gap import gaps
from genbench.comparison.page.gap_plot import gap_bars, rate_panel
from genbench.comparison.rows import make_rows
from genbench.runs.latents import latents_file
from genbench.runs.records import load_results
from genbench.runs.score import Score

CARD = {"extractor": {"name": "lenet"}, "real": {"split": "train", "n": 1257}}
TEST = {"heldout": {"split": "test", "n": 2000}}
FAKE = {"n": 2000, "latents": "prior"}
UNITS = Score(
    "active_units",
    3.0,
    "units",
    None,
    {"quantity": "active_units", "encoded": {"latent_dim": 3}, **TEST},
)


def fd(value, quantity="fd", **card):
    return Score(f"{quantity}_lenet", value, "", None, {"quantity": quantity, **CARD, **card})


def scores(sample):
    rebuilt = {"reconstructed": {"latents": "posterior mean"}}
    return [
        fd(2.0, "fd_floor", estimator={"n": 2000}, **TEST),
        fd(9.0, "fd_reconstructed", **TEST, **rebuilt),
        fd(2.0, "fd_originals", **TEST),
        fd(sample, fake=FAKE),
        UNITS,
    ]


@pytest.fixture
def study(tmp_path, finished):
    for seed in range(3):
        run = finished(scores(20.0 + seed), seed=seed, study="mine")
        path = run / latents_file(UNITS.protocol)
        path.parent.mkdir()
        path.write_text(json.dumps({"by_unit": {"rate": [0.0, 2.0 + seed, 1.0]}}))
    return tmp_path


def rows(outputs):
    return make_rows(load_results((), outputs))


def test_each_bar_begins_where_the_one_before_ends(study):
    figure, styles = gap_bars(gaps(rows(study)))
    ends = [(t["base"][0], t["x"][0]) for t in figure["data"]]
    assert ends == [(0.0, 2.0), (2.0, 7.0), (9.0, 12.0)]
    assert (
        [t["name"] for t in figure["data"]]
        == [*styles]
        == [
            "floor",
            "decoder",
            "latents and prior",
        ]
    )
    assert figure["data"][2]["error_x"]["array"] == [1.0]
    assert "error_x" not in figure["data"][1]  # the same in every seed


def test_the_rate_of_each_latent_is_drawn_largest_first(study):
    directories = {run.name: run for run in study.iterdir()}
    panel = rate_panel(rows(study), directories)
    [curve] = panel.curves
    assert (curve.images, curve.middle) == ([1.0, 2.0, 3.0], [3.0, 1.0, 0.0])
    assert (curve.low[0], curve.high[0]) == (2.0, 4.0)
    assert panel.across == "rank of the latent"


class Plots(HTMLParser):
    found: dict

    def handle_data(self, data):
        if data.startswith('{"'):
            self.found = json.loads(data)


def test_the_page_and_its_markdown_say_it_in_words_and_numbers(study):
    out = study / "page" / "report.html"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    text = out.read_text()
    assert "Where the distance comes from" in text
    assert "The decoder&#39;s part +7" in text
    reader = Plots()
    reader.feed(text)
    layouts = [plot["layout"] for plot in reader.found.values()]
    assert "overlay" in [layout.get("barmode") for layout in layouts]
    assert "rank of the latent" in [layout["xaxis"]["title"]["text"] for layout in layouts]
    out = study / "page" / "report.md"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    text = out.read_text()
    assert "| vae | 2 | 9 | 21 ± 1 | +7 | +12 ± 1 | 3 |" in text
    assert "- vae (3 seeds): FD 21 ± 1 of 2,000 samples" in text
