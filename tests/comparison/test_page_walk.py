"""The latent walk and the time-lapse of a page, which a browser plays."""

import json
import re
from importlib.resources import files
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fixtures import gallery
from fixtures.browser import in_node, needs_node
from fixtures.comparison import fd
from fixtures.decoders import DIMS, gan, made
from genbench.commands import report
from genbench.comparison.page import timelapse as films
from genbench.comparison.page import walk
from genbench.models.batch_statistics import recalibrated
from genbench.models.drawing import evaluating
from genbench.models.noise import Noise
from genbench.networks.resnet import ResnetDecoder
from genbench.runs.walk import WEIGHTS, KeptDecoder, read_decoder
from genbench.training.walk import keep_walk

SHAPES = {"mlp": (8, 1), "conv, batch norm": (14, 3)}


def mixture(run, weights, components=2):
    """A mixture in the run's folder: its components far apart, narrow, of covariances that are not diagonal."""
    (run / "priors").mkdir(exist_ok=True)
    means = torch.arange(components).double()[:, None].expand(-1, DIMS).contiguous() * 5
    scales = (0.1 * torch.ones(components, DIMS, DIMS).double().tril()).contiguous()
    tensors = {"weights": torch.tensor([0.25, 0.75]).double(), "means": means, "scales": scales}
    save_file(tensors, run / "priors" / "mixture-12345678.safetensors")
    (run / "priors" / "mixture-12345678.json").write_text(json.dumps({"weights": weights}))


@pytest.fixture
def study(tmp_path, finished):
    """A fully connected vae with a mixture and a convolutional gan, whose decoders are kept, and one without."""
    for name, model in (("mlp", "vae"), ("conv, batch norm", "gan")):
        run = finished([fd(len(name))], run_id=model, model=model)
        size, channels = SHAPES[name]
        assert (
            keep_walk(run, made()[name], SimpleNamespace(image_size=size, channels=channels))
            is None
        )
        (run / "samples").mkdir()
        for images in (10, 20, 30) if model == "vae" else (15, 30):
            Image.new("L", (82, 82), images).save(run / "samples" / f"samples-{images:09d}.png")
    for kinds in (("worst", "reconstructions"), ("worst",)):
        gallery.keep(tmp_path / ("gan" if len(kinds) == 1 else "vae"), *kinds, note="a note")
    mixture(tmp_path / "vae", read_decoder(tmp_path / "vae").card["of"])
    finished([fd(9.0)], run_id="old", model="vae-gan")
    return tmp_path


def page_of(study):
    out = study / "page" / "report.html"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    return out, out.read_text()


def test_a_page_has_each_decoder_once_and_says_what_writes_the_others(study):
    _, text = page_of(study)
    (walks,) = json.loads(re.search(r'id="walks">(.*?)</script>', text)[1])
    assert [one["label"] for one in walks] == ["vae", "gan"]
    assert [one["mixture"] is None for one in walks] == [False, True]
    assert "vae-gan: its run keeps no decoder for this page; `genbench sample old --walk`" in text


def test_a_gallery_is_shown_kind_by_kind_and_whose_is_missing_is_said(study):
    _, text = page_of(study)
    assert text.count('<ol class="texts"') == 3
    assert text.count("Samples farthest from every training image. Numbers: distance.") == 1
    assert text.count(": a note</figcaption>") == 3
    assert "vae-gan: `genbench evaluate old evaluation.gallery=true` writes it" in text
    out = study / "page" / "report.md"
    assert report.main(["--outputs", str(study), "--out", str(out)]) == 0
    assert "| a note; 1.5 to 8.5 | a note; 1.5 to 8.5 |" in out.read_text()
    assert (study / "page" / "report-pictures" / "digits-reconstructions-0.png").exists()


def test_a_decoder_that_is_damaged_or_cannot_be_written_is_no_decoder(study):
    data = SimpleNamespace(image_size=32, channels=1)
    resnet = gan(ResnetDecoder(image_size=32, channels=1, latent_dim=DIMS, width=2))
    why = keep_walk(study / "gan", resnet, data)
    assert (
        why == read_decoder(study / "gan") == "its decoder is a ResnetDecoder, no chain of layers"
    )
    assert not (study / "gan" / "walk" / WEIGHTS).exists()
    assert f"gan: {why}" in page_of(study)[1]
    weights = study / "vae" / "walk" / WEIGHTS
    assert isinstance(read_decoder(study / "vae"), KeptDecoder)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-2])
    assert read_decoder(study / "vae") is None
    weights.write_bytes(whole)
    card = study / "vae" / "walk" / "decoder.json"
    card.write_text(card.read_text().replace('"relu"', '"constructor"'))
    assert read_decoder(study / "vae") is None
    assert keep_walk(study / "old", Noise(), data) == "it is not trained"
    assert read_decoder(study / "old") is None


def test_decoders_that_are_too_many_for_a_page_are_left_out_last_first(study, monkeypatch):
    size = len(read_decoder(study / "vae").weights)
    rows = [SimpleNamespace(label=n, runs=[SimpleNamespace(run_id=n)]) for n in ("vae", "gan")]
    found = walk.walk_of(rows, {"vae": study / "vae", "gan": study / "gan"}, room=size)
    assert found.labels == ["vae"]
    assert walk.size_of(found) == size
    assert found.absent == [
        "gan: the decoders of this page have 8 MB already, and it comes after them"
    ]


def test_a_mixture_of_other_weights_is_not_drawn_from(study):
    mixture(study / "vae", "of another checkpoint")
    assert walk._mixture(study / "vae", read_decoder(study / "vae").card["of"], DIMS) is None


PLACES = """
function main({ seed, dims, mixture }) {
  const plane = decoding.plane(seed, dims), draw = decoding.mixture(mixture, dims);
  const places = [[0, 0], [1, 0], [0, 1], [2, 2], [1, 1]].map(([x, y]) => {
    const noise = new Float64Array(dims), z = new Float64Array(dims), half = new Float64Array(dims);
    plane.at(x, y, noise);
    draw(noise, 0.2, 1, z);
    draw(noise, 0.3, 0.5, half);
    return [noise, z, half].map((part) => Array.from(part));
  });
  return places;
}
"""


@needs_node
def test_a_plane_is_of_draws_its_axes_are_orthogonal_and_its_lines_great_circles(study):
    kept = walk._mixture(study / "vae", read_decoder(study / "vae").card["of"], DIMS)
    code = files("genbench.comparison.page").joinpath("decoder.js").read_text() + PLACES
    found = torch.tensor(in_node(code, {"seed": 7, "dims": DIMS, "mixture": kept})).double()
    noise, drawn, half = found.unbind(1)
    centre, right, up, corner, inner = noise
    assert torch.allclose(
        noise.norm(dim=1), centre.norm()
    )  # all are as long as the draw in the middle
    x, y = 2**0.5 * right - centre, 2**0.5 * up - centre
    for one, other in ((centre, x), (centre, y), (x, y)):
        assert abs(one @ other) < 1e-5 * centre.norm() ** 2
    assert torch.linalg.matrix_rank(torch.stack([centre, inner, corner]), rtol=1e-5) == 2
    root = 0.1 * torch.ones(DIMS, DIMS).double().tril()
    assert torch.allclose(drawn, noise @ root.T, atol=1e-3)  # of the first component, around 0
    assert torch.allclose(half, 5 + 0.5 * noise @ root.T, atol=1e-2)  # truncated towards its mean
    again = torch.tensor(in_node(code, {"seed": 8, "dims": DIMS, "mixture": kept}))
    assert not torch.allclose(again.double(), found)


def test_a_time_lapse_is_in_step_by_images(study):
    _, text = page_of(study)
    assert 'data-timelapse="10,15,20,30"' in text
    assert text.count('class="film"') == 2
    assert len(re.findall(r'data-images="\d+"', text)) == 5


def test_a_time_lapse_keeps_to_its_size_and_its_number_of_frames(tmp_path):
    (tmp_path / "samples").mkdir()
    noise = torch.randint(0, 256, (274, 274), dtype=torch.uint8)
    for images in range(40):
        Image.fromarray(noise.numpy()).save(tmp_path / "samples" / f"samples-{images:09d}.png")
    whole = films.timelapse({"vae": [tmp_path]})
    assert (len(whole.places), whole.places[0], whole.places[-1]) == (films.MOST_FRAMES, 0, 39)
    assert whole.latents == 64
    small = films.timelapse({"vae": [tmp_path]}, room=300_000)
    size = sum(len(frame.address) for frame in small.films["vae"])
    assert size < 300_000 * 4 / 3 * 1.1
    assert small.latents == 8 * (300_000 * 8 // 752_000)
    assert films.timelapse({"vae": [tmp_path / "nowhere"]}) is None


@pytest.mark.slow
def test_a_browser_decodes_what_is_dragged_with_mouse_keys_and_finger(study, open_page):
    out, _ = page_of(study)
    page = open_page(out)
    canvas = "canvas[data-method='{}']"
    seen = lambda: [  # noqa: E731
        page.eval_on_selector(canvas.format(n), "c => c.toDataURL()") for n in (0, 1)
    ]
    place = lambda: page.inner_text("[data-part=place]")  # noqa: E731
    first = seen()
    assert place() == "0.00, 0.00"
    page.locator(".pad").scroll_into_view_if_needed()
    box = page.locator(".pad").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + box["width"] / 4, middle[1] - box["height"] / 4, steps=5)
    page.mouse.move(
        middle[0] + 2 * box["width"], middle[1], steps=2
    )  # out of the square: to its edge
    page.mouse.up()
    page.wait_for_function("document.querySelector('[data-part=place]').textContent[0] === '2'")
    assert all(a != b for a, b in zip(first, seen(), strict=True))
    page.mouse.move(*middle)  # not held: nothing moves
    page.focus(".pad")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.wait_for_function(
        "document.querySelector('[data-part=place]').textContent === '0.10, -0.50'"
    )
    page.keyboard.press("Home")
    page.wait_for_function(
        "document.querySelector('[data-part=place]').textContent === '0.00, 0.00'"
    )
    assert seen() == first
    page.select_option("[data-part=prior]", "mixture")
    page.wait_for_timeout(100)
    assert [a == b for a, b in zip(first, seen(), strict=True)] == [
        False,
        True,
    ]  # the gan keeps none
    page.click("[data-part=new]")
    page.wait_for_timeout(100)
    assert seen()[1] != first[1]


@pytest.mark.slow
def test_a_browser_decodes_what_pytorch_does_and_plays_the_time_lapse(study, open_page):
    page = open_page(page_of(study)[0], width=390, has_touch=True)
    latents = torch.randn(4, DIMS, generator=torch.Generator().manual_seed(1))
    decode = """([which, latents]) => {
      const decode = decoding.decoder(JSON.parse(document.getElementById('walks').textContent)[0][which]);
      return latents.map((z) => Array.from(decode(z)));
    }"""
    for which, name in enumerate(SHAPES):
        model = made()[name]
        with recalibrated(model), evaluating(model):
            images = model.sample(latents).permute(0, 2, 3, 1).flatten(1)
        expected = (images.clamp(-1, 1) + 1) * 127.5
        found = torch.tensor(page.evaluate(decode, [which, latents.tolist()]))
        assert (found - expected).abs().max() <= 2
    page.locator(".pad").tap(position={"x": 30, "y": 40})
    page.wait_for_function(
        "document.querySelector('[data-part=place]').textContent.startsWith('-1.')"
    )
    shown = (
        "() => [...document.querySelectorAll('.film img:not([hidden])')].map(e => e.dataset.images)"
    )
    slider = page.locator("[data-timelapse] input")
    assert page.evaluate(shown) == ["30", "30"]
    slider.fill("1")
    assert page.evaluate(shown) == ["10", "15"]  # the latest until 15
    assert slider.get_attribute("aria-valuetext") == "15 images"
    page.click("[data-timelapse] button")
    page.wait_for_function(
        "document.querySelector('[data-timelapse] output').textContent === '30 images'"
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 390
