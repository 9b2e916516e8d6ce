"""Messages: what was probably meant, and nothing that a terminal would execute."""

import logging
import pickle

import pytest

from deep_cnn import names
from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import ConfigError, SpecError, choose_from, nearest
from deep_cnn.text import LogFormatter, first_line, printable

OPTIONS = {
    "learning_rate": "lr", "batch": "batch_size", "bs": "batch_size", "workers": "num_workers",
    "gpu": "device", "arch": "model", "backbone": "model", "network": "model", "wd": "weight_decay",
    "lr_scheduler": "schedule", "num_epochs": "epochs", "epoch": "epochs", "output": "out_dir",
    "output_dir": "out_dir", "name": "run_name", "dataset": "data_dir", "optim": "optimizer",
    "optimiser": "optimizer", "modle": "model", "sede": "seed", "momentun": "momentum",
    "early_stopping": "patience", "checkpoint": "resume", "grad_clip": "clip", "dropuot": "dropout",
    "Batch-Size": "batch_size", "augmentation": "pre", "pretrained": "weights",
}  # fmt: skip
VALUES = [
    ("model", "resnet-18", "resnet18"), ("model", "ResNet18", "resnet18"),
    ("model", "EfficientNet-B0", "efficientnet_b0"), ("model", "ViT-B/16", "vit_b_16"),
    ("model", "resnet19", "resnet18"), ("optimizer", "Adam", "adam"),
    ("optimizer", "AdamW", "adamw"),
    ("schedule", "cosine_annealing", "cosine"), ("schedule", "CosineAnnealingLR", "cosine"),
    ("schedule", "ReduceLROnPlateau", "plateau"), ("schedule", "StepLR", "step"),
    ("pre", "imagenet", "default"), ("pre", "RandAugment", "randaug"), ("amp", "float16", "fp16"),
    ("device", "gpu", "cuda"), ("device", "cuda:0", "cuda"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "meant"), OPTIONS.items())
def test_the_names_of_other_programs_are_known(text: str, meant: str) -> None:
    assert nearest(text, all_options()) == f"did you mean {meant}?"


@pytest.mark.parametrize(("option", "text", "meant"), VALUES)
def test_the_values_of_other_programs_are_known(option: str, text: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {meant}\?"):
        TrainConfig.parse({option: text})


@pytest.mark.parametrize(
    "text",
    ["foo", "verbose", "project", "entity", "notes", "group_name", "image_size", "hello", "train",
     "", "x", "🙂", "_"],
)  # fmt: skip
def test_nothing_is_better_than_nonsense(text: str) -> None:
    assert not choose_from(text, all_options()).startswith("did you mean")


@pytest.mark.parametrize("text", ["bert", "resnet", "vit", "efficientnet", "rmsprop"])
def test_an_unclear_model_has_no_guess(text: str) -> None:
    assert not choose_from(text, names.MODELS).startswith("did you mean")


@pytest.mark.parametrize("text", ["foo", "resnet", "resnet19", ""])
def test_at_most_ten_names_are_listed(text: str) -> None:
    for legal in (names.MODELS, all_options(), names.SCHEDULES):
        listed = choose_from(text, legal).partition("choose from ")[2].partition(" or ")[0]
        assert 1 <= len(listed.split(", ")) <= 10
        assert set(listed.split(", ")) <= set(legal)
    assert f"or {len(names.MODELS) - 10} others" in choose_from(text, names.MODELS)


def test_no_message_has_control_characters_and_each_is_one_line() -> None:
    evil = "a\x1b[31mb\nc\r\x00\x7f\x9b\u202e\u2028\ud800"
    assert str(ConfigError(f"{evil} is wrong")) == (
        r"a\x1b[31mb\nc\r\x00\x7f\x9b\u202e\u2028\ud800 is wrong"
    )
    assert str(SpecError("one", f"two {evil}")).count("\n") == 1
    with pytest.raises(ConfigError) as error:
        TrainConfig.parse({f"lr{evil}": 1})
    assert str(error.value).isprintable()
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_the_letters_of_every_language_are_printed() -> None:
    for text in (
        "Straße",
        "東京\u3000駅",
        "\u0645\u06cc\u200c\u062e\u0648",
        "👩\u200d🔬",
        "a b",
        "naïve\u00a0x",
    ):
        assert printable(text) == text


def test_a_record_of_the_log_is_one_line() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "a %s", ("b\n\x1b[1mc",), None)
    assert LogFormatter("%(message)s").format(record) == r"a b\n\x1b[1mc"


def test_an_error_without_a_text_has_a_first_line() -> None:
    assert first_line(RuntimeError()) == "RuntimeError"
    assert first_line(RuntimeError("\n")) == "RuntimeError"
    assert first_line(RuntimeError("a\nb")) == "a"


@pytest.mark.parametrize("value", ["a\ud800b", "a\0b"])
@pytest.mark.parametrize("option", ["data_dir", "run_name", "weights", "study", "keep", "model"])
def test_a_text_that_no_file_can_be_named_is_refused(option: str, value: str) -> None:
    with pytest.raises(ConfigError) as error:
        TrainConfig.parse({option: value})
    assert error.value.option == option
    assert str(error.value).isprintable()


def test_a_name_that_is_not_utf8_is_legal() -> None:
    assert TrainConfig.parse({"data_dir": "a\udcff"}).data_dir == "a\udcff"
