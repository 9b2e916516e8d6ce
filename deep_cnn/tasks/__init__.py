"""Find a task by its name: `deep_cnn/tasks/<name>.py` holds its class TASK."""

from importlib import import_module

from deep_cnn.tasks.base import Labels, Task

__all__ = ["Labels", "Task", "get_task"]


def get_task(name: str) -> Task:
    """Return the task called `name` in deep_cnn.names.TASKS."""
    task: Task = import_module(f"deep_cnn.tasks.{name}").TASK()
    return task
