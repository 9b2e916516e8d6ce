"""Bayesian search: it converges, is seeded, sees running and failed trials, repeats nothing."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from deep_cnn.sweep.bayes import _imputed, _place, _tamed, suggest
from deep_cnn.sweep.examine import read_spec
from deep_cnn.sweep.search import STARTUP, propose
from deep_cnn.sweep.space import Point, Seen, continuous, identity
from deep_cnn.sweep.spec import Metric, SweepSpec
from tests.test_sweep_space import REFERENCES


def spec_of(folder: Path, parameters: str) -> SweepSpec:
    path = folder / "s.yaml"
    path.write_text(f"method: bayes\nprogram: x.py\nmetric: {{name: a}}\nparameters:\n{parameters}")
    return read_spec(path)


def search(spec: SweepSpec, loss: Callable[[Point], float | None], count: int) -> list[Seen]:
    seen: list[Seen] = []
    while len(seen) < count and (point := propose(spec, 0, seen)) is not None:
        value = loss(point)
        seen.append(Seen(point, value, value is None))
    return seen


MIXED = """  lr: {distribution: log_uniform_values, min: 1.0e-5, max: 1.0}
  kind: {values: [a, b, true, null]}
  size: {min: 1, max: 100}
  c: {value: 3}
"""


def mixed(point: Point) -> float:
    distance = (math.log10(point["lr"]) + 3) ** 2 / 4 + (point["size"] - 30) ** 2 / 2000
    return float(distance + (0 if point["kind"] is True else 1))


def test_it_finds_the_good_place_in_a_mixed_space_and_repeats_itself(tmp_path: Path) -> None:
    seen = search(spec_of(tmp_path, MIXED), mixed, 30)
    best = min(seen, key=lambda s: s.value or 0)
    assert best.value is not None
    assert best.value < 0.1
    assert best.point["kind"] is True
    assert seen == search(spec_of(tmp_path, MIXED), mixed, 30)
    early = min(s.value for s in seen[:STARTUP] if s.value is not None)
    assert best.value < early


def test_forty_of_forty_are_distinct_among_108(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path,
        "  a: {values: [1, 2, 3]}\n  b: {min: 1, max: 6}\n  c: {values: [x, y, z]}\n"
        "  d: {values: [true, false]}\n",
    )
    seen = search(spec, lambda p: float(p["a"] + abs(p["b"] - 3) + (p["c"] != "y")), 40)
    assert len({identity(s.point) for s in seen}) == 40
    assert min(s.value for s in seen if s.value is not None) == 1.0


def test_a_finite_space_is_exhausted_and_then_ends(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "  a: {min: 1, max: 7}\n  b: {values: [u, v]}\n")
    seen = search(spec, lambda p: float(p["a"]), 100)
    assert len(seen) == len({identity(s.point) for s in seen}) == 14


def test_failed_trials_count_as_the_worst(tmp_path: Path) -> None:
    """A third of the space fails; the search leaves it."""
    spec = spec_of(tmp_path, "  x: {min: 0.0, max: 1.0}\n")
    seen = search(spec, lambda p: None if p["x"] < 0.33 else (p["x"] - 0.5) ** 2, 22)
    assert sum(s.failed for s in seen[STARTUP:]) <= 3
    assert min(s.value for s in seen if s.value is not None) < 1e-3


def test_running_trials_keep_others_away(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "  x: {min: 0.0, max: 1.0}\n  y: {min: 0.0, max: 1.0}\n")
    seen = search(spec, lambda p: (p["x"] - 0.3) ** 2 + (p["y"] - 0.6) ** 2, 15)
    for _ in range(4):
        point = propose(spec, 0, seen)
        assert point
        assert all(s.point != point for s in seen)
        seen.append(Seen(point))
    running = [s.point for s in seen if s.value is None]
    apart = [
        abs(a["x"] - b["x"]) + abs(a["y"] - b["y"]) for a in running for b in running if a != b
    ]
    assert min(apart) > 1e-6


@pytest.mark.parametrize("name", REFERENCES)
def test_the_place_of_a_value_gives_the_value_back(name: str) -> None:
    domain = continuous(name, REFERENCES[name][0])
    for u in (0.01, 0.3, 0.5, 0.77, 0.99):
        assert _place(domain, domain.at(u)) == pytest.approx(u, abs=1e-6)
    if "inv" in name:
        return
    steps = continuous(f"q_{name}", {**REFERENCES[name][0], "q": 0.5})
    for u in (0.1, 0.5, 0.9):
        assert steps.at(_place(steps, steps.at(u))) == pytest.approx(steps.at(u))


def test_the_best_unused_one_by_expected_gain(tmp_path: Path) -> None:
    """Four are left, and one of them lies beside the optimum."""
    spec = spec_of(tmp_path, "  a: {min: 1, max: 60}\n")
    left = (3, 12, 32, 57)
    seen = [Seen({"a": a}, (a - 30.0) ** 2) for a in range(1, 61) if a not in left]
    assert propose(spec, 0, seen) == {"a": 32}


def test_a_value_that_exploded_is_brought_in() -> None:
    assert _tamed([1.0, 2.0, None, 3.0, 1e30], "minimize") == [1.0, 2.0, None, 3.0, 4.0]
    assert _tamed([-1.0, -2.0, -3.0, -1e30], "maximize") == [-1.0, -2.0, -3.0, -4.0]
    assert _tamed([None], "minimize") == [None]


@pytest.mark.parametrize(
    ("impute", "goal", "value"),
    [
        ("worst", "minimize", 3.0),
        ("best", "minimize", 1.0),
        ("worst", "maximize", 1.0),
        ("best", "maximize", 3.0),
        ("latest", "minimize", 2.5),
    ],
)
def test_what_a_failed_trial_counts_as(impute: str, goal: str, value: float) -> None:
    seen = [Seen({"a": 1}, 1.0), Seen({"a": 2}, 3.0)]
    failed = Seen({"a": 3}, None, failed=True, latest=2.5)
    assert _imputed(Metric("m", goal, impute=impute), failed, [*seen, failed]) == value
    assert _imputed(Metric("m", goal), failed, [failed]) == 0.0


def test_constants_only(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "  a: {value: 1}\n")
    assert suggest(spec.space, Metric("a"), 0, [Seen({"a": 1}, 0.5)]) == {"a": 1}
