"""Distributions against their definitions, and the search: order, kinds, no repetition."""

import csv
import io
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from deep_cnn.sweep.search.propose import Observation, propose
from deep_cnn.sweep.spec.distributions import DISTRIBUTIONS, Distribution
from deep_cnn.sweep.spec.parse import read_sweep
from deep_cnn.sweep.spec.points import first_points
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key, distinct, value_key
from tests.conftest import Command

LN = math.log
REFERENCES: dict[str, tuple[dict[str, Any], Any]] = {
    "uniform": ({"min": 2, "max": 5}, stats.uniform(2, 3)),
    "log_uniform": ({"min": -3, "max": 1}, stats.loguniform(math.exp(-3), math.exp(1))),
    "log_uniform_values": ({"min": 0.001, "max": 10}, stats.loguniform(0.001, 10)),
    "inv_log_uniform": ({"min": -3, "max": 1}, stats.loguniform(math.exp(-1), math.exp(3))),
    "inv_log_uniform_values": ({"min": 0.001, "max": 10}, stats.loguniform(0.001, 10)),
    "normal": ({"mu": 2, "sigma": 3}, stats.norm(2, 3)),
    "log_normal": ({"mu": 2, "sigma": 3}, stats.lognorm(s=3, scale=math.exp(2))),
    "beta": ({"a": 2, "b": 5}, stats.beta(2, 5)),
}
US = np.linspace(0.001, 0.999, 333)


def make(name: str, **keys: Any) -> Distribution:
    """The distribution that a parameter with these keys has."""
    return DISTRIBUTIONS[name](distribution=name, **keys)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_distribution_has_its_quantiles(name: str) -> None:
    numbers, reference = REFERENCES[name]
    distribution = make(name, **numbers)
    assert [distribution.ppf(u) for u in US] == pytest.approx(reference.ppf(US).tolist(), rel=1e-9)
    assert distribution.size is None


@pytest.mark.parametrize("q", [0.1, 1, 10])
@pytest.mark.parametrize("name", [n for n in REFERENCES if "inv" not in n])
def test_a_quantised_one_is_the_nearest_multiple_half_to_even(name: str, q: float) -> None:
    numbers, reference = REFERENCES[name]
    distribution = make(f"q_{name}", **numbers, q=q)
    expected = np.round(reference.ppf(US) / q) * q
    found = [distribution.ppf(u) for u in US]
    assert found == pytest.approx(expected.tolist(), rel=1e-9)
    assert {type(value) for value in found} == {int if isinstance(q, int) else float}
    if distribution.size is not None:
        assert set(found) <= set(distribution.values)
        assert len(distribution.values) == distribution.size


def test_quantised_values_may_leave_the_bounds() -> None:
    distribution = make("q_uniform", min=1, max=10, q=4)
    assert {distribution.ppf(u) for u in np.linspace(0, 1, 500)} == {0, 4, 8}
    wide = make("q_log_uniform_values", min=16, max=250, q=100)
    assert {wide.ppf(u) for u in np.linspace(0, 1, 500)} == {0, 100, 200}


def test_half_a_step_outside_has_no_probability() -> None:
    distribution = make("q_uniform", min=16, max=64, q=32)
    assert list(distribution.values) == [32, 64]


def test_the_ends_of_every_distribution_are_finite() -> None:
    for name, (numbers, _) in REFERENCES.items():
        distribution = make(name, **numbers)
        assert all(math.isfinite(distribution.ppf(u)) for u in (0.0, 1.0)), name
    assert make("log_uniform_values", min=1e-5, max=1e-2).ppf(1.0) <= 1e-2


def test_whole_numbers_and_categories_are_equally_likely() -> None:
    counts = np.bincount(
        [make("int_uniform", min=3, max=7).ppf(u) for u in np.linspace(0, 1, 5000)]
    )
    assert counts[3:].tolist() == pytest.approx([1000] * 5, abs=2)
    chosen = [make("categorical", values=["a", None, [1]]).ppf(u) for u in np.linspace(0, 1, 3000)]
    assert [chosen.count(v) for v in ("a", None, [1])] == pytest.approx([1000] * 3, abs=2)
    three = make("categorical_w_probabilities", values=list("abc"), probabilities=[0.5, 0, 0.5])
    weighted = [three.ppf(u) for u in np.linspace(0, 1, 2000)]
    assert weighted.count("b") == 0
    assert weighted.count("a") == pytest.approx(1000, abs=2)


@pytest.mark.parametrize(
    ("low", "high", "q", "values"),
    [
        (0, 2.5, 1, [0.0, 1.0, 2.0]),
        (1, 2, 0.1, [1.0, 1.1, 1.2000000000000002, 1.3000000000000003]),
        (0, 6, 2, [0, 2, 4]),
        (0, 3, None, [0.0, 1.0, 2.0]),
    ],
)
def test_a_grid_over_multiples_is_numpys_arange(
    low: float, high: float, q: float | None, values: list[float]
) -> None:
    more = {} if q is None else {"q": q}
    grid = make("q_uniform", min=low, max=high, **more).grid
    assert grid is not None
    assert list(map(repr, grid[:4])) == list(map(repr, values))
    assert grid == tuple(np.arange(low, high, 1.0 if q is None else q).tolist())


def test_what_makes_two_values_one() -> None:
    assert value_key(3000000.0) == value_key(3000000)
    assert value_key(float("nan")) == value_key(float("nan"))
    assert value_key({"a": 1, "b": [2]}) == value_key({"b": [2], "a": 1})
    assert canonical_key({"a": 1, "b": 2}) == canonical_key({"b": 2.0, "a": 1})
    different = [True, 1, "1", None, "None", [1], [1.0], 0.5, False, 0, {"a": 1}, {"a": 1.0}]
    assert len({value_key(value) for value in different}) == len(different)
    day = date(2020, 1, 1)
    assert distinct([1, 1.0, day, "2020-01-01", [day]]) == (1.0, day, "2020-01-01", [day])
    assert isinstance(distinct([1, 1.0])[0], float)


def spec_of(folder: Path, parameters: str, method: str) -> SweepSpec:
    path = folder / "s.yaml"
    path.write_text(f"method: {method}\nprogram: x.py\nparameters:\n{parameters}")
    return read_sweep(path)


def all_points(spec: SweepSpec, most: int = 2000, seed: int = 0) -> list[Point]:
    return first_points(spec, seed, most)


def test_one_at_a_time_is_as_all_at_once(tmp_path: Path) -> None:
    text = "  a: {values: [1, 2, 3]}\n  b: {min: 1, max: 4}\n"
    for method in ("grid", "random"):
        spec = spec_of(tmp_path, text, method)
        points: list[Point] = []
        while (proposal := propose(spec, 0, [Observation(p) for p in points])) is not None:
            points.append(proposal.point)
        assert points == all_points(spec)
        assert len(points) == 12


def test_a_grid_is_sorted_by_name_last_fastest_without_duplicates(tmp_path: Path) -> None:
    text = "  b: {values: [1, 2, 3, 2.0]}\n  a: {values: [a, b, a]}\n  c: {value: x}\n"
    points = all_points(spec_of(tmp_path, text, "grid"))
    assert [(p["a"], p["b"]) for p in points] == [(a, b) for a in "ab" for b in (1, 2, 3)]
    assert all(p["c"] == "x" for p in points)


def test_the_kinds_of_a_grid(tmp_path: Path) -> None:
    text = "  i: {min: -52, max: 10}\n"
    points = all_points(spec_of(tmp_path, text, "grid"))
    assert [p["i"] for p in points] == list(range(-52, 11))
    text = "  q: {distribution: q_uniform, min: 0.0, max: 1.0, q: 0.1}\n"
    points = all_points(spec_of(tmp_path, text, "grid"))
    assert [p["q"] for p in points] == pytest.approx(np.arange(0.0, 1.0, 0.1).tolist())
    text = "  q: {distribution: q_uniform, min: 1, max: 10, q: 3}\n"
    assert [p["q"] for p in all_points(spec_of(tmp_path, text, "grid"))] == [1, 4, 7]
    text = "  n: {parameters: {x: {values: [1, 2]}, y: {parameters: {x: {values: [3, 4]}}}}}\n"
    points = all_points(spec_of(tmp_path, text, "grid"))
    assert [tuple(p.values()) for p in points] == [(1, 3), (1, 4), (2, 3), (2, 4)]


def test_random_repeats_nothing_while_something_is_unused(tmp_path: Path) -> None:
    text = "  a: {values: [1, 2, 3]}\n  b: {min: 1, max: 6}\n  c: {values: [true, false, 1]}\n"
    points = all_points(spec_of(tmp_path, text, "random"))
    assert len(points) == 54
    assert len({canonical_key(p) for p in points}) == 54
    weighted = "  a: {values: [1, 2, 3], probabilities: [0.99, 0.01, 0]}\n"
    assert [p["a"] for p in all_points(spec_of(tmp_path, weighted, "random"))] == [1, 2]


def test_random_is_seeded_and_independent(tmp_path: Path) -> None:
    text = "  x: {min: 0.0, max: 1.0}\n  y: {min: 0.0, max: 1.0}\n"
    spec = spec_of(tmp_path, text, "random")
    one, two, other = (all_points(spec, 1500, seed) for seed in (0, 0, 1))
    assert one == two != other
    x, y = (np.array([p[k] for p in one]) for k in "xy")
    assert stats.kstest(x, "uniform").pvalue > 0.001
    assert stats.kstest(y, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.1
    assert abs(np.corrcoef(x[1:], x[:-1])[0, 1]) < 0.1


def test_sample_prints_configurations_only(tmp_path: Path, deep_cnn: Command) -> None:
    (tmp_path / "s.yaml").write_text(
        "method: random\nprogram: x.py\nparameters:\n  lr: {min: 0.0, max: 1.0}\n"
        "  b: {values: [[1, 2], 'a,b', null]}\n  a: {value: 7}\n"
    )
    done = deep_cnn("sample", "s.yaml", "-n", 50, "--seed", 3)
    assert (done.returncode, done.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["a", "b", "lr"]
    assert len(rows) == 50
    assert {row["b"] for row in rows} == {"[1, 2]", "a,b", "null"}
    assert deep_cnn("sample", "s.yaml", "-n50", "--seed=3").stdout == done.stdout
    same = json.loads(deep_cnn("sample", "s.yaml", "-n", 50, "--seed=3", "--format=json").stdout)
    assert [float(row["lr"]) for row in rows] == [point["lr"] for point in same]
    commands = deep_cnn("sample", "s.yaml", "-n", 2, "--seed=3", "--format=commands").stdout
    assert commands.splitlines()[0].startswith("/usr/bin/env python x.py --a=7 ")
