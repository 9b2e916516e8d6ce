"""Hash the pictures and targets of a data set, to recognise it."""

import hashlib
import os
from pathlib import Path

from deep_cnn.config import TrainConfig
from deep_cnn.data.splits import Examples, Splits
from deep_cnn.tasks import get_task


def data_digest(config: TrainConfig) -> str:
    """Return a short hash of the pictures and targets of all splits; raise DataError.

    A picture counts by its name and the size of its file. `config` is resolved. The folder does not
    matter, nor does any option that changes no split.
    """
    splits = get_task(config.task).all_splits(config)
    digest = hashlib.sha256(digest_of(*(splits[name] for name in sorted(splits))).encode())
    for name in sorted(splits):
        for picture in splits[name].pictures:
            if isinstance(picture, Path):
                try:
                    size = os.stat(picture).st_size  # noqa: PTH116 - Path's own is slower.
                except OSError:
                    size = -1
                digest.update(f"{size} ".encode())
    return digest.hexdigest()[:16]


def dataset_of(splits: Splits) -> str:
    """Return a short hash of the pictures and targets of all splits together."""
    names = [name for split in splits.values() for name in split.names]
    targets = [target for split in splits.values() for target in split.targets.tolist()]
    digest = hashlib.sha256()
    for i in sorted(range(len(names)), key=names.__getitem__):
        digest.update(f"{names[i]}\0{targets[i]!r}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]


def digest_of(*splits: Examples) -> str:
    """Return a short hash of pictures and targets."""
    digest = hashlib.sha256()
    for split in splits:
        digest.update(repr((split.names, split.targets.tolist())).encode(errors="surrogatepass"))
    return digest.hexdigest()[:16]
