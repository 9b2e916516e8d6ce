"""Predict with several trained networks, and combine those of one score."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deep_cnn.data.preprocessing import Preprocessing
from deep_cnn.errors import ConfigError
from deep_cnn.inference.trained import Trained
from deep_cnn.models import Network
from deep_cnn.training.loop import weights_digest

Value: TypeAlias = float | str
Column: TypeAlias = Sequence[Value]


class Ensemble:
    """Several trained networks, which share pictures and features where they can.

    Attributes:
        columns: The columns of the predictions: for each score its name, and for several networks
            `<score>_sd`; for classes class, probability, class_2 and so on.
        preprocessings: The different preprocessings.
        batch_size: The number of pictures in each batch.

    Args:
        members: The networks.
        top: How many classes are named, by default one.

    Raises:
        ConfigError: Networks of one score were trained on different data, or `top` is too large.
    """

    def __init__(self, members: Sequence[Trained], top: int | None = None) -> None:
        self.members, self._groups = members, _grouped(members)
        self.batch_size = members[0].session.evaluation_batch
        self.preprocessings: list[Preprocessing] = []
        self._inputs = [self._input(member.session.preprocessing) for member in members]
        trunks: dict[tuple[object, ...], Network] = {}
        for member, number in zip(members, self._inputs, strict=True):
            key = (number, member.session.config.model, member.session.dtype)
            whole = (*key, weights_digest(member.network.trunk))
            member.network.trunk = trunks.setdefault(whole, member.network).trunk
        classes = max(len(member.classes) for member in members)
        if top is not None and top > classes:
            what = f"the checkpoint has {classes} classes" if classes else "a score has no classes"
            raise ConfigError(f"--top={top}: {what}; lower or drop it", option="top")
        self.top = top or 1
        self.columns = [name for score in self._groups for name in self._columns_of(score)]

    def _input(self, preprocessing: Preprocessing) -> int:
        """Return the index of a preprocessing, which is added if it is new."""
        keys = [each.key for each in self.preprocessings]
        if preprocessing.key not in keys:
            self.preprocessings.append(preprocessing)
            return len(keys)
        return keys.index(preprocessing.key)

    def _columns_of(self, score: str) -> list[str]:
        if score:
            return [score, f"{score}_sd"] if len(self._groups[score]) > 1 else [score]
        numbers = ["", *(f"_{k}" for k in range(2, self.top + 1))]
        return [f"{what}{number}" for number in numbers for what in ("class", "probability")]

    def predict(self, pictures: Sequence[NDArray[np.uint8]]) -> list[list[Value]]:
        """Return the values of `columns` for each picture.

        `pictures` are batches of `batch_size`, (B, C, H, W), one for each preprocessing.
        """
        features: dict[int, Tensor] = {}
        values: list[NDArray[np.float64]] = []
        with torch.inference_mode():
            for member, number in zip(self.members, self._inputs, strict=True):
                session, trunk = member.session, id(member.network.trunk)
                if trunk not in features:
                    x = torch.from_numpy(pictures[number]).to(session.device)
                    features[trunk] = member.network.features(x, session.dtype)
                values.append(member.values(member.network.head(features[trunk])))
        columns: list[Column] = []
        for score, group in self._groups.items():
            stacked = np.stack([values[i] for i in group])
            if score:
                columns += _mean_and_sd(stacked[:, :, 0])
            else:
                columns += self._best_classes(stacked.mean(0), self.members[group[0]].classes)
        return [list(row) for row in zip(*columns, strict=True)]

    def _best_classes(
        self, probabilities: NDArray[np.float64], names: Sequence[str]
    ) -> list[Column]:
        """Return the best classes and their probabilities, (N, C), alternating."""
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top]
        columns: list[Column] = []
        for indices in best.T:
            columns.append([names[i] for i in indices])
            columns.append(probabilities[np.arange(len(indices)), indices].tolist())
        return columns


def _mean_and_sd(scores: NDArray[np.float64]) -> list[Column]:
    """Return the mean, and for several networks the standard deviation, of scores, (M, N)."""
    if len(scores) == 1:
        return [scores[0].tolist()]
    return [scores.mean(0).tolist(), scores.std(0, ddof=1).tolist()]


def _grouped(members: Sequence[Trained]) -> dict[str, list[int]]:
    """Return the indices of the networks of each score; raise ConfigError if their data differ."""
    groups: dict[str, list[int]] = {}
    for i, member in enumerate(members):
        first = members[groups.setdefault(member.score, [i])[0]]
        if i == groups[member.score][0]:
            continue
        groups[member.score].append(i)
        both = f"{first.path} and {member.path}"
        if first.classes != member.classes:
            raise ConfigError(f"{both} have different classes; predict with one at a time")
        if _data_of(first) != _data_of(member):
            what = f"the score {member.score!r}" if member.score else "the same classes"
            raise ConfigError(
                f"{both} have {what}, but were trained on different data, so no mean is computed;"
                " predict with one at a time, or train with another --study"
            )
    return groups


def _data_of(member: Trained) -> str:
    return member.checkpoint.dataset or member.checkpoint.data
