"""Check that the data of a sweep are those that it began with."""

import os
from dataclasses import replace
from pathlib import Path

from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import SpecError
from deep_cnn.options import option_name
from deep_cnn.resolve import resolve
from deep_cnn.run_options import SAMPLE_DATA
from deep_cnn.sweep.run.call import call_in_process
from deep_cnn.sweep.run.identity import NEW_SWEEP, DataRecord, SweepRecord
from deep_cnn.sweep.spec.points import next_point
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.tracking.access import access_of
from deep_cnn.training.stop import StopToken


def check_data(
    path: Path, record: SweepRecord, spec: SweepSpec, stop: StopToken, *, is_new: bool
) -> tuple[SweepSpec, SweepRecord]:
    """Read the data of the first trial, and return the sweep, and the record with them.

    A folder of the command line is recorded as an absolute path. A sweep that began with val/ as
    the test split keeps it, as do all sweeps of earlier versions: --test_folder is recorded.

    Args:
        path: The file of the sweep's record, for messages.
        record: The record; its data are None if they have not been read before.
        spec: The sweep.
        stop: Asked while the data are read.
        is_new: Whether the sweep begins.

    Raises:
        SpecError: The data have changed since the sweep began.
        DeepCnnError: The data cannot be learned from, or W&B cannot be reached as asked for.
        Interrupted: `stop` was set.
    """
    first = next_point(spec, record.seed, 0, frozenset())
    assert first is not None, "every space has a point"
    config = resolve(spec.config(first.point))
    if config.wandb:  # Without credentials, every trial would fail.
        access_of(config.wandb, os.environ)
    # The engine does without torch, which takes its memory.
    data = DataRecord(config.task, call_in_process(_digest, config, stop))
    constants = dict(record.constants)
    if not is_new and record.data != data and _may_choose_test(config, spec):
        val = {"test_folder": all_options("folders")["test_folder"].default}
        before = replace(spec, constants={**spec.constants, **val})
        old = resolve(before.config(first.point))
        old_data = DataRecord(old.task, call_in_process(_digest, old, stop))
        if record.data in (None, old_data):
            spec, data, constants = before, old_data, {**constants, **val}
    if record.data is not None and record.data != data:
        is_same_task = record.data.task == data.task
        what = "other pictures, targets or splits" if is_same_task else "another task"
        raise SpecError(
            f"{path}: {config.data_path} has {what} than the sweep began with; restore the data,"
            f" {NEW_SWEEP}"
        )
    if constants.get("data_dir", SAMPLE_DATA) != SAMPLE_DATA:
        constants["data_dir"] = str(config.data_path.absolute())
    return spec, replace(record, data=data, constants=constants)


def _may_choose_test(config: TrainConfig, spec: SweepSpec) -> bool:
    """Return whether the folder of the test split was chosen by what the data folder has."""
    searched = {option_name(name.rpartition("/")[2]) for name in spec.space}
    is_fixed = searched.isdisjoint(("task", "data_dir", "test_folder"))
    return is_fixed and config.task == "folders" and "test_folder" not in config.chosen


def _digest(config: TrainConfig) -> str:
    from deep_cnn.training.digests import data_digest

    return data_digest(config)
