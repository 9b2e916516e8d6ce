"""Create the sweep on W&B's server that the jobs of `--engine=wandb` take part in."""

import json
import sys
from pathlib import Path

from deep_cnn.files import write_text
from deep_cnn.sweep.spec.schema import SweepSpec
from deep_cnn.sweep.spec.values import to_jsonable
from deep_cnn.text import printable
from deep_cnn.tracking.access import Access

_FILE = "wandb_sweep.json"


def sweep_on_server(access: Access, spec: SweepSpec, folder: Path) -> str:
    """Return ENTITY/PROJECT/SWEEP_ID: the sweep of an earlier submission, or a new one.

    `folder` is the folder of the sweep, where a file keeps the path of the sweep and the content
    that it was created with. Raises ConfigError if the server does not create it.
    """
    from deep_cnn.sweep.wandb_agent.api import create_sweep  # It imports W&B's client.

    content = to_jsonable(spec.content)
    try:
        known = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        path, same = str(known["path"]), known["content"] == content
    except (OSError, ValueError, KeyError, TypeError):
        path, same = "", False
    verb = "continues"
    if not same or path.split("/")[1:2] != [access.project]:
        path, verb = create_sweep(access, spec.content), "created"
        write_text(folder / _FILE, json.dumps({"path": path, "content": content}) + "\n")
    print(printable(f"W&B: {verb} the sweep {path}"), file=sys.stderr)
    return path
