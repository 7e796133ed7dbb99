"""The cache of decoded pixels: built once, noticed when damaged, shared by processes."""

import subprocess
import sys

import numpy as np
import pytest

from fixtures.data import draw, make_digits, make_folder, make_images
from genbench.data import cache
from genbench.data.folders import Folder
from genbench.data.splits import SPLITS
from genbench.errors import UserMistake


def test_a_second_start_opens_the_cache_and_decodes_nothing(tmp_path, monkeypatch):
    make_folder(tmp_path / "data")
    first = make_images(tmp_path, Folder, channels=3)
    first.prepare_data()
    second = make_images(tmp_path, Folder, channels=3)
    second.source.picture = None  # any decoding would fail
    second.prepare_data()
    for split in SPLITS:
        assert isinstance(second.pixels(split), np.memmap)
        assert np.array_equal(first.pixels(split), second.pixels(split))
        assert first.card(split) == second.card(split)


def test_the_fingerprint_is_the_sha256_of_the_pixels_in_order(tmp_path):
    import hashlib

    data = make_digits(tmp_path)
    expected = hashlib.sha256(np.ascontiguousarray(data.pixels("train")).tobytes()).hexdigest()
    assert data.card("train")["fingerprint"] == expected
    assert data.card("train")["n"] == 1257


@pytest.mark.parametrize("change", ["transform", "shares", "file"])
def test_whatever_changes_the_pixels_changes_the_cache(tmp_path, change):
    root = make_folder(tmp_path / "data")
    before = make_images(tmp_path, Folder, channels=3).folder("train")
    changes = {"transform": {"resize": "box"}, "shares": {"test": 0.3}, "file": {}}[change]
    if change == "file":
        draw(seed=77, size=(40, 40)).save(root / "cats" / "01.png")
    after = make_images(tmp_path, Folder, channels=3, **changes)
    assert after.folder("train") != before


def test_flips_and_devices_do_not_change_the_cache(tmp_path):
    a, b = make_digits(tmp_path), make_digits(tmp_path, flip=True, device_resident=True, workers=3)
    assert a.folder("train") == b.folder("train")


@pytest.mark.parametrize("damage", ["cut", "altered", "no card", "no pixels", "empty card"])
def test_a_damaged_cache_is_noticed_and_built_again(tmp_path, damage, capsys):
    data = make_digits(tmp_path)
    expected = np.array(data.pixels("train"))
    folder = data.folder("train")
    pixels, card = folder / "pixels.npy", folder / "card.json"
    if damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:1000])
    elif damage == "altered":
        content = bytearray(pixels.read_bytes())
        content[-1] ^= 1
        pixels.write_bytes(content)
    elif damage == "empty card":
        card.write_text("")
    else:
        (card if damage == "no card" else pixels).unlink()
    again = make_digits(tmp_path)
    assert np.array_equal(again.pixels("train"), expected)
    assert "the cache is damaged" in capsys.readouterr().err
    assert cache.read(folder, verify=True) is not None


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    def decode(i):
        if i == 5:
            raise UserMistake("picture 5 is bad")
        return np.zeros((1, 2, 2), np.uint8)

    with pytest.raises(UserMistake, match="picture 5"):
        cache.build(tmp_path / "cache" / "x", (9, 1, 2, 2), decode, "x")
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["x.lock"]


BUILDER = """
import sys, time
if sys.argv[2] == "without locks":
    sys.modules["fcntl"] = None
import numpy as np
from pathlib import Path
from genbench.data import cache
calls = []
def decode(i):
    calls.append(i)
    time.sleep(0.005)
    return np.full((1, 4, 4), i % 256, np.uint8)
pixels, card = cache.build(Path(sys.argv[1]), (200, 1, 4, 4), decode, "x")
assert (pixels[:, 0, 0, 0] == np.arange(200) % 256).all()
print(len(calls), card["fingerprint"])
"""


@pytest.mark.parametrize("locks", ["with locks", "without locks"])
def test_two_processes_may_build_the_same_cache_at_once(tmp_path, locks):
    command = [sys.executable, "-c", BUILDER, str(tmp_path / "cache" / "x"), locks]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0][1] == said[1][1]
    if locks == "with locks":
        assert sorted(int(calls) for calls, _ in said) == [0, 200]
    assert not list((tmp_path / "cache").glob(".partial-*"))


def test_an_unwritable_cache_folder_is_a_mistake_with_a_remedy(tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(UserMistake, match="cannot be written.*paths.cache"):
        make_digits(tmp_path).prepare_data()


def test_a_cache_that_would_not_fit_is_refused_before_it_is_begun(tmp_path):
    with pytest.raises(UserMistake, match="GB left: set paths.cache"):
        cache.build(tmp_path / "x", (10**12, 3, 64, 64), lambda i: None, "x")
