"""How good is the search? Ours, random, and Optuna's TPE on a real objective, paired by seed.

    python -m tests.benchmarks.search [--seeds 10] [--trials 30]

The objective is the validation loss of a small network on scikit-learn's digits over six
parameters of mixed kinds. The first trials of ours are the random draws that random search makes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn

from deep_cnn.sweep.search.propose import Observation, propose
from deep_cnn.sweep.spec.parse import parse_text
from deep_cnn.sweep.spec.values import Point, canonical_key

PARAMETERS = """
metric: {name: loss_val, goal: minimize}
program: digits.py
parameters:
  lr: {distribution: log_uniform_values, min: 1.0e-4, max: 1.0}
  weight_decay: {distribution: log_uniform_values, min: 1.0e-6, max: 0.1}
  batch_size: {values: [16, 32, 64, 128]}
  hidden: {min: 4, max: 64}
  activation: {values: [relu, tanh, none]}
  nesterov: {values: [true, false]}
"""
FINITE = """
method: bayes
metric: {name: loss_val, goal: minimize}
program: digits.py
parameters:
  lr: {values: [0.001, 0.01, 0.1]}
  batch_size: {values: [16, 64, 128]}
  hidden: {values: [8, 16, 32, 64]}
  activation: {values: [relu, tanh, none]}
"""
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "none": nn.Identity}
MARKS = (10, 20, 30)


@cache
def data() -> tuple[torch.Tensor, ...]:
    """600 pictures to learn from and 600 to validate, standardised."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:1200]
    x = torch.tensor(digits.data[order] / 16 - 0.3, dtype=torch.float32)
    y = torch.tensor(digits.target[order])
    return x[:600], y[:600], x[600:], y[600:]


def objective(point: Point, seed: int) -> float:
    """The validation loss after three epochs."""
    torch.manual_seed(seed)
    x, y, x_val, y_val = data()
    network = nn.Sequential(
        nn.Linear(64, point["hidden"]),
        ACTIVATIONS[point["activation"]](),
        nn.Linear(point["hidden"], 10),
    )
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=point["lr"],
        momentum=0.9,
        weight_decay=point.get("weight_decay", 0.0),
        nesterov=point.get("nesterov", False),
    )
    for _ in range(3):
        for batch in torch.randperm(len(x)).split(point["batch_size"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    with torch.inference_mode():
        loss = float(nn.functional.cross_entropy(network(x_val), y_val))
    return min(loss, 10.0) if loss == loss else 10.0


def ours(method: str) -> Callable[[int, int], list[float]]:
    """Our search by `method`."""
    spec, findings = parse_text(f"method: {method}\nrun_cap: 999\n{PARAMETERS}", "benchmark")
    assert spec is not None, findings

    def run(seed: int, trials: int) -> list[float]:
        seen: list[Observation] = []
        while len(seen) < trials:
            proposal = propose(spec, seed, seen)
            assert proposal is not None
            value = objective(proposal.point, seed)
            seen.append(Observation(proposal.point, value, u=proposal.u))
        return [s.value for s in seen if s.value is not None]

    return run


def tpe(seed: int, trials: int) -> list[float]:
    """Optuna's TPE with its defaults and its own distributions."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))

    def suggested(trial: optuna.Trial) -> float:
        point: dict[str, Any] = {
            "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-6, 0.1, log=True),
            "batch_size": trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
            "hidden": trial.suggest_int("hidden", 4, 64),
            "activation": trial.suggest_categorical("activation", list(ACTIVATIONS)),
            "nesterov": trial.suggest_categorical("nesterov", [True, False]),
        }
        return objective(point, seed)

    study.optimize(suggested, n_trials=trials)
    return [trial.value for trial in study.trials if trial.value is not None]


def distinct(trials: int) -> int:
    """How many of our configurations differ in a finite space of 108."""
    spec, findings = parse_text(FINITE, "finite")
    assert spec is not None, findings
    seen: list[Observation] = []
    while len(seen) < trials and (proposal := propose(spec, 0, seen)) is not None:
        seen.append(Observation(proposal.point, objective(proposal.point, 0), u=proposal.u))
    return len({canonical_key(s.point) for s in seen})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=30)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    searches = {"ours (bayes)": ours("bayes"), "random": ours("random"), "Optuna's TPE": tpe}
    found: dict[str, list[list[float]]] = {}
    for name, search in searches.items():
        begun = time.perf_counter()
        found[name] = [search(seed, given.trials) for seed in range(given.seeds)]
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    print("\n| best loss of | after | median | mean | worst |\n| --- | --- | --- | --- | --- |")
    for mark in (mark for mark in MARKS if mark <= given.trials):
        for name, runs in found.items():
            best = [min(values[:mark]) for values in runs]
            numbers = (statistics.median(best), statistics.mean(best), max(best))
            print(f"| {name} | {mark} | " + " | ".join(f"{n:.3f}" for n in numbers) + " |")
    pairs = zip(found["ours (bayes)"], found["Optuna's TPE"], strict=True)
    better = sum(min(mine) < min(theirs) for mine, theirs in pairs)
    print(f"\nours is better than TPE with {better} of {given.seeds} seeds")
    print(f"distinct configurations in a space of 108: {distinct(40)} of 40")


if __name__ == "__main__":
    main()
