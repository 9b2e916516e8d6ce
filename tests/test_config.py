"""One field = one flag: parsing, defaults of a task, errors that name what is legal."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deep_cnn import argv as argv_module
from deep_cnn.argv import parse_run, parse_verb
from deep_cnn.config import TrainConfig, all_options
from deep_cnn.errors import ConfigError, DataError
from deep_cnn.names import TASKS
from deep_cnn.options import OptionModel, option
from deep_cnn.resolve import resolve
from tests.conftest import ROOT, Command, environment, make_classes


def parse_config(argv: list[str]) -> TrainConfig:
    """As the command line does it."""
    return resolve(argv_module.parse_config(argv))


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--wandb"], True),
        (["--wandb=True"], True),
        (["--wandb=true"], True),
        (["--wandb=False"], False),
        (["--wandb", "False"], False),
        (["--wandb", "--epochs=3"], True),
    ],
)
def test_wandb_means_what_it_says(argv: list[str], expected: bool) -> None:
    assert parse_config(argv).wandb is expected


def test_underscores_hyphens_and_the_alias_are_one_flag(tmp_path: Path, scored: Path) -> None:
    assert parse_config(["--batch-size", "7"]) == parse_config(["--batch_size=7"])
    assert parse_config([f"--data={scored}"]).data_dir == str(scored)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--wandb=maybe"], "--wandb='maybe' is not True or False"),
        (["--epoch=3"], "--epoch is an unknown option; did you mean epochs"),
        (["--model=resnet19"], "--model=resnet19 is unknown; did you mean resnet18"),
        (["--pre=squish"], "did you mean squash"),
        (["--batch_size=0"], "--batch_size=0 is out of range; it must be at least 1"),
        (["--batch_size=7.5"], "--batch_size='7.5' is not a whole number"),
        (["--lr=0"], "--lr=0.0 is out of range; it must be above 0"),
        (["--lr=-1"], "out of range"),
        (["--lr", "nan"], "--lr=nan is out of range"),
        (["--lr=fast"], "--lr='fast' is not a number"),
        (["--lr="], "--lr= is empty"),
        (["--lr"], "--lr needs a value"),
        (["--epochs=0"], "--epochs=0 is out of range"),
        (["--epochs=None"], "--epochs=None is not legal; the default is 20"),
        (["--initial_epoch=5", "--epochs=5"], "leaves nothing to train"),
        (["--val_split=1"], "above 0 and below 1"),
        (["--seed=-1"], "out of range"),
        (["--ema=1"], "--ema=1.0 is out of range; it must be at least 0 and below 1"),
        (["--lr_trunk=0"], "--lr_trunk=0.0 is out of range; it must be above 0 and at most 1000"),
        (["--task=digits", "--label_smoothing=1"], "it must be at least 0 and below 1"),
        (["--label_smoothing=0.1"], "belongs to --task=folders or digits or mnist; this run's"),
        (["epochs=3"], "'epochs=3' is not an option"),
        (["-e", "3"], "'-e' is not an option"),
        (["--hidden=3"], "--hidden belongs to --task=digits or mnist; this run's task is perc"),
        (["--model=lenet"], "--model=lenet has no ImageNet weights; add --weights=none"),
        (["--num_workers=many"], "is not a whole number or auto"),
        (["--freeze=half"], "--freeze='half' is not a whole number or none or trunk"),
        (["--freeze=-1"], "--freeze=-1 is out of range"),
        (["--freeze=6", "--model=resnet50"], "resnet50 has 5 stages; give 0 to 5, none or trunk"),
        (["--model=vit_h_14", "--pre=resnet"], "vit_h_14 takes 518 x 518; use another --pre"),
    ],
)
def test_a_wrong_flag_or_value_says_what_is_legal(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_none_is_legal_where_it_is_the_default() -> None:
    assert parse_config(["--patience=None"]).patience is None
    assert parse_config(["--patience=3"]).patience == 3


def test_a_whole_number_may_arrive_as_a_float() -> None:
    assert TrainConfig.parse({"batch_size": 7.0, "epochs": "12.0"}).batch_size == 7


def test_off_may_arrive_as_yaml_reads_it() -> None:
    config = parse_config(["--amp=False", "--cache=False", "--task=digits"])
    assert (config.amp, config.cache) == ("off", "off")


def test_a_task_brings_defaults_and_flags_of_its_own() -> None:
    digits = TrainConfig(task="digits")
    assert (digits.model, digits.optimizer, digits.lr) == ("lenet", "sgd", 0.01)
    assert digits.options["hidden"] == 500
    assert parse_config(["--task=digits", "--lr=0.5", "--hidden=7"]).lr == 0.5
    assert "hidden" not in TrainConfig(task="perception").options


def test_updated_keeps_what_was_set_and_follows_a_new_task() -> None:
    config = TrainConfig(task="perception", batch_size=9)
    assert config.updated({"lr": "1e-2"}).lr == 0.01
    assert config.updated({"task": "digits"}).model == "lenet"
    assert config.updated({"task": "digits"}).batch_size == 9
    with pytest.raises(ConfigError, match="learning_rate is an unknown option"):
        config.updated({"learning_rate": 1})


def test_the_fingerprint_skips_bookkeeping_only() -> None:
    config = TrainConfig(task="perception")
    assert config.updated({"run_name": "b", "out_dir": "x"}).fingerprint() == config.fingerprint()
    for name, value in {"lr": 0.5, "seed": 1, "study": "beauty", "weights": "none"}.items():
        assert config.updated({name: value}).fingerprint() != config.fingerprint(), name
    assert resolve(TrainConfig()).fingerprint() == config.fingerprint() == "a1fdf088780e9feb"
    with pytest.raises(ConfigError, match="--task=auto has no fingerprint"):
        TrainConfig().fingerprint()


def test_the_task_is_found_from_the_folder(tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "classes")
    assert TrainConfig(data_dir=str(folder)).task == "auto"
    assert resolve(TrainConfig(data_dir=str(folder))).task == "folders"
    (folder / "scores.csv").write_text("image,score\n")
    assert resolve(TrainConfig(data_dir=str(folder))).task == "perception"
    assert resolve(TrainConfig(data_dir=str(folder), task="folders")).task == "folders"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has neither scores"):
        resolve(TrainConfig(data_dir=str(tmp_path / "empty")))
    with pytest.raises(DataError, match="does not exist"):
        resolve(TrainConfig(data_dir=str(tmp_path / "nowhere")))


def test_a_configuration_is_a_value_that_never_looks_at_the_disk() -> None:
    config = TrainConfig(data_dir="/nowhere/at/all", lr=0.5, keep="x.txt")
    assert pickle.loads(pickle.dumps(config)) == config == config.updated({})
    assert config.short_name() == "data_dir=/nowhere/at/all,keep=x.txt,lr=0.5"
    elsewhere = TrainConfig(**{**resolve(TrainConfig()).to_dict(), "data_dir": "/elsewhere"})
    assert (elsewhere.task, elsewhere.options["study"]) == ("perception", "score")
    with pytest.raises(ConfigError, match="--learning_rate is an unknown option"):
        TrainConfig.parse({"learning-rate": 1})


def test_resolving_keeps_what_was_given_and_what_is_a_default(scored: Path) -> None:
    config = resolve(TrainConfig(data_dir=str(scored), batch_size=9))
    assert config.is_resolved
    assert resolve(config) is config
    assert config.short_name() == f"batch_size=9,data_dir={scored}"
    assert config.updated({"task": "digits"}).model == "lenet"
    (scored / "scores.csv").rename(scored / "qscores.tsv")
    place_pulse = resolve(TrainConfig(data_dir=str(scored), task="perception"))
    assert place_pulse.options["study"] == "safer"
    assert place_pulse.short_name() == f"data_dir={scored}"
    named = resolve(TrainConfig(data_dir=str(scored), options={"study": "lively"}))
    assert named.options["study"] == "lively"
    with pytest.raises(ConfigError, match="--study=score is no study"):
        resolve(TrainConfig.parse({"data_dir": scored, "study": "score"}))


def test_help_shows_every_flag_with_its_default_and_no_torch(deep_cnn: Command) -> None:
    shown = deep_cnn("-h")
    assert shown.returncode == 0
    text = re.sub(r"\n {6,}", " ", shown.stdout)  # Long lines are wrapped.
    for name, known in all_options().items():
        line = next(line for line in text.splitlines() if line.startswith(f"  --{name} "))
        assert f"(default: {known.default}" in line
    titles = [line for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert [titles[0], *titles[-1:]] == ["the first options:", "models:"]
    assert len(titles) == 6 + len(TASKS)
    assert max(map(len, shown.stdout.splitlines())) <= 100
    assert shown.stdout.count("  --label_smoothing ") == 3  # With each task that has it.
    code = (
        "import sys; from deep_cnn.cli import main; main(['-h']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT).returncode == 0


def test_a_wrong_flag_costs_no_import_of_torch(deep_cnn: Command) -> None:
    wrong = deep_cnn("--epoch=3")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("deep_cnn: --epoch is an unknown option; did you mean epochs?")
    code = "from deep_cnn.cli import main; assert main(['--epoch=3']) == 2; import sys;"
    code += "assert not {'torch', 'numpy', 'wandb', 'pandas', 'optuna'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "word",
    [
        '{"lr": 0.5, "opt": {"batch_size": 8, "patience": null}, "wandb": false}',
        "{'lr': 0.5, 'opt': {'batch_size': 8.0, 'patience': None}, 'wandb': False}",
    ],
)
def test_words_that_wandb_makes_of_nested_parameters(word: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(word)
    words = ["lr=0.5", "+batch_size=8", "++patience=None", "wandb=False"]
    plain = parse_run(words, from_agent=True)
    assert plain == {"lr": "0.5", "batch_size": "8", "patience": "None", "wandb": "False"}
    for argv in ([word], [str(path)], [f"--all={word}"], [f"--all-of-it={word}"]):
        config = parse_config(["--task=digits", *argv])
        assert (config.lr, config.batch_size, config.patience) == (0.5, 8, None)
        assert config.wandb is False


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (['{"learning_rate": 1}'], "learning_rate"),
        (["--opt={'a': {'learning_rate': 1}}"], "learning_rate"),
        (["--opt={broken"], "--opt"),
        (["{broken"], "JSON"),
        (["nowhere.json"], "nowhere.json"),
        (["--lr=0.1", "{'lr': 0.2}"], "--lr is there twice"),
        (["--opt={'lr': [0.1, 0.2]}"], "--lr"),
    ],
)
def test_nested_parameters_that_are_no_flags(argv: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(argv)
    assert named in str(error.value)
    assert "\n" not in str(error.value)


def test_a_group_may_have_the_name_of_a_flag() -> None:
    for argv in (
        ["--optimizer={'lr': 0.5, 'optimizer': 'adam'}"],
        ["--optimizer", "{'lr': 0.5, 'optimizer': 'adam'}"],
        ['{"optimizer": {"lr": 0.5, "optimizer": "adam"}}'],
    ):
        config = parse_config(["--task=digits", *argv])
        assert (config.lr, config.optimizer) == (0.5, "adam")


def test_a_boolean_does_not_swallow_the_file_behind_it() -> None:
    for argv, value in ((["--probe", "x.yaml"], True), (["--probe", "False", "x.yaml"], False)):
        options, files = parse_verb(Probe, argv)
        assert (options.probe, files) == (value, ["x.yaml"])


class Probe(OptionModel):
    """As check has it."""

    probe: bool = option(False, "")
