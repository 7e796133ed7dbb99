"""Two scores against each other: points, the Pareto front, what is left out, the plot."""

import math

import pytest

from fixtures.comparison import fd, score
from genbench.commands import report
from genbench.comparison.page.styles import of_methods
from genbench.comparison.page.tradeoff_plot import FRONT, scatter
from genbench.comparison.rows import make_rows
from genbench.comparison.tradeoffs import Point, in_words, lines, tradeoffs
from genbench.runs.records import load_results
from genbench.runs.score import Score

SETTINGS = ((0.1, 30.0, 10.0, 9.0), (1, 20.0, 14.0, 8.0), (10, 8.0, 25.0, 12.0))


def posthoc(quantity, value):
    card = {"quantity": quantity, "likelihood": "gaussian-posthoc", "heldout": {"split": "test"}}
    return Score(f"{quantity}_gaussian-posthoc", value, "nats", None, card)


def scores(rate, distortion, distance, off=0.0):
    both = [posthoc("rate_posthoc", rate + off), posthoc("distortion_posthoc", distortion)]
    ratios = [score("precision", 0.5 + off / 100), score("recall", rate / 100)]
    return [*both, fd(distance), *ratios]


@pytest.fixture
def study(tmp_path, finished):
    for beta, *values in SETTINGS:
        for seed in range(3):
            finished(scores(*values, off=seed - 1.0), seed=seed, **{"model.beta": beta})
    finished([fd(5.0), score("precision", 0.6), score("recall", 0.1)], model="gan")
    return tmp_path


def found(outputs):
    return {one.title: one for one in tradeoffs(make_rows(load_results((), outputs)))}


def test_a_point_is_the_mean_over_seeds_with_the_lowest_and_the_highest(study):
    point = found(study)["Rate against distortion"].points[0]
    assert (point.label, point.x, point.y) == ("vae (model.beta=10)", 8.0, 25.0)
    assert (point.x_range, point.y_range) == ((7.0, 9.0), (25.0, 25.0))


def test_the_front_has_what_no_other_beats_in_both(study):
    plots = found(study)
    rates = plots["Rate against distortion"]
    assert rates.front == [0, 1, 2]  # each buys distortion with rate
    distances = plots["Distortion against the FD of samples"]
    front = [distances.points[place].label for place in distances.front]
    assert front == ["vae (model.beta=0.1)", "vae (model.beta=1)"]
    assert in_words(distances).endswith("; without one of the scores: gan.")
    more = plots["Precision against recall"]  # of which more is better
    assert [more.points[place].label for place in more.front] == ["vae (model.beta=0.1)", "gan"]


def test_two_points_are_no_curve_and_other_weights_no_points(tmp_path, finished):
    for beta, *values in SETTINGS[:2]:
        finished(scores(*values), **{"model.beta": beta})
    averaged = [score("precision", 0.5, fake={"n": 1, "weights": "ema"}), score("recall", 0.5)]
    finished(averaged, model="gan")
    assert not found(tmp_path)


def test_each_method_is_a_trace_with_whiskers_and_lines_join_models_and_the_front(study):
    one = found(study)["Rate against distortion"]
    figure, key = scatter(one, of_methods(point.label for point in one.points))
    assert [trace["name"] for trace in figure["data"]] == [
        "vae",
        FRONT,
        *(point.label for point in one.points),
    ]
    assert [*key][-1] == FRONT
    first = figure["data"][2]
    assert (first["error_x"]["array"], first["error_x"]["arrayminus"]) == ([1.0], [1.0])
    assert figure["data"][0]["x"] == sorted(figure["data"][0]["x"])


def test_the_page_draws_them_and_the_markdown_names_the_front(study):
    out = study / "page" / "report.html"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    text = out.read_text()
    assert "Trade-offs" in text
    assert "Rate against distortion. On the Pareto front" in text
    out = study / "page" / "report.md"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    assert (
        "- Rate against distortion. On the Pareto front, by means over seeds: vae (model.beta=10)"
        in (out.read_text())
    )


def test_a_line_joins_settings_or_truncations_and_no_other_priors():
    def point(label, model="vae", prior="", width=math.inf):
        return Point(label, model, 0.0, 0.0, (0.0, 0.0), (0.0, 0.0), prior, width)

    usual, half = point("vae"), point("half", prior="truncated", width=0.5)
    most, fitted = point("most", prior="truncated", width=0.9), point("fitted", prior="mixture")
    assert lines([usual, most, fitted, half]) == {"vae, truncated": [half, most, usual]}
    two = [usual, point("vae (model.beta=2)")]
    assert lines([*two, fitted, point("gan", model="gan")]) == {"vae": two}
