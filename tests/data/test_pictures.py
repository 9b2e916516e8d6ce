"""Decoding whatever is in a file, shaping it, and splits that stay."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deep_cnn.data.image_cache import find_unreadable
from deep_cnn.data.loading import Augmentation, PictureSet, epoch_order, load_batches
from deep_cnn.data.preprocessing import (
    AUGMENTS,
    FROM_WHOLE_PICTURE,
    SHAPES,
    Preprocessing,
    centre,
    decode,
    random_crop,
    random_state,
    squash,
    to_array,
)
from deep_cnn.data.splits import Examples, assign_splits, subset
from deep_cnn.names import IMAGENET, PREPROCESSING, InputSpec
from deep_cnn.vision import torchvision


def gradient(width: int = 60, height: int = 40) -> np.ndarray:
    return np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "1", "YCbCr", "LAB"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(gradient()).convert("RGB")
    picture = picture.quantize(64) if mode == "P" else picture.convert(mode)
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "LAB": "tif"}.get(mode, "png")
    picture.save(tmp_path / f"p.{suffix}")
    found = decode(tmp_path / f"p.{suffix}")
    assert (found.mode, found.size) == ("RGB", (60, 40))
    if mode in ("L", "P", "RGBA", "LA", "CMYK"):
        grey = np.asarray(found.convert("L")).astype(int)
        assert np.abs(grey - gradient()).mean() < 8


def test_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    deep = gradient().astype(np.uint16) * 257
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        found = np.asarray(decode(tmp_path / f"deep.{suffix}").convert("L"))
        assert np.abs(found.astype(int) - gradient()).max() <= 1


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    image.putpixel((3, 3), (200, 0, 0, 255))
    image.save(tmp_path / "clear.png")
    assert decode(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient()).save(tmp_path / "turned.jpg", exif=exif)
    assert decode(tmp_path / "turned.jpg").size == (40, 60)


@pytest.mark.parametrize("fault", ["missing", "empty", "truncated", "noise", "folder"])
def test_a_bad_picture_is_a_value_error_with_a_reason(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "bad.jpg"
    Image.fromarray(gradient(200, 200)).save(tmp_path / "good.jpg")
    whole = (tmp_path / "good.jpg").read_bytes()
    if fault == "folder":
        path.mkdir()
    elif fault != "missing":
        content = {"empty": b"", "truncated": whole[: len(whole) // 2], "noise": b"\x93" * 500}
        path.write_bytes(content[fault])
    with pytest.raises(ValueError, match=r"\w+") as caught:
        decode(path)
    assert str(tmp_path) not in str(caught.value)
    examples = Examples(("good", "bad"), [tmp_path / "good.jpg", path], np.zeros(2), np.ones(2))
    assert set(find_unreadable(examples)) == {1}


def test_the_bottom_is_cut_off_what_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient()).save(tmp_path / "turned.png", exif=exif)
    whole = np.asarray(decode(tmp_path / "turned.png"))
    assert np.array_equal(decode(tmp_path / "turned.png", 25), whole[:-25])
    assert np.array_equal(decode(gradient(), 25), gradient()[:-25])
    for picture in (gradient(60, 25), tmp_path / "turned.png"):
        with pytest.raises(ValueError, match="pixels, too few for --crop_bottom"):
            decode(picture, 25 if isinstance(picture, np.ndarray) else 60)


@pytest.mark.parametrize(
    "size", [(300, 300), (640, 427), (427, 640), (100, 80), (257, 256), (1000, 30)]
)
def test_resize_and_crop_are_torchvisions(size: tuple[int, int]) -> None:
    random = np.random.default_rng(3)
    image = Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    transforms = torchvision().transforms
    theirs = transforms.CenterCrop(224)(transforms.Resize(256)(image))
    assert np.array_equal(to_array(centre(image, IMAGENET), 3), np.array(theirs).transpose(2, 0, 1))


def test_squash_keeps_the_whole_scene() -> None:
    image = Image.new("RGB", (400, 100))
    image.paste((255, 0, 0), (0, 0, 20, 100))
    image.paste((0, 255, 0), (380, 0, 400, 100))
    found = squash(image, IMAGENET)
    assert found.size == (224, 224)
    assert found.getpixel((2, 100)) == (255, 0, 0)
    assert found.getpixel((221, 100)) == (0, 255, 0)


def test_a_random_crop_is_a_function_of_seed_epoch_and_picture() -> None:
    image = Image.fromarray(gradient(90, 70)).convert("RGB")

    def crop(seed: int, epoch: int, name: str) -> bytes:
        return random_crop(image, IMAGENET, random_state(seed, epoch, name)).tobytes()

    assert crop(0, 1, "a") == crop(0, 1, "a")
    assert len({crop(0, 1, "a"), crop(1, 1, "a"), crop(0, 2, "a"), crop(0, 1, "b")}) == 4


NAMES = [f"train/{i}.jpg" for i in range(3000)]
SETTINGS = {"val_split": 0.2, "test_split": 0.15, "seed": 0}


def test_a_new_picture_moves_no_other_one() -> None:
    before = dict(zip(NAMES, assign_splits(NAMES, [None] * 3000, **SETTINGS), strict=True))
    more = ["train/new.jpg", *reversed(NAMES)]
    after = dict(zip(more, assign_splits(more, [None] * 3001, **SETTINGS), strict=True))
    assert all(after[name] == before[name] for name in NAMES)
    share = {split: list(before.values()).count(split) / 3000 for split in ("train", "val", "test")}
    assert share["test"] == pytest.approx(0.15, abs=0.03)
    assert share["val"] == pytest.approx(0.85 * 0.2, abs=0.03)


def test_which_picture_goes_where_never_changes() -> None:
    def number(name: str, salt: str) -> float:
        digest = hashlib.sha256(f"{salt}\0{name}".encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:7], "little") / 2**56

    names = [*NAMES, "\udcff.jpg", "Łódź/ü.jpg"]
    expected = [
        "test" if number(n, "test") < 0.15 else "val" if number(n, "val 0") < 0.2 else "train"
        for n in names
    ]
    assert assign_splits(names, [None] * len(names), **SETTINGS) == expected


def test_another_seed_gives_another_val_and_the_same_test() -> None:
    one = assign_splits(NAMES, [None] * 3000, **SETTINGS)
    two = assign_splits(NAMES, [None] * 3000, **{**SETTINGS, "seed": 1})
    assert [s == "test" for s in one] == [s == "test" for s in two]
    assert one != two


def test_marks_are_kept() -> None:
    marks = ["test" if i < 10 else "val" if i < 20 else None for i in range(3000)]
    splits = assign_splits(NAMES, marks, **SETTINGS)
    assert [i for i, s in enumerate(splits) if s == "test"] == list(range(10))
    assert [i for i, s in enumerate(splits) if s == "val"] == list(range(10, 20))


def test_a_few_pictures_still_have_a_validation_split() -> None:
    for count in range(2, 12):
        splits = assign_splits(NAMES[:count], [None] * count, **{**SETTINGS, "test_split": 0.0})
        assert splits.count("val") >= 1
        assert splits.count("train") >= 1


def test_an_epoch_sees_each_picture_once_and_leaves_none_alone() -> None:
    for count in (2, 31, 32, 33, 65):
        order = epoch_order(count, 32, seed=0, epoch=3)
        assert sorted(i for batch in order for i in batch) == list(range(count))
        assert min(len(batch) for batch in order) > 1
    assert epoch_order(64, 32, seed=0, epoch=0) != epoch_order(64, 32, seed=0, epoch=1)


def test_a_subset_is_the_same_each_time() -> None:
    examples = Examples(tuple(NAMES), NAMES, np.arange(3000.0), np.ones(3000))  # type: ignore[arg-type]
    assert (
        subset(examples, 10, 0).names
        == subset(examples, 10, 0).names
        != subset(examples, 10, 1).names
    )
    assert len(subset(examples, 9999, 0)) == 3000


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_what_was_asked_for(workers: int) -> None:
    pictures = [np.full((28, 28), i, dtype=np.uint8) for i in range(5)]
    examples = Examples(tuple("abcde"), pictures, np.zeros(5), np.ones(5))
    preprocessing = Preprocessing("default", InputSpec(28, 28, (0.5,), (0.5,)))
    order = [[4, 0], [2, 3, 1]]
    before = torch.get_rng_state()
    found = list(load_batches(PictureSet(examples, preprocessing), order, workers=workers))
    assert torch.equal(before, torch.get_rng_state())
    assert [indices.tolist() for _, indices in found] == order
    assert [x[:, 0, 0, 0].tolist() for x, _ in found] == order


def test_every_preprocessing_has_a_shape() -> None:
    assert tuple(SHAPES) == PREPROCESSING
    assert set(AUGMENTS) < set(PREPROCESSING)


@pytest.mark.parametrize("pre", sorted(AUGMENTS))
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_random_belongs_to_seed_epoch_and_name(pre: str, channels: int) -> None:
    form = InputSpec(32, 28, (0.5,) * channels, (0.5,) * channels)
    coloured = np.stack([gradient(), 255 - gradient(), gradient() // 2], axis=2)
    pictures = [np.roll(coloured, 7 * i) for i in range(8)]
    names = tuple(f"p{i}" for i in range(8))
    examples = Examples(names, pictures, np.zeros(8), np.ones(8))

    def loaded(order: list[list[int]], epoch: int = 1, shaped=None, workers=0) -> torch.Tensor:
        augmentation, preprocessing = Augmentation(3, epoch), Preprocessing(pre, form)
        pictures = PictureSet(examples, preprocessing, augmentation, shaped)
        batches = list(load_batches(pictures, order, workers=workers))
        order = torch.cat([indices for _, indices in batches])
        return torch.cat([x for x, _ in batches])[order.argsort()]

    pickle.dumps(AUGMENTS[pre])  # As for loaders whose processes are not forked.
    before = torch.get_rng_state()
    one = loaded([[0, 1, 2, 3, 4, 5, 6, 7]])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, loaded([[6, 1], [2, 3, 4], [5, 0, 7]], workers=2))
    assert not torch.equal(one, loaded([list(range(8))], epoch=2))
    assert one.shape == (8, channels, 28, 28)
    if pre not in FROM_WHOLE_PICTURE:
        kept = [to_array(SHAPES[pre](decode(picture), form), channels) for picture in pictures]
        shaped = np.stack(kept)[::-1], np.arange(8)[::-1]
        assert torch.equal(one, loaded([list(range(8))], shaped=shaped))
