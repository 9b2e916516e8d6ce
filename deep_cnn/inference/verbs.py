"""Declare the verbs predict and export with their options."""

import sys
from collections.abc import Mapping
from pathlib import Path

from deep_cnn.argv import parse_verb
from deep_cnn.errors import ConfigError
from deep_cnn.home import expand_user
from deep_cnn.options import OptionModel, option
from deep_cnn.processes import EXIT_STATUS


class CodeOptions(OptionModel):
    """The option that names the code of a network of the user."""

    model: str | None = option(
        None, "class of a network of your own, as file.py:Class; several with commas"
    )


class DeviceOptions(CodeOptions):
    """Options on how a network computes."""

    device: str = option("auto", "device to use", choices=("auto", "cpu", "cuda", "mps"))


class PredictOptions(DeviceOptions):
    """Options of the verb predict."""

    out: str | None = option(
        None, "file to write, .csv, .parquet or .geojson; None: CSV to standard output"
    )
    overwrite: bool = option(False, "replace an existing file, and an unfinished one of others")
    top: int | None = option(None, "number of classes to name for each picture; None: 1", low=1)
    image_column: str = option("image", "column with the pictures, if PICTURES is a table")
    threads: int | None = option(
        None, "threads; None: OMP_NUM_THREADS, or as in training", low=1, high=1024
    )


class ExportOptions(CodeOptions):
    """Options of the verb export."""

    format: str = option("torch", "torch: torch.export; onnx: ONNX", choices=("torch", "onnx"))
    out: str | None = option(None, "file to write; None: the checkpoint's name with .pt2 or .onnx")


OPTIONS: Mapping[str, type[OptionModel]] = {"predict": PredictOptions, "export": ExportOptions}


def predict(argv: list[str]) -> int:
    """Predict the scores or classes of PICTURES: a folder, a picture, or a table of pictures.

    Several checkpoints of one score give its mean and standard deviation. The same command
    continues an interrupted prediction with --out.
    """
    options, paths = parse_verb(PredictOptions, argv)
    if len(paths) < 2:
        raise ConfigError("predict takes one or more checkpoints, and then PICTURES")
    from deep_cnn.training.stop import Interrupted, Signals

    with Signals() as signals:
        # Its libraries take seconds to import.
        from deep_cnn.inference.predict import predict_to
        from deep_cnn.progress import log_on

        *checkpoints, pictures = [expand_user(path) for path in paths]
        with log_on(sys.stderr):
            try:
                predict_to(checkpoints, pictures, options, signals)
            except Interrupted as error:
                way = "; the same command continues" if options.out else ""
                print(f"deep_cnn: interrupted{way}", file=sys.stderr)
                return EXIT_STATUS[error.request.signum]
    return 0


def export(argv: list[str]) -> int:
    """Write the network in CHECKPOINT as a program that runs without deep_cnn, and check it."""
    options, paths = parse_verb(ExportOptions, argv)
    if len(paths) != 1:
        raise ConfigError(f"export takes one checkpoint, and here are {len(paths)}")
    from deep_cnn.inference.export import export_checkpoint

    out = Path(expand_user(options.out)) if options.out else None
    print(export_checkpoint(expand_user(paths[0]), options.format, out, options.model))
    return 0
