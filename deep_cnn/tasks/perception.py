"""Define the task perception: scores from a table, by default scores.csv, or Place Pulse 2.0."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deep_cnn.bootstrap import Statistic
from deep_cnn.config import TrainConfig
from deep_cnn.data.listing import kind_of, list_data, names_in
from deep_cnn.data.splits import Examples
from deep_cnn.errors import ConfigError, DataError
from deep_cnn.home import expand_user
from deep_cnn.names import PerceptionOptions
from deep_cnn.resolve import is_place_pulse
from deep_cnn.tasks.base import Regression
from deep_cnn.tasks.place_pulse import judge_votes, pairwise_statistics, read_place_pulse
from deep_cnn.tasks.scores import Columns, Scores, read_scores

_LOGGER = logging.getLogger("deep_cnn")
_PLACE_PULSE_ONLY = ("weighting", "min_votes", "no_imagery")
_TABLE_ONLY = ("image_column", "score_column", "rater_column")


class Perception(Regression):
    """The task of predicting a score per picture, from a table of scores or else qscores.tsv."""

    def all_examples(self, config: TrainConfig) -> tuple[Examples, list[str | None]]:
        """Return the scored pictures, with the marks in the column `split` of the table."""
        if _is_place_pulse(config):
            for name in _TABLE_ONLY:
                if config.options[name] is not None:
                    raise ConfigError(
                        f"--{name} is for a table of scores, and {config.data_path} has qscores.tsv"
                        f" of Place Pulse; name the table with --scores, or drop --{name}"
                    )
            examples = read_place_pulse(config)
            return examples, [None] * len(examples)
        scores = _read_table(config)
        for note in scores.notes:
            _LOGGER.warning(note)
        return scores.examples, scores.marks

    def left_out(self, config: TrainConfig) -> Mapping[str, int] | None:
        """Return the numbers of rows without a score and of files that no row names, by reason.

        Place Pulse has a line of its own.
        """
        if _is_place_pulse(config):
            return None
        scores, table = _read_table(config), _table(config)
        reasons = Counter({"rows without a score": scores.unscored})
        try:
            listings = list_data(config.replace(cache="off"))  # Which writes no listings.
        except DataError:  # The pictures of the table need not be in it.
            return +reasons + Counter({"folder that cannot be read": 1})
        pictures = sum(1 for name in names_in(listings) if name not in scores.named)
        reasons["pictures that no row names"] = pictures
        for listing in listings.values():
            reasons.update(listing.others)
        if table.resolve().is_relative_to(config.data_path.resolve()):
            reasons[kind_of(table.name)] -= 1
        return +reasons

    def notes(self, config: TrainConfig) -> Iterable[str]:
        """Return a line on the agreement of the raters, if a table has their ratings."""
        if _is_place_pulse(config) or not config.options["rater_column"]:
            return ()
        return (str(_read_table(config).agreement),)

    def extra_metrics(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, float]:
        """Return the pairwise accuracy on Place Pulse's votes, if votes.tsv exists."""
        path = _votes(config)
        return judge_votes(path, config.options["study"], examples, predictions) if path else {}

    def extra_statistics(
        self, config: TrainConfig, examples: Examples, predictions: NDArray[np.float64]
    ) -> Mapping[str, Statistic]:
        """Return the pairwise accuracies as statistics of resampled pictures."""
        path, study = _votes(config), config.options["study"]
        return pairwise_statistics(path, study, examples, predictions) if path else {}


TASK = Perception


def _is_place_pulse(config: TrainConfig) -> bool:
    return is_place_pulse(config.data_path, config.options["scores"])


def _votes(config: TrainConfig) -> Path | None:
    path = config.data_path / "votes.tsv"
    return path if _is_place_pulse(config) and path.is_file() else None


def _read_table(config: TrainConfig) -> Scores:
    """Return the content of the table of scores; raise ConfigError for options of Place Pulse."""
    root, options = config.data_path, config.options
    rated = options["rater_column"] is not None
    for name in _PLACE_PULSE_ONLY:
        is_ratings = rated and (name, options[name]) == ("weighting", "votes")
        if options[name] != PerceptionOptions.table()[name].default and not is_ratings:
            if (name, options[name]) == ("weighting", "votes"):
                text = "needs the ratings; name their column with --rater_column, or drop it"
                raise ConfigError(f"--weighting=votes {text}", option=name)
            raise ConfigError(
                f"--{name} is for qscores.tsv of Place Pulse, and {root} has none or has"
                f" scores.csv, which wins; drop --{name}"
            )
    columns = Columns(
        options["score_column"] or options["study"],
        image=options["image_column"] or "image",
        rater=options["rater_column"],
        grouped=options["group"] != "none",
        votes=options["weighting"] == "votes",
        option="--score_column" if options["score_column"] else "--study",
    )
    return read_scores(_table(config), columns, root)


def _table(config: TrainConfig) -> Path:
    return config.data_path / expand_user(config.options["scores"] or "scores.csv")
