"""Load pictures in batches, decoded in this process or in several others."""

import gc
import math
import mmap
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from deep_cnn.data.decoding import decode, is_transient
from deep_cnn.data.preprocessing import Preprocessing, random_state, to_array, to_image
from deep_cnn.data.splits import Examples
from deep_cnn.errors import DataError, LoadingError
from deep_cnn.processes import set_handlers

# Forked processes share the mapped image cache; others would each get a copy. On macOS, a fork of
# a process that has used the system's libraries may crash.
_CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"
# How many batches each process decodes ahead.
_AHEAD = 2
_PAUSE = 0.2
_ADVICE = "a smaller --num_workers needs less"


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The seed of augmentations, which also depends on the name of each picture."""

    seed: int
    epoch: int


class PictureSet:
    """Pictures that are decoded when they are asked for, augmented if `augmentation` is set.

    `shaped` pictures, (M, C, H, W) uint8 and the row of each example, (N,), are not decoded again.
    """

    def __init__(
        self,
        examples: Examples,
        preprocessing: Preprocessing,
        augmentation: Augmentation | None = None,
        shaped: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None,
    ) -> None:
        self.examples, self.preprocessing = examples, preprocessing
        self.augmentation = augmentation if preprocessing.augments else None
        whole = self.augmentation is not None and preprocessing.augments_whole_picture
        self.shaped, self.whole = None if whole else shaped, whole

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a picture as (C, H, W) uint8.

        Raises:
            DataError: It can no longer be decoded.
            LoadingError: It cannot be decoded now.
        """
        image = self._image(index)
        if self.augmentation is not None:
            seed, epoch = self.augmentation.seed, self.augmentation.epoch
            random = random_state(seed, epoch, self.examples.names[index])
            image = self.preprocessing.augment(image, random)
        return to_array(image, self.preprocessing.spec.channels)

    def _image(self, index: int) -> Image:
        if self.shaped is not None:
            values, rows = self.shaped
            return to_image(values[rows[index]])
        picture = self.examples.pictures[index]
        try:
            if self.whole:
                return decode(picture, self.preprocessing.crop_bottom)
            # As it would be in the image cache, which is grey for a network that sees grey.
            return to_image(self.preprocessing.shape(picture))
        except ValueError as error:  # It was readable when the run began.
            name = self.examples.names[index]
            if is_transient(error):
                reason = getattr(error.__cause__, "strerror", None) or error
                raise LoadingError(f"{name} cannot be read now ({reason})") from None
            raise DataError(f"{name} cannot be read any more ({error}); put it back") from None


def load_batches(
    pictures: PictureSet,
    order: list[list[int]],
    *,
    workers: int = 0,
    pin: bool = False,
    check: Callable[[], None] = lambda: None,
) -> Generator[tuple[Tensor, Tensor], None, None]:
    """Yield pictures (B, C, H, W) uint8 with their indices (B,) int64, in the given order.

    Close the generator if it is not used up, so that its processes end. `check` is called while
    they are waited for, and may raise.

    Args:
        pictures: The pictures.
        order: The indices of each batch.
        workers: The number of processes that decode, 0 for this process.
        pin: Whether the pictures are in pinned memory.
        check: Called regularly.

    Raises:
        DataError: A picture can no longer be decoded.
        LoadingError: Memory or files are lacking, or a process has died.
    """
    workers = min(workers, len(order)) if _CAN_FORK else 0
    if not workers:
        for batch in order:
            yield torch.from_numpy(np.stack([pictures[i] for i in batch])), torch.tensor(batch)
        return
    with closing(_Decoders(pictures, order, workers)) as decoders:
        for number, batch in enumerate(order):
            slot = torch.from_numpy(decoders.wait(number, check))
            decoded = torch.empty_like(slot, pin_memory=pin).copy_(slot)
            decoders.release(number)
            yield decoded, torch.tensor(batch)


class _Decoders:
    """Forked processes, each of which decodes every n-th batch into memory that all share.

    The processes need no files but one socket each, which has no name: neither /dev/shm nor the
    folder for temporary files is used. They end if the socket or this process is gone.
    """

    def __init__(self, pictures: PictureSet, order: list[list[int]], count: int) -> None:
        self.pictures, self.order, self.count = pictures, order, count
        self.processes: list[int] = []
        self.connections: list[Connection] = []
        spec, most = pictures.preprocessing.spec, max(map(len, order))
        shape = (count, _AHEAD, most, spec.channels, spec.crop, spec.crop)
        try:
            self.slots = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
            for index in range(count):
                self._start(index)
        except OSError as error:
            self.close()
            raise LoadingError(
                f"{count} processes that decode pictures cannot be started ({error.strerror});"
                f" {_ADVICE}"
            ) from None

    def wait(self, number: int, check: Callable[[], None]) -> NDArray[np.uint8]:
        """Return a batch, (B, C, H, W), which is overwritten after `release`; raise its error."""
        index = number % self.count
        connection = self.connections[index]
        try:
            while not connection.poll(_PAUSE):
                check()
            error: Exception | None = connection.recv()
        except (EOFError, OSError):
            raise LoadingError(self._death(index)) from None
        if error is not None:
            raise error
        return self._slot(number)

    def release(self, number: int) -> None:
        """Let the batch `number` be overwritten."""
        with suppress(OSError):  # The process may be done, or dead, which `wait` notices.
            self.connections[number % self.count].send_bytes(b"1")

    def close(self) -> None:
        """End the processes."""
        for connection in self.connections:
            connection.close()
        for process in self.processes:
            os.kill(process, signal.SIGKILL)  # They ignore signals that can be ignored.
        for process in self.processes:
            os.waitpid(process, 0)
        self.processes.clear()

    def _slot(self, number: int) -> NDArray[np.uint8]:
        done, index = divmod(number, self.count)
        return self.slots[index, done % _AHEAD, : len(self.order[number])]

    def _start(self, index: int) -> None:
        ours, theirs = Pipe()
        self.connections.append(ours)
        parent = os.getpid()
        try:
            process = os.fork()
            if process == 0:
                try:
                    self._run(index, theirs, parent)
                    os._exit(0)
                finally:
                    os._exit(1)
            self.processes.append(process)
        finally:
            theirs.close()

    def _run(self, index: int, connection: Connection, parent: int) -> None:
        """Decode the batches of process `index`, in that process."""
        # A scheduler signals every process of a job; one decides.
        set_handlers(signal.SIG_IGN)
        for ours in self.connections:
            ours.close()  # Or the other processes would not notice that this one's parent is gone.
        gc.freeze()  # What the parent has left to collect, such as memory of a GPU, is not ours.
        torch.set_num_threads(1)  # The processes share the cores already.
        try:
            for number in range(index, len(self.order), self.count):
                if number >= _AHEAD * self.count:
                    connection.recv_bytes()  # The slot is free.
                for row, picture in zip(self._slot(number), self.order[number], strict=True):
                    if os.getppid() != parent:
                        return
                    row[:] = self.pictures[picture]
                connection.send(None)
        except (EOFError, ConnectionError):
            pass  # The parent does not need more.
        except Exception as error:
            connection.send(_to_send(error))

    def _death(self, index: int) -> str:
        """Return how a process died, as a message."""
        process = self.processes.pop(index)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        how = f"ended with status {status}"
        if status < 0:
            how = f"was ended by signal {-status} ({signal.strsignal(-status)})"
        return f"a process that decodes pictures {how}; if it lacked memory, {_ADVICE}"


def _to_send(error: Exception) -> Exception:
    """Return the error of a process for its parent."""
    if isinstance(error, MemoryError):
        text = f"a process that decodes pictures lacks memory ({error or 'MemoryError'})"
        return LoadingError(f"{text}; {_ADVICE}")
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # Not every class of errors can be sent.
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def epoch_order(count: int, batch_size: int, *, seed: int, epoch: int | None) -> list[list[int]]:
    """Return the indices of each batch: shuffled by seed and epoch, or in order if epoch is None.

    A last batch of one picture is merged with the batch before, because batch norm cannot train
    on it.
    """
    indices = np.arange(count)
    if epoch is not None:
        indices = np.random.default_rng([seed, epoch]).permutation(count)
    batches = [indices[i : i + batch_size].tolist() for i in range(0, count, batch_size)]
    if epoch is not None and batch_size > 1 < len(batches) and len(batches[-1]) == 1:
        batches[-2:] = [batches[-2] + batches[-1]]
    return batches
