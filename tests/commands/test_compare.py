"""`genbench compare`: selections, formats and files."""

import csv
import gc
import io
import json
from dataclasses import replace

import pytest

from fixtures.comparison import elbo, fd, run
from genbench.commands.compare import main
from genbench.errors import UserMistake
from genbench.runs.result import read_result
from genbench.runs.score import Score


@pytest.fixture
def study(tmp_path, finished):
    for seed in range(3):
        finished([fd(10.0 + seed), elbo(-80.0)], seed=seed, study="a_b")
        finished([fd(5.0 + seed)], seed=seed, model="gan", study="a_b")
    finished([fd(50.0)], dataset="mnist")
    return tmp_path


def test_json_is_exact_and_complete(study, capsys):
    tables = json.loads(run(capsys, "--outputs", str(study), "--format", "json"))
    assert [t["title"] for t in tables] == ["digits", "mnist"]
    gan = tables[0]["rows"][0]
    assert gan["model"]["label"] == "gan"
    assert gan["fd_lenet"]["values"] == [5.0, 6.0, 7.0]
    assert gan["fd_lenet"]["sd"] == 1.0
    assert len(gan["fd_lenet"]["runs"]) == 3
    assert gan["fd_lenet"]["card"]["fake"]["n"] == 2000
    assert gan["elbo_gaussian"] is None


def test_csv_has_a_line_per_row_and_exact_numbers(study, capsys):
    text = run(capsys, "--outputs", str(study), "--format", "csv")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(one["table"], one["model"]) for one in lines] == [
        ("digits", "gan"),
        ("digits", "vae"),
        ("mnist", "vae"),
    ]
    assert float(lines[0]["fd_lenet"]) == 6.0
    assert float(lines[0]["fd_lenet sd"]) == 1.0
    assert lines[0]["elbo_gaussian"] == ""


def test_latex_is_escaped_and_uses_booktabs(study, capsys):
    text = run(capsys, "--outputs", str(study), "--format", "tex", "dataset=digits")
    assert r"\toprule" in text
    assert r"$\pm$" in text
    assert r"$\downarrow$" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert "↓" not in "".join(body)
    assert len({line.count("&") for line in body if line.endswith("\\\\")}) == 1


@pytest.mark.parametrize("form", ["table", "md", "html"])
def test_every_readable_format_has_every_row(study, capsys, form):
    text = run(capsys, "--outputs", str(study), "--format", form)
    for word in ("gan", "vae", "mnist", "digits", "6 ± 1", "-80"):
        assert word in text


def test_markdown_and_html_read_back_as_the_same_cells(study, capsys):
    from html.parser import HTMLParser

    select = ("--outputs", str(study), "dataset=digits")
    lines = [x for x in run(capsys, *select, "--format", "md").splitlines() if x.startswith("|")]
    markdown = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    cells: list[list[str]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "tr":
                cells.append([])
            elif tag in ("td", "th"):
                cells[-1].append("")

        def handle_data(self, data):
            if self.get_starttag_text()[:3] in ("<td", "<th") and data.strip():
                cells[-1][-1] += data

    Reader().feed(run(capsys, *select, "--format", "html"))
    assert [markdown[0], *markdown[2:]] == cells
    assert cells[1] == ["gan", "6 ± 1", "", "10", "3"]


def test_a_wide_csv_has_a_line_per_run_with_every_choice_score_and_cost(
    tmp_path, finished, unfinished, capsys
):
    first = finished([fd(10.0), replace(fd(9.0), checkpoint="best")], run_id="1", study="a,b")
    betas = {"model.betas": [0.5, 0.99]}
    finished([fd(None), fd(8.0, n=5000)], run_id="2", model="gan", **betas)
    unfinished("failed", "out of memory\nat once", seed=3)
    text = run(capsys, "--outputs", str(tmp_path), "--wide")
    vae, gan, lost = csv.DictReader(io.StringIO(text))
    protocols = [fd(0.0).protocol, fd(0.0, n=5000).protocol]
    assert (vae["run"], vae["study"], vae["status"]) == (first.name, "a,b", "finished")
    assert vae["fingerprint"] == read_result(first).fingerprint
    assert (vae[f"fd_lenet [{protocols[0]}]"], vae["fd_lenet@best"]) == ("10.0", "9.0")
    assert gan[f"fd_lenet [{protocols[0]}]"] == vae[f"fd_lenet [{protocols[1]}]"] == ""
    assert gan[f"fd_lenet [{protocols[0]}] status"] == "nonfinite"
    assert gan[f"fd_lenet [{protocols[1]}]"] == "8.0"
    assert (vae["config.model.lr"], gan["config.model.betas"]) == ("0.001", "[0.5, 0.99]")
    assert (vae["config.choices.network"], vae["cost.parameters.encoder"]) == ("mlp", "90656")
    assert (vae["budget.images"], lost["budget.seconds"]) == ("128000", "1.0")
    assert (lost["status"], lost["reason"], lost["seed"]) == (
        "failed",
        "out of memory\nat once",
        "3",
    )
    whole = json.loads(run(capsys, "--outputs", str(tmp_path), "--wide", "--format", "json"))
    assert whole[0]["rows"][0]["seed"] == {"value": 0}
    with pytest.raises(UserMistake, match="--wide makes a table of its own: leave out --best-of"):
        run(capsys, "--outputs", str(tmp_path), "--wide", "--best-of", "2")


def test_csv_counts_what_did_not_finish(study, capsys, unfinished):
    unfinished("failed", "out of memory", seed=9, model="gan")
    text = run(capsys, "--outputs", str(study), "--format", "csv", "dataset=digits")
    gan, vae = csv.DictReader(io.StringIO(text))
    assert (gan["runs"], gan["failed"]) == ("3", "1")
    assert (vae["runs"], vae["failed"]) == ("3", "0")


def test_datasets_can_be_columns(study, capsys):
    text = run(capsys, "--outputs", str(study), "--columns", "dataset", "--format", "json")
    tables = {t["title"]: t["rows"] for t in json.loads(text)}
    vae = next(row for row in tables["fd_lenet"] if row["model"]["label"] == "vae")
    assert (vae["digits"]["mean"], vae["mnist"]["mean"]) == (11.0, 50.0)
    assert (vae["n digits"], vae["n mnist"]) == ({"finished": 3}, {"finished": 1})
    assert any("mnist: FD: features" in note for note in json.loads(text)[-1]["notes"])


def test_a_wide_table_is_folded_and_no_digit_is_lost(tmp_path, finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"measure_number_{i}" for i in range(20)]
    scores = [Score(n, 1000.5 + i, "", False, {"quantity": n}) for i, n in enumerate(names)]
    finished(scores)
    text = run(capsys, "--outputs", str(tmp_path), "--all")
    for i in range(20):
        assert f"measure number {i} ↓" in text
    assert max(len(line) for line in text.splitlines()[:-2]) <= 80
    assert text.count(" vae") == text.count("digits\n")


def test_protocols_of_one_name_keep_their_letters_on_a_terminal(tmp_path, finished, capsys):
    finished([fd(10.0), fd(8.0, n=5000)])
    text = run(capsys, "--outputs", str(tmp_path))
    for letter in "ab":
        assert f"FD ↓ lenet [{letter}]: fd_lenet with fake.n=" in text
        assert text.count(f"[{letter}]") == 3  # the column, its protocol, what differs


def test_selections_and_options_mix(study, capsys):
    text = run(
        capsys, "model=gan", "--outputs", str(study), "seed=0", "--format", "json", "study=a_b"
    )
    assert json.loads(text)[0]["rows"][0]["fd_lenet"]["values"] == [5.0]
    assert run(capsys, "--outputs", str(study), "network.width=256,512", "model=gan")


def test_runs_are_selected(study, capsys):
    text = run(capsys, "--outputs", str(study), "--format", "json", "model=gan", "seed=0,1")
    assert json.loads(text)[0]["rows"][0]["fd_lenet"]["values"] == [5.0, 6.0]


def test_the_garbage_collector_is_on_again_after_a_table(study, capsys):
    assert main(["--outputs", str(study)]) == 0
    assert gc.isenabled()
    with pytest.raises(UserMistake):
        main(["--outputs", str(study), "--metric", "no such score"])
    assert gc.isenabled()


def test_a_table_can_go_to_a_file(study, capsys):
    assert (
        run(capsys, "--outputs", str(study), "--out", str(study / "t.md"), "--format", "md") == ""
    )
    assert "| model |" in (study / "t.md").read_text()


def test_pictures_of_every_trained_row_go_side_by_side(study, capsys):
    from PIL import Image

    for each in study.iterdir():
        (each / "samples").mkdir()
        Image.new("L", (30, 30), 99).save(each / "samples" / "samples-000128000.png")
    run(capsys, "--outputs", str(study), "--pictures", str(study / "p.png"))
    sheet = Image.open(study / "p.png")
    assert sheet.width > 3 * 30
    colours = sheet.getcolors(1 << 20)
    assert sum(count for count, colour in colours if colour == (99, 99, 99)) >= 3 * 30 * 30


def test_an_unwritable_file_is_a_mistake(study):
    (study / "file").write_text("")
    for option in ("--out", "--pictures"):
        with pytest.raises(UserMistake, match=f"cannot write {option}"):
            main(["--outputs", str(study), option, str(study / "file" / "x.png")])
    with pytest.raises(UserMistake, match="the name of a .png file"):
        main(["--outputs", str(study), "--pictures", str(study / "p.xyz")])
    assert main(["--outputs", str(study), "--out", str(study / "new" / "t.md")]) == 0
    assert "vae" in (study / "new" / "t.md").read_text()


def test_no_runs_is_a_sentence_with_a_remedy(tmp_path):
    with pytest.raises(UserMistake, match="genbench train"):
        main(["--outputs", str(tmp_path)])
