"""What a run computes and leaves: learning, resuming bit for bit, stopping, the sealed test."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import deep_cnn
from deep_cnn import FileTracker, TrainConfig, fit, names
from deep_cnn.errors import CheckpointError, ConfigError, DataError
from deep_cnn.files import RunFiles
from deep_cnn.results import RunResult, State, StopReason
from deep_cnn.tracking import Start, Tracker
from deep_cnn.training.checkpoint import resumed_config
from deep_cnn.training.optim import OPTIMIZERS, SCHEDULES
from deep_cnn.training.stop import StopRequest, StopToken
from tests.conftest import SAMPLE, environment, make_classes, make_scored
from tests.conftest import read_checkpoint as load_checkpoint


def digits(out: Path, **changes: object) -> TrainConfig:
    values = {"task": "digits", "out_dir": out, "run_name": "d", "epochs": 3, "train_samples": 300}
    return TrainConfig(task="digits").updated({**values, **changes})


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_digits_are_learned_and_files_are_left(tmp_path: Path) -> None:
    result = fit(digits(tmp_path, epochs=4), FileTracker())
    files = RunFiles(tmp_path, "d")
    assert result.state is State.FINISHED
    assert result.metrics["precision@1_val"] > 0.8
    rows = table(files.table)
    assert list(rows[0]) == [
        "epoch", "lr", "seconds", "images_per_second", "loss_train", "loss_val",
        "accuracy_train", "accuracy_val",
        "precision@1_train", "precision@1_val", "precision@5_train", "precision@5_val",
    ]  # fmt: skip
    assert [float(row["loss_val"]) for row in rows] == [
        r.metrics["loss_val"] for r in result.history
    ]
    steps = table(files.steps("train"))
    assert [int(row["step"]) for row in steps] == list(range(4 * 5))
    assert [row["epoch"] for row in steps] == [str(e) for e in range(4) for _ in range(5)]
    assert len(table(files.steps("val"))) == 4 * 10
    content = json.loads(files.result.read_text())
    assert content["config"]["lr"] == 0.01
    assert content["best"]["value"] == min(r.metrics["loss_val"] for r in result.history)
    assert json.loads(files.arguments.read_text()) == content["config"]
    log = files.log.read_text().splitlines()
    stamps = [line[:23] for line in log]
    assert stamps == sorted(stamps)
    assert [line.split("--")[1].split("=")[0] for line in log[: len(content["config"])]] == list(
        content["config"]
    )
    assert not list(tmp_path.rglob("*.part"))


def test_the_best_checkpoint_is_of_the_best_epoch(tmp_path: Path) -> None:
    result = fit(digits(tmp_path, lr=0.3, epochs=4), FileTracker())
    assert result.best
    content = load_checkpoint(RunFiles(tmp_path, "d").best)
    assert content["epoch"] == result.best.epoch + 1
    assert content["best"] == {
        "epoch": result.best.epoch,
        "metric": "loss_val",
        "value": result.best.value,
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "hyperbolic", "decay": 0.5},
        {"optimizer": "adam", "pre": "augment"},
        {"optimizer": "adamw", "freeze": "trunk", "weight_decay": 0.1},
        {"freeze": 2},
        {"pre": "trivial"},
        {"ema": 0.9, "clip": 0.5, "warmup": 2, "lr_trunk": 0.1, "label_smoothing": 0.1},
        {"amp": "fp16", "clip": 0.5, "epochs": 2, "train_samples": 40},
        {"schedule": "plateau", "lr": 1e-9, "momentum": 0, "freeze": "trunk", "epochs": 6},
    ],
)
def test_resumed_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    straight = fit(digits(tmp_path / "a", **changes), FileTracker())
    fit(digits(tmp_path / "b", **{**changes, "epochs": 1}), FileTracker())
    checkpoint = tmp_path / "b" / "models" / "d.pt"
    torch.manual_seed(12345)  # What lies in between must not matter.
    epochs = changes.get("epochs", 3)
    config = resumed_config(checkpoint, {"epochs": epochs, "resume": checkpoint})
    resumed = fit(config, FileTracker())
    assert resumed.history == straight.history
    assert resumed.best == straight.best
    one, two = (load_checkpoint(tmp_path / x / "models" / "d.pt") for x in "ab")
    assert all(torch.equal(v, two["state_dict"][k]) for k, v in one["state_dict"].items())
    for split in ("train", "val"):
        paths = [RunFiles(tmp_path / x, "d").steps(split) for x in "ab"]
        assert paths[0].read_text() == paths[1].read_text()
    numbers = [
        [{k: v for k, v in row.items() if k[:6] not in ("second", "images")} for row in table(p)]
        for p in (RunFiles(tmp_path / x, "d").table for x in "ab")
    ]
    assert numbers[0] == numbers[1]


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(tmp_path: Path) -> None:
    one, two = (fit(digits(tmp_path / x, epochs=1)) for x in "ab")
    other = fit(digits(tmp_path / "c", epochs=1, seed=1))
    assert one.history == two.history != other.history


def test_a_signal_between_two_steps_repeats_the_epoch(tmp_path: Path) -> None:
    straight = fit(digits(tmp_path / "a"))
    files, asked = RunFiles(tmp_path / "b", "d"), 0

    def ask() -> StopRequest | None:
        nonlocal asked
        asked += files.table.exists()  # The first epoch is over.
        return StopRequest(15) if asked > 3 else None

    result = fit(digits(tmp_path / "b"), FileTracker(), stop=StopToken(ask))
    assert result.state is State.INTERRUPTED
    assert result.signal == 15
    assert "Interrupted in epoch 1 after 3 steps" in files.log.read_text()
    assert json.loads(files.result.read_text())["state"] == "interrupted"
    assert "go on with: python -m deep_cnn --resume=" in files.log.read_text()
    resumed = fit(resumed_config(files.last, {"resume": files.last}), FileTracker())
    assert resumed.history == straight.history


def test_a_run_that_is_over_can_be_resumed_with_nothing_left_to_do(tmp_path: Path) -> None:
    first = fit(digits(tmp_path, epochs=1), FileTracker())
    files = RunFiles(tmp_path, "d")
    files.result.unlink()
    again = fit(resumed_config(files.last, {"resume": files.last}), FileTracker())
    assert again.history == first.history
    assert files.result.exists()


def test_should_stop_ends_the_run_as_stopped_with_its_reason(tmp_path: Path) -> None:
    reason = StopReason("hyperband", 2, 0.5, 0.25)
    result = fit(
        digits(tmp_path), should_stop=lambda history: reason if len(history) == 2 else None
    )
    assert (result.state, result.stop_reason, len(result.history)) == (State.STOPPED, reason, 2)


def test_patience_ends_a_run_that_does_not_get_better(tmp_path: Path) -> None:
    result = fit(digits(tmp_path, lr=1e-9, epochs=20, patience=2, freeze="trunk", momentum=0))
    assert result.state is State.STOPPED
    assert result.stop_reason
    assert result.stop_reason.rule == "patience"
    assert result.best
    assert len(result.history) == result.best.epoch + 3


def test_a_loss_that_is_not_finite_fails_and_names_the_place(tmp_path: Path) -> None:
    result = fit(digits(tmp_path, lr=1e30, weights="none"), FileTracker())
    assert result.state is State.FAILED
    assert result.error
    assert "at epoch 0, step" in result.error
    assert "lr 1e+30" in result.error
    assert json.loads(RunFiles(tmp_path, "d").result.read_text())["state"] == "failed"


def test_a_taken_run_name_is_never_overwritten(tmp_path: Path) -> None:
    first = fit(digits(tmp_path, epochs=1), FileTracker())
    before = RunFiles(tmp_path, "d").result.read_text()
    second = fit(digits(tmp_path, epochs=1), FileTracker())
    assert (first.run_name, second.run_name) == ("d", "d-2")
    assert RunFiles(tmp_path, "d").result.read_text() == before


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("hyperbolic", [1, 1 / 1.5, 1 / 2, 1 / 2.5, 1 / 3, 1 / 3.5]),
        ("step", [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ("cosine", [1, 0.9330127, 0.75, 0.5, 0.25, 0.0669873]),
    ],
)
def test_schedules(tmp_path: Path, schedule: str, factors: list[float]) -> None:
    config = digits(tmp_path, schedule=schedule, decay=0.5, epochs=6, train_samples=20)
    assert [SCHEDULES[schedule](e, config, ()) for e in range(6)] == pytest.approx(factors)
    used = [record.lr for record in fit(config).history]
    assert used == pytest.approx([0.01 * factor for factor in factors])


def test_names_are_what_can_be_built() -> None:
    assert (tuple(SCHEDULES), tuple(OPTIMIZERS)) == (names.SCHEDULES, names.OPTIMIZERS)


def test_a_plateau_is_what_it_is_for_torch(tmp_path: Path) -> None:
    config = digits(tmp_path, schedule="plateau", decay=0.5)
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    losses = [1.0, 0.99995, 1.2, 0.5, 0.5, 0.4, 0.6, 0.7, 0.4, 0.8, 0.9, 0.399, *[0.4] * 8]
    for epoch in range(len(losses)):
        ours = SCHEDULES["plateau"](epoch, config, losses[:epoch])
        assert ours == optimizer.param_groups[0]["lr"]
        theirs.step(losses[epoch])
    assert ours == 0.5**3


def test_one_cycle_is_that_of_torch_in_the_middle_of_each_epoch(tmp_path: Path) -> None:
    config = digits(tmp_path, schedule="onecycle", epochs=7)
    optimizer = torch.optim.SGD([torch.zeros(1)], 1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, epochs=7, steps_per_epoch=999)
    steps = []
    for _ in range(7 * 999 - 1):
        steps.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = [SCHEDULES["onecycle"](epoch, config, ()) for epoch in range(7)]
    assert ours == pytest.approx(steps[499::999], rel=5e-3)


def test_a_warm_up_rises_to_the_schedule(tmp_path: Path) -> None:
    config = digits(tmp_path, warmup=3, schedule="step", epochs=6, train_samples=20)
    factors = [0.25, 0.5, 0.075, 0.1, 0.01, 0.01]
    used = [record.lr for record in fit(config).history]
    assert used == pytest.approx([0.01 * factor for factor in factors])


def one_step(out: Path, **changes: object) -> dict[str, torch.Tensor]:
    """What a single step, without momentum, adds to the weights that go on learning."""
    weights = []
    for lr in (1e-30, 0.1):
        config = digits(out, lr=lr, epochs=1, momentum=0, train_samples=64, **changes)
        name = fit(config, FileTracker()).run_name
        content = load_checkpoint(RunFiles(out, name).last)
        weights.append(content.get("learning", content["state_dict"]))
    return {k: v - weights[0][k] for k, v in weights[1].items() if k.endswith(("weight", "bias"))}


def norm(changes: dict[str, torch.Tensor]) -> float:
    return torch.cat([change.flatten() for change in changes.values()]).norm().item()


def test_a_clipped_gradient_has_the_norm_and_the_trunk_a_rate_of_its_own(tmp_path: Path) -> None:
    plain, clipped, slow = (one_step(tmp_path, **c) for c in ({}, {"clip": 0.5}, {"lr_trunk": 0.1}))
    assert norm(clipped) == pytest.approx(0.1 * 0.5, rel=1e-3)
    factor = norm(clipped) / norm(plain)
    for name, change in plain.items():
        assert torch.allclose(clipped[name], factor * change, atol=1e-6), name
        rate = 1 if name.startswith("head") else 0.1
        assert torch.allclose(slow[name], rate * change, atol=1e-6), name


def test_the_head_alone_learns_at_its_rate(tmp_path: Path) -> None:
    result = fit(digits(tmp_path, freeze="trunk", lr_trunk=0.1, clip=1.0, ema=0.5))
    assert result.history == fit(digits(tmp_path, freeze="trunk", clip=1.0, ema=0.5)).history


def test_averaged_weights_are_evaluated_and_change_no_step(tmp_path: Path) -> None:
    one = {"epochs": 1, "train_samples": 64}
    runs = {"0": {**one, "lr": 1e-30}, "1": one, "e": {**one, "ema": 0.75}}
    _, plain, averaged = (
        fit(digits(tmp_path, run_name=name, **runs[name]), FileTracker()) for name in runs
    )
    before, after, kept = (load_checkpoint(RunFiles(tmp_path, n).best) for n in "01e")
    for name, value in kept["state_dict"].items():
        start, end = before["state_dict"][name], after["state_dict"][name]
        learned = name.endswith(("weight", "bias"))
        assert torch.allclose(value, 0.75 * start + 0.25 * end if learned else end), name
        assert torch.equal(kept["learning"][name], end)
    assert averaged.metrics["loss_train"] == plain.metrics["loss_train"]
    assert averaged.metrics["loss_val"] != plain.metrics["loss_val"]
    best = RunFiles(tmp_path, "e").best
    found = deep_cnn.test(resumed_config(best, {"test_net": best}))
    config = digits(tmp_path, run_name="w", weights=best, epochs=1, lr=1e-30, freeze="trunk")
    assert fit(config).state is State.FINISHED
    del kept["learning"]
    kept["config"]["ema"] = 0.0
    torch.save(kept, best)
    assert deep_cnn.test(resumed_config(best, {"test_net": best})) == found


def test_half_precision_learns_with_a_scaled_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = fit(digits(tmp_path, amp="fp16", epochs=4), FileTracker())
    assert result.metrics["precision@1_val"] > 0.8
    assert "a new run can take --amp=auto" in caplog.text
    content = load_checkpoint(RunFiles(tmp_path, "d").last)
    assert content["scaler"]["scale"] > 1


def test_smoothed_labels_are_learned_and_not_validated_on(tmp_path: Path) -> None:
    plain, smooth = (
        fit(digits(tmp_path, epochs=1, lr=1e-30, label_smoothing=x)).metrics for x in (0, 0.5)
    )
    assert smooth["loss_val"] == plain["loss_val"]
    assert smooth["loss_train"] != plain["loss_train"]


def test_hubers_loss_is_of_standardised_scores(tmp_path: Path) -> None:
    folder = make_scored(tmp_path / "data", 40)
    config = TrainConfig(data_dir=str(folder), out_dir=str(tmp_path), run_name="h", epochs=1,
                         lr=0.1, freeze="trunk", options={"loss": "huber"})  # fmt: skip
    fit(config, FileTracker())
    files = RunFiles(tmp_path, "h")
    found = deep_cnn.test(resumed_config(files.last, {"test_net": files.last}))
    std = load_checkpoint(files.last)["labels"]["std"]
    errors = [
        abs(float(r["truth"]) - float(r["prediction"])) / std for r in table(files.predictions)
    ]
    assert min(errors) < 1 < max(errors)
    expected = np.mean([e**2 / 2 if e < 1 else e - 0.5 for e in errors])
    assert found["loss_test"] == pytest.approx(expected, rel=1e-4)


def test_a_test_of_classes_leaves_their_confusion(tmp_path: Path) -> None:
    fit(digits(tmp_path, epochs=1), FileTracker())
    files = RunFiles(tmp_path, "d")
    deep_cnn.test(resumed_config(files.last, {"test_net": files.last}))
    rows = table(files.confusion)
    assert list(rows[0]) == ["truth", *"0123456789"]
    pairs = [(row["truth"], row["prediction"]) for row in table(files.predictions)]
    assert {(r["truth"], p): int(r[p]) for r in rows for p in "0123456789"} == {
        (t, p): pairs.count((t, p)) for t in "0123456789" for p in "0123456789"
    }


def test_perception_metrics_are_over_the_split_and_on_the_original_scale(tmp_path: Path) -> None:
    folder = make_scored(tmp_path / "data", 60)
    config = TrainConfig(
        data_dir=str(folder), out_dir=str(tmp_path), run_name="p", epochs=6, freeze="trunk", lr=0.01
    )
    result = fit(config, FileTracker())
    assert result.metrics["pearson_val"] > 0.8
    deep_cnn.test(
        resumed_config(tmp_path / "models" / "p.pt", {"test_net": tmp_path / "models" / "p.pt"})
    )
    rows = table(tmp_path / "results" / "p.test.csv")
    truth, prediction = (np.array([float(r[k]) for r in rows]) for k in ("truth", "prediction"))
    scores = {r["image"]: float(r["score"]) for r in table(folder / "scores.csv")}
    assert [scores[row["image"]] for row in rows] == truth.tolist()
    found = json.loads((tmp_path / "results" / "p.json").read_text())["test"]
    assert found["mae_test"] == pytest.approx(np.abs(truth - prediction).mean())
    assert found["rmse_test"] == pytest.approx(np.sqrt(((truth - prediction) ** 2).mean()))
    assert found["pearson_test"] == pytest.approx(np.corrcoef(truth, prediction)[0, 1])
    assert found["spearman_test"] == pytest.approx(stats.spearmanr(truth, prediction)[0])
    assert found["kendall_test"] == pytest.approx(stats.kendalltau(truth, prediction)[0])
    std = load_checkpoint(tmp_path / "models" / "p.pt")["labels"]["std"]
    assert found["loss_test"] == pytest.approx((found["rmse_test"] / std) ** 2, rel=1e-5)


def test_scores_are_standardised_by_the_training_split_only(tmp_path: Path) -> None:
    folder = make_scored(tmp_path / "data", 40)
    lines = (folder / "scores.csv").read_text().splitlines()
    rows = [line + ("," + ("test" if i % 4 == 0 else "train")) for i, line in enumerate(lines[1:])]
    (folder / "scores.csv").write_text("\n".join(["image,score,split", *rows]))
    fit(
        TrainConfig(
            data_dir=str(folder), out_dir=str(tmp_path), run_name="p", epochs=1, freeze="trunk"
        )
    )
    first = load_checkpoint(tmp_path / "models" / "p.pt")["labels"]
    changed = [row.replace("test", "test").split(",") for row in rows]
    rows = [",".join([a, "9999" if s == "test" else b, s]) for a, b, s in changed]
    (folder / "scores.csv").write_text("\n".join(["image,score,split", *rows]))
    fit(
        TrainConfig(
            data_dir=str(folder), out_dir=str(tmp_path), run_name="q", epochs=1, freeze="trunk"
        )
    )
    assert load_checkpoint(tmp_path / "models" / "q.pt")["labels"] == first


def test_training_opens_no_test_picture(tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "data")
    for path in (folder / "val").rglob("*.png"):
        path.write_bytes(b"no picture: who opens this one fails")
    config = TrainConfig(data_dir=str(folder), out_dir=str(tmp_path), run_name="f", epochs=1, 
                         model="lenet", weights="none", strict_data=True)  # fmt: skip
    assert fit(config).state is State.FINISHED


def test_weights_weigh_the_loss(tmp_path: Path) -> None:
    folder = make_scored(tmp_path / "data", 30)
    lines = (folder / "scores.csv").read_text().splitlines()
    rows = [f"{line},{'val' if i % 3 == 0 else 'train'},{i}" for i, line in enumerate(lines[1:])]
    (folder / "scores.csv").write_text("\n".join([lines[0] + ",split,weight", *rows]))
    config = TrainConfig(
        data_dir=str(folder), out_dir=str(tmp_path), epochs=1, freeze="trunk", test_split=0
    )
    result = fit(config)
    unweighted = (result.metrics["rmse_val"] / load_checkpoint(
        next((tmp_path / "models").glob("*[0-9].pt")))["labels"]["std"]) ** 2  # fmt: skip
    assert abs(result.metrics["loss_val"] - unweighted) > 1e-4


def test_features_once_equal_features_each_time(tmp_path: Path) -> None:
    """`augment` recomputes them; with its random crop taken away both must agree."""
    from deep_cnn.data import preprocessing as images

    folder = make_scored(tmp_path / "data", 30)

    def config(pre: str) -> TrainConfig:
        return TrainConfig(data_dir=str(folder), out_dir=str(tmp_path / pre), epochs=2,
                           freeze="trunk", pre=pre, amp="off", dropout=0.0)  # fmt: skip

    images.AUGMENTS["augment"], kept = (
        (lambda i, f, r: images.centre(i, f)),
        images.AUGMENTS["augment"],
    )
    try:
        every_time = fit(config("augment"))
    finally:
        images.AUGMENTS["augment"] = kept
    once = fit(config("default"))
    for a, b in zip(once.history, every_time.history, strict=True):
        assert dict(a.metrics) == pytest.approx(dict(b.metrics), rel=1e-3)


def test_pictures_are_decoded_once_but_for_a_random_crop(tmp_path: Path) -> None:
    class Remove(Tracker):
        def start(self, start: Start) -> None:
            for path in tmp_path.rglob("*.png"):
                path.unlink()

    for pre in ("trivial", "augment"):
        folder = make_scored(tmp_path / pre, 20)
        config = TrainConfig(data_dir=str(folder), out_dir=str(tmp_path / "out"), epochs=2, pre=pre,
                             freeze="trunk")  # fmt: skip
        if pre == "augment":
            with pytest.raises(DataError, match="cannot be read any more"):
                fit(config, Remove())
            continue
        losses = [record.metrics["loss_train"] for record in fit(config, Remove()).history]
        assert losses[0] != losses[1]


def test_a_resume_with_other_flags_says_which(tmp_path: Path) -> None:
    fit(digits(tmp_path, epochs=1))
    last = tmp_path / "models" / "d.pt"
    with pytest.raises(
        CheckpointError, match=r"--lr=0.5 does not fit the checkpoint, which has 0.01"
    ):
        fit(resumed_config(last, {"resume": last, "lr": 0.5}))
    with pytest.raises(ConfigError, match="is not a number"):
        fit(
            resumed_config(
                last, {"resume": last, "model": "resnet18", "weights": "imagenet", "lr": "x"}
            )
        )


def test_a_checkpoint_with_other_classes_is_refused(tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "data")
    common = {"model": "lenet", "weights": "none", "epochs": 1, "run_name": "f"}
    common["out_dir"] = tmp_path
    fit(TrainConfig(data_dir=str(folder)).updated(common))
    (folder / "train" / "third").mkdir()
    (folder / "val" / "third").mkdir()
    for part in ("train", "val"):
        (folder / part / "third" / "0.png").write_bytes(
            (folder / part / "dark" / "0.png").read_bytes()
        )
    last = tmp_path / "models" / "f.pt"
    with pytest.raises(CheckpointError, match=r"has 2 outputs.*needs 3"):
        fit(resumed_config(last, {"resume": last, "epochs": 2}))


def test_the_second_look_at_a_test_split_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        fit(digits(tmp_path, epochs=1, run_name=name), FileTracker())
    for name in ("a", "b"):
        last = tmp_path / "models" / f"{name}.pt"
        deep_cnn.test(resumed_config(last, {"test_net": last}))
        said = [r.message for r in caplog.records if "was opened before" in r.message]
        assert bool(said) == (name == "b")


def test_the_sample_shows_learning(tmp_path: Path) -> None:
    config = TrainConfig(
        data_dir=str(SAMPLE), out_dir=str(tmp_path), epochs=8, freeze="trunk", lr=0.01
    )
    result = fit(config)
    assert result.metrics["pearson_val"] > 0.8
    assert RunResult.from_json(result.to_json()).metrics["r2_val"] > 0.3


def test_a_resume_that_is_refused_leaves_the_result(tmp_path: Path) -> None:
    fit(digits(tmp_path, epochs=1), FileTracker())
    files = RunFiles(tmp_path, "d")
    deep_cnn.test(resumed_config(files.last, {"test_net": files.last}))
    before = files.result.read_text(), files.arguments.read_text()
    with pytest.raises(CheckpointError):
        fit(resumed_config(files.last, {"resume": files.last, "lr": 0.5}), FileTracker())
    assert (files.result.read_text(), files.arguments.read_text()) == before
    fit(resumed_config(files.last, {"resume": files.last}), FileTracker())
    assert json.loads(files.result.read_text())["test"] == json.loads(before[0])["test"]


def test_going_on_from_an_older_state_overwrites_nothing(tmp_path: Path) -> None:
    fit(digits(tmp_path, epochs=1), FileTracker())
    files = RunFiles(tmp_path, "d")
    older = files.last.with_name("older.pt")
    older.write_bytes(files.last.read_bytes())
    fit(resumed_config(files.last, {"resume": files.last, "epochs": 3}), FileTracker())
    before = files.last.read_bytes(), files.table.read_text()
    again = fit(resumed_config(older, {"resume": older, "epochs": 2}), FileTracker())
    assert again.run_name == "d-2"
    named = resumed_config(older, {"resume": older, "epochs": 2, "run_name": "other"})
    assert fit(named, FileTracker()).run_name == "other"
    assert (files.last.read_bytes(), files.table.read_text()) == before
    with pytest.raises(CheckpointError, match="3 epochs are done already"):
        fit(resumed_config(files.last, {"resume": files.last, "epochs": 2}))


def test_a_checkpoint_from_before_a_flag_goes_on(tmp_path: Path) -> None:
    straight = fit(digits(tmp_path / "a", epochs=2))
    fit(digits(tmp_path / "b", epochs=1), FileTracker())
    last = tmp_path / "b" / "models" / "d.pt"
    content = torch.load(last, weights_only=True)
    for name in ("crop_bottom", "warmup", "lr_trunk", "clip", "ema", "label_smoothing"):
        del content["config"][name]
    del content["scaler"]
    content["scheduler"] = {"last_epoch": 1}
    content["optimizer"]["param_groups"][0]["initial_lr"] = 0.01
    torch.save(content, last)
    resumed = fit(resumed_config(last, {"resume": last, "epochs": 2}), FileTracker())
    assert resumed.history == straight.history


def test_a_test_with_other_classes_is_refused(tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "data")
    common = {"model": "lenet", "weights": "none", "epochs": 1, "run_name": "f"}
    common["out_dir"] = tmp_path
    fit(TrainConfig(data_dir=str(folder)).updated(common))
    for part in ("train", "val"):
        (folder / part / "dark").rename(folder / part / "other")
    last = tmp_path / "models" / "f.pt"
    with pytest.raises(CheckpointError, match="classes of other names"):
        deep_cnn.test(resumed_config(last, {"test_net": last}))


def test_a_notebook_gets_the_whole_log(tmp_path: Path) -> None:
    fit(digits(tmp_path, epochs=1), FileTracker())
    log = RunFiles(tmp_path, "d").log.read_text()
    assert "Running on cpu device" in log
    assert "Epoch 0: lr=0.01" in log


def test_weights_count_even_with_one_picture_a_step(tmp_path: Path) -> None:
    folder = make_scored(tmp_path / "data", 30)
    lines = (folder / "scores.csv").read_text().splitlines()
    results = []
    for weight in (1, 50):
        rows = [f"{line},{weight if i % 5 == 0 else 1}" for i, line in enumerate(lines[1:])]
        (folder / "scores.csv").write_text("\n".join([lines[0] + ",weight", *rows]))
        config = TrainConfig(data_dir=str(folder), out_dir=str(tmp_path), epochs=1, batch_size=1,
                             freeze="trunk", optimizer="sgd", lr=1e-3)  # fmt: skip
        results.append(fit(config).metrics["mae_val"])
    assert results[0] != results[1]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits memory as Linux does")
def test_a_batch_that_does_not_fit_names_the_largest_that_does(tmp_path: Path) -> None:
    flags = ["--epochs=1", "--batch_size=64", "--model=resnet18", "--weights=none"]
    program = """
import resource, sys, torch
from deep_cnn import fit
from deep_cnn.argv import parse_config
from deep_cnn.tracking import Tracker
class Limit(Tracker):
    def start(self, start):
        torch.ones(999, 999, requires_grad=True).exp().sum().backward()  # Its threads, too.
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2)
print(fit(parse_config(sys.argv[1:]), Limit()).error)
"""
    words = [sys.executable, "-c", program, *flags, f"--out_dir={tmp_path}"]
    # An arena of each thread would take addresses, of which the limit is.
    given = environment(MALLOC_ARENA_MAX="1")
    done = subprocess.run(words, capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stderr
    found = re.search(r"out of memory at --batch_size=64; --batch_size=(\d+) fits", done.stdout)
    assert found, done.stdout
    assert 1 < int(found[1]) < 64
