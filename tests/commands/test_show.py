"""Runs one by one, made from run directories as they are on disk."""

import csv
import io
import json
import time
from dataclasses import replace

import pytest

from fixtures import gallery
from genbench.commands import runs, show
from genbench.errors import UserMistake
from genbench.runs.config import write_config
from genbench.runs.files import write_json
from genbench.runs.method import fingerprint
from genbench.runs.result import Result, write_result
from genbench.runs.score import Score
from genbench.runs.status import Status, write_status

ENVIRONMENT = {
    "command": "genbench train model=gan seed=2",
    "device": "a fast one",
    "host": "here",
    "versions": {"genbench": "0.1", "torch": "2.11"},
    "code": {"commit": "0123456789abcdef", "dirty": True},
}


def make_config(model="vae", seed=0, study=None):
    return {
        "seed": seed,
        "study": study,
        "tags": [],
        "choices": {"model": model, "dataset": "digits", "network": "mlp"},
        "network": {"width": 256, "latent_dim": 16},
        "model": {
            "_target_": f"genbench.models.{model}",
            "decoder": {"width": 256},
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
            "other_optimizer": None,
        },
        "dataset": {"name": "digits"},
        "budget": {"images": "128k", "batch_size": 64},
        "trainer": {"precision": "32-true"},
    }


def score(quantity, value, n=2000, unit=""):
    card = {"quantity": quantity, "extractor": {"name": "lenet"}, "fake": {"n": n}}
    status = "ok" if value is not None else "nonfinite"
    return Score(f"{quantity}_lenet", value, unit, False, card, status=status)


@pytest.fixture
def run(tmp_path):
    """Write a run: finished with scores, or in the status given; returns its directory."""

    def run(name, scores=(), status=None, environment=ENVIRONMENT, counted=(), work=(), **config):
        path = tmp_path / name
        path.mkdir()
        content = make_config(**config)
        write_config(path, content)
        write_status(path, status or Status("finished", started=time.time() - 7200))
        if status is not None:
            return path
        result = Result(
            run_id=name,
            study=content["study"],
            tags=[],
            status="finished",
            model=content["choices"]["model"],
            dataset="digits",
            seed=content["seed"],
            fingerprint=fingerprint(content),
            config=content,
            budget={"images": 128_000, "seconds": 10.5, "generator_steps": 2000, **dict(counted)},
            cost={
                "parameters": {"decoder": 86_592, "encoder": 90_656},
                **({"forward_multiply_adds": dict(work)} if work else {}),
                "peak_memory_bytes": 2**30,
                "sample_images_per_second": 12345.6,
            },
            scores=list(scores),
            environment=environment,
        )
        write_result(path, result)
        return path

    return run


@pytest.fixture
def listed(tmp_path, capsys):
    """What `genbench runs` prints."""

    def listed(*argv):
        assert runs.list_runs(["--outputs", str(tmp_path), *argv]) == 0
        return capsys.readouterr().out

    return listed


@pytest.fixture
def shown(tmp_path, capsys):
    """What `genbench show` prints."""

    def shown(*argv):
        assert show.main([*argv, "--outputs", str(tmp_path)]) == 0
        return capsys.readouterr().out

    return shown


# --- genbench runs --------------------------------------------------------------------------------


def test_runs_are_flat_objects_for_scripts(run, listed):
    run("a", [score("fd", 7.0)], model="gan", seed=2)
    run("b", status=Status("failed", "out of memory", images=640, total_images=1280))
    good, bad = json.loads(listed("--format", "json"))
    assert (good["run"], good["model"], good["seed"], good["status"]) == ("a", "gan", 2, "finished")
    assert (good["final/fd_lenet"], good["score_name"], good["score"]) == (7.0, "fd", 7.0)
    assert (bad["status"], bad["reason"], bad["images"]) == ("failed", "out of memory", 640)
    assert list(bad) == list(runs.FIELDS)
    for one in (good, bad):
        assert not any(isinstance(value, dict | list) for value in one.values())


def test_the_main_score_is_fd_and_not_one_whose_name_begins_with_fd(run, listed):
    run("a", [score("fd_floor", 4.9), score("fd_bc", 1.0), score("kid", 3.0), score("fd", 7.0)])
    (one,) = json.loads(listed("--format", "json"))
    assert (one["score_name"], one["score"]) == ("fd", 7.0)


def test_a_validation_score_is_called_one_and_is_the_main_one_only_without_others(run, listed):
    test = score("fd", 7.0)
    searched = replace(test, name="fd_lenet_validation", card={**test.card, "split": "validation"})
    run("a", [replace(searched, value=5.0), test])
    run("b", [searched])
    both, alone = json.loads(listed("--format", "json"))
    assert (both["score_name"], both["score"]) == ("fd", 7.0)
    assert (both["final/fd_lenet"], both["final/fd_lenet_validation"]) == (7.0, 5.0)
    assert (alone["score_name"], alone["score"]) == ("fd@validation", 7.0)


def test_another_protocol_does_not_replace_a_run_s_own_number(run, listed):
    path = run("a", [score("fd", 7.0)])
    other = score("fd", 6.0, n=5000)
    (path / "evaluations").mkdir()
    write_json(path / "evaluations" / "x.json", {"scores": [other.to_dict()]})
    (one,) = json.loads(listed("--format", "json"))
    assert one["final/fd_lenet"] == 7.0
    assert one[f"final/fd_lenet [{other.protocol}]"] == 6.0


def test_csv_has_a_line_per_run(run, listed):
    run("a", [score("fd", 7.0)])
    run("b", status=Status("diverged", "a, b"))
    first, second = csv.DictReader(io.StringIO(listed("--format", "csv")))
    assert (first["run"], float(first["final/fd_lenet"])) == ("a", 7.0)
    assert (second["reason"], second["final/fd_lenet"]) == ("a, b", "")


def test_runs_are_sorted_by_any_column_with_blanks_last(run, listed):
    run("a", [score("fd", 7.0)])
    run("b", status=Status("failed"))
    run("c", [score("fd", 5.0)])
    for argv, order in (((), "cab"), (("--reverse",), "acb")):
        lines = json.loads(listed("--format", "json", "--sort", "final/fd_lenet", *argv))
        assert "".join(line["run"] for line in lines) == order
    with pytest.raises(UserMistake, match="--sort speed"):
        listed("--sort", "speed")


def test_selections_and_options_mix(run, listed):
    run("a", model="gan", seed=0)
    run("b", model="gan", seed=1)
    run("c", model="vae", seed=1)
    lines = json.loads(listed("model=gan", "--format", "json", "seed=1"))
    assert [line["run"] for line in lines] == ["b"]


def test_a_table_has_progress_age_and_reasons(run, listed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    run("20260101-010203-abcdef", [score("fd", 7.0)], study="first")
    run("b", status=Status("failed", "first\nsecond", images=640, total_images=1280))
    text = listed()
    for words in ("fd 7", "finished", "2 h", "640/1,280", "b: first second"):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_without_runs_the_table_is_a_sentence_and_json_an_empty_list(listed):
    assert "genbench train" in listed()
    assert "that fit model=gan" in listed("model=gan")
    assert json.loads(listed("--format", "json")) == []


def test_a_record_that_cannot_be_read_does_not_hide_the_others(run, listed):
    run("a", [score("fd", 7.0)])
    (run("b", [score("fd", 7.0)]) / "result.json").write_text("{")
    write_config(run("c", status=Status("failed")), {"not": "a run's"})
    lines = json.loads(listed("--format", "json"))
    assert [line["status"] for line in lines] == ["finished", "unreadable", "unreadable"]
    assert "result.json" in lines[1]["reason"]
    assert "config.yaml" in lines[2]["reason"]
    assert "unreadable" in listed()


# --- genbench show --------------------------------------------------------------------------------


def test_intervals_are_printed_with_what_they_cover(run, shown):
    one = replace(score("fd", 7.0), low=6.0, high=8.0, interval="95 % over images")
    run("a", [one, replace(one, name="kid", card={"quantity": "kid"}), score("is", 3.0)])
    text = shown("a")
    assert "fd_lenet" in text
    assert "[6, 8]" in text
    assert "[] of fd, kid: 95 % over images" in text


def test_show_prints_settings_cost_and_command(run, shown):
    path = run("a", [score("fd", 7.0, unit="things"), score("kid", None)], model="gan", seed=2)
    (path / "samples").mkdir()
    (path / "samples" / "x.png").write_text("")
    text = shown("a")
    for words in (
        "a: gan on digits, seed 2",
        "command      genbench train model=gan seed=2",
        "a fast one on here; genbench 0.1, commit 0123456789, with changes, torch 2.11",
        "network=mlp",
        "width=256",
        "optimizer: Adam lr=0.001",
        "decoder 86,592",
        "all 177,248",
        "128,000 (steps x batch), 2,000 decoder steps",
        "1,024 MiB",
        "12,346 images/s to sample",
        "things",
        "nonfinite",
        "  result.json",
        "samples/: 1 pictures",
    ):
        assert words in text


def test_what_was_counted_is_shown_and_what_was_not_is_left_out(run, shown):
    rows = {"decoder": 640_000, "discriminator": 2_048_000}
    counted = {
        "rows": rows,
        "real_images": 640_000,
        "epochs": 509.1,
        "multiply_adds": 1_250_000_000,
    }
    run("a", counted=counted)
    run("b")  # an old one
    for words in (
        "decoder 640,000 (5 x images)",
        "discriminator 2,048,000 (16 x images)",
        "real images  640,000 (5 x images), 509.1 epochs",
        "1.25G multiply-adds, 9.766k for each of the images",
    ):
        assert words in shown("a")
    assert "x images" not in shown("b") and "multiply-adds" not in shown("b")
    unknown = {"rows": None, "real_images": 128_000, "multiply_adds": None}
    run("c", counted=unknown)
    assert "128,000 (1 x images)" in shown("c") and "multiply-adds" not in shown("c")


def test_what_an_image_takes_in_each_network_is_shown(run, shown):
    run("a", work={"decoder": 1_250_000, "encoder": 90_112})
    text = shown("a")
    assert "decoder 86,592, 1.25M multiply-adds an image" in text
    assert "encoder 90,656, 90.11k multiply-adds an image" in text
    run("b")  # an old one
    assert "decoder 86,592\n" in shown("b") and "multiply-adds" not in shown("b")


def test_show_says_how_the_seconds_were_spent(run, shown):
    path = run("a") / "result.json"
    content = json.loads(path.read_text())
    spent = {"sample": 0.21, "features": 1.0, "bounds": 2.5, "psnr": 0.001}
    content["cost"] |= {"selection_seconds": 3.0, "scoring_seconds": spent}
    path.write_text(json.dumps(content))
    text = shown("a")
    assert "  training     10.5 s, 3.0 s of it to select the best weights\n" in text
    assert "  scoring      3.7 s: bounds 2.5, features 1.0, sample 0.2\n" in text


def test_cards_are_printed_only_with_the_flag(run, shown):
    run("a", [score("fd", 7.0)])
    assert "extractor" not in shown("a")
    assert '"extractor"' in shown("a", "--cards")


def test_json_is_the_whole_record(run, shown):
    run("a", [score("fd", 7.0)])
    record = json.loads(shown("latest", "--format", "json"))
    assert (record["model"], record["scores"][0]["value"]) == ("vae", 7.0)
    assert record["config"]["network"]["width"] == 256


def test_a_run_that_failed_is_explained(run, shown):
    run("a", status=Status("failed", "out of memory"))
    text = shown("a")
    assert "failed: out of memory" in text
    assert "none yet" in text


def test_a_gallery_is_shown_by_its_paths_and_numbers(run, shown):
    path = run("a")
    with pytest.raises(UserMistake, match="genbench evaluate a evaluation.gallery=true"):
        shown("a", "--gallery")
    gallery.keep(path, "worst", "copied", note="3 of 2,000 count as copies")
    printed = shown("a", "--gallery")
    assert printed.startswith("a: n 2000, split test\n")
    worst, copied = (printed.index(str(path / "gallery" / f"{n}.png")) for n in ("worst", "copied"))
    assert worst < copied
    assert "Samples most like copies, each above its nearest training image: 3 of" in printed
    assert "1.5      2.5" in printed


def test_a_record_without_environment_is_shown(run, shown):
    run("a", environment={"host": "here"})
    assert "? on here; genbench ?, torch ?" in shown("a")


def test_an_unknown_run_is_a_mistake(run, shown):
    run("20260101-a")
    with pytest.raises(UserMistake, match="most similar ids are 20260101-a"):
        shown("20260102-a")
