"""Fit a line to noisy points by gradient descent. Nothing here knows of deep_cnn."""

import argparse
import random

import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--steps", type=int, default=50)
args = parser.parse_args()

random.seed(0)
points = [(x / 50, 3 * x / 50 + 1 + random.gauss(0, 0.1)) for x in range(100)]
slope = intercept = 0.0
with wandb.init(config=vars(args)) as run:
    for _ in range(args.steps):
        errors = [(x, slope * x + intercept - y) for x, y in points]
        slope -= args.lr * sum(x * error for x, error in errors) / len(points)
        intercept -= args.lr * sum(error for _, error in errors) / len(points)
        run.log({"loss": sum(error**2 for _, error in errors) / len(points)})
