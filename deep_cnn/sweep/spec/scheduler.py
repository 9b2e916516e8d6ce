"""Check the keys `scheduler` and `metrics` for W&B's scheduler, which no local sweep uses."""

from collections.abc import Iterator, Mapping
from typing import Any

from deep_cnn.sweep.spec.document import Issue
from deep_cnn.sweep.spec.schema import Scheduler, SweepMetric
from deep_cnn.sweep.spec.validation import validate_section


def has_search_space(content: Mapping[Any, Any]) -> bool:
    """Return whether W&B's scheduler brings the search space, so that no parameters are needed."""
    scheduler = content.get("scheduler")
    return isinstance(scheduler, dict) and bool(scheduler.get("search_space"))


def check_scheduler(content: Mapping[Any, Any], method: str) -> list[Issue]:
    """Return the errors that W&B reports for the keys `scheduler` and `metrics`."""
    issues: list[Issue] = []
    if "scheduler" in content:
        scheduler = content["scheduler"]
        if isinstance(scheduler, dict):
            legal = validate_section(Scheduler, scheduler, ("scheduler",), issues)
            issues += _conflicts(content, legal, method)
        else:
            text = f"scheduler is {scheduler!r}; write engine: wandb, optuna or ax below it"
            issues.append(Issue(("scheduler",), text))
    if "metrics" in content:
        issues += _check_metrics(content, method)
    return issues


def _conflicts(
    content: Mapping[Any, Any], scheduler: Scheduler | None, method: str
) -> Iterator[Issue]:
    controller = content.get("controller")
    if isinstance(controller, dict) and controller.get("type") == "local":
        yield Issue(("controller",), "controller: local does not go with scheduler; remove one")
    if "early_terminate" in content:
        text = "early_terminate does not go with scheduler, which stops runs itself; remove one"
        yield Issue(("early_terminate",), text)
    if scheduler is not None and (scheduler.engine == "wandb") == (method == "custom"):
        methods = "grid, random or bayes" if scheduler.engine == "wandb" else "custom"
        text = f"scheduler: engine {scheduler.engine} needs method: {methods}"
        yield Issue(("scheduler", "engine"), text)


def _check_metrics(content: Mapping[Any, Any], method: str) -> list[Issue]:
    metrics = content["metrics"]
    if not isinstance(metrics, list) or len(metrics) < 2:
        return [Issue(("metrics",), "metrics is not a list of two metrics at least")]
    issues: list[Issue] = []
    for i, metric in enumerate(metrics):
        if isinstance(metric, dict):
            validate_section(SweepMetric, metric, ("metrics", i), issues)
        else:
            text = f"metrics: {metric!r} is no metric; write name: and goal:"
            issues.append(Issue(("metrics", i), text))
    if "metric" in content:
        issues.append(Issue(("metrics",), "metric and metrics do not go together; remove one"))
    elif method != "custom":
        text = "metrics needs method: custom; for other methods write metric: name, goal"
        issues.append(Issue(("metrics",), text))
    return issues
