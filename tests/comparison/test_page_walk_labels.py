"""The labels of a latent walk: a class, or attributes, chosen for all decoders of a study at once."""

import json
import re
from types import SimpleNamespace

import pytest
import torch

from fixtures.comparison import fd
from fixtures.decoders import made, made_conditional
from genbench.commands import report
from genbench.models.batch_statistics import recalibrated
from genbench.models.drawing import evaluating
from genbench.runs.walk import KeptDecoder, read_decoder
from genbench.training.walk import keep_walk

NAMES = ("cat", "dog", "</script>")


def keep(run, model):
    channels = 3 if hasattr(model, "adversarial_loss") else 1
    size = 14 if channels == 3 else 8
    assert keep_walk(run, model, SimpleNamespace(image_size=size, channels=channels)) is None


@pytest.fixture
def study(tmp_path, finished):
    """Two methods that know classes, of which one knows none too, one that is told nothing, one that knows attributes."""
    models = made_conditional() | {"untold_and_of_a_long_name": made()["mlp"]}
    told = ("classes or none", "classes", "untold_and_of_a_long_name", "attributes or none")
    for place, name in enumerate(told):
        own = name.replace(" ", "-")
        keep(finished([fd(float(place))], run_id=own, model=own), models[name])
    return tmp_path


def page_of(study):
    out = study / "page" / "report.html"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    return out, out.read_text()


def test_a_page_offers_classes_and_attributes_by_name_where_a_decoder_knows_them(study):
    _, text = page_of(study)
    (controls,) = re.findall(r'<div class="controls">(.*?)</div>', text, flags=re.DOTALL)
    (chosen,) = re.findall(r"<label>class <select .*?</select></label>", controls)
    assert re.findall(r'<option value="(.*?)">(.*?)</option>', chosen) == [
        ("0", "cat"), ("1", "dog"), ("2", "&lt;/script&gt;"), ("", "no class told")
    ]  # fmt: skip
    boxes = re.findall(r'<label><input type="checkbox" (data-.*?)>(.*?)</label>', controls)
    assert boxes == [
        ("data-attribute checked", "Smiling"), ("data-attribute checked", "Male"), ('data-part="hidden"', "none told")
    ]  # fmt: skip
    assert text.count(">, told no label<") == text.count(">, which always had a label<") == 1
    for name in ("classes-or-none", "classes", "attributes-or-none"):
        (study / name / "walk" / "decoder.json").unlink()
    _, text = page_of(study)
    for word in ('data-part="class"', "data-attribute", "told no label", "always had a label"):
        assert word not in text.split("<script")[0]


def test_decoders_of_other_classes_are_named_and_damaged_labels_are_not_read(study):
    run = study / "classes"
    card = json.loads((run / "walk" / "decoder.json").read_text())
    other = card | {"labels": card["labels"] | {"names": ["a", "b", "c"]}}
    (run / "walk" / "decoder.json").write_text(json.dumps(other))
    said = "classes: its labels are other ones than those of classes-or-none"
    assert said in page_of(study)[1]
    for labels in (
        card["labels"] | {"none": True},  # a row too few
        card["labels"] | {"kind": "constructor"},
        {"kind": "class"},
        3,
    ):
        (run / "walk" / "decoder.json").write_text(json.dumps(card | {"labels": labels}))
        assert read_decoder(run) is None
    (run / "walk" / "decoder.json").write_text(json.dumps(card))
    assert isinstance(read_decoder(run), KeptDecoder)
    path = study / "attributes-or-none" / "walk" / "decoder.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"labels": card["labels"] | {"first": [1]}}))
    assert read_decoder(path.parents[1]) is None


@pytest.mark.slow
def test_a_browser_draws_the_class_that_is_chosen_by_key_and_by_finger(study, open_page):
    page = open_page(page_of(study)[0], width=390, has_touch=True)
    levels = """place => {
      const canvas = document.querySelector(`canvas[data-method='${place}']`);
      const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
      copy.drawImage(canvas, 0, 0);
      const pixels = copy.getImageData(0, 0, canvas.width, canvas.height).data;
      return Array.from(pixels).filter((_, i) => canvas.width === 8 ? i % 4 === 0 : i % 4 < 3);
    }"""
    latent = """place => {
      const spec = JSON.parse(document.getElementById('walks').textContent)[0][place];
      const z = new Float64Array(spec.latent_dim);
      decoding.plane(1, spec.latent_dim).at(0, 0, z);
      return Array.from(z);
    }"""

    def expected(name, label):
        model, z = made_conditional()[name], torch.tensor([page.evaluate(latent, 0)])
        with recalibrated(model), evaluating(model):
            images = model.sample(z, torch.tensor([label])).permute(0, 2, 3, 1).flatten()
        return (images.clamp(-1, 1) + 1) * 127.5

    def check(place, name, label):
        found = torch.tensor(page.evaluate(levels, place)).float()
        assert (found - expected(name, label)).abs().max() <= 2, (name, label)

    def drawn():
        page.evaluate(
            "new Promise(requestAnimationFrame).then(() => new Promise(requestAnimationFrame))"
        )

    untold = page.evaluate(levels, 2)
    check(0, "classes or none", 0)
    check(1, "classes", 0)
    check(3, "attributes or none", [1, 1])
    choice = page.get_by_role("combobox", name="class", exact=True)
    choice.focus()
    page.keyboard.press("ArrowDown")
    drawn()
    check(0, "classes or none", 1)
    check(1, "classes", 1)
    page.get_by_role("checkbox", name="Male").tap()
    drawn()
    check(3, "attributes or none", [1, 0])
    never = page.locator(".seen figure").nth(1).locator(".never")
    assert not never.is_visible()
    choice.select_option("no class told")
    page.get_by_role("checkbox", name="none told").tap()
    drawn()
    check(0, "classes or none", -1)
    check(3, "attributes or none", [-1, -1])
    assert never.is_visible() and set(page.evaluate(levels, 1)) == {0}  # cleared: it always had one
    choice.select_option("</script>")
    drawn()
    check(0, "classes or none", 2)
    check(1, "classes", 2)
    assert not never.is_visible()
    assert page.evaluate(levels, 2) == untold
    assert page.evaluate("document.documentElement.scrollWidth") == 390
