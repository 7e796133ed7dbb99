import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Callback, Trainer

from fixtures.data import draw, make_digits, make_folder, make_images
from genbench.data import images
from genbench.data.folders import Folder
from genbench.data.split_pixels import DecodedOnDemand
from genbench.data.stream import Batch, Order
from genbench.errors import UserMistake
from genbench.models.noise import Noise
from genbench.training.module import Pace, Training


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": 17}, "smaller than dataset.crop=17.*crop=16 or less"),
        ({"crop": 4}, "dataset.crop=4 is smaller than dataset.image_size=8"),
        ({"crop": 0}, "dataset.crop=0 is not a number of pixels"),
        ({"image_size": 2.5}, "dataset.image_size=2.5: give a whole number from 1 on"),
        ({"channels": 2}, "grey .1. or colour .3."),
        ({"resize": "cubic"}, "is not one of nearest, box"),
        ({"device_resident": "yes"}, "is not one of auto, true, false"),
        ({"validation": float("inf")}, "dataset.validation=inf: give a number from 0 on"),
        ({"test": {}}, "dataset.test={}: give a number from 0 on"),
    ],
)
def test_an_impossible_setting_is_refused(tmp_path, changes, sentence):
    make_folder(tmp_path / "data")
    with pytest.raises(UserMistake, match=sentence):
        make_images(tmp_path, Folder, channels=changes.pop("channels", 3), **changes).prepare_data()


@pytest.mark.parametrize("kernel", ["nearest", "box", "bilinear", "bicubic", "lanczos"])
def test_resizing_equals_that_of_pillow(tmp_path, kernel):
    make_folder(tmp_path / "data")
    data = make_images(tmp_path, Folder, channels=3, resize=kernel)
    square = draw().crop((2, 0, 18, 16))
    expected = square.resize((8, 8), getattr(Image.Resampling, kernel.upper()))
    assert np.array_equal(data.transform(draw(), "x"), np.asarray(expected).transpose(2, 0, 1))
    assert data.card("test")["transform"]["resize"] == kernel


def test_enlarged_digits_stay_within_their_levels(tmp_path):
    data = make_digits(tmp_path, image_size=16, upscale=True)
    assert data.pixels("test").shape == (360, 1, 16, 16)
    assert data.pixels("test").max() == 16


# --- levels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_converted_to_images_and_back_are_unchanged(tmp_path, levels):
    data = make_images(tmp_path, levels=levels)
    pixels = torch.arange(levels, dtype=torch.uint8)
    images = data.to_images(pixels)
    assert images[0] == -1
    assert images[-1] == pytest.approx(1, abs=1e-6)
    assert torch.equal(data.to_pixels(images), pixels)


# --- the loader in training -----------------------------------------------------------------------


class Recorder(Training):
    """Keeps every batch that a Trainer hands to a training step."""

    def __init__(self, data):
        super().__init__(Noise(), data, Pace(8))
        self.seen = []

    def on_fit_start(self):
        """No player, no seat."""

    def on_train_start(self):
        """Nothing to prepare."""

    def training_step(self, batch, batch_idx):
        assert batch.dtype == torch.float32
        self.seen.append(batch.clone())


class SaveAfter(Callback):
    """Saves a checkpoint after a batch and stops there."""

    def __init__(self, batch, path):
        self.batch, self.path = batch, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def fit(data, steps_per_batch, *callbacks, resume=None, steps=20):
    data.plan(seed=4, batch_size=8, pieces=2, steps=steps, steps_per_batch=steps_per_batch)
    model = Recorder(data)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, ckpt_path=resume, weights_only=None if resume is None else True)
    return torch.cat(model.seen)


quiet = pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # Lightning's own


@quiet
def test_a_trainer_gets_flipped_images_between_minus_one_and_one(tmp_path):
    data = make_digits(tmp_path, flip=True)
    seen = fit(data, 3)
    assert seen.shape == (20 * 16, 1, 8, 8)
    positions = np.arange(320)
    order = Order(1257, 4)
    expected = data.to_images(torch.from_numpy(data.pixels("train")[order.indices(positions)]))
    flips = torch.from_numpy(order.flips(positions))
    expected[flips] = expected[flips].flip(-1)
    assert torch.equal(seen, expected)
    assert seen.min() == -1 and seen.max() == 1


@quiet
@pytest.mark.parametrize("before", [1, 5])
@pytest.mark.parametrize("after", [1, 3, 16])
def test_a_trainer_resumes_in_the_middle_with_other_steps_per_batch(tmp_path, before, after):
    data = make_digits(tmp_path, flip=True)
    whole = fit(data, 4)
    path = tmp_path / "stopped.ckpt"
    first = fit(data, before, SaveAfter(2, path))
    rest = fit(data, after, resume=path)
    assert len(first) == 3 * before * 16
    assert torch.equal(torch.cat([first, rest]), whole)


@quiet
def test_a_budget_can_be_extended_on_resuming(tmp_path):
    data = make_digits(tmp_path)
    path = tmp_path / "stopped.ckpt"
    first = fit(data, 4, SaveAfter(2, path), steps=12)
    rest = fit(data, 1, resume=path, steps=20)
    assert torch.equal(torch.cat([first, rest]), fit(data, 4))


@quiet
@pytest.mark.parametrize(
    "how", [{"device_resident": True}, {"cache_gb": 0}, {"cache_gb": 0, "workers": 1}]
)
def test_batches_do_not_depend_on_where_the_pixels_are_stored(tmp_path, how):
    expected = fit(make_digits(tmp_path, flip=True), 4)
    before = torch.random.get_rng_state()
    assert torch.equal(fit(make_digits(tmp_path, flip=True, **how), 4), expected)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.fixture
def spawning():
    """As on a Mac; on Linux from Python 3.14 on nothing is inherited either."""
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(None, force=True)


def test_other_processes_decode_where_python_does_not_fork_by_itself(tmp_path, spawning):
    data = make_digits(tmp_path, cache_gb=0, workers=1)
    data.plan(seed=0, batch_size=8, pieces=1, steps=4, steps_per_batch=2)
    assert [len(batch.content) for batch in data.train_dataloader()] == [16, 16]


def test_a_split_above_the_limit_is_decoded_on_demand(tmp_path):
    cached, lazy = make_digits(tmp_path), make_digits(tmp_path, cache_gb=1e-5)
    pixels = lazy.pixels("train")
    assert isinstance(pixels, DecodedOnDemand)
    assert lazy.card("train")["fingerprint"] is None
    assert pixels.shape == cached.pixels("train").shape
    for which in (slice(5, 9), slice(1250, None), np.array([3, 1]), slice(0, 0), 7):
        assert np.array_equal(pixels[which], cached.pixels("train")[which])


def test_runs_that_share_a_gpu_share_the_room_for_images(monkeypatch):
    pixels = np.zeros((100, 1, 1, 1), np.uint8)
    placed = SimpleNamespace(from_numpy=lambda _: SimpleNamespace(to=str), device=torch.device)
    placed.cuda = SimpleNamespace(mem_get_info=lambda device: (1000, 2000))
    monkeypatch.setattr(images, "torch", placed)
    gpu = torch.device("cuda", 1)
    monkeypatch.delenv("GENBENCH_JOBS_PER_GPU", raising=False)
    assert images._on_device(pixels, gpu, "auto") == "cuda:1"
    monkeypatch.setenv("GENBENCH_JOBS_PER_GPU", "4")
    assert images._on_device(pixels, gpu, "auto") is None
    assert images._on_device(pixels, gpu, True) == "cuda:1"


def test_images_on_the_device_are_gathered_there(tmp_path):
    data = make_digits(tmp_path, device_resident=True)
    data.plan(seed=0, batch_size=4, pieces=1, steps=3, steps_per_batch=1)
    batch = next(iter(data.train_dataloader()))
    assert batch.content.dtype == torch.int64
    assert data.training_images(Batch(batch.content, None)).shape == (4, 1, 8, 8)
