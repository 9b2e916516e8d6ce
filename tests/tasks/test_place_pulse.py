"""Place Pulse 2.0 as it was released: its table, its file names, its votes, its cities."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deep_cnn.cli import main
from deep_cnn.config import TrainConfig
from deep_cnn.metrics import pairwise_accuracy
from deep_cnn.resolve import resolve
from deep_cnn.tasks import get_task
from tests.conftest import make_scored

SAFER, BORING = "50a68a51fdc9f05596000002", "50f62c68a84ea7c5fdd2e456"
COLUMNS = ("_id", "location_id", "num_votes", "place_id", "study_id", "trueskill.score",
           "trueskill.stds.-1")  # fmt: skip
CITIES = ("Boston", "RioDeJaneiro", "Sao_Paulo", "Zürich", "Linz", "Kyoto", "Taipei", "Milan")
LENET = ["--model=lenet", "--weights=none", "--epochs=1", "--run_name=r", "--test_split=0.3"]


def location(i: int) -> str:
    return f"513d5c7afdc9f03587{i:06x}"


def city_of(i: int) -> str:
    return CITIES[i % len(CITIES)]


def score(i: int) -> float:
    return 15 + i / 2


def row(i: int, study: str = SAFER, value: object = None) -> list[str]:
    mu = score(i) if value is None else value
    votes, sigma = str(2 + i % 5), str(3 + i % 4)
    return [f"{i:024x}", location(i), votes, f"place{i % 8}", study, str(mu), sigma]


def write_table(path: Path, columns: tuple[str, ...], rows: list[list[str]], index: bool) -> None:
    lines = [["", *columns], *([str(7 * n), *r] for n, r in enumerate(rows))]
    lines = lines if index else [line[1:] for line in lines]
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


def draw(path: Path, i: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(i).normal(4 * i, 20, (50, 60, 3)).clip(0, 255)
    Image.fromarray(noise.astype(np.uint8)).save(path, format="JPEG")


def make_place_pulse(folder: Path, count: int = 40, index: bool = True) -> Path:
    """`count` pictures of eight cities, scored in two studies, and what lies about in a release."""
    for i in range(count):
        suffix = ("JPG", "jpg", "jpeg")[i % 3]
        name = f"-19.8{i}_-43.9{i}_{location(i)}_{city_of(i)}.{suffix}"
        draw(folder / "images" / name, i)
    rows = [r for i in range(count) for r in (row(i), row(i, BORING, 40 - i))]
    write_table(folder / "qscores.tsv", COLUMNS, rows, index)
    return folder


def read(folder: Path, **options: object) -> dict[str, float]:
    examples, _ = get_task("perception").all_examples(
        resolve(TrainConfig(data_dir=str(folder), options=options))
    )
    return dict(zip(examples.names, examples.targets.tolist(), strict=True))


def splits(folder: Path, **options: object) -> dict[str, set[str]]:
    config = resolve(TrainConfig(data_dir=str(folder), test_split=0.3, options=options))
    found = get_task("perception").all_splits(config)
    return {name: set(examples.names) for name, examples in found.items()}


def test_the_rows_and_names_of_the_release(tmp_path: Path) -> None:
    header = "\t_id\tlocation_id\tnum_votes\tplace_id\tstudy_id\ttrueskill.score\ttrueskill.stds.-1"
    lines = [
        header,
        "225818\t51e04891fdc9f01d25a47649\t513d5c7afdc9f03587003718\t5\t50e5ef31d7c3df413b000178\t"
        "50a68a51fdc9f05596000002\t25.9862708308\t3.67394061129",
        "223582\t51e04891fdc9f01d25a47d2a\t513d61e8fdc9f03587003edd\t4\t50e5ef31d7c3df413b000178\t"
        "50a68a51fdc9f05596000002\t16.8931801005\t4.81976246027",
    ]
    (tmp_path / "qscores.tsv").write_text("\n".join(lines) + "\n")
    names = [
        "images/-19.818072_-43.951946_513d5c7afdc9f03587003718_BeloHorizonte.JPG",
        "images/-19.882689_-44.032458_513d61e8fdc9f03587003edd_BeloHorizonte.JPG",
    ]
    for i, name in enumerate(names):
        draw(tmp_path / name, i)
    assert read(tmp_path) == dict(zip(names, (25.9862708308, 16.8931801005), strict=True))


@pytest.mark.parametrize("columns", [COLUMNS, (*COLUMNS[:4], "random", *COLUMNS[4:])])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_columns_go_by_their_names(
    tmp_path: Path, columns: tuple[str, ...], index: bool, newline: str
) -> None:
    draw(tmp_path / f"{location(3)}.jpg", 3)
    cells = dict(zip(COLUMNS, row(3), strict=True))
    path = tmp_path / "qscores.tsv"
    write_table(path, columns, [[cells.get(name, "0.5") for name in columns]], index)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", newline.encode()))
    assert read(tmp_path) == {f"{location(3)}.jpg": score(3)}


@pytest.mark.parametrize(
    "name",
    [
        "images/{}.jpg",
        "images/1.5_2.5_{}_Rio_De_Janeiro.JPG",
        "images/1.5_{}_Rio.jpeg",
        "images/asia/{}_.png",
        "gsv/final_photo_dataset/{}.jpg",
        "{}.jpg",
        "-1_2_{}_R.o_d.e.JPG",
    ],
)
def test_a_picture_is_found_by_the_id_in_its_name(tmp_path: Path, name: str) -> None:
    write_table(tmp_path / "qscores.tsv", COLUMNS, [row(10)], index=True)
    path = name.format(location(10).upper() if "asia" in name else location(10))
    draw(tmp_path / path, 10)
    for other in (f".{location(10)}.jpg", f"{location(10)}.txt", f"{location(10)}0.jpg"):
        (tmp_path / path).with_name(other).write_text("")
    assert read(tmp_path) == {path: score(10)}


@pytest.mark.parametrize(
    ("study", "value"),
    [("safer", score(5)), ("safety", score(5)), ("Safe", score(5)), (SAFER, score(5)),
     ("more boring", 35), ("more_boring", 35), ("more-boring", 35), ("boring", 35), (BORING, 35)],
)  # fmt: skip
def test_a_study_has_many_names(tmp_path: Path, study: str, value: float) -> None:
    found = read(make_place_pulse(tmp_path, 12), study=study)
    assert found[f"images/-19.85_-43.95_{location(5)}_{city_of(5)}.jpeg"] == value


def test_what_has_no_partner_or_no_imagery_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_place_pulse(tmp_path / "data")
    draw(folder / "images" / f"{location(900)}.jpg", 9)
    with (folder / "qscores.tsv").open("a") as file:
        file.writelines("\t".join(["0", *row(i)]) + "\n" for i in (800, 801))
    tile = next((folder / "images").glob(f"*{location(7)}*"))
    Image.new("RGB", (60, 50), "grey").save(tile, format="JPEG")
    caplog.set_level(logging.INFO)
    found = read(folder, min_votes=3)
    assert "1 pictures without a score, 2 scores without a picture, 1 pictures of" in caplog.text
    assert "8 with too few votes" in caplog.text
    assert len(found) == 40 - 1 - 8
    assert not [name for name in found if location(7) in name or location(5) in name]
    assert len(read(folder, no_imagery="keep")) == 40
    kept = [location(i) for i in (7, 8, 9)]
    for path in (folder / "images").iterdir():  # What follows a JPEG is no part of it.
        size = 11_500 if any(i in path.name for i in kept) else 20_000
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    assert len(read(folder)) == 40 - 3


def test_a_row_without_a_score_has_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_place_pulse(tmp_path / "data")
    text(lambda t: t.replace("\t17.0\t", "\t\t"))(folder)
    caplog.set_level(logging.INFO)
    assert len(read(folder)) == 39
    assert "1 pictures without a score, 0 scores" in caplog.text


def test_weights_are_one_over_the_variance(tmp_path: Path) -> None:
    folder = make_place_pulse(tmp_path)
    for weighting, weights in (
        ("none", [1.0] * 4),
        ("sigma", [1 / 9, 1 / 16, 1 / 25, 1 / 36]),
        ("votes", [2, 3, 4, 5]),
    ):
        config = resolve(TrainConfig(data_dir=str(folder), options={"weighting": weighting}))
        examples, _ = get_task("perception").all_examples(config)
        assert examples.weights[:4].tolist() == pytest.approx(weights)


def test_which_table_is_read(tmp_path: Path) -> None:
    folder = make_place_pulse(tmp_path / "data", 4)
    (folder / "train").mkdir()
    config = resolve(TrainConfig(data_dir=str(folder)))
    assert (config.task, config.options["study"], config.delta()) == (
        "perception", "safer", {"data_dir": str(folder)},
    )  # fmt: skip
    assert resolve(TrainConfig(data_dir=str(folder), task="folders")).task == "folders"
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draw(folder / name, 1)
    (folder / "scores.csv").write_text("image,score\na.jpg,1\nb.jpg,2\nc.jpg,3\n")
    assert read(folder) == {"a.jpg": 1, "b.jpg": 2, "c.jpg": 3}


def test_a_split_hangs_on_the_location_alone(tmp_path: Path) -> None:
    folder = make_place_pulse(tmp_path / "a")
    before = splits(folder)
    test = {name.split("_")[2] for name in before["test"]}
    (folder / "images").rename(folder / "gsv")
    for path in (folder / "gsv").iterdir():
        path.rename(path.with_name(f"{path.name.split('_')[2]}.jpg"))
    after = splits(folder)
    assert {name[4:28] for name in after["test"]} == test
    assert all(before.values())


def test_a_city_is_in_one_split(tmp_path: Path) -> None:
    found = splits(make_place_pulse(tmp_path / "a"), group="city")
    homes = [{re.split("_", name, maxsplit=3)[3].split(".")[0] for name in some}
             for some in found.values()]  # fmt: skip
    assert sorted(city for home in homes for city in home) == sorted(CITIES)
    larger = splits(make_place_pulse(tmp_path / "b", 60), group="city")
    assert all(found[split] <= larger[split] for split in found)
    assert splits(tmp_path / "a") != found


def test_without_names_the_place_id_is_the_city(tmp_path: Path) -> None:
    folder = make_place_pulse(tmp_path)
    plain = next((folder / "images").glob(f"*{location(3)}*"))
    plain.rename(plain.with_name(f"{location(3)}.jpg"))
    config = resolve(TrainConfig(data_dir=str(folder), options={"group": "city"}))
    examples, _ = get_task("perception").all_examples(config)
    assert set(examples.keys) == {f"place{i}" for i in range(8)}


@pytest.mark.parametrize("column", ["city", "group"])
def test_a_column_of_scores_names_the_city(tmp_path: Path, column: str) -> None:
    folder = make_scored(tmp_path / "data", 40)
    lines = (folder / "scores.csv").read_text().splitlines()
    rows = [f"{line},{city_of(i)}" for i, line in enumerate(lines[1:])]
    (folder / "scores.csv").write_text("\n".join([f"{lines[0]},{column}", *rows]))
    found = splits(folder, group="city")
    homes = [{city_of(int(name[1:4])) for name in some} for some in found.values()]
    assert sorted(city for home in homes for city in home) == sorted(CITIES)


def test_pairwise_accuracy_leaves_ties_out_and_halves_equal_scores() -> None:
    left, right = np.array([1.0, 1, 1, 2, 3]), np.array([0.0, 2, 1, 1, 9])
    assert pairwise_accuracy(left, right, np.array([1, -1, 1, -1, 0])) == 2.5 / 4
    assert np.isnan(pairwise_accuracy(left, right, np.zeros(5)))


def test_votes_between_test_pictures_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_place_pulse(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    test = sorted(splits(folder)["test"])
    ids = [name.split("_")[2] for name in test]
    train = next(i for i in map(location, range(40)) if i not in ids)
    votes = [("left", ids[1], ids[0], SAFER), ("right", ids[0], ids[2], SAFER),
             ("left", ids[0], ids[2], SAFER), ("left", ids[0], ids[2], SAFER),
             ("equal", ids[3], ids[4], SAFER), ("left", ids[0], train, SAFER),
             ("left", ids[3], ids[3], SAFER),
             ("left", ids[0], location(999), SAFER), ("left", ids[0], ids[1], BORING)]  # fmt: skip
    rows = [[f"{n:024x}", *vote, "2013-01-01 00:00:00", "v"] for n, vote in enumerate(votes)]
    columns = ("_id", "choice", "left", "right", "study_id", "timestamp", "voter_uniqueid")
    write_table(folder / "votes.tsv", columns, rows, index=False)
    assert main([f"--data_dir={folder}", *LENET, "--wandb=False"]) == 0
    assert main(["--test_net=outputs/models/r.pt"]) == 0
    found = json.loads((tmp_path / "outputs/results/r.json").read_text())["test"]
    lines = (tmp_path / "outputs/results/r.test.csv").read_text().splitlines()[1:]
    predicted = {line.split(",")[0].split("_")[2]: float(line.split(",")[2]) for line in lines}
    pairs = [(ids[1], ids[0]), (ids[2], ids[0]), (ids[0], ids[2]), (ids[0], ids[2])]
    wins = [predicted[winner] > predicted[loser] for winner, loser in pairs]
    assert found["pairwise_test"] == np.mean(wins)
    assert found["pairwise_truth_test"] == 0.5
    assert (found["votes_test"], found["ties_test"]) == (4, 1)
    assert " pairwise_test=" in capsys.readouterr().out
    (folder / "votes.tsv").write_text((folder / "votes.tsv").read_text().replace("equal", "both"))
    assert main([f"--data_dir={folder}", "--dry_run"]) == 0
    bad = "votes.tsv: 1 votes with faults are left out, 7 remain; line 6: choice 'both' is unknown"
    assert bad in capsys.readouterr().out
    assert main(["--test_net=outputs/models/r.pt"]) == 0
    out, err = capsys.readouterr()
    assert bad in err
    assert f" pairwise_test={found['pairwise_test']:.4g} " in out
    assert " votes_test=4 ties_test=0" in out
    (folder / "votes.tsv").write_text((folder / "votes.tsv").read_text().replace("left", "l", 1))
    assert main([f"--data_dir={folder}", "--dry_run"]) == 0
    assert "votes.tsv line 1: no column left (it has _id, choice, l," in capsys.readouterr().out


def test_check_knows_the_studies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_place_pulse(tmp_path / "data")
    lines = ["method: grid", "parameters:", f"  data_dir: {{value: {folder}}}",
             "  study: {values: [safer, clean]}",
             'command: [python, -m, deep_cnn, "${args}"]']  # fmt: skip
    (tmp_path / "s.yaml").write_text("\n".join(lines))
    assert main(["check", str(tmp_path / "s.yaml")]) == 2
    assert "line 4: " in (err := capsys.readouterr().err)
    assert "--study=clean is no study of Place Pulse" in err


def text(change: Callable[[str], str]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "qscores.tsv"
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")

    return spoil


def two_pictures(folder: Path) -> None:
    draw(folder / "images" / "more" / f"{location(4)}.jpg", 4)


def a_link_back(folder: Path) -> None:
    (folder / "images" / "back").symlink_to(folder)


def no_pictures(folder: Path) -> None:
    (folder / "images").rename(folder.parent / "elsewhere")


def nameless(folder: Path) -> None:
    for i, path in enumerate(sorted((folder / "images").iterdir())):
        path.rename(path.with_name(f"{location(i)}.jpg"))
    text(lambda t: t.replace("place_id", "other"))(folder)


def scores_win(folder: Path) -> None:
    lines = [f"images/{path.name},1,Linz" for path in (folder / "images").iterdir()]
    (folder / "scores.csv").write_text("\n".join(["image,score,city", *lines]))


def no_city(folder: Path) -> None:
    make_scored(folder / "new")
    (folder / "new" / "scores.csv").rename(folder / "scores.csv")


def marks_part(folder: Path) -> None:
    scores_win(folder)
    path = folder / "scores.csv"
    lines = path.read_text().splitlines()
    marks = [f"{line},{'test' if i % 2 else ''}" for i, line in enumerate(lines[1:])]
    path.write_text("\n".join([f"{lines[0]},split", *marks]))


def nothing(folder: Path) -> None:
    pass


FAULTS = {
    "commas": (text(lambda t: t.replace("\t", ",")), "", "line 1: no column study_id .*tabs"),
    "a column": (text(lambda t: t.replace("trueskill.score", "mu")), "",
                 r"line 1: no column trueskill.score \(it has , _id, location_id"),
    "sigma": (text(lambda t: t.replace("stds.-1", "sd")), "--weighting=sigma",
              "no column trueskill.stds.-1"),
    "nan": (text(lambda t: t.replace("\t17.0\t", "\tnan\t")), "",
            "line 10: trueskill.score 'nan' is not a finite number"),
    "no sigma": (text(lambda t: t.replace("17.0\t3", "17.0\t0")), "--weighting=sigma",
                 "line 10: trueskill.stds.-1 0 is not above 0"),
    "twice": (text(lambda t: t + "\t".join(["0", *row(3)])), "",
              f"line 82: {location(3)} is there already, in line 8; remove one"),
    "a short row": (text(lambda t: t + "1\t2\t3"), "", "line 82: 3 values for 8 columns"),
    "an empty file": (text(lambda t: ""), "", "line 1: no column study_id"),
    "noise": (lambda f: (f / "qscores.tsv").write_bytes(bytes(range(256))) and None, "",
              "is not UTF-8 text; save it as TSV"),
    "an unknown study": (nothing, "--study=saffer", "saffer is no study.*did you mean safer"),
    "another study": (nothing, "--study=wealthy",
                      "no row of --study=wealthy; it has: more boring, safer"),
    "two pictures": (two_pictures, "", f"_Linz.jpg and images/more/{location(4)}.jpg are of one"),
    "a link back": (a_link_back, "", "images/back/images/.* are of one location"),
    "no pictures": (no_pictures, "", "0 pictures; left out: 0 pictures without a score, 40 scores"),
    "many votes wanted": (nothing, "--min_votes=99", "0 pictures; .*40 with .*; lower --min_votes"),
    "no city": (nameless, "--group=city", "neither a place in its name nor a place_id"),
    "an empty split": (nothing, "--group=city --test_split=0.001",
                       "the test split has 0 of 40 pictures, .*change .*--test_split"),
    "not for scores.csv": (scores_win, "--min_votes=2", "--min_votes is for qscores.tsv"),
    "no column city": (no_city, "--group=city", "no column city .* use --group=none"),
    "one city": (scores_win, "--group=city --test_split=0", "the train split has 0 of 40"),
    "a city in two splits": (marks_part, "--group=city", "the column split puts Linz into"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, flags, message = FAULTS[case]
    folder = make_place_pulse(tmp_path / "data")
    spoil(folder)
    monkeypatch.chdir(tmp_path)
    assert main([f"--data_dir={folder}", *LENET, *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert re.search(message, err.splitlines()[-1]), err
    assert err.splitlines()[-1].startswith("deep_cnn: ")
    assert out == ""
