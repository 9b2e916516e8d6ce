"""Class folders as ImageFolder, Kaggle, a NAS, macOS and Windows leave them."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deep_cnn.cli import main
from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import SPLITS
from deep_cnn.errors import DataError
from deep_cnn.resolve import resolve
from deep_cnn.tasks import get_task
from deep_cnn.tasks.describe_data import summarize
from tests.conftest import ROOT, Command, make_classes, make_scored

FAST = ("--model=lenet", "--weights=none", "--epochs=1", "--wandb=False", "--run_name=r")


def touch(root: Path, *names: str) -> Path:
    """Make files without content: who lists them opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def pictures(*folders: str, count: int = 9) -> list[str]:
    return [f"{folder}/{i}.jpg" for folder in folders for i in range(count)]


def read(root: Path, **options: object) -> tuple[dict[str, set[str]], str]:
    """The pictures of each split, and the line that sums them up."""
    given = {"data_dir": str(root), "out_dir": str(root / "outputs"), "options": options}
    config = resolve(TrainConfig(**given))
    assert config.task == "folders"
    task = get_task("folders")
    splits = task.all_splits(config)
    found = {name: set(splits[name].names) for name in SPLITS}
    return found, summarize(task, splits, config)


LITTER = [
    "@eaDir/00000.jpg/SYNOPHOTO_THUMB_XL.jpg", "@eaDir/0.jpg", "#recycle/0.jpg", "@Recycle/0.jpg",
    ".@__thumb/0.jpg", "._0.jpg", ".DS_Store", ".0.jpg", "Thumbs.db", "desktop.ini", "Desktop.ini",
    "__MACOSX/._0.jpg", "__MACOSX/0.jpg", ".ipynb_checkpoints/0-checkpoint.jpg",
    "$RECYCLE.BIN/0.jpg", "lost+found/0.jpg", "System Volume Information/0.jpg", "~$0.jpg",
    "@tmp/0.jpg", "#snapshot/0.jpg", "__pycache__/0.jpg", ".Trash-1000/0.jpg", "Icon\r",
]  # fmt: skip


@pytest.mark.parametrize("form", ["train", "root"])
def test_litter_is_neither_a_class_nor_a_picture(tmp_path: Path, form: str) -> None:
    top = "train/" if form == "train" else ""
    root = touch(tmp_path / "data", *pictures(f"{top}dark", f"{top}light"))
    before = read(root)
    assert "left out: nothing" in before[1]
    for where in ("", top, f"{top}dark/", f"{top}light/"):
        touch(root, *(where + name for name in LITTER))
    splits, line = read(root)
    assert splits == before[0]
    assert "18 pictures in 2 classes" in line
    assert re.search(r"left out: \d+ hidden files and files of the operating system$", line)


def test_twins_of_macos_do_not_count_as_bad(tmp_path: Path, here: Command) -> None:
    folder = make_classes(tmp_path / "data", ("train",), count=20)
    for path in list(folder.rglob("*.png")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7 no picture")
    done = here(f"--data_dir={folder}", *FAST)
    assert done.returncode == 0, done.stderr
    assert "bad" not in done.stderr
    assert "40 hidden files" in done.stderr


NAMES = {
    "train": ["train", "Train", "TRAIN", "training", "Training"],
    "val": ["val", "Val", "valid", "Valid", "validation", "VALIDATION", "dev"],
    "test": ["test", "Test", "testing", "TESTING"],
}


@pytest.mark.parametrize(("split", "name"), [(k, name) for k, v in NAMES.items() for name in v])
def test_split_folders_have_many_names(tmp_path: Path, split: str, name: str) -> None:
    folders = {"train": "train", "val": "val", "test": "test", split: name}
    names = {k: set(pictures(f"{v}/a", f"{v}/b", count=3)) for k, v in folders.items()}
    root = touch(tmp_path / "data", *names["train"], *names["val"], *names["test"])
    splits, line = read(root)
    assert splits == names
    assert "train 6, val 6 (marked), test 6 (marked)" in line


@pytest.mark.parametrize(
    "names", [("train", "training"), ("val", "dev"), ("Val", "valid"), ("test", "Testing")]
)
def test_two_folders_for_one_split_are_an_error(tmp_path: Path, names: tuple[str, str]) -> None:
    folders = {"train", *names}
    root = touch(tmp_path / "data", *(f"{f}/{c}/0.jpg" for f in folders for c in "ab"))
    with pytest.raises(DataError, match=rf"{names[0]}/ and {names[1]}/ are both the .* split"):
        read(root)


def test_val_is_the_test_split_only_without_test(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *pictures("train/a", "train/b", "val/a", "val/b"))
    splits, line = read(root)
    assert splits["test"] == set(pictures("val/a", "val/b"))
    assert {name.split("/")[0] for name in splits["val"]} == {"train"}
    assert "test 18 (marked)" in line
    touch(root, *pictures("test/a", "test/b"))
    splits, _ = read(root)
    assert splits["test"] == set(pictures("test/a", "test/b"))
    assert splits["val"] == set(pictures("val/a", "val/b"))
    splits, line = read(root, test_folder="val")
    assert splits["test"] == set(pictures("val/a", "val/b"))
    assert "1 folder test/, which is no split" in line
    for name in ("holdout", "train", "../data"):
        with pytest.raises(DataError, match=f"--test_folder={name} is no folder beside"):
            read(root, test_folder=name)
    touch(root, *pictures("holdout/a", "holdout/b"))
    splits, _ = read(root, test_folder="holdout")
    assert splits["test"] == set(pictures("holdout/a", "holdout/b"))
    assert splits["val"] == set(pictures("val/a", "val/b"))


def test_a_test_folder_without_classes_is_no_split(tmp_path: Path) -> None:
    """Kaggle gives the pictures of its test without their classes."""
    root = touch(tmp_path / "data", *pictures("train/a", "train/b", "valid/a", "valid/b"))
    touch(
        root,
        *pictures("test"),
        *pictures("test/test"),
        "sample_submission.csv",
        "train/x.jpg",
        "y.jpg",
    )
    (root / "sample_submission.csv").write_text("image,label\n0.jpg,0\n1.jpg,0\n")
    splits, line = read(root)
    assert splits["test"] == set(pictures("valid/a", "valid/b"))
    assert "1 folder test/, which is no split (18 pictures)" in line
    assert "2 pictures outside of class folders" in line
    assert "1 table sample_submission.csv, which is not read" in line


@pytest.mark.parametrize("names", [("A", "b"), ("a", "B"), ("a_", "-b")])
@pytest.mark.parametrize("split", ["val", "test"])
def test_classes_that_differ_in_case_only_are_an_error(
    tmp_path: Path, names: tuple[str, str], split: str
) -> None:
    root = touch(tmp_path / "data", *pictures("train/a", "train/b", "val/a", "val/b"))
    touch(root, *pictures(*(f"{split}/{name}" for name in names)))
    with pytest.raises(
        DataError, match=f"differ, the first is '{names[0]}|{names[1]}', in {split}/"
    ):
        read(root)


def test_the_folder_of_the_test_may_be_named_in_any_case(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *pictures("train/a", "train/b", "VAL/a", "TEST/a", "TEST/b"))
    for name in ("test", "Test", "TEST"):
        splits, line = read(root, test_folder=name)
        assert splits["test"] == set(pictures("TEST/a", "TEST/b"))
        assert splits["val"] == set(pictures("VAL/a"))
        assert "left out: nothing" in line


@pytest.mark.parametrize("name", ["test", "Testing", "val"])
def test_classes_at_the_root_beside_pictures_without_classes(tmp_path: Path, name: str) -> None:
    root = touch(tmp_path / "data", *pictures("cat", "dog"), *pictures(name, count=4))
    splits, line = read(root)
    assert set.union(*splits.values()) == set(pictures("cat", "dog"))
    assert f"left out: 1 folder {name}/, which is no split (4 pictures)" in line
    touch(root, f"{name}/cat/0.jpg")
    with pytest.raises(DataError, match="has neither scores"):
        read(root)


def test_a_val_folder_without_classes_is_not_called_the_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    root = touch(tmp_path / "data", *pictures("train/a", "train/b", "val"))
    _, line = read(root)
    assert "left out: 9 pictures outside of class folders" in line
    assert "is the test split" not in caplog.text


@pytest.mark.parametrize("name", ["images", "Test_images", "Masks", "results", "thumbnails"])
def test_folders_that_are_most_likely_no_classes_are_a_warning(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch(tmp_path / "data", *pictures("cat", name))
    read(root)
    assert f"{name}/ is read as a class; if it is none, move it" in caplog.text
    (root / name).rename(root / "dog")
    caplog.clear()
    read(root)
    assert not caplog.text


def test_a_class_missing_from_val_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch(tmp_path / "data", *pictures("train/a", "train/b", "train/c", "val/a"))
    (root / "val" / "c").mkdir()
    splits, _ = read(root)
    assert splits["test"] == set(pictures("val/a"))
    assert "has no picture of 2 of 3 classes, the first is b" in caplog.text
    touch(root, *pictures("val/dusk"))
    with pytest.raises(DataError, match="1 differ, the first is 'dusk', in val/ only"):
        read(root)


def test_an_empty_folder_in_train_is_an_error(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *pictures("train/a", "train/b"), "train/c/0.heic")
    with pytest.raises(DataError, match=r"train/c has no picture \(\.apng, "):
        read(root)


def test_what_is_left_out_is_counted_with_its_reason(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *pictures("train/a", "train/b", "train/c"))
    touch(root, *(f"train/a/{i}.HEIC" for i in range(7)), "train/b/notes.txt", "train/b/README")
    touch(root, "extra/0.jpg", "keep.txt", "outputs/cache/x.npy")
    (root / "keep.txt").write_text("a\nb\n")
    _, line = read(root)
    assert line.startswith(f"Data {root}: 18 pictures in 2 classes: train ")
    reasons = set(line.partition("left out: ")[2].split(", "))
    assert reasons >= {
        "7 files of type .heic",
        "1 files of type .txt",
        "1 files of type unknown",
        "9 pictures of classes that --keep leaves out",
    }
    assert "1 folder extra/" in line
    assert "outputs" not in line.partition("left out")[2]


def test_classes_at_the_root(tmp_path: Path) -> None:
    root = touch(tmp_path / "data", *pictures("cat", "dog"), "notes/a.txt", "0.jpg")
    # The results of a run are no class.
    touch(root, "outputs/wandb/run/files/media/0.png", "outputs/0.png")
    splits, line = read(root)
    assert set.union(*splits.values()) == set(pictures("cat", "dog"))
    assert min(map(len, splits.values())) > 0
    assert "1 pictures outside of class folders" in line
    assert "1 files of type .txt" in line
    config = resolve(TrainConfig(data_dir=str(root), out_dir=str(root), cache="off"))
    assert get_task("folders").classes(config)[:2] == ["cat", "dog"]
    touch(root, "val/cat/0.jpg")
    with pytest.raises(DataError, match="has neither scores"):
        read(root)


def test_a_run_on_classes_at_the_root_and_on_a_lone_folder(tmp_path: Path, here: Command) -> None:
    make_classes(tmp_path / "data", ("",), count=12)
    done = here("--data_dir=data", *FAST, "--dry_run")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"(?m)^Data .*24 pictures in 2 classes: train \d+, val \d+, test ", done.stdout
    )
    done = here("--data_dir=data", *FAST)
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "outputs/logger/r.log").read_text()
    assert re.search(r"Data .*24 pictures in 2 classes.*left out: nothing", log)
    assert here("--test_net=outputs/models/r.best.pt").returncode == 0
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "data").rename(tmp_path / "unpacked" / "archive")
    done = here("--data_dir=unpacked", *FAST)
    assert done.returncode == 2
    assert "has only the folder archive/; use --data_dir=" in done.stderr


def test_a_lone_folder_of_pictures_is_no_class(tmp_path: Path, here: Command) -> None:
    touch(tmp_path / "data", *pictures("images"), "@eaDir/0.jpg")
    done = here("--data_dir=data", *FAST)
    assert done.returncode == 2
    assert "has neither scores.csv" in done.stderr


@pytest.mark.parametrize("text", ["photo;rating\r\n{0};6,5\r\n", "sep=;\nphoto;r\n{0};6,5\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("top", ["", "train/"])
def test_a_table_of_pictures_takes_precedence(
    tmp_path: Path, here: Command, text: str, encoding: str, top: str
) -> None:
    touch(tmp_path / "data", *pictures(f"{top}berlin", f"{top}lagos"))
    table = text.format(f"{top}berlin/0.jpg")
    (tmp_path / "data" / "ratings.csv").write_bytes(table.encode(encoding))
    done = here("--data_dir=data", *FAST)
    assert done.returncode == 2
    assert "but ratings.csv with the columns photo, r" in done.stderr
    assert "--scores=ratings.csv --image_column=photo --score_column=r" in done.stderr
    assert "or the class folders with --task=folders" in done.stderr
    done = here("--data_dir=data", "--task=folders", "--dry_run")
    assert "18 pictures in 2 classes" in done.stdout


@pytest.mark.parametrize(
    ("names", "table", "options"),
    [
        (pictures("cat", "dog"), "name,beauty\n0,6\n", None),  # Two pictures have the name 0.
        (["cat/a.jpg", "dog/b.jpg"], "id,name,beauty\n1,b,6\n",
         "--image_column=name --score_column=beauty"),
        (["cat/7.jpg", "dog/8.JPG"], "id,nr,beauty\n8,1,6.5\n",
         "--image_column=id --score_column=beauty"),
        (["train/a.jpg", "train/b.jpg", "test/c.jpg"], "Id,label\nb,1\n",
         "--image_column=Id --score_column=label"),
        (["cat/a.jpg", "dog/c.jpg"], "Id,beauty\na,1\n", "--image_column=Id --score_column=beauty"),
        (["train/a.jpg", "train/b.jpg"], "Id,label\nb.jpg,dog\n",
         "--image_column=Id --score_column=COLUMN"),
        (["train/a.jpg", "train/b.jpg"], "file,y,age,beauty\ngone,1,2,3\n",
         "--image_column=COLUMN --score_column=beauty"),
    ],
)  # fmt: skip
def test_a_table_whose_names_lack_the_suffix_takes_precedence(
    tmp_path: Path, here: Command, names: list[str], table: str, options: str | None
) -> None:
    root = touch(tmp_path / "data", *names, "a_submission.csv", "ratings.xlsx")
    (root / "a_submission.csv").write_text("Id,label\nc,0\n")
    (root / "train.csv").write_text(table)
    if "gone" in table:
        (root / "a_submission.csv").unlink()
    done = here("--data_dir=data", "--dry_run")
    if options is None:
        assert "18 pictures in 2 classes" in done.stdout
        return
    assert done.returncode == 2
    columns = table.partition("\n")[0].replace(",", ", ")
    assert f"but train.csv with the columns {columns}; read it with" in done.stderr
    assert f"--scores=train.csv {options}" in done.stderr
    assert ("--task=folders" in done.stderr) == names[0].startswith("cat")


NUMBERED = [str(i) for i in range(1, 41)]
PATHS = [f"pics/{name}.jpg" for name in NUMBERED]
LIKERT = [str(i % 7 + 1) for i in range(40)]
CHOICES: dict[str, tuple[dict[str, list[str]], str]] = {
    "paths and scores that fit pictures": ({"safety": LIKERT, "photo": PATHS}, "photo safety"),
    "paths and numbers in another order": (
        {"nr": NUMBERED[::-1], "photo": PATHS, "safety": LIKERT}, "photo safety"),
    "names and numbers": (
        {"nr": NUMBERED[::-1], "photo": [f"{name}.jpg" for name in NUMBERED], "safety": LIKERT},
        "photo safety"),
    "paths of another system": (
        {"safety": LIKERT, "photo": [f"C:\\pics\\{name}.JPG" for name in NUMBERED]},
        "photo safety"),
    "numbers only": ({"safety": LIKERT, "key": NUMBERED}, "key safety"),
    "the first picture is missing": (
        {"nr": NUMBERED, "photo": ["gone.jpg", *PATHS[1:]], "safety": LIKERT}, "photo safety"),
    "ratings by columns that are called so": (
        {"safety": LIKERT * 3, "person": ["1", "2", "3"] * 40, "photo": PATHS * 3},
        "photo safety person"),
    "ratings by numbered people of numbered pictures": (
        {"person": sorted(["1", "2", "3"] * 40), "image": NUMBERED * 3, "safety": LIKERT * 3},
        "image safety person"),
    "ratings by people of another name": (
        {"wer": sorted(["ann", "bob", "eve"] * 40), "safety": LIKERT * 3, "photo": PATHS * 3},
        "photo safety wer"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHOICES)
def test_the_advice_for_a_table_names_its_columns_and_can_be_followed(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns, expected = CHOICES[case]
    root = touch(tmp_path / "data", *PATHS)
    rows = zip(*columns.values(), strict=True)
    with (root / "ratings.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    assert main([f"--data_dir={root}", "--dry_run"]) == 2
    advice = capsys.readouterr().err.partition("read it with ")[2]
    names = ("--scores", "--image_column", "--score_column", "--rater_column")
    values = ["ratings.csv", *expected.split()]
    assert advice.split() == [f"{k}={v}" for k, v in zip(names, values, strict=False)]
    found = resolve(TrainConfig(data_dir=str(root), options=dict(
        option[2:].split("=") for option in advice.split()
    )))  # fmt: skip
    examples, _ = get_task("perception").all_examples(found)
    names_read = [name for name in examples.names if name != "gone.jpg"]
    assert sorted(names_read) == sorted(PATHS[len(PATHS) - len(names_read) :])


def test_scores_have_the_same_line(tmp_path: Path, here: Command) -> None:
    make_scored(tmp_path / "data", 24)
    done = here("--data_dir=data", *FAST)
    assert done.returncode == 0, done.stderr
    line = r"(?m)^Data data: 24 pictures: train \d+, val \d+, test \d+; left out: nothing$"
    assert re.search(line, done.stderr)
    table = tmp_path / "data" / "scores.csv"
    table.write_text(re.sub(r"(?m)(p00\d.png),.*$", r"\1,", table.read_text()))
    done = here("--data_dir=data", "--dry_run")
    assert "14 pictures: " in done.stdout
    assert "left out: 10 rows without a score\n" in done.stdout
    # Pictures that no row names, whatever the name, and other files are counted, too.
    text = table.read_text().replace("p010.png", "P010").replace("p011.png", r"x\p011.png")
    table.write_text("\n".join(text.splitlines()[:-3]))
    touch(tmp_path / "data", "more/x.jpg", "a.heic", "._p010.png", "outputs/y.png")
    done = here("--data_dir=data", "--dry_run", "--out_dir=data/outputs")
    reasons = re.search(r"(?m)^Data data: 11 pictures: .*; left out: (.*)$", done.stdout)
    assert reasons
    assert set(reasons[1].split(", ")) == {
        "10 rows without a score",
        "4 pictures that no row names",
        "1 hidden files and files of the operating system",
        "1 files of type .heic",
    }


README = (ROOT / "deep_cnn/tasks/README.md").read_text(encoding="utf-8")
SECTION = README.partition("### Class folders")[2].partition("### ")[0]
EXAMPLES = re.findall(r"```text\n(.*?)```", SECTION, re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_the_examples_of_the_readme(tmp_path: Path, number: int) -> None:
    rows = [re.split(r" {2,}", row) for row in EXAMPLES[number].splitlines()]
    splits, _ = read(touch(tmp_path / "data", *(name for name, _ in rows)))
    for name, text in rows:
        homes = [split for split in SPLITS if name in splits[split]]
        assert not homes if text == "left out" else homes[0] in text.split(" or "), name


def folders_in_test(root: Path) -> set[str]:
    with (root / "outputs/results/r.test.csv").open() as file:
        return {row["image"].split("/")[0] for row in csv.DictReader(file)}


def as_earlier_versions_wrote(path: Path) -> None:
    content = torch.load(path, weights_only=True)
    assert content["config"].pop("test_folder") == "val"
    torch.save(content, path)


@pytest.mark.parametrize("is_old", [True, False])
def test_a_checkpoint_keeps_its_test_split(tmp_path: Path, here: Command, is_old: bool) -> None:
    folder = make_classes(tmp_path / "data", count=12)
    assert here("--data_dir=data", *FAST).returncode == 0
    if is_old:  # They had no choice, and knew no other names.
        as_earlier_versions_wrote(tmp_path / "outputs/models/r.pt")
    make_classes(folder, ("test", "validation") if is_old else ("test",))
    done = here("--resume=outputs/models/r.pt", "--epochs=2")
    assert done.returncode == 0, done.stderr
    assert "have changed" not in done.stderr
    assert here("--test_net=outputs/models/r.pt").returncode == 0
    assert folders_in_test(tmp_path) == {"val"}


def test_an_old_checkpoint_ignores_names_that_earlier_versions_did_not_know(
    tmp_path: Path, here: Command
) -> None:
    folder = make_classes(tmp_path / "data", ("train",), count=12)
    assert here("--data_dir=data", *FAST).returncode == 0
    as_earlier_versions_wrote(tmp_path / "outputs/models/r.pt")
    make_classes(folder, ("valid", "test"))
    assert here("--test_net=outputs/models/r.pt").returncode == 0
    assert folders_in_test(tmp_path) == {"train"}


def test_a_sealed_test_split_is_not_opened_by_training(tmp_path: Path, here: Command) -> None:
    folder = make_classes(tmp_path / "data", ("train", "val", "test"), count=8)
    for path in (folder / "test").rglob("*.png"):
        path.write_bytes(b"no picture")
    done = here("--data_dir=data", *FAST, "--strict_data")
    assert done.returncode == 0, done.stderr
    assert re.search("16 pictures for training, 16 for validation", done.stderr)


def test_place_pulse_has_no_litter(tmp_path: Path) -> None:
    from tests.tasks.test_place_pulse import make_place_pulse

    folder = make_place_pulse(tmp_path / "data")
    config = resolve(TrainConfig(data_dir=str(folder)))
    before = get_task("perception").all_examples(config)[0].names
    for path in list((folder / "images").iterdir()):
        for litter in ("@eaDir", "__MACOSX", ".ipynb_checkpoints"):
            touch(folder / "images", f"{litter}/{path.name}")
    assert get_task("perception").all_examples(config)[0].names == before


def test_pictures_that_cannot_be_read_are_named_beside_those_that_are_no_pictures(
    tmp_path: Path, here: Command
) -> None:
    folder = make_classes(tmp_path / "data", ("train",), count=11)
    random = np.random.default_rng(0)
    for i in range(10):
        touch(folder, f"train/dark/{i}.heic")
    Image.fromarray(random.normal(0, 1, (9, 9)).astype(np.float32)).save(
        folder / "train/dark/x.tif"
    )
    done = here("--data_dir=data", "--dry_run", "--test_split=0")
    assert "10 files of type .heic" in done.stdout
    assert "1 of 23 pictures cannot be decoded" in done.stdout
    assert "train/dark/x.tif: floating-point pixels from -" in done.stdout
