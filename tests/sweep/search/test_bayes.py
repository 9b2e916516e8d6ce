"""Bayesian search: it converges, is seeded, sees running and failed trials, repeats nothing."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from deep_cnn.results import Metric
from deep_cnn.sweep.search.bayes import _Coordinates, _imputed, suggest, winsorize
from deep_cnn.sweep.search.propose import STARTUP, Observation, propose
from deep_cnn.sweep.spec.numeric import Numeric
from deep_cnn.sweep.spec.parse import read_sweep
from deep_cnn.sweep.spec.schema import SweepMetric, SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key
from tests.sweep.spec.test_distributions import REFERENCES, make


def spec_of(folder: Path, parameters: str) -> SweepSpec:
    path = folder / "s.yaml"
    path.write_text(f"method: bayes\nprogram: x.py\nmetric: {{name: a}}\nparameters:\n{parameters}")
    return read_sweep(path)


def search(spec: SweepSpec, loss: Callable[[Point], float | None], count: int) -> list[Observation]:
    seen: list[Observation] = []
    while len(seen) < count and (proposal := propose(spec, 0, seen)) is not None:
        value = loss(proposal.point)
        seen.append(Observation(proposal.point, value, value is None, u=proposal.u))
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
    assert len({canonical_key(s.point) for s in seen}) == 40
    assert min(s.value for s in seen if s.value is not None) == 1.0


def test_a_finite_space_is_exhausted_and_then_ends(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "  a: {min: 1, max: 7}\n  b: {values: [u, v]}\n")
    seen = search(spec, lambda p: float(p["a"]), 100)
    assert len(seen) == len({canonical_key(s.point) for s in seen}) == 14


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
        proposal = propose(spec, 0, seen)
        assert proposal
        assert all(s.point != proposal.point for s in seen)
        seen.append(Observation(proposal.point, u=proposal.u))
    running = [s.point for s in seen if s.value is None]
    apart = [
        abs(a["x"] - b["x"]) + abs(a["y"] - b["y"]) for a in running for b in running if a != b
    ]
    assert min(apart) > 1e-6


@pytest.mark.parametrize("name", REFERENCES)
def test_the_cdf_of_a_value_gives_the_value_back(name: str) -> None:
    found = make(name, **REFERENCES[name][0])
    assert isinstance(found, Numeric)
    for u in (0.01, 0.3, 0.5, 0.77, 0.99):
        assert found.cdf(found.ppf(u)) == pytest.approx(u, abs=1e-6)
    if "inv" in name:
        return
    steps = make(f"q_{name}", **REFERENCES[name][0], q=0.5)
    assert isinstance(steps, Numeric)
    for u in (0.1, 0.5, 0.9):
        assert steps.ppf(steps.cdf(steps.ppf(u))) == pytest.approx(steps.ppf(u))


def test_the_best_unused_one_by_expected_gain(tmp_path: Path) -> None:
    """Four are left, and one of them lies beside the optimum."""
    spec = spec_of(tmp_path, "  a: {min: 1, max: 60}\n")
    left = (3, 12, 32, 57)
    seen = [Observation({"a": a}, (a - 30.0) ** 2) for a in range(1, 61) if a not in left]
    proposal = propose(spec, 0, seen)
    assert proposal
    assert (proposal.point, proposal.u) == ({"a": 32}, None)


def test_a_value_that_exploded_is_brought_in() -> None:
    low, high = Metric(name="a"), Metric(name="a", goal="maximize")
    assert winsorize([1.0, 2.0, None, 3.0, 1e30], low) == [1.0, 2.0, None, 3.0, 4.0]
    assert winsorize([-1.0, -2.0, -3.0, -1e30], high) == [-1.0, -2.0, -3.0, -4.0]
    assert winsorize([None], low) == [None]


@pytest.mark.parametrize(
    ("own", "goal", "value"),
    [(None, "minimize", 3.0), (None, "maximize", 1.0), (2.5, "minimize", 2.5)],
)
def test_what_a_failed_trial_counts_as(own: float | None, goal: str, value: float) -> None:
    seen = [Observation({"a": 1}, 1.0), Observation({"a": 2}, 3.0)]
    failed = Observation({"a": 3}, None, failed=True, own=own)
    metric = SweepMetric.model_validate({"name": "m", "goal": goal})
    assert _imputed(metric, failed, [*seen, failed]) == value
    assert _imputed(metric, failed, [failed]) == (own or 0.0)


def test_constants_only(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "  a: {value: 1}\n")
    seen = [Observation({"a": 1}, 0.5)]
    assert suggest(spec, 0, seen, None).point == {"a": 1}


def test_of_a_multiple_of_q_the_u_that_was_drawn_counts(tmp_path: Path) -> None:
    """Other numbers determine their u themselves, so that proposals do not depend on its text."""
    text = "  q: {distribution: q_uniform, min: 0, max: 100000, q: 10000}\n"
    text += "  x: {min: 0.0, max: 1.0}\n"
    spec = spec_of(tmp_path, text)
    coordinates = _Coordinates(spec.space)
    point = {"q": 50000, "x": 0.25}
    assert coordinates.of(point, {"q": 0.46, "x": 0.9}) == {
        "q": 0.46,
        "x": pytest.approx(0.25, abs=1e-9),
    }
    assert coordinates.of(point)["q"] == pytest.approx(0.5, abs=1e-9)
    drawn = propose(spec, 0, [])
    assert drawn
    assert drawn.u
    assert {name: spec.space[name].ppf(u) for name, u in drawn.u.items()} == drawn.point
    learned = propose(spec, 0, search(spec, lambda p: p["x"], STARTUP))
    assert learned
    assert learned.u
    assert {name: spec.space[name].ppf(u) for name, u in learned.u.items()} == learned.point
