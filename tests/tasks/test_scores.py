"""Tables of scores as people have them: other programs' formats and names, and several raters."""

import re
import shlex
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from deep_cnn.cli import main
from deep_cnn.config import TrainConfig
from deep_cnn.errors import DataError
from deep_cnn.resolve import resolve
from deep_cnn.tasks.perception import Perception
from deep_cnn.tasks.ratings import agreement
from deep_cnn.tasks.scores import Columns, Scores, read_scores
from tests.conftest import ROOT, make_scored
from tests.test_docs import code_blocks

PAGE = "deep_cnn/tasks/README.md"


def table(folder: Path, files: list[str], text: str | bytes, name: str = "scores.csv") -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def scored(scores: Scores) -> dict[str, float]:
    return dict(zip(scores.examples.names, scores.examples.targets.tolist(), strict=True))


ROWS = {"Zürich, See.jpg": "6.25", "p2.jpg": "3.9", "p3.jpg": "7", "p4.jpg": ""}


def exported(delimiter: str, point: str, *, newline: str = "\r\n", first: str = "") -> str:
    def cell(text: str) -> str:
        return f'"{text}"' if delimiter in text or '"' in text else text

    rows = [("image", "score"), *((k, v.replace(".", point)) for k, v in ROWS.items())]
    lines = [delimiter.join(map(cell, row)) for row in rows]
    return first + "".join(line + newline for line in lines)


EXPORTS = {
    "Excel, English": ("utf-8-sig", exported(",", ".")),
    "Excel, German": ("utf-8-sig", exported(";", ",")),
    "Excel, French, not UTF-8": ("cp1252", exported(";", ",")),
    "Excel, with a line sep=": ("utf-8-sig", exported(";", ",", first="sep=;\r\n")),
    "Excel, sep= and tabs": ("utf-8", exported("\t", ".", first='"sep=\t"\r\n')),
    "Excel, Unicode text": ("utf-16", exported("\t", ",")),
    "Excel, Unicode text, big endian": ("utf-16-be", "\ufeff" + exported("\t", ".")),
    "Unicode text without its mark": ("utf-16-le", exported("\t", ",")),
    "LibreOffice, German": ("utf-8", exported(",", ",", newline="\n")),
    "LibreOffice, French": ("utf-8", exported("\t", ",", newline="\n")),
    "Excel for the Mac": ("mac_roman", exported(";", ",")),
    "an invisible mark in the header": (
        "utf-8",
        exported(",", ".").replace("score", "\u200bscore\ufeff"),
    ),
    "vertical bars": ("utf-8", exported("|", ".")),
    "blank lines before the header": ("utf-8", "\n ;\n" + exported(";", ",")),
    "Google Sheets, English": ("utf-8", exported(",", ".")),
    "Google Sheets, German": ("utf-8", exported(",", ",")),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_a_table_of_a_spreadsheet_program(case: str, tmp_path: Path) -> None:
    encoding, text = EXPORTS[case]
    path = table(tmp_path, list(ROWS), text.encode(encoding))
    scores = read_scores(path, Columns("score"))
    assert scored(scores) == {k: float(v) for k, v in ROWS.items() if v}
    assert scores.notes[-1] == "scores.csv: 1 rows without a score are left out"
    is_plain = case in (
        "Excel, English",
        "Google Sheets, English",
        "an invisible mark in the header",
    )
    assert len(scores.notes) == (1 if is_plain else 2)


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("image\tscore", ["1,234", "999", "12"]),
        ("image,score", ['"1,234"', '"10,500"', "99"]),
        ("image;score", ["1.250", "980", "1.100"]),
        ("image;score", ["1,250", "980", "1,100"]),
        ("image;score", ["1.100", "1.101", "12.345"]),
        ("image;score;other", ["1.100;3,5", "2.250;", "7.500;4"]),
        ("image;score;other", ["1.100;3,5", "12;4", "7.500;4,25"]),
        ("image\tscore\tother", ["1.100\t3,5", "1.101\t", "1.102\t4"]),
        ("image,other,score", ['"3,5",1.100', "4,1.101", ",1.102"]),
    ],
)
def test_what_may_be_a_decimal_or_a_thousand_is_refused(
    header: str, cells: list[str], tmp_path: Path
) -> None:
    rows = [f"p{i}.jpg{header[5]}{cell}" for i, cell in enumerate(cells)]
    path = table(tmp_path, ["p0.jpg", "p1.jpg", "p2.jpg"], "\n".join([header, *rows]))
    with pytest.raises(DataError, match=r"may have a decimal (comma|point) or a thousand"):
        read_scores(path, Columns("score"))


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("mac_roman", "bild {} é.jpg"),
        ("mac_roman", "é{}.jpg"),
        ("mac_roman", "Ü {}, Öl.jpg"),
        ("cp1252", "cœur {}.jpg"),
        ("cp1252", "œ{}.jpg"),
        ("cp1252", "Žižek \u2013 {}.jpg"),
        ("cp1252", "Bild{}é.jpg"),
    ],
)
@pytest.mark.parametrize("change", [str, str.upper, lambda name: name.rpartition(".")[0]])
def test_the_encoding_is_the_one_in_which_the_pictures_exist(
    encoding: str, name: str, change: Callable[[str], str], tmp_path: Path
) -> None:
    names = [name.format(i) for i in range(4)]
    files = [unicodedata.normalize("NFD" if "Bild" in name else "NFC", each) for each in names]
    rows = [f'"{change(each)}",{i}' for i, each in enumerate(names)]
    text = "\n".join(["Bild,Sécurité", *rows])
    path = table(tmp_path, files, text.encode(encoding), "ratings.csv")
    scores = read_scores(path, Columns("Sécurité", image="Bild"))
    assert scored(scores) == {file: i for i, file in enumerate(files)}
    said = {"mac_roman": "Mac Roman", "cp1252": "Windows-1252"}[encoding]
    assert f"the encoding {said}, as it is not UTF-8" in scores.notes[0]
    with pytest.raises(DataError, match="--image_column=Bild '--score_column=Sécurité'"):
        resolve(TrainConfig(data_dir=str(tmp_path)))


def test_the_name_of_a_column_tells_the_encoding(tmp_path: Path) -> None:
    for encoding in ("mac_roman", "cp1252"):
        text = "image,É\np1.jpg,1\np2.jpg,2\np3.jpg,3\n".encode(encoding)
        path = table(tmp_path, ["p1.jpg", "p2.jpg", "p3.jpg"], text)
        assert list(scored(read_scores(path, Columns("É"))).values()) == [1, 2, 3]


def test_ratings_of_two_names_are_not_merged(tmp_path: Path) -> None:
    rows = [f"{folder}/1.jpg,{rater},{rater}" for folder in ("north", "south") for rater in (1, 5)]
    text = "\n".join(["image,score,rater", *rows, "2.jpg,3,1", "2.jpg,4,5", "2.png,9,9"])
    path = table(tmp_path, ["1.jpg", "2.jpg"], text)
    found = read_scores(path, Columns("score", rater="rater"))
    assert {name: value for name, value in scored(found).items() if "2.jpg" in name} == {
        "2.jpg": 3.5
    }
    assert "1.jpg" not in scored(found)


@pytest.mark.parametrize(
    ("header", "cells", "values"),
    [
        ("image;score", ["1.234,5", "1\u202f000,25", "7"], [1234.5, 1000.25, 7]),
        ("image;score", ["4,333", "4,667", "1e1"], [4.333, 4.667, 10]),
        ("image;score", ["4.333", "4.667", "5"], [4.333, 4.667, 5]),
        ("image;score", ["0.512", "12.345", "1.545"], [0.512, 12.345, 1.545]),
        ("image;score", ["4.333", "12.345", "1.5"], [4.333, 12.345, 1.5]),
        ("image;score", ["1.1000", "1.1010", "12.3450"], [1.1, 1.101, 12.345]),
        ("image;score;who", ["4.333;1,2,3", "4.667;1,2", "5;x"], [4.333, 4.667, 5]),
        ("image,score", ["1.100", "1.101", "1.102"], [1.1, 1.101, 1.102]),
        ("image,score", ['"1,234.5"', '"2,000"', "999"], [1234.5, 2000, 999]),
        ("image;score", ["-0,5", ",5", "1,"], [-0.5, 0.5, 1]),
        ("image;score", ["\u22122,5", "-1", "0"], [-2.5, -1, 0]),
        ("image;score", ["1'234.5", "2\u2019000", "7"], [1234.5, 2000, 7]),
        ("image,score", ["1 234", "2\u202f000.5", "3\u00a0000"], [1234, 2000.5, 3000]),
    ],
)
def test_commas_in_numbers(
    header: str, cells: list[str], values: list[float], tmp_path: Path
) -> None:
    rows = [f"p{i}.jpg{header[5]}{cell}" for i, cell in enumerate(cells)]
    path = table(tmp_path, ["p0.jpg", "p1.jpg", "p2.jpg"], "\n".join([header, *rows]))
    assert list(scored(read_scores(path, Columns("score"))).values()) == values


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (['"1,532"', '"1,610"', "987"], "line 2: score '1,532' may have a decimal comma or"),
        (['"6,2"', "5.5", "7"], "line 3: score '5.5' is not a finite number"),
        (['"1,234,567"', '"6,25"', "7"], "line 3: score '6,25' is not a finite number"),
    ],
)
def test_numbers_that_are_not_clear_are_refused(
    cells: list[str], message: str, tmp_path: Path
) -> None:
    rows = [f"p{i}.jpg,{cell}" for i, cell in enumerate(cells)]
    path = table(tmp_path, ["p0.jpg", "p1.jpg", "p2.jpg"], "\n".join(["image,score", *rows]))
    with pytest.raises(DataError, match=re.escape(message)):
        read_scores(path, Columns("score"))


def test_splits_have_the_names_of_folders(tmp_path: Path) -> None:
    marks = {"train": "train", "Training": "train", "val": "val", "valid": "val", "dev": "val",
             "VALIDATION": "val", "test": "test", "testing": "test", "": None}  # fmt: skip
    names = [f"p{i}.jpg" for i in range(len(marks))]
    rows = [f"{name},1,{mark}" for name, mark in zip(names, marks, strict=True)]
    path = table(tmp_path, names, "\n".join(["image,score,split", *rows]))
    assert read_scores(path, Columns("score")).marks == list(marks.values())


def test_words_for_no_score_are_no_scores(tmp_path: Path) -> None:
    words = ["", "NaN", "n/a", "NA", "-", "#N/A", "#NV", "#DIV/0!", "None", "null", "\u2013"]
    names = [f"p{i}.jpg" for i in range(len(words) + 3)]
    cells = [*(f"{word}," for word in words), "1,1", "2,2", "3,0"]
    rows = [f"{name},{cell}" for name, cell in zip(names, cells, strict=True)]
    path = table(tmp_path, names, "\n".join(["image,score,weight", *rows]))
    scores = read_scores(path, Columns("score"))
    assert list(scored(scores).values()) == [1, 2, 3]
    assert scores.unscored == len(words)
    assert scores.named == set(names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,score\n"p1.jpg,1\np2.jpg,1\n"p3.jpg,2\n', "line 2 has a quotation mark"),
        ('image,score,c\np1.jpg,1,\np2.jpg,1,"nice\np3.jpg,2,\n', "line 3 has a quotation mark"),
        ('image,c,score\np1.jpg,"ok,1\np2.jpg,"bad,1\n', "line 2 has a quotation mark"),
        ('image,score\n"p1.jpg\np2.jpg",1\np3.jpg,2\n',
         "line 3: quotation marks join the lines from 2 on to one name"),
    ],
)  # fmt: skip
def test_a_stray_quote_is_named_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = table(tmp_path, ["p1.jpg", "p2.jpg", "p3.jpg"], text)
    with pytest.raises(DataError, match=message):
        read_scores(path, Columns("score"))


def test_cells_of_several_lines_and_inches_are_no_stray_quotes(tmp_path: Path) -> None:
    text = 'image,score,c\np1.jpg,1,"nice,\nquiet"\np2.jpg,2,5" wide\np3.jpg,3,"a ""b"""\n'
    path = table(tmp_path, ["p1.jpg", "p2.jpg", "p3.jpg"], text)
    assert list(scored(read_scores(path, Columns("score"))).values()) == [1, 2, 3]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (Columns("safe", option="--score_column"), "choose one with --score_column: who, score"),
        (Columns("image", option="--score_column"), "--score_column=image is not a score; choose"),
        (Columns("image"), "--study=image is not a score; choose"),
        (Columns("score", rater="image"), "--rater_column=image is the column of the pictures"),
        (Columns("score", rater="score"), "--rater_column=score is the column of the scores"),
    ],
)
def test_an_error_names_the_option_of_the_column(
    columns: Columns, message: str, tmp_path: Path
) -> None:
    rows = "\n".join(f"p{i}.jpg,1,{i}" for i in range(3))
    path = table(tmp_path, [f"p{i}.jpg" for i in range(3)], f"image,who,score\n{rows}")
    with pytest.raises(DataError, match=message):
        read_scores(path, columns)


def test_two_names_of_one_file_are_no_ratings(tmp_path: Path) -> None:
    text = "image,score\np1.jpg,1\n./p1.jpg,2\np2.jpg,3\n"
    with pytest.raises(DataError, match=r"line 3: p1\.jpg is there already, in line 2") as caught:
        read_scores(table(tmp_path, ["p1.jpg", "p2.jpg"], text), Columns("score"))
    assert "--rater_column" not in str(caught.value)
    assert "'p1.jpg' and './p1.jpg' are the same file" in str(caught.value)


def test_a_spreadsheet_is_no_table(tmp_path: Path) -> None:
    for start in (b"PK\3\4", b"\xd0\xcf\x11\xe0"):
        path = table(tmp_path, [], start + bytes(99), "r.xlsx")
        with pytest.raises(DataError, match=r"r\.xlsx is a spreadsheet; save it as CSV"):
            read_scores(path, Columns("score"))


def test_ratings_of_missing_pictures_are_not_in_the_agreement(tmp_path: Path) -> None:
    rows = ["a.jpg,1,1", "a.jpg,2,2", "b.jpg,1,3", "b.jpg,2,5", "c.jpg,1,3"]
    text = "\n".join(["image,who,score", *rows, "gone.jpg,1,9", "gone.jpg,2,0"])
    path = table(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], text)
    found = read_scores(path, Columns("score", rater="who")).agreement
    assert found == agreement([0, 0, 1, 1, 2], [1, 2, 3, 5, 3])


def test_all_faults_are_in_one_line(tmp_path: Path) -> None:
    rows = ["a.jpg,x,1,", "b.jpg,1,-1,held", ",3,1,", "gone.jpg,1,1,", "./a.jpg,2,1,", "1,2"]
    path = table(tmp_path, ["a.jpg", "b.jpg"], "\n".join(["image,score,weight,split", *rows]))
    with pytest.raises(DataError) as caught:
        read_scores(path, Columns("score"))
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "line 2: score 'x' is not", "line 3: weight -1", "line 3: split 'held'", "; 6 more: ",
        "line 4: no picture is named", "line 5: 'gone.jpg' has no picture",
        "line 6: a.jpg is there already, in line 2", "line 7: 2 values for 4 columns",
    ):  # fmt: skip
        assert part in message
    with pytest.raises(DataError, match=r"no column picture \(.*; no column safe; choose one"):
        read_scores(path, Columns("safe", image="picture"))


# A name in a table, the files, and the rule by which the first file is found.
NAMES = {
    "no suffix": ("p1", ["p1.jpg", "p2.jpg"], "the suffix"),
    "another suffix": ("p1.png", ["p1.jpg", "p2.jpg"], "the suffix"),
    "case": ("P1.JPG", ["p1.jpg", "p2.jpg"], "upper and lower case"),
    "backslash": (r"a\p1.jpg", ["a/p1.jpg", "b/p1.jpg"], "slashes"),
    "an absolute path": (r"C:\my data\a\p1.jpg", ["a/p1.jpg", "b/p1.jpg"],
                         "the folder and slashes"),
    "a leading slash": ("/a/p1.jpg", ["a/p1.jpg", "b/p1.jpg"], "the folder"),
    "a folder more": ("data/a/p1.jpg", ["a/p1.jpg", "b/p1.jpg"], "the folder"),
    "a folder less": ("p1.jpg", ["images/p1.jpg", "images/p2.jpg"], "the folder"),
    "a folder above": ("../data/p1.jpg", ["p1.jpg", "p2.jpg"], "the folder"),
    "NFD": ("e\u0301.jpg", ["é.jpg", "e.jpg"], "the Unicode form"),
    "NFC": ("é.jpg", ["e\u0301.jpg", "e.jpg"], "the Unicode form"),
    "a dash": ("a\u20131.jpg", ["a-1.jpg", "a1.jpg"], "the Unicode form"),
    "spaces": ("p 1.jpg\u00a0", ["p 1.jpg", "p1.jpg"], ""),
    "two spaces": ("p  1.jpg", ["p 1.jpg", "p1.jpg"], "spaces or quotes"),
    "an invisible mark": ("\u200bp1.jpg", ["p1.jpg", "p2.jpg"], "spaces or quotes"),
    "1.0": ("1.0", ["1.jpg", "10.jpg"], "leading zeros or decimals"),
    "1,0": ('"1,0"', ["1.jpg", "10.jpg"], "leading zeros or decimals"),
    "lost zeros": ("7", ["0007.jpg", "0070.jpg"], "leading zeros or decimals"),
    "1e+05": ("1e+05", ["100000.jpg", "1.jpg"], "leading zeros or decimals"),
    "URL": ("a%20%C3%A9.jpg", ["a é.jpg", "a.jpg"], "URL encoding"),
    "an address": ("https://x.org/i/p1.jpg?w=9", ["p1.jpg", "p2.jpg"],
                   "the folder and URL encoding"),
    "UTF-8 as Latin": ("ZÃ¼rich.jpg", ["Zürich.jpg", "Zurich.jpg"], "a damaged encoding"),
    "underscores": ("p_1_a.jpg", ["p 1:a.jpg", "p1.jpg"], "spaces and special characters"),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_differs_from_its_file(case: str, tmp_path: Path) -> None:
    name, files, rule = NAMES[case]
    text = f"image,score\n{name},1\nplain2.jpg,2\nplain3.jpg,3\n"
    path = table(tmp_path, [*files, "plain2.jpg", "plain3.jpg"], text)
    scores = read_scores(path, Columns("score"))
    assert scored(scores) == {files[0]: 1, "plain2.jpg": 2, "plain3.jpg": 3}
    said = f"1 names differ from those of the pictures, and are matched: 1 by {rule};"
    assert [said in note for note in scores.notes] == ([True] if rule else [])


@pytest.mark.parametrize(
    ("name", "files", "reason"),
    [
        ("p.jpg", ["a/p.jpg", "b/p.jpg"], "2 pictures fit, a/p.jpg and b/p.jpg"),
        ("p", ["p.jpg", "p.png"], "2 pictures fit, p.jpg and p.png"),
        ("c/p.jpg", ["a/p.jpg"], "a/p.jpg is in another folder"),
        ("1.5E+11", ["150000000001.jpg"], "a spreadsheet has rounded the number"),
        ("01. Feb", ["1-2.jpg"], "a spreadsheet has taken the name for a date"),
        ("PLAIN2.jpg", ["p.jpg"], "plain2.jpg fits, but is that of another row"),
        ("plain20.jpg", ["p.jpg"], "the most similar picture is plain2.jpg"),
    ],
)
def test_a_name_without_a_picture_has_a_likely_reason(
    name: str, files: list[str], reason: str, tmp_path: Path
) -> None:
    text = f"image,score\nplain2.jpg,2\nplain3.jpg,3\n{name},1\n"
    path = table(tmp_path, [*files, "plain2.jpg", "plain3.jpg"], text)
    scores = read_scores(path, Columns("score"))
    (note,) = scores.notes
    start = f"scores.csv: 1 of 3 rows do not find their picture; line 4: {name!r} has no picture"
    assert note.startswith(f"{start} ({reason}")
    for folder in ("plain2.jpg", "plain3.jpg", *files):
        (tmp_path / folder).unlink()
    with pytest.raises(DataError, match="the folder has no pictures; --data_dir is where"):
        read_scores(path, Columns("score"))


def test_shrout_and_fleiss() -> None:
    # Table 2 of Shrout & Fleiss 1979: 6 targets, 4 judges; table 4 has ICC(1,1) and ICC(1,4).
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = agreement(np.repeat(np.arange(6), 4), np.ravel(ratings))
    assert (round(found.single, 2), round(found.mean, 2), found.n0) == (0.17, 0.44, 4)
    assert found.ceiling == pytest.approx(np.sqrt(0.4428), abs=1e-3)


@pytest.mark.parametrize("most", range(2, 13))
def test_the_agreement_is_that_of_the_analysis_of_variance(most: int) -> None:
    random = np.random.default_rng(most)
    counts = random.integers(2 if most > 2 else 1, most + 1, 50)
    groups = [random.normal(random.normal(0, 2), 1.5, count) + 1e6 for count in counts]
    found = agreement(np.repeat(np.arange(50), counts), np.concatenate(groups))
    # F of a one-way analysis is the ratio of the mean squares, and ICC(1,k) = 1 - 1/F.
    f = stats.f_oneway(*groups).statistic
    n0 = (counts.sum() - (counts**2).sum() / counts.sum()) / 49
    assert found.mean == pytest.approx(1 - 1 / f, rel=1e-6)
    assert found.single == pytest.approx((f - 1) / (f - 1 + n0), rel=1e-6)
    assert (found.least, found.most, found.ratings) == (counts.min(), counts.max(), counts.sum())


def test_without_repeats_there_is_no_agreement() -> None:
    for groups, values in (([0, 1, 2], [1, 2, 3]), ([0, 0], [1, 2]), ([0, 0, 1, 1], [1, 1, 1, 1])):
        assert "too few or too equal" in str(agreement(groups, values))


def long_table(folder: Path, count: int = 40) -> list[str]:
    """Write long.csv with 1 to 5 ratings of each picture; return its rows."""
    make_scored(folder, count)
    (folder / "scores.csv").unlink()
    random = np.random.default_rng(0)
    rows = [
        f"p{i:03d}.png,r{j},{i / 4 + random.normal():.2f}"
        for i in range(count)
        for j in range(1 + i % 5)
    ]
    (folder / "long.csv").write_text("\n".join(["photo,person,safety", *random.permutation(rows)]))
    return rows


def test_ratings_are_averaged_and_their_agreement_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [row.split(",") for row in long_table(tmp_path / "data")]
    options = ["--scores=long.csv", "--image_column=photo", "--score_column=safety",
               "--rater_column=person", "--weighting=votes"]  # fmt: skip
    groups = {name: [float(r[2]) for r in rows if r[0] == name] for name in {r[0] for r in rows}}
    given = dict(option[2:].split("=") for option in options)
    config = resolve(TrainConfig(data_dir="data", options=given))
    examples, _ = Perception().all_examples(config)
    for name, value, weight in zip(examples.names, examples.targets, examples.weights, strict=True):
        assert value == pytest.approx(np.mean(groups[name]))
        assert weight == len(groups[name])
    f = stats.f_oneway(*groups.values()).statistic
    line = "Agreement of raters: 120 ratings of 40 pictures, 1 to 5 each (n0=2.983); ICC(1,1)="
    ceiling = f"ICC(1,k)={1 - 1 / f:.4f}, so that Pearson can reach about {np.sqrt(1 - 1 / f):.4f}"
    assert main(["--data_dir=data", *options, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert re.search(
        rf"Baseline that sees no picture: .*\n{re.escape(line)}.*{re.escape(ceiling)}\n", out
    )
    quick = ["--model=lenet", "--weights=none", "--epochs=1", "--wandb=False", "--run_name=r"]
    assert main(["--data_dir=data", *options, *quick]) == 0
    log = (tmp_path / "outputs/logger/r.log").read_text()
    assert re.search(rf"Baseline that sees .*\n.*{re.escape(line)}.*{re.escape(ceiling)}\n", log)
    capsys.readouterr()
    assert main(["--data_dir=data", *options[:3], *quick]) == 2
    assert "--rater_column (32 pictures have several rows)" in capsys.readouterr().err
    assert main(["--data_dir=data", *options[:3], options[4], *quick]) == 2
    assert "--weighting=votes needs the ratings" in capsys.readouterr().err


def test_raters_may_spell_a_name_differently(tmp_path: Path) -> None:
    names = [
        "p0.jpg",
        "P0.JPG",
        "p0",
        r"a\p0.jpg",
        "A/P0",
        "7.jpg",
        "007.jpg",
        "07",
        "7.0",
        "b.png",
    ]
    rows = [f"{name},r{i},{i}" for i, name in enumerate(names)]
    others = ["b/p0.jpg,x,99", "p0.png,y,99", "x/a/p0.jpg,z,99"]
    path = table(
        tmp_path, ["a/p0.jpg", "7.jpg", "b.png"], "\n".join(["image,who,score", *rows, *others])
    )
    found = read_scores(path, Columns("score", rater="who"))
    assert {k: v for k, v in scored(found).items() if v != 99} == {
        "a/p0.jpg": 2, "7.jpg": 6.5, "b.png": 9
    }  # fmt: skip
    assert found.agreement is not None
    assert (found.agreement.ratings, found.agreement.most) == (10, 5)
    assert "8 names differ from those of the pictures, and are matched" in found.notes[0]
    assert "3 of 13 rows do not find their picture; line 12: 'b/p0.jpg'" in found.notes[1]
    text = "image,score\np0.jpg,1\nP0.JPG,2\n7.jpg,3\nb.png,4\n"
    notes = read_scores(table(tmp_path, ["p0.jpg"], text), Columns("score")).notes
    assert "'P0.JPG' has no picture (p0.jpg fits, but is that of another row)" in notes[-1]


def test_numbers_are_no_names_where_another_column_has_other_ones(tmp_path: Path) -> None:
    files = [f"pics/{i}.jpg" for i in range(1, 9)]
    rows = [f"{9 - i},{file},{file},{i}" for i, file in enumerate(files, 1)]
    path = table(tmp_path, files, "\n".join(["nr,comment,photo,score", *rows]))
    message = (
        r"line 2: picture '8' would be pics/8\.jpg, but comment names pics/1\.jpg; use"
        " --image_column=comment, or remove that column"
    )
    with pytest.raises(DataError, match=message):
        read_scores(path, Columns("score", image="nr"))
    assert list(scored(read_scores(path, Columns("score", image="photo")))) == files
    rows = [f"{i},{file},{i}" for i, file in enumerate(files, 1)]
    path.write_text("\n".join(["nr,photo,score", *rows]))
    assert list(scored(read_scores(path, Columns("score", image="nr")))) == files


def test_a_person_who_rates_twice_counts_once_and_marks_must_agree(tmp_path: Path) -> None:
    text = (
        "image,score,who,split\na,1,x,\na,4,y,\na,3,x,\nb,5,x,val\nb,5,y,\nc,1,x,\nd,,x,\ne,NA,x,\n"
    )
    path = table(tmp_path, ["a", "b", "c"], text)
    with pytest.raises(DataError, match="line 6: split '' differs from that of other rows"):
        read_scores(path, Columns("score", rater="who"))
    path.write_text(text.replace("val", ""))
    scores = read_scores(path, Columns("score", rater="who"))
    assert scored(scores) == {"a": 3, "b": 5, "c": 1}
    assert scores.notes[0] == "scores.csv: 2 rows without a score are left out"
    assert "1 ratings repeat one of the same rater and picture" in "\n".join(scores.notes)
    path.write_text(text.replace("val", "").replace("a,4,y", "a,4,"))
    with pytest.raises(DataError, match="line 3: no rater is named; fill the column who"):
        read_scores(path, Columns("score", rater="who"))


def test_a_table_of_another_name_is_named_with_the_options_that_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_scored(tmp_path / "data")
    (folder / "notes.csv").write_text("who,what\nme,nothing\n")
    lines = (folder / "scores.csv").read_text().replace("image,score", "Photo name,Safe")
    (folder / "scores.csv").rename(folder / "ratings.tsv")
    (folder / "ratings.tsv").write_text(lines.replace(",", "\t"))
    for task in ([], ["--task=perception"]):
        assert main(["--data_dir=data", "--dry_run", *task]) == 2
        err = capsys.readouterr().err
        assert "has no scores.csv, but ratings.tsv with the columns Photo name, Safe; read" in err
    options = shlex.split(err.partition("read it with ")[2])
    assert main(["--data_dir=data", "--dry_run", *options]) == 0
    (folder / "ratings.tsv").rename(tmp_path / "elsewhere.tsv")
    options[0] = f"--scores={tmp_path / 'elsewhere.tsv'}"
    assert main(["--data_dir=data", "--dry_run", *options]) == 0
    assert re.search(r"\bpictures +\d", capsys.readouterr().out)


def examples() -> list[tuple[str, list[str]]]:
    """The tables of the page on data, each with the options in the text before it."""
    text, found = (ROOT / PAGE).read_text(encoding="utf-8"), []
    for _, language, code in code_blocks(PAGE):
        if language == "csv":
            before = text[: text.index(code)].rpartition("\n\n")[0].rpartition("\n\n")[2]
            options = re.findall(r"--[a-z_]+=[\w.]+", before)
            found.append((code, options if "--scores" in before else []))
    return found


@pytest.mark.parametrize(("code", "options"), examples())
def test_every_table_of_the_page_is_read(
    code: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = dict(option[2:].split("=") for option in options)
    if given.get("scores") == "names.csv":
        files = ["north/Café 1.jpg", "north/0002.jpg", "north/p3.JPG", "north/p 4.jpg"]
    else:
        files = re.findall(r'(?m)^"?(.*?\.jpg)', code)
    files = [unicodedata.normalize("NFC", file) for file in dict.fromkeys(files)]
    table(tmp_path, files, code, given.get("scores", "scores.csv"))
    config = resolve(TrainConfig(data_dir=str(tmp_path), options=given))
    read, _ = Perception().all_examples(config)
    assert sorted(read.names) == sorted(files)
    assert all(path.exists() for path in read.pictures)  # type: ignore[union-attr]
    assert np.isfinite(read.targets.astype(np.float64)).all()


def test_the_page_has_one_example_for_each_form() -> None:
    assert len(examples()) == 5
