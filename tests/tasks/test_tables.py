"""Tables of text: cells stay as they are written, and every row knows its line."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from deep_cnn.errors import DataError
from deep_cnn.files import to_csv
from deep_cnn.tasks.scores import Columns, read_scores
from deep_cnn.tasks.tables import read_columns, read_table


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "scores.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(table.itertuples(name=None))


def test_names_that_look_like_something_else_are_names(tmp_path: Path) -> None:
    names = ("NA", "007", "null", "nan", "None", "1e3", "True", "-", "#1")
    path = write(tmp_path, "image,score\n" + "".join(f"{name},1\n" for name in names))
    for name in names:
        (tmp_path / name).write_bytes(b"")
    examples = read_scores(path, Columns("score")).examples
    assert examples.names == names
    assert examples.targets.tolist() == [1.0] * len(names)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_row_has_the_line_on_which_it_ends(tmp_path: Path, newline: str) -> None:
    lines = ["\ufeffa,b", "1,x", "", "  ", ",", '"2', '2",y', '"say ""z""",', "4,last"]
    path = write(tmp_path, newline.join(lines))
    cells = [("1", "x"), (f"2{newline}2", "y"), ('say "z"', ""), ("4", "last")]
    expected = [(line, *row) for line, row in zip((2, 7, 8, 9), cells, strict=True)]
    assert rows(read_table(path)) == expected


def test_columns_and_rows_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, " a \tb\tc\ta\n1\tx\t3\t4\n\n5\ty\tx\t6\n7\tx\t8\t9\n")
    assert read_columns(path, "\t") == ["a", "b", "c", "a"]
    table = read_table(path, "\t", columns=["c", "a"], where=("b", "x"))
    assert list(table.columns) == ["c", "a"]
    assert rows(table) == [(2, "3", "4"), (5, "8", "9")]
    assert read_table(path, "\t", columns=["a"], where=("b", "none")).empty


@pytest.mark.parametrize("text", ["", "a,b", "a,b\n", "\n"])
def test_a_table_without_rows_is_empty(tmp_path: Path, text: str) -> None:
    assert read_table(write(tmp_path, text)).empty


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"line 3: 1 values for 2 columns \(a,b\); make them agree"),
        ("a,b\n1,2\n3,4,\n", "line 3: 3 values for 2 columns"),
        ('a,b\n"1\n\n",2\n\n3,4,5\n', "line 6: 3 values for 2 columns"),
        ('a,b\n1,2\n"3,4\n5,6\n', "line 3 has a quotation mark that is not closed"),
        ("a,b\n1,2\n3,\0\n", "line 3 has a NUL byte"),
        (b"a,b\n1,\x81\n", "is not UTF-8 text; save it as CSV in UTF-8"),
    ],
)
def test_what_is_no_table_is_an_error(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,score\n"a\nb",1\n\nc,1_0\n', "line 5: score '1_0' is not a finite number"),
        ("image,score\n\n\na,1\nb,inf\n", "line 5: score 'inf' is not a finite number"),
        ("image,score\na,1\n\n ./a ,2\n", "line 4: a is there already, in line 2; remove one"),
        ("image,score,split\n\na,1,\nb,2,held\n", "line 4: split 'held' is unknown"),
        ("image,score\n\n,1\n", "line 3: no picture is named"),
    ],
)
def test_a_wrong_cell_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_scores(write(tmp_path, text), Columns("score"))


def test_a_folder_and_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="cannot be read"):
            read_table(path)


def test_numbers_are_written_as_python_writes_them() -> None:
    cells = [1e-05, 1e22, math.inf, math.nan, None, 3, True, 10**30, 'a,"b"\nc', "NA", 0.1 + 0.2]
    table = pd.DataFrame([[i, cell] for i, cell in enumerate(cells)], columns=["i", "x"],
                         dtype=object)  # fmt: skip
    expected = ["1e-05", "1e+22", "inf", "nan", "", "3", "True", str(10**30),
                '"a,""b""\nc"', "NA", "0.30000000000000004"]  # fmt: skip
    assert to_csv(table) == "i,x\n" + "".join(f"{i},{x}\n" for i, x in enumerate(expected))
