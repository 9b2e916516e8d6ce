"""Predictions for new pictures are those of --test_net, whatever names the pictures."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

import deep_cnn
from deep_cnn.data.content import content_digest
from tests.conftest import Command, make_classes
from tests.inference.conftest import checkpoint, deep_cnn_in, rows_of

ID = "513d7ac3fdc9f0358700{:04x}"


def scores_in(text: str, column: str = "score") -> dict[str, float]:
    return {row["image"]: float(row[column]) for row in csv.DictReader(io.StringIO(text))}


def draw(path: Path, level: int, place: tuple[float, float] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (40, 30), (level, level, 255 - level))
    exif = Image.Exif()
    if place:
        latitude, longitude = place
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(
            {
                1: "S" if latitude < 0 else "N",
                2: (abs(latitude) // 1, abs(latitude) % 1 * 60, 0.0),
                3: "W" if longitude < 0 else "E",
                4: (abs(longitude) // 1, abs(longitude) % 1 * 60, 0.0),
            }
        )
    image.save(path, exif=exif)


def test_predictions_equal_those_of_the_test_split(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    tested = deep_cnn_in(trained, f"--test_net={checkpoint(trained, 'seed0')}")
    assert tested.returncode == 0, tested.stderr
    truth = {
        row["image"]: float(row["prediction"])
        for row in rows_of(trained / "outputs/results/seed0.test.csv")
    }
    assert 1 < len(truth) < 32  # So the only batch is not full.
    alone = trained / "scored" / next(iter(truth))
    folder = here("predict", checkpoint(trained, "seed0"), trained / "scored")
    table = here("predict", checkpoint(trained, "seed0"), trained / "scored" / "scores.csv")
    one = here("predict", checkpoint(trained, "seed0"), alone)
    assert folder.returncode == table.returncode == one.returncode == 0, folder.stderr
    assert folder.stdout.splitlines()[0] == "image,score"
    for text in (folder.stdout, table.stdout):
        predicted = scores_in(text)
        assert len(predicted) == 40
        assert all(abs(predicted[name] - value) < 1e-9 for name, value in truth.items())
    assert scores_in(one.stdout) == {str(alone): truth[alone.name]}
    assert table.stdout.splitlines()[0] == "image,table.score,score"


def test_the_splits_of_the_pictures_are_counted_by_content(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    new = tmp_path / "new"
    rows = np.load(trained / "outputs/results/seed0.splits.npy")
    assert len(rows) == 40
    by_digest = {content_digest(path): path for path in (trained / "scored").glob("*.png")}
    assert set(rows["digest"].tolist()) == set(by_digest)
    new.mkdir()
    for split, count in ((0, 3), (1, 2), (2, 1)):
        for digest in rows["digest"][rows["split"] == split][:count].tolist():
            shutil.copy(by_digest[digest], new / f"{digest}.png")
    draw(new / "unseen.png", 9)
    done = here("predict", checkpoint(trained, "seed0"), new)
    text = "3 of the 7 pictures belong to its train split, 2 to val, 1 to test, by content"
    assert text in done.stderr
    moved = shutil.copy(checkpoint(trained, "seed0"), tmp_path / "moved.pt")
    assert "is not known" in here("predict", moved, new).stderr


def test_seeds_become_an_ensemble(trained: Path, here: Command) -> None:
    paths = [checkpoint(trained, f"seed{k}") for k in range(3)]
    singles = [scores_in(here("predict", path, trained / "scored").stdout) for path in paths]
    done = here("predict", *paths, trained / "scored")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "image,score,score_sd"
    mean, sd = scores_in(done.stdout), scores_in(done.stdout, "score_sd")
    for name in mean:
        values = [single[name] for single in singles]
        assert mean[name] == pytest.approx(np.mean(values), abs=1e-12)
        assert sd[name] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert sd[name] > 0


def test_two_data_sets_of_one_score_are_not_averaged(trained: Path, here: Command) -> None:
    both = [checkpoint(trained, name) for name in ("seed0", "others")]
    done = here("predict", *both, trained / "scored")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "were trained on different data" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_scores_and_classes_have_a_column_each(trained: Path, here: Command) -> None:
    both = [checkpoint(trained, name) for name in ("seed0", "classes")]
    done = here("predict", *both, trained / "classes", "--top=2")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    columns = ["image", "score", "class", "probability", "class_2", "probability_2"]
    assert list(rows[0]) == columns
    alone = scores_in(here("predict", both[0], trained / "classes").stdout)
    for row in rows:
        assert float(row["score"]) == alone[row["image"]]
        assert {row["class"], row["class_2"]} == {"dark", "light"}
        assert float(row["probability"]) >= float(row["probability_2"])
        assert float(row["probability"]) + float(row["probability_2"]) == pytest.approx(1)
    for top, name in ((3, "classes"), (1, "seed0")):
        refused = here("predict", checkpoint(trained, name), trained / "scored", f"--top={top}")
        assert refused.returncode == 2
        assert f"--top={top}" in refused.stderr


def test_classes_equal_those_of_the_test_split(trained: Path, here: Command) -> None:
    assert deep_cnn_in(trained, f"--test_net={checkpoint(trained, 'classes')}").returncode == 0
    truth = rows_of(trained / "outputs/results/classes.test.csv")
    done = here("predict", checkpoint(trained, "classes"), trained / "classes")
    predicted = {row["image"]: row["class"] for row in csv.DictReader(io.StringIO(done.stdout))}
    assert {row["image"]: row["prediction"] for row in truth}.items() <= predicted.items()


def test_a_shared_trunk_computes_its_features_once(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deep_cnn.inference.ensemble import Ensemble
    from deep_cnn.inference.trained import open_trained
    from deep_cnn.models import Network

    folder = tmp_path
    for seed in (0, 1):
        words = (f"--data_dir={trained / 'scored'}", f"--run_name=r{seed}", f"--seed={seed}")
        done = deep_cnn_in(folder, *words, "--freeze=trunk", "--epochs=1", "--wandb=False")
        assert done.returncode == 0, done.stderr
    members = [open_trained(checkpoint(folder, f"r{seed}")) for seed in (0, 1)]
    calls = []
    features = Network.features
    monkeypatch.setattr(Network, "features", lambda *args: calls.append(1) or features(*args))
    ensemble = Ensemble(members)
    random = np.random.default_rng(0)
    rows = ensemble.predict([random.integers(0, 256, (32, 3, 224, 224)).astype(np.uint8)])
    assert len(calls) == 1
    assert all(sd > 0 for _, sd in rows)


def test_unreadable_pictures_keep_their_rows(trained: Path, tmp_path: Path, here: Command) -> None:
    new = tmp_path / "new"
    draw(new / "a.png", 10)
    (new / "b.png").write_bytes(b"no picture")
    (new / "c.jpg").touch()
    done = here("predict", checkpoint(trained, "seed0"), new, "--out=s.csv")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "s.csv")
    assert [(row["image"], row["score"] == "") for row in rows] == [
        ("a.png", False), ("b.png", True), ("c.jpg", True),
    ]  # fmt: skip
    assert "b.png cannot be read" in done.stderr
    assert "c.jpg cannot be read: empty file" in done.stderr
    assert "; 2 cannot be read" in done.stderr.splitlines()[-1]
    (new / "a.png").unlink()
    none = here("predict", checkpoint(trained, "seed0"), new, "--out=none.csv")
    assert none.returncode == 2
    assert "none of its 2 pictures can be read" in none.stderr
    assert not (tmp_path / "none.csv").exists()
    assert not (tmp_path / ".none.csv.part").exists()


def test_the_columns_of_a_table_are_carried_through(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    draw(tmp_path / "t" / "Zürich 1.png", 10)
    draw(tmp_path / "t" / "b.png", 200)
    table = tmp_path / "t" / "new.csv"
    text = 'Photo;city;score\nZÜRICH 1;"a;""b""";1,5\nb.png;;2\nmissing.png;x;3\n;y;4\n'
    table.write_bytes(text.encode("cp1252"))
    words = ("predict", checkpoint(trained, "seed0"), table, "--image_column=photo")
    done = here(*words, "--out=s.csv")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "s.csv")
    assert list(rows[0]) == ["image", "city", "table.score", "score"]
    assert [tuple(row.values())[:3] for row in rows] == [
        ("ZÜRICH 1", 'a;"b"', "1,5"), ("b.png", "", "2"), ("missing.png", "x", "3"), ("", "y", "4"),
    ]  # fmt: skip
    assert [row["score"] == "" for row in rows] == [False, False, True, True]
    assert "missing.png cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "no column image"),
        ("image,image\n1,2\n", "two columns have one name"),
        ("image,b\n1,2,3\n", "line 2: 3 values for 2 columns"),
        ("image\n", "has no rows"),
        ("", "no column image"),
        ("image\n\0\n", "NUL byte"),
    ],
)
def test_tables_with_faults_are_refused(
    trained: Path, tmp_path: Path, here: Command, text: str, reason: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    done = here("predict", checkpoint(trained, "seed0"), "t.csv")
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_does_not_lead_out_of_its_folder(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    draw(tmp_path / "secret.png", 1)
    draw(tmp_path / "t" / "a.png", 1)
    names = ["../secret.png", str(tmp_path / "secret.png"), "a.png"]
    (tmp_path / "t" / "t.csv").write_text("image\n" + "\n".join(names) + "\n")
    done = here("predict", checkpoint(trained, "seed0"), "t/t.csv")
    assert done.returncode == 0, done.stderr
    assert [row["score"] == "" for row in csv.DictReader(io.StringIO(done.stdout))] == [
        True, True, False,
    ]  # fmt: skip
    assert "leads out of the folder" in done.stderr


def test_coordinates_come_from_the_table_the_name_or_the_picture(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    new = tmp_path / "new"
    named = f"40.75_-73.5_{ID.format(1)}_New_York.jpg"
    draw(new / "a.jpg", 10, (-33.5, 151.25))
    draw(new / "b.jpg", 20)
    draw(new / named, 30, (1.0, 1.0))
    words = ("predict", checkpoint(trained, "seed0"))
    done = here(*words, new, "--out=s.geojson")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "s.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    places = {}
    for feature in content["features"]:
        assert feature["type"] == "Feature"
        places[feature["properties"]["image"]] = feature["geometry"]
        assert isinstance(feature["properties"]["score"], float)
    assert places["b.jpg"] is None
    assert places["a.jpg"]["type"] == "Point"
    assert places["a.jpg"]["coordinates"] == pytest.approx([151.25, -33.5])
    assert places[named]["coordinates"] == [-73.5, 40.75]
    assert here(*words, new, "--out=s.csv").returncode == 0
    rows = {row["image"]: row for row in rows_of(tmp_path / "s.csv")}
    assert list(rows["b.jpg"]) == ["image", "lat", "lon", "score"]
    assert (rows["b.jpg"]["lat"], rows[named]["lat"], rows[named]["lon"]) == ("", "40.75", "-73.5")
    table = "image,Latitude,LNG\na.jpg,10.5,20.25\nb.jpg,95,0\n"
    (new / "t.csv").write_text(table)
    done = here(*words, new / "t.csv", "--out=t.geojson")
    assert done.returncode == 0, done.stderr
    first, second = json.loads((tmp_path / "t.geojson").read_text())["features"]
    assert first["geometry"]["coordinates"] == [20.25, 10.5]
    assert second["geometry"] is None
    assert "line 3" in done.stderr


def test_geojson_without_coordinates_is_refused_and_nothing_is_lost(
    trained: Path, tmp_path: Path, here: Command
) -> None:
    draw(tmp_path / "new" / "a.png", 10)
    words = ("predict", checkpoint(trained, "seed0"), "new")
    done = here(*words, "--out=s.geojson")
    assert done.returncode == 2
    assert "no picture has coordinates" in done.stderr
    (tmp_path / ".s.geojson.part").rename(tmp_path / ".s.csv.part")
    again = here(*words, "--out=s.csv")
    assert again.returncode == 0, again.stderr
    assert "0 pictures in" in again.stderr
    assert len(rows_of(tmp_path / "s.csv")) == 1


def test_parquet_is_read_by_another_library(trained: Path, tmp_path: Path, here: Command) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    draw(tmp_path / "new" / "a.jpg", 10, (-33.5, 151.25))
    (tmp_path / "new" / "b.jpg").touch()
    both = [checkpoint(trained, name) for name in ("seed0", "classes")]
    words = ("predict", *both, "new")
    assert here(*words, "--out=s.csv").returncode == 0
    done = here(*words, "--out=s.parquet")
    assert done.returncode == 0, done.stderr
    table = parquet.read_table(tmp_path / "s.parquet").to_pylist()
    first, second = rows_of(tmp_path / "s.csv")
    assert {name: str(value) for name, value in table[0].items()} == first
    assert {name for name, value in table[1].items() if value is None} == set(second) - {"image"}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "predict takes one or more checkpoints"),
        (("CHECKPOINT",), "predict takes one or more checkpoints"),
        (("CHECKPOINT", "nowhere"), "does not exist"),
        (("CHECKPOINT", "empty"), "has no pictures"),
        (("nowhere.pt", "data"), "does not exist"),
        (("CHECKPOINT", "data", "--out=s.xlsx"), "must end with .csv, .parquet, .geojson"),
        (("CHECKPOINT", "data", "--out=empty/.csv"), "must end with"),
        (("CHECKPOINT", "data", "--out=data/p000.png/s.csv"), "cannot be written"),
        (("CHECKPOINT", "data", "--ot=s.csv"), "did you mean out"),
    ],
)
def test_bad_commands_have_one_line(
    trained: Path, tmp_path: Path, here: Command, words: tuple[str, ...], reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "data").symlink_to(trained / "scored")
    path = str(checkpoint(trained, "seed0"))
    done = here("predict", *(word.replace("CHECKPOINT", path) for word in words))
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_extra_has_one_line(
    trained: Path, tmp_path: Path, here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    gone = ("pyarrow", "onnx", "onnxscript", "onnxruntime")
    monkeypatch.setattr(
        "deep_cnn.inference.formats.find_spec", lambda name: None if name in gone else find(name)
    )
    path = checkpoint(trained, "seed0")
    for words, extra in (
        (("predict", path, trained / "scored", "--out=s.parquet"), "parquet"),
        (("export", path, "--format=onnx"), "onnx"),
    ):
        done = here(*words)
        assert done.returncode == 2
        assert f'pip install "deep_cnn[{extra}]"' in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_python_predicts_as_the_command_line(
    trained: Path, tmp_path: Path, here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "a.jpg", 10, (-33.5, 151.25))
    draw(tmp_path / "b.jpg", 200)
    Path("c.jpg").touch()
    expected = scores_in(here("predict", checkpoint(trained, "seed0"), "a.jpg").stdout)
    model = deep_cnn.load(checkpoint(trained, "seed0"))
    table = model.predict(["b.jpg", Path("a.jpg"), "c.jpg"])
    assert list(table.columns) == ["image", "lat", "lon", "score"]
    assert table["image"].tolist() == ["b.jpg", "a.jpg", "c.jpg"]
    assert table["score"][1] == expected["a.jpg"]
    assert table["score"].isna().tolist() == [False, False, True]
    assert len(model.predict(trained / "scored")) == 40
    spec = model.network.input_spec
    picture = model.network.head[1].weight.new_zeros(2, spec.channels, spec.crop, spec.crop)
    assert model.network(picture.byte()).shape == (2, 1)


def test_data_and_working_folder_do_not_matter(trained: Path, tmp_path: Path) -> None:
    make_classes(tmp_path / "new", ("x",))
    path = tmp_path / "classes.pt"
    shutil.copy(checkpoint(trained, "classes"), path)
    (tmp_path / "elsewhere").mkdir()
    moved = trained.with_name("moved")
    trained.rename(moved)
    try:
        done = deep_cnn_in(tmp_path / "elsewhere", "predict", path, tmp_path / "new")
    finally:
        moved.rename(trained)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 13
    assert list((tmp_path / "elsewhere").iterdir()) == []
