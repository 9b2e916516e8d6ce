"""Class folders in the shapes that Places365 comes in, millions of pictures in mind."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from deep_cnn.config import TrainConfig
from deep_cnn.data import listing
from deep_cnn.data.splits import joined
from deep_cnn.errors import DataError
from deep_cnn.resolve import resolve
from deep_cnn.tasks import get_task

CLASSES = ["airfield", "alley", "bazaar-indoor", "bazaar-outdoor"]
NESTED = ["a/airfield", "a/alley", "b/bazaar/indoor", "b/bazaar/outdoor"]
MIXED = ["airfield", "alley", "b/bazaar/outdoor", "bazaar-indoor"]


def make(root: Path, train: list[str] = CLASSES, val: list[str] = CLASSES) -> Path:
    """No pictures, but their names: whoever lists opens none."""
    for part, classes in (("train", train), ("val", val)):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(4):
                (root / part / name / f"{i:08d}.jpg").touch()
    return root


def examples(root: Path, **changes: Any) -> tuple[list[str], list[str]]:
    """The classes, and the names of the pictures with the number of their class."""
    given = {"data_dir": str(root), "out_dir": str(root.parent / "out"), **changes}
    config = resolve(TrainConfig(**given))
    task = get_task("folders")
    found, _ = task.all_examples(config)
    names = [f"{name} {k}" for name, k in zip(found.names, found.targets, strict=True)]
    assert [*found.pictures] == [root / name for name in found.names]
    return task.labels(found, config)["classes"], names


@pytest.mark.parametrize(("train", "val"), [(CLASSES, CLASSES), (NESTED, NESTED), (MIXED, NESTED)])
def test_a_class_is_a_folder_with_pictures_at_any_depth(
    tmp_path: Path, train: list[str], val: list[str]
) -> None:
    root = make(tmp_path / "data", train, val)
    (root / "train" / train[0] / "up").symlink_to(root / "train")
    classes, names = examples(root)
    assert classes == train
    assert f"train/{train[2]}/00000003.jpg 2" in names
    assert len(names) == 32


@pytest.mark.parametrize("form", [CLASSES, NESTED])
@pytest.mark.parametrize(
    "text",
    [
        b"alley\nbazaar-indoor\n",
        b"\xef\xbb\xbf# mine\r\n\r\n/a/alley 4\r\n/b/bazaar/indoor 46\r\n",
        b"bazaar/indoor # the best\nalley/\nalley 4",
    ],
)
def test_keep_chooses_classes(tmp_path: Path, form: list[str], text: bytes) -> None:
    root = make(tmp_path / "data", form, form)
    (tmp_path / "list").write_bytes(text)
    everything = examples(root)
    kept = examples(root, options={"keep": str(tmp_path / "list")})
    assert kept[0] == [form[1], form[2]]
    assert len(kept[1]) == 16
    (root / "keep.txt").write_bytes(text)
    assert examples(root) == kept
    assert examples(root, options={"keep": "none"}) == everything


@pytest.mark.parametrize("form", [CLASSES, NESTED])
@pytest.mark.parametrize("line", ["/{nested}/{file} 7", "train/{flat}/{file}", "{flat}/{file} 0"])
def test_a_list_says_which_pictures_count(
    tmp_path: Path, form: list[str], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path / "data", form, form)
    caplog.set_level(logging.INFO, "deep_cnn")
    lines = [
        line.format(nested=nested, flat=flat, file=f"{i:08d}.jpg")
        for nested, flat in zip(NESTED, CLASSES, strict=True)
        for i in range(3)
    ]
    (root / "train.txt").write_text("\r\n".join(lines))
    names = examples(root)[1]
    assert len(names) == 3 * 4 + 4 * 4
    assert f"train/{form[0]}/00000003.jpg 0" not in names
    assert "lists 12 pictures; 4 others are left out" in caplog.text
    gone = root / "train" / form[1] / "00000002.jpg"
    gone.unlink()
    with pytest.raises(DataError, match=r"1 of its 12 pictures are missing, the first is alley/0"):
        examples(root)
    (root / "keep.txt").write_text("\n".join(CLASSES[2:]))
    assert len(examples(root)[1]) == 3 * 2 + 4 * 2


def test_a_few_listed_pictures_may_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path / "data")
    files = sorted((root / "train").rglob("*.jpg"))
    more = [root / "train" / "alley" / f"more{i}.jpg" for i in range(9)]
    for path in more[:-1]:
        path.touch()
    text = "\n".join(f"/{path.relative_to(root / 'train')} 0" for path in [*files, *more])
    (root / "train.txt").write_text(text)
    assert len(examples(root)[1]) == 16 + 8 + 16
    assert "1 of its 25 pictures are missing, the first is alley/more8.jpg" in caplog.text
    with pytest.raises(DataError, match="--strict_data allows none"):
        examples(root, strict_data=True)


def test_only_a_folder_that_changed_is_listed_again(tmp_path: Path) -> None:
    root, cache = make(tmp_path / "data") / "train", tmp_path / "cache"

    def listed() -> dict[str, str]:
        listing._listed.clear()  # As another process.
        return {k: v.pictures for k, v in listing.list_pictures(root, cache).items() if k}

    def tamper(seconds: int) -> None:
        (place,) = (cache / "listings").iterdir()
        content = json.loads(place.read_text())
        for row in content.values():
            row[1:4] = [row[1] + seconds * 10**9, row[2], row[3].replace("00000000", "believed")]
        place.write_text(json.dumps(content))

    before = listed()
    tamper(0)
    assert listed() == before  # The folders had just been made: a coarse clock may hide a change.
    tamper(3600)
    assert all("believed" in pictures for pictures in listed().values())
    (root / "alley" / "new.png").touch()
    os.utime(root / "alley", ns=(0, 0))
    after = listed()
    assert after["alley"] == before["alley"] + "/new.png"
    assert "believed" in after["airfield"]
    (root / "alley").rename(root / "lane")
    assert set(listed()) == {"airfield", "lane", *CLASSES[2:]}
    for damage in ("", "[]", '{"": 3, "lane": [1, 2, 3, 4]}', "\0"):
        next((cache / "listings").iterdir()).write_text(damage)
        assert listed()["airfield"] == before["airfield"]


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path: Path) -> None:
    root = make(tmp_path / "data") / "train"
    (tmp_path / "file").touch()
    assert len(listing.list_pictures(root, tmp_path / "file")) == 5
    assert len(listing.list_pictures(root, None)) == 5


def test_a_part_of_the_pictures_and_two_parts_together_keep_their_paths(tmp_path: Path) -> None:
    root = make(tmp_path / "data")
    found, _ = get_task("folders").all_examples(
        resolve(TrainConfig(data_dir=str(root), cache="off"))
    )
    both = joined(found.take([5, 2]), found.take([30]))
    assert [*both.pictures] == [root / found.names[i] for i in (5, 2, 30)]
