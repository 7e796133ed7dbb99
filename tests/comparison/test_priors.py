"""One training, several rows: samples under other priors in a table, side by side, in verdicts."""

from dataclasses import replace

from PIL import Image

from fixtures.comparison import SPREAD, card, elbo, fd, run, strong, table
from genbench.commands import report
from genbench.comparison.costs import cost_table
from genbench.comparison.page.content import study_of
from genbench.comparison.per_run import wide_table
from genbench.comparison.rows import make_rows
from genbench.comparison.table import arenas
from genbench.comparison.verdicts import find_versus, standings
from genbench.launch.search_trials import find_score
from genbench.runs.method import fingerprint
from genbench.runs.priors import as_in_training, grid_name, score_address
from genbench.runs.records import load_results
from genbench.runs.score import Score

MIXTURE = {
    "prior": "mixture",
    "settings": {"components": [1, 5]},
    "codes": {"images": {"n": 1257}, "draws": 15},
    "seed": 0,
    "version": 1,
}
HALF = {"prior": "truncated", "settings": {"scale": 0.5}, "version": 1}


def as_trained_card():
    plain = card()
    return plain | {"fake": plain["fake"] | {"latents": "prior"}}


def plain(value):
    return replace(fd(value), card=as_trained_card())


def under(value, prior=MIXTURE, quantity="fd"):
    about = as_trained_card()
    about |= {"quantity": quantity, "fake": about["fake"] | {"latents": prior}}
    return Score(f"{quantity}_lenet", value, "", False, about)


def costs(parameters, seconds):
    about = {"fake": under(0.0).card["fake"]}
    return [
        Score(name, value, "", None, {"quantity": name, **about})
        for name, value in (("prior_parameters", parameters), ("prior_seconds", seconds))
    ]


def test_a_training_has_a_row_for_each_prior_and_they_share_a_column(tmp_path, finished):
    finished([plain(30.0), elbo(-90.0), under(10.0), under(50.0, HALF)], seed=0)
    finished([plain(31.0), elbo(-91.0), under(11.0)], seed=1)
    rows, only = table(tmp_path)
    assert rows["vae"]["FD ↓"] == "30.5"
    assert rows["vae, mixture prior"]["FD ↓"] == "10.5"
    assert rows["vae, truncated prior (scale=0.5)"]["FD ↓"] == "50"
    assert rows["vae, mixture prior"]["ELBO ↑"] == ""
    assert rows["vae, mixture prior"]["n"] == "2"
    assert rows["vae, truncated prior (scale=0.5)"]["n"] == "1"
    assert [column.header for column in only.columns].count("FD ↓") == 1
    notes = " ".join(only.notes)
    assert "2 runs;" in notes
    assert (
        "mixture prior: a mixture of Gaussians fitted to 18,855 codes of 1,257 training images"
        in notes
    )
    assert "only rows of one prior are tested against each other" in notes


def test_without_other_priors_nothing_changes(tmp_path, finished):
    finished([plain(30.0)])
    _, only = table(tmp_path)
    assert not [note for note in only.notes if "prior" in note]
    (row,) = make_rows(load_results((), tmp_path))
    assert (row.label, row.prior) == ("vae", "")


def test_the_score_of_a_prior_has_the_protocol_of_training_but_for_the_latents():
    assert as_in_training(under(1.0)).protocol == plain(1.0).protocol
    assert under(1.0).protocol != plain(1.0).protocol
    assert score_address(under(1.0)) == "final/fd_lenet@mixture"
    assert score_address(plain(1.0)) == "final/fd_lenet"


def test_priors_of_one_kind_are_told_apart(tmp_path, finished):
    other = MIXTURE | {"seed": 1}
    finished([plain(30.0), under(10.0), under(12.0, other)])
    rows, _ = table(tmp_path)
    labels = [label for label in rows if label.startswith("vae, mixture prior [")]
    assert len(labels) == 2


def test_bold_and_verdicts_stay_within_one_prior(tmp_path, finished):
    for model, trained, mixture in (("vae", 30.0, 8.0), ("gan", 20.0, 12.0)):
        for seed, off in enumerate(SPREAD):
            finished([plain(trained + off), under(mixture + off)], model=model, seed=seed)
    rows, only = table(tmp_path)
    assert {"vae", "gan", "vae, mixture prior", "gan, mixture prior"} == set(rows)
    found = arenas(load_results((), tmp_path))
    (versus,) = find_versus(found[0].rows, "gan, mixture prior")
    (standing,) = standings(found[0].rows, found[0].columns, versus)
    assert standing.sentence.startswith(
        "vae, mixture prior against gan, mixture prior: better on FD by 4"
    )
    (versus,) = find_versus(found[0].rows, "gan")
    assert versus.prior == ""
    (standing,) = standings(found[0].rows, found[0].columns, versus)
    assert standing.row.label == "vae"
    marked = [model for model, _ in strong(only)]
    assert sorted(marked) == ["gan", "vae, mixture prior"]


def test_priors_stand_side_by_side(tmp_path, finished, capsys):
    finished([plain(30.0), under(10.0)], model="vae")
    finished([plain(20.0), under(15.0, HALF)], model="gan")
    text = run(capsys, "--outputs", str(tmp_path), "--columns", "prior", "--format", "md")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| model | as trained | mixture prior | truncated prior (scale=0.5) | n |"
    assert "| vae | 30 | 10 |  | 1 |" in lines
    assert "| gan | 20 |  | 15 | 1 |" in lines


def test_what_a_fit_cost_stands_beside_the_other_costs(tmp_path, finished):
    finished([plain(30.0), under(10.0), *costs(3059.0, 8.0)], seed=0)
    finished([plain(30.0), under(10.0), *costs(3059.0, 6.0)], seed=1)
    table = cost_table(make_rows(load_results((), tmp_path)))
    heads = [column.key for column in table.columns]
    rows = {line[0].text: dict(zip(heads, line, strict=True)) for line in table.rows}
    assert rows["vae, mixture prior"]["prior_parameters"].exact["value"] == 3059
    assert rows["vae, mixture prior"]["prior_seconds"].exact["value"] == 7
    assert rows["vae"]["prior_seconds"].text == ""


def test_a_line_per_run_names_the_prior_in_the_column(tmp_path, finished):
    finished([plain(30.0), under(10.0)])
    keys = [column.key for column in wide_table(load_results((), tmp_path)).columns]
    assert {"fd_lenet", "fd_lenet@mixture"} <= set(keys)


def test_a_search_selects_by_the_prior_of_training():
    assert find_score([under(1.0), plain(2.0)], "fd", "test").value == 2.0
    assert find_score([under(1.0)], "fd", "test") is None


def test_a_prior_is_no_part_of_the_method(tmp_path, finished):
    first = finished([plain(1.0)], seed=0)
    assert first
    (result,) = load_results((), tmp_path)
    assert fingerprint({**result.config, "prior": {"mixture": {}}}) == result.fingerprint


def test_a_report_shows_the_samples_of_each_prior_and_counts_a_training_once(tmp_path, finished):
    for model, trained, mixture in (("vae", 30.0, 8.0), ("gan", 20.0, 12.0)):
        for seed, off in enumerate(SPREAD):
            run = finished([plain(trained + off), under(mixture + off)], model=model, seed=seed)
            (run / "samples").mkdir()
            Image.new("L", (4, 4)).save(run / "samples" / grid_name(MIXTURE))
    directories = {path.name: path for path in tmp_path.iterdir()}
    study = study_of(arenas(load_results((), tmp_path)), directories, "mine", "", None)
    (part,) = study.sections
    assert dict(study.facts)["runs"] == "10"
    (gallery,) = part.galleries
    labels = [picture.label for picture in gallery.pictures]
    assert labels == ["vae, mixture prior", "gan, mixture prior"]
    assert "under the other priors" in gallery.caption
    compared = sorted(sentence.split(":")[0] for sentence in part.verdicts)
    assert compared == [
        "gan, mixture prior against vae, mixture prior",
        "vae against gan",
    ]
    assert set(part.losses) == {"vae", "gan"}


def test_a_markdown_report_has_the_samples_of_both_priors_as_files_of_their_own(tmp_path, finished):
    run = finished([plain(30.0), under(8.0)])
    (run / "samples").mkdir()
    for name, grey in (("samples-000000004.png", 40), (grid_name(MIXTURE), 90)):
        Image.new("L", (4, 4), grey).save(run / "samples" / name)
    out = tmp_path / "page" / "out.md"
    assert report.main(["--outputs", str(tmp_path), "--out", str(out)]) == 0
    seen = []
    for number in range(2):
        with Image.open(out.parent / "out-pictures" / f"digits-samples-{number}.png") as kept:
            seen.append(kept.getpixel((0, 0)))
    assert seen == [40, 90]
