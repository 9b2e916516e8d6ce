"""Log a run to TensorBoard's event files."""

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from copy import deepcopy
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from torch.utils.tensorboard import SummaryWriter

from deep_cnn.config import all_options
from deep_cnn.results import EpochRecord, LookAtTest, RunResult, State
from deep_cnn.tracking.base import Example, Histogram, Inputs, Start, Tracker, Validation

_LOGGER = logging.getLogger("deep_cnn")
_PICTURES = 16
_PROJECTED = 256
_THUMBNAIL = 64  # TensorBoard allows a sprite of 8192 pixels.
_LARGEST = 256
_TAG = "validation_pictures"


class TensorBoardTracker(Tracker):
    """A tracker that writes `<out_dir>/tensorboard/<run>/{train,val,test}`.

    The step is the epoch. Curves have the same tag in train and val, such as `loss`, so that
    TensorBoard draws them together. With `full`, the graph of the network and a projection of
    validation pictures are written, too.
    """

    def __init__(self, *, full: bool = False) -> None:
        self.full, self.writers = full, dict[str, SummaryWriter]()

    def start(self, start: Start) -> None:
        """Begin the run, or continue it: epochs that the files lack are written from `history`."""
        self.folder = start.files.tensorboard
        if not start.history:
            shutil.rmtree(self.folder, ignore_errors=True)  # Of a run that is gone.
        self.first = _first_to_write(self.folder, start)
        self._replace_hparams(start.options)
        for record in start.history:
            if record.epoch >= self.first:
                self.log(record)

    def log(self, record: EpochRecord) -> None:
        """Write the numbers of an epoch as scalars."""
        for name, value in record.metrics.items():
            metric, _, split = name.rpartition("_")
            self._writer(split).add_scalar(metric, value, record.epoch)
        others = {"lr": record.lr, "images_per_second": record.images_per_second}
        for name, value in others.items():
            self._writer("train").add_scalar(name, value, record.epoch)
        for writer in self.writers.values():
            writer.flush()

    def inputs(self, inputs: Inputs) -> None:
        """Write the first batch as the network sees it, and with `full` the network's graph."""
        pictures = inputs.first_batch(_PICTURES)
        step = -(-max(pictures.shape[2:]) // _LARGEST)
        self._writer("train").add_images("first_batch", pictures[:, :, ::step, ::step], self.first)
        if self.full:
            self._add_graph(inputs)

    def histograms(self, epoch: int, histograms: Callable[[], Mapping[str, Histogram]]) -> None:
        """Write a histogram of each weight and gradient."""
        for tag, one in histograms().items():
            limits, counts = list(one.edges[1:]), list(one.counts)
            ends = one.edges[0], one.edges[-1], sum(counts), one.total, one.squares
            self._writer("train").add_histogram_raw(tag, *ends, limits, counts, epoch)

    def validated(self, validation: Validation) -> None:
        """With `full`, write features, thumbnails, truth and prediction for the projector."""
        examples = validation.examples(_PROJECTED) if self.full else ()
        if not examples:
            return
        for old in self.folder.glob("val/*/*/tensors.tsv"):
            shutil.rmtree(old.parents[1])
        self._writer("val").add_embedding(
            validation.features([one.index for one in examples]),
            metadata=[[_cell(one.truth), _cell(one.prediction)] for one in examples],
            metadata_header=["truth", "prediction"],
            label_img=torch.from_numpy(_thumbnails(examples)),
            global_step=validation.epoch,
            tag=_TAG,
        )

    def tested(self, start: Start, look: LookAtTest) -> None:
        """Write the metrics of the test split, if the run has event files or they were wanted."""
        self.folder = start.files.tensorboard
        if self.full or self.folder.is_dir():
            for name, value in look.values.items():
                tag = name.removesuffix("_test")
                self._writer("test").add_scalar(tag, value, max(look.epoch, 0))
            self.abandon()

    def close(self, result: RunResult) -> None:
        """Write that the run is over, unless it will continue."""
        if result.state is not State.INTERRUPTED:
            failed = result.state is State.FAILED
            status = Status.STATUS_FAILURE if failed else Status.STATUS_SUCCESS
            ended = SessionEndInfo(status=status, end_time_secs=time.time())
            self._add_hparams(hparams.SESSION_END_INFO_TAG, session_end_info=ended)
        self.abandon()

    def abandon(self) -> None:
        """Close the files."""
        for writer in self.writers.values():
            writer.close()
        self.writers = {}

    def _writer(self, split: str) -> SummaryWriter:
        if split not in self.writers:
            purge = None if split in ("", "test") else self.first
            path = str(self.folder / split)
            self.writers[split] = SummaryWriter(path, purge_step=purge)
        return self.writers[split]

    def _replace_hparams(self, options: Mapping[str, object]) -> None:
        """Write the options with which the HParams page compares runs."""
        for old in self.folder.glob("events.out.tfevents.*"):
            old.unlink()
        known = all_options()
        chosen = {name: v for name, v in options.items() if name in known and v is not None}
        started = SessionStartInfo(group_name=self.folder.name, start_time_secs=time.time())
        for name, value in chosen.items():
            if known[name].affects_result:
                is_number = isinstance(value, int | float)
                kind = "bool" if isinstance(value, bool) else "number" if is_number else "string"
                setattr(started.hparams[name], f"{kind}_value", value)
        self._add_hparams(hparams.SESSION_START_INFO_TAG, session_start_info=started)

    def _add_hparams(self, tag: str, **content: object) -> None:
        data = HParamsPluginData(version=hparams.PLUGIN_DATA_VERSION, **content)
        plugin = SummaryMetadata.PluginData(
            plugin_name=hparams.PLUGIN_NAME, content=data.SerializeToString()
        )
        value = Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin))
        writer = self._writer("")._get_file_writer()  # type: ignore[no-untyped-call]
        writer.add_summary(Summary(value=[value]))

    def _add_graph(self, inputs: Inputs) -> None:
        # Two traces must be equal, which those on a GPU or of fused attention may not be.
        network = deepcopy(inputs.network).cpu().eval()
        picture = torch.zeros(1, *inputs.shape, dtype=torch.uint8)
        silent = StringIO()  # Tracing prints warnings that concern no user.
        is_fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with warnings.catch_warnings(), redirect_stdout(silent), redirect_stderr(silent):
                warnings.simplefilter("ignore")
                self._writer("train").add_graph(network, picture)
        except Exception as error:  # Not every network can be traced; the run goes on.
            _LOGGER.warning("TensorBoard: no graph of the network (%s)", type(error).__name__)
        finally:
            torch.backends.mha.set_fastpath_enabled(is_fused)


def _first_to_write(folder: Path, start: Start) -> int:
    """Return the first epoch that is missing in the event files of a run that continues."""
    epochs = [record.epoch for record in start.history]
    following = epochs[-1] + 1 if epochs else int(start.options.get("initial_epoch") or 0)
    splits = {name.rpartition("_")[2] for one in start.history for name in one.metrics}
    written = [_epochs_in(folder / split) for split in splits]
    return next((epoch for epoch in epochs if not all(epoch in one for one in written)), following)


def _epochs_in(folder: Path) -> set[int]:
    # What a killed run wrote again is purged, which its reader would tell the user.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})
    try:
        return {event.step for event in events.Reload().Scalars("loss")}
    except (OSError, KeyError, ValueError):
        return set()


def _cell(value: object) -> str:
    # A line is one picture, and a tab ends a cell.
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


def _thumbnails(examples: Sequence[Example]) -> NDArray[np.float32]:
    """Return square thumbnails, (N, 3, H, W) from 0 to 1, with white margins."""
    squares = []
    for one in examples:
        square = Image.new("RGB", (_THUMBNAIL, _THUMBNAIL), "white")
        small = one.image.convert("RGB")
        small.thumbnail((_THUMBNAIL, _THUMBNAIL))
        margin = ((_THUMBNAIL - small.width) // 2, (_THUMBNAIL - small.height) // 2)
        square.paste(small, margin)
        squares.append(np.asarray(square, dtype=np.float32).transpose(2, 0, 1) / 255)
    return np.stack(squares)
