"""Find configurations that W&B tells apart, but that are the same run for deep_cnn."""

from collections.abc import Mapping
from typing import Any

from deep_cnn.config import all_options
from deep_cnn.errors import ConfigError
from deep_cnn.options import option_name
from deep_cnn.sweep.spec.distributions import Listed
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import Point, canonical_key, value_key


class EqualRuns:
    """The equal runs of a sweep: 16 and "16" are two values for W&B, and one option here."""

    def __init__(self, spec: SweepSpec) -> None:
        # For each list in which some values are equal: what deep_cnn makes of each value.
        self._texts: dict[str, Mapping[str, str]] = {}
        for name, one in spec.space.items() if spec.runs_deep_cnn else ():
            if isinstance(one, Listed) and one.size > 1:
                texts = {value_key(value): _as_option(name, value) for value in one.values}
                if len(set(texts.values())) < len(texts):
                    self._texts[name] = texts

    def count(self, points: int) -> int:
        """Return the number of distinct runs among this number of points, the whole space."""
        for texts in self._texts.values():
            points = points // len(texts) * len(set(texts.values()))
        return points

    def key(self, point: Point) -> str | None:
        """Return what equal runs share, or None if no two runs of the sweep are equal."""
        if not self._texts:
            return None
        texts = {k: self._texts.get(k, {}).get(value_key(v)) for k, v in point.items()}
        return canonical_key({k: v if texts[k] is None else [texts[k]] for k, v in point.items()})


def _as_option(name: str, value: Any) -> str:
    """Return the value that deep_cnn makes of a parameter's value, as text."""
    option = all_options().get(option_name(name.rpartition("/")[2]))
    try:
        return repr(option.convert(str(value))) if option else value_key(value)
    except ConfigError:
        return value_key(value)
