"""Where a distance comes from: steps, parts, and what is not known."""

import pytest

from genbench.commands.explain import main
from genbench.comparison.explained import bar, gap_table, sentence
from genbench.comparison.gap import gaps
from genbench.comparison.rows import make_rows
from genbench.errors import UserMistake
from genbench.runs.records import load_results
from genbench.runs.score import Score

REAL = {"dataset": "digits", "split": "train", "n": 1257}
HELDOUT = {"dataset": "digits", "split": "test", "n": 360}
LENET = {"name": "lenet", "sha256": "ab" * 32}
FAKE = {"n": 2000, "seed": 0, "latents": "prior", "pixels": "mean", "weights": "raw"}


def fd(value, quantity="fd", name="lenet", checkpoint="final", **card):
    about = {"quantity": quantity, "extractor": {**LENET, "name": name}, "real": REAL} | card
    return Score(f"{quantity}_{name}", value, "", None, about, checkpoint=checkpoint)


def sampled(value, prior=None, n=2000, **changes):
    latents = {} if prior is None else {"latents": {"prior": prior, "seed": 0}}
    return fd(value, fake={**FAKE, "n": n, **latents}, **changes)


def floor(value, n=2000):
    return fd(value, "fd_floor", heldout=HELDOUT, estimator={"n": n})


def decoded(value, originals, heldout=HELDOUT):
    rebuilt = {"reconstructed": {"latents": "posterior mean"}}
    return [
        fd(value, "fd_reconstructed", heldout=heldout, **rebuilt),
        fd(originals, "fd_originals", heldout=heldout),
    ]


def scores(sample=17.0, best=6.0, rebuilt=9.0):
    return [floor(2.5), *decoded(rebuilt, 5.0), sampled(best, "mixture"), sampled(sample)]


def only(outputs, *select):
    (gap,) = gaps(make_rows(load_results(select, outputs)))
    return gap


def values(gap):
    return {step.name: round(step.mean, 6) for step in gap.steps}


def parts(gap):
    return {part.name: round(part.mean, 6) for part in gap.parts}


def test_the_steps_lead_from_new_images_to_samples(tmp_path, finished):
    finished(scores())
    gap = only(tmp_path)
    # reconstructions carry the bias of 360 images, which their originals tell: 9 + 2.5 - 5
    assert values(gap) == {"floor": 2.5, "reconstructions": 6.5, "best prior": 6.0, "N(0, I)": 17}
    assert parts(gap) == {"decoder": 4.0, "latents": -0.5, "prior": 11.0}
    assert sum(parts(gap).values()) == 17 - 2.5
    assert "360 reconstructions, 9, is moved by -2.5" in gap.notes[0]
    assert not gap.missing


def test_sets_of_one_size_are_not_moved(tmp_path, finished):
    some = {**HELDOUT, "n": 10_000, "subset": {"n": 2000}}
    finished([floor(2.5), *decoded(9.0, 2.4, some), sampled(17.0)])
    gap = only(tmp_path)
    assert values(gap)["reconstructions"] == 9.0
    assert not any("moved" in note for note in gap.notes)


def test_parts_are_taken_seed_by_seed(tmp_path, finished):
    for seed, off in enumerate((0.0, 1.0, 2.0)):
        finished(scores(17 + off, 6 + off), seed=seed)
    gap = only(tmp_path)
    prior = next(part for part in gap.parts if part.name == "prior")
    assert set(prior.values.values()) == {11.0}
    words = sentence(gap)
    assert words.startswith("vae (3 seeds): FD 18 ± 1 of 2,000 samples from N(0, I)")
    assert "the prior's part +11" in words
    assert "the latents' part +0.5 ± 1 (samples from a mixture prior at 7 ± 1)" in words
    assert "Most of the way from the first step is the prior's part, 71%" in words


def test_a_step_that_is_not_known_is_named_with_what_fills_it(tmp_path, finished):
    run = finished([floor(2.5), *decoded(9.0, 5.0), sampled(17.0)])
    gap = only(tmp_path)
    assert parts(gap) == {"decoder": 4.0, "latents and prior": 10.5}
    assert gap.missing == [f"the best prior: genbench evaluate {run.name} prior=mixture"]
    assert "the latents' and the prior's part +10.5" in sentence(gap)


def test_an_old_run_lacks_its_reconstructions_too(tmp_path, finished):
    run = finished([floor(2.5), sampled(17.0)])
    gap = only(tmp_path)
    assert parts(gap) == {"decoder and latents and prior": 14.5}
    assert gap.missing[0] == f"reconstructions: genbench evaluate {run.name} evaluation=quick"


def test_the_best_prior_neither_copies_nor_narrows(tmp_path, finished):
    others = [sampled(1.0, "aggregated"), sampled(0.5, "truncated"), sampled(5.0, "flow")]
    finished([*scores(), *others])
    gap = only(tmp_path)
    assert gap.step("best prior").detail == "flow"
    assert any("best of 2 priors, chosen by this FD; mixture 6" in note for note in gap.notes)
    assert any("a ceiling that copies: 1" in note for note in gap.notes)


def test_only_one_extractor_and_one_number_of_samples_are_in_a_bar(tmp_path, finished):
    other = [sampled(3.0, "mixture", name="inception"), sampled(4.0, "mixture", n=10_000)]
    best = [sampled(2.0, checkpoint="best"), sampled(1.0, "flow", checkpoint="best")]
    finished([floor(2.5), *decoded(9.0, 5.0), sampled(17.0), *other, *best])
    gap = only(tmp_path)
    assert gap.step("best prior") is None
    assert (gap.extractor, gap.num_samples) == ("lenet", 2000)


def without_encoder(finished, *more):
    run = finished([floor(2.5), sampled(6.0), *more], model="gan")
    path = run / "result.json"
    path.write_text(path.read_text().replace('"encoder"', '"other"'))
    return run


def test_a_gan_goes_from_the_floor_to_its_samples(tmp_path, finished):
    run = without_encoder(finished)
    gap = only(tmp_path)
    assert parts(gap) == {"decoder and prior": 3.5}
    assert not gap.missing
    assert f"genbench evaluate {run.name} evaluation.inversion=true" in gap.notes[0]
    found = without_encoder(finished, Score("inversion_psnr", 21.0, "dB", True, {}))
    gap = only(tmp_path, found.name)
    assert "by inversion at 21 dB" in gap.notes[0]


def test_without_a_floor_the_first_step_has_no_part(tmp_path, finished):
    finished([*decoded(9.0, 5.0), sampled(17.0)])
    gap = only(tmp_path)
    assert values(gap)["reconstructions"] == 9.0
    assert parts(gap) == {"latents and prior": 8.0}
    assert any("biases differ" in note for note in gap.notes)


def test_rows_of_the_same_runs_are_one_method(tmp_path, finished):
    """A table may have a row for each prior."""
    finished(scores())
    rows = make_rows(load_results((), tmp_path))
    assert [row.label for row in rows] == ["vae", "vae, mixture prior"]
    (gap,) = gaps(rows)
    assert gap.label == "vae"
    assert parts(gap) == {"decoder": 4.0, "latents": -0.5, "prior": 11.0}


def test_a_bar_has_a_length_for_each_part_and_a_table_a_column(tmp_path, finished):
    finished(scores(best=8.0))
    gap = only(tmp_path)
    letters = bar(gap, 17.0)
    assert len(letters) == 60
    lengths = [letters.count(letter) for letter in ".#=-"]
    assert lengths == pytest.approx([60 * part / 17 for part in (2.5, 4, 1.5, 9)], abs=1)
    table = gap_table([gap], "digits")
    heads = [column.header for column in table.columns]
    cells = dict(zip(heads, (cell.text for cell in table.rows[0]), strict=True))
    assert cells["best prior"] == "8 (mixture)"
    assert cells["prior, part"] == "+9"


def test_the_command_prints_a_bar_and_a_sentence_per_method(tmp_path, finished, capsys):
    finished(scores())
    without_encoder(finished)
    assert main(["--outputs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text.index("  gan ") < text.index("  vae ")
    assert "are not additive" in text
    assert main(["--outputs", str(tmp_path), "--format", "md"]) == 0
    assert "| vae | 2.5 | 6.5 | 6 (mixture) | 17 |" in capsys.readouterr().out


def test_runs_without_an_fd_are_refused(tmp_path, finished):
    finished([])
    with pytest.raises(UserMistake, match="has an FD to explain"):
        main(["--outputs", str(tmp_path)])


def test_a_model_of_tokens_is_sampled_from_its_own_prior_and_gets_one_over_tokens(
    tmp_path, finished
):
    prior = {"model.prior": {"tokens": 4}}
    run = finished([floor(2.5), *decoded(9.0, 5.0), sampled(17.0)], model="fsq", **prior)
    gap = only(tmp_path)
    assert sentence(gap).startswith("fsq (1 seed): FD 17 of 2,000 samples from its own prior")
    assert gap.missing == [f"the best prior: genbench evaluate {run.name} prior=autoregressive"]
    assert gap_table([gap], "t").rows[0][3].text == "17 (its own prior)"


def test_a_model_that_is_told_labels_is_sent_to_no_prior_that_it_cannot_have(tmp_path, finished):
    finished([floor(2.5), *decoded(9.0, 5.0), sampled(17.0)], arena={"condition": "class"})
    gap = only(tmp_path)
    assert not gap.missing
    assert any("no prior is fitted to these" in note for note in gap.notes)
