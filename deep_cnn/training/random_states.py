"""Save and restore the states of the global random generators, as a checkpoint holds them."""

import random
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """Return the states of every global generator, as plain values and tensors.

    Long lists of numbers become tensors. As Python values, they would take more space in the file
    than a small network.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, numbers, following = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(kind), _tensor(keys), position, has_gauss, gauss),
        "python": (version, _tensor(numbers), following),
    }


def _tensor(numbers: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(numbers, dtype=np.int64))


def restore_random_states(states: dict[str, Any]) -> None:
    """Restore the states from `random_states`; CUDA's only if the number of devices is equal."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    if torch.backends.mps.is_available() and states["mps"] is not None:
        torch.mps.set_rng_state(states["mps"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, following = states["python"]
    random.setstate((version, tuple(numbers.tolist()), following))
