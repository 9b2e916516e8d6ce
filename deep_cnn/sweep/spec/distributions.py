"""List the distributions that W&B has, and infer the one that a parameter means."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field

from deep_cnn.sweep.spec import numeric
from deep_cnn.sweep.spec.base import Distribution, is_whole
from deep_cnn.sweep.spec.categorical import Categorical, Constant, WeightedCategorical

AnyDistribution = Annotated[
    Constant
    | Categorical
    | WeightedCategorical
    | numeric.IntUniform
    | numeric.Uniform
    | numeric.LogUniform
    | numeric.LogUniformValues
    | numeric.InvLogUniform
    | numeric.InvLogUniformValues
    | numeric.Normal
    | numeric.LogNormal
    | numeric.Beta,
    Field(discriminator="distribution"),
]
_MODELS: tuple[type[Distribution], ...] = get_args(get_args(AnyDistribution)[0])
# Each distribution by the name that a sweep file has for it.
DISTRIBUTIONS: Mapping[str, type[Distribution]] = {
    name: model
    for model in _MODELS
    for name in get_args(model.model_fields["distribution"].annotation)
}
# What a parameter may say, whichever its distribution.
PARAMETER_KEYS = {"parameters"} | {
    field.alias or key for model in _MODELS for key, field in model.model_fields.items()
}


def infer_distribution(description: Mapping[str, Any]) -> str | None:
    """Return the distribution of a parameter that names none, by W&B's rules, or None."""
    if "values" in description:
        return "categorical_w_probabilities" if "probabilities" in description else "categorical"
    if "value" in description:
        return "constant"
    if description.keys() == {"min", "max"}:
        both_whole = is_whole(description["min"]) and is_whole(description["max"])
        return "int_uniform" if both_whole else "uniform"
    return None
