"""What a finished run holds, and what its training was allowed to see."""

import csv
import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from amst.datasets.splitfile import read_split, write_split
from amst.features.manifest import read_manifest
from amst.files import write_json
from amst.loading.dataset import FeatureStore
from amst.metrics import metrics_of
from amst.records import read_record
from amst.training.finish import FILES

SUBSETS = {
    "audio",
    "text",
    "visual",
    "audio+text",
    "audio+visual",
    "text+visual",
    "audio+text+visual",
}


def _history(place):
    with (place.out / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _with_split(place, change):
    """Give the run a split of its own, and the manifest by its absolute path."""
    split = read_split(place.digits.split)
    path = place.folder / "split.json"
    write_split(path, split.model_copy(update={"parts": change(dict(split.parts))}))
    place.digits = type(place.digits)(place.digits.manifest, path)
    return path


def test_the_folder_holds_the_files_of_the_design_and_the_checkpoints_are_gone(workplace):
    place = workplace()
    place.finish()
    assert {path.name for path in place.out.iterdir()} == {
        "run.json",
        "history.csv",
        "cost.csv",
        "predictions.npz",
        "weights.safetensors",
        "tensorboard",
    }
    assert list(place.checkpoints.iterdir()) == []


def test_a_method_that_predicts_with_more_than_its_weights_is_refused(workplace):
    def before():
        from amst.methods.naive import Naive

        predict = Naive.predict

        def leaning(self, batch, modalities=None):
            # All right in the first epoch.
            bias = 1000.0 * (self.finished_epochs == 0)
            found = predict(self, batch, modalities)
            found["fused"][torch.arange(batch.size), batch.labels] += bias
            return found

        Naive.predict = leaning

    process = workplace().start(before)
    assert process.wait() == 1
    assert "the weights of epoch 1 give a validation accuracy of" in process.said
    assert "weights() and load_weights()" in process.said
    assert "Traceback" not in process.said


def test_an_epoch_begins_in_evaluation_mode_wherever_the_run_goes_on(workplace, signal_in_step):
    def telling():
        from amst.methods.naive import Naive

        def tell(self, _epoch, batches):
            modes = {network.training for network in self.networks.values()}
            print(f"mode {modes} of {batches.samples}", file=sys.stderr, flush=True)

        Naive.begin_epoch = tell

    place = workplace()
    killed = place.start(lambda: (telling(), signal_in_step("naive", 9, signal.SIGKILL)()))
    assert killed.wait() == -signal.SIGKILL
    ended = place.start(telling)
    assert ended.wait() == 0
    assert killed.said.count("mode {False} of 120") == 2
    assert ended.said.count("mode {False} of 120") == 2
    assert "True" not in killed.said + ended.said


def test_a_method_is_told_that_an_epoch_has_ended_and_then_what_its_validation_gave(workplace):
    def telling():
        from amst.methods.naive import Naive

        end_epoch = Naive.end_epoch

        def ended(self):
            end_epoch(self)
            print("told of the end,", self.finished_epochs, file=sys.stderr)
            with torch.no_grad():  # what was validated is kept before
                for weight in self.network.head.parameters():
                    weight.zero_()

        def validated(self, accuracies):
            print("told", accuracies["fused"], self.finished_epochs, file=sys.stderr)

        def losses(self, train, validation):
            print("told", train, validation["fused"], self.finished_epochs, file=sys.stderr)

        Naive.end_epoch, Naive.see_losses, Naive.end_validation = ended, losses, validated

    place = workplace(recipe={"epochs": 2})
    process = place.start(telling)
    assert process.wait() == 0, process.said
    rows = _history(place)
    first, second = (row["val_accuracy:fused"] for row in rows)
    losses = [f"{row['train_loss']} {row['val_loss:fused']}" for row in rows]
    told = [line for line in process.said.splitlines() if line.startswith("told")]
    assert told == [
        "told of the end, 1",
        f"told {losses[0]} 1",
        f"told {first} 1",
        "told of the end, 2",
        f"told {losses[1]} 2",
        f"told {second} 2",
    ]
    weights = load_file(place.out / "weights.safetensors")
    assert all(each.any() for name, each in weights.items() if name.startswith("head"))


def test_the_record_tells_settings_results_cost_and_surroundings(workplace):
    place = workplace()
    place.execution = place.execution.model_copy(
        update={"code_digest": "c0de", "packages": ("numpy", "no-such-package")}
    )
    place.finish()
    record = read_record(place.out / "run.json")
    assert record.settings == place.settings
    assert record.settings_hash == place.settings.hash
    assert record.run == "digits/random/naive/seed0"
    assert {(row.selected_by, row.part) for row in record.results} == {
        ("fused", "val"),
        ("fused", "test"),
    }
    names = {row.prediction for row in record.results}
    assert names == {"fused"} | {
        f"{head}/{name}"
        for head in ("modality", "probe", "linear")
        for name in ("audio", "text", "visual")
    }
    assert record.environment.code_digest == "c0de"
    assert record.environment.packages == {"numpy": np.__version__}
    assert record.environment.device
    assert record.cost.train_seconds > 0
    assert record.cost.peak_host_bytes > 10_000_000
    assert record.cost.attempts == 1
    assert record.started <= record.finished


def test_a_split_of_another_name_replaces_nothing(workplace):
    place = workplace()
    place.finish()
    before = place.results()
    split = read_split(place.digits.split)
    path = place.folder / "mine.json"
    write_split(path, split.model_copy(update={"name": "mine"}))
    place.digits = type(place.digits)(place.digits.manifest, path)
    process = place.start()
    assert process.wait() == 1
    assert "mine.json is the split mine, and digits/random/naive/seed0 is a run on random" in (
        process.said
    )
    assert place.results() == before


def test_history_has_a_row_per_epoch_and_no_times(workplace):
    place = workplace()
    place.finish()
    rows = _history(place)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert rows[0]["active"] == "audio+text+visual"
    names = sorted(column.partition(":")[2] for column in rows[0] if column.startswith("val_acc"))
    expected = ["epoch", "active", "train_loss"]
    for column in ("train_accuracy", "val_loss", "val_accuracy"):
        expected += [f"{column}:{name}" for name in names]
    assert list(rows[0]) == expected
    assert float(rows[2]["train_loss"]) < float(rows[0]["train_loss"])
    with (place.out / "cost.csv").open(newline="") as file:
        costs = list(csv.DictReader(file))
    assert list(costs[0]) == [
        "epoch",
        "train_seconds",
        "validate_seconds",
        "load_seconds",
        "peak_host_bytes",
        "peak_device_bytes",
    ]


def test_every_fused_prediction_selects_the_first_of_its_best_epochs(workplace):
    place = workplace("mla", recipe={"epochs": 4})
    place.finish()
    record, rows = read_record(place.out / "run.json"), _history(place)
    for name in ("equal", "entropy"):
        accuracies = [float(row[f"val_accuracy:{name}"]) for row in rows]
        found = {row.best_epoch for row in record.results if row.selected_by == name}
        assert found == {accuracies.index(max(accuracies))}
        assert record.metrics(name, "val", name).accuracy == pytest.approx(max(accuracies))


def _best_in(**epochs):
    """Fused predictions are at their best in these epochs: the others are told to be worse."""

    def before():
        from amst.training.loop import TrainingLoop

        end_epoch = TrainingLoop._end_epoch

        def telling(self, validation):
            row = end_epoch(self, validation)
            told = {name: -1.0 for name, epoch in epochs.items() if epoch != row.epoch}
            return replace(row, val_accuracy={**row.val_accuracy, **told})

        TrainingLoop._end_epoch = telling

    return before


def _mla_fused(name, logits):
    """Fused logits (n, C) by MLA's formulas from those of the modalities, (M, n, C)."""
    logits = np.stack(logits).astype(np.float64)
    if name == "equal":
        return logits.mean(axis=0)
    p = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    weights = np.exp((p * np.log(p)).sum(axis=2, keepdims=True))  # of minus the entropy
    return (weights * logits).sum(axis=0) / weights.sum(axis=0)


@pytest.mark.parametrize("main", ["equal", "entropy"])
def test_each_fused_prediction_is_reported_as_it_was_in_its_best_epoch(workplace, main):
    best = {"equal": 0, "entropy": 1}

    def finished(epochs, **best):
        place = workplace("mla", method_settings={"fusion": main}, recipe={"epochs": epochs})
        process = place.start(_best_in(**best))
        assert process.wait() == 0, process.said
        return place

    place = finished(3, **best)
    record, arrays = read_record(place.out / "run.json"), place.predictions()
    assert {row.selected_by: row.best_epoch for row in record.results} == best
    for name, epoch in best.items():
        ended_there = finished(epoch + 1, equal=epoch, entropy=epoch)
        at = "/logits/" if name == main else f"/selected/{name}/"
        not_there = ("/selected/",) if name == main else ("/selected/", "/linear/", "/subset/")
        for key, theirs in ended_there.predictions().items():
            if not any(kind in key for kind in not_there):
                assert np.array_equal(arrays[key.replace("/logits/", at)], theirs), key
        weights = [each.results()["weights.safetensors"] for each in (place, ended_there)]
        assert (weights[0] == weights[1]) == (name == main)

    names = ("audio", "text", "visual")
    for subset in (each for size in (1, 2, 3) for each in combinations(names, size)):
        of_each = [arrays[f"test/logits/modality/{name}"] for name in subset]
        expected = _mla_fused(main, of_each)
        assert arrays[f"test/subset/{'+'.join(subset)}"] == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(arrays["test/subset/audio+text+visual"], arrays[f"test/logits/{main}"])


def test_the_first_epoch_is_selected_when_nothing_is_learnt(workplace):
    place = workplace(recipe={"learning_rate": 1e-12})
    place.finish()
    record = read_record(place.out / "run.json")
    assert {row.best_epoch for row in record.results} == {0}


def test_predictions_hold_ids_labels_and_logits_of_the_selected_epochs(workplace):
    place = workplace("mla")
    place.finish()
    arrays, record = place.predictions(), read_record(place.out / "run.json")
    split = read_split(place.digits.split)
    assert arrays["classes"].tolist() == list("0123456789")
    for part in ("val", "test"):
        assert arrays[f"{part}/ids"].tolist() == split.parts[part]
        labels = arrays[f"{part}/labels"]
        main = metrics_of(arrays[f"{part}/logits/{record.main}"], labels, record.classes)
        assert main == record.metrics(record.main, part)
        other = ({"equal", "entropy"} - {record.main}).pop()
        for name in (other, "modality/audio", "probe/visual"):
            logits = arrays[f"{part}/selected/{other}/{name}"]
            assert metrics_of(logits, labels, record.classes) == record.metrics(name, part, other)
        assert arrays[f"{part}/logits/probe/audio"].dtype == np.float32
    subsets = {name.removeprefix("test/subset/") for name in arrays if "/subset/" in name}
    assert subsets == SUBSETS
    for name in subsets:
        accuracy = (arrays[f"test/subset/{name}"].argmax(1) == arrays["test/labels"]).mean()
        assert record.subset_accuracy[name] == accuracy


def test_contributions_sum_to_what_all_modalities_add_to_the_most_frequent_class(workplace):
    place = workplace()
    store, split = FeatureStore(place.digits.manifest), read_split(place.digits.split)

    def mostly(part, label):
        labels = list(store.labels(split, part))
        ids = zip(split.parts[part], labels, strict=True)
        return [each for i, (each, its) in enumerate(ids) if its == label or labels.index(its) == i]

    # The most frequent class of training is 3, that of the test part 5.
    path = _with_split(
        place, lambda parts: {**parts, "train": mostly("train", 3), "test": mostly("test", 5)}
    )
    place.finish()
    record, split = read_record(place.out / "run.json"), read_split(path)
    of_train, of_test = (np.bincount(store.labels(split, part)) for part in ("train", "test"))
    assert (of_train.argmax(), of_test.argmax()) == (3, 5)
    assert 0 < of_test[3] < of_test[5]
    chance = of_test[3] / of_test.sum()
    assert sum(record.shapley.values()) == pytest.approx(
        record.subset_accuracy["audio+text+visual"] - chance
    )


def test_the_weights_are_those_of_the_selected_epoch(workplace):
    place = workplace(recipe={"epochs": 1})
    place.finish()
    longer = workplace(recipe={"epochs": 2})
    longer.finish()
    weights = [load_file(each.out / "weights.safetensors") for each in (place, longer)]
    best = {row.best_epoch for row in read_record(longer.out / "run.json").results}
    same = all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert same == (best == {0})


def test_the_test_part_is_not_read_before_training_has_ended(workplace):
    place = workplace()
    _with_split(place, lambda parts: {**parts, "test": ["no such clip"]})
    process = place.start()
    assert process.wait() == 1
    assert "epoch 3/3" in process.said
    assert "part 'test'" in process.said
    assert [path.name for path in place.states()] == [
        "epoch-0002-batch-000000.pt",
        "epoch-0003-batch-000000.pt",
    ]


def test_the_test_part_changes_nothing_that_training_gives(workplace, undisturbed):
    place = workplace()
    _with_split(place, lambda parts: {**parts, "test": parts["test"][:3]})
    place.finish()
    reference = undisturbed(place.settings)
    for name in ("history.csv", "weights.safetensors"):
        assert place.results()[name] == reference[name]


def test_classes_may_be_absent_from_any_part(workplace):
    place = workplace("pmr")
    store, split = FeatureStore(place.digits.manifest), read_split(place.digits.split)
    absent = {"train": 0, "val": 1, "test": 2}

    def without(parts):
        return {
            part: [
                sample
                for sample, label in zip(ids, store.labels(split, part), strict=True)
                if label != absent[part]
            ]
            for part, ids in parts.items()
        }

    _with_split(place, without)
    place.finish()
    record = read_record(place.out / "run.json")
    fused = record.metrics("fused")
    assert "2" not in fused.per_class_accuracy
    assert "0" in fused.per_class_accuracy
    assert all(math.isfinite(row.metrics.cross_entropy) for row in record.results)


def test_rejected_samples_of_a_part_are_left_out(workplace):
    place = workplace()
    manifest = json.loads(place.digits.manifest.read_text())
    manifest["rejected"] = [{"id": "clip-lost", "reason": "no sound", "file": ""}]
    for shard, path in zip(
        manifest["shards"],
        read_manifest(place.digits.manifest).paths(place.digits.manifest),
        strict=True,
    ):
        shard["file"] = str(path)
    write_json(place.folder / "manifest.json", manifest)
    split = _with_split(place, lambda parts: {**parts, "val": ["clip-lost", *parts["val"]]})
    place.digits = type(place.digits)(place.folder / "manifest.json", split)
    process = place.finish()
    assert "1 of the samples of part val were rejected" in process.said
    record = read_record(place.out / "run.json")
    original = len(read_split(split).parts["val"]) - 1
    assert {row.samples for row in record.results if row.part == "val"} == {original}


def test_a_last_batch_of_one_sample_is_trained_on_too(workplace):
    samples = len(read_split(workplace().digits.split).parts["train"])
    place = workplace(recipe={"batch_size": samples - 1, "epochs": 1})
    place.finish()


def test_mapped_features_give_the_same_run(workplace, undisturbed):
    place = workplace()
    place.execution = place.execution.model_copy(update={"residency": "stream"})
    place.finish()
    assert place.results() == undisturbed(place.settings)


def test_half_precision_trains_too_and_gives_other_digits(workplace):
    place = workplace(precision="bf16")
    place.finish()
    full = workplace()
    full.finish()
    half_loss, loss = (float(_history(each)[0]["train_loss"]) for each in (place, full))
    assert half_loss == pytest.approx(loss, rel=0.05)
    assert half_loss != loss


def test_a_modality_that_rests_is_neither_run_nor_in_the_history(workplace):
    place = workplace("amst_alternating", method_settings={"skip": {"audio": 3}})
    place.finish()
    assert [row["active"] for row in _history(place)] == [
        "audio+text+visual",
        "text+visual",
        "text+visual",
    ]
    assert _history(place)[1]["train_accuracy:modality/audio"] == ""
    naive = workplace()
    naive.finish()
    rested, all_run = (read_record(each.out / "run.json").cost for each in (place, naive))
    assert rested.forward_flops["audio"] == pytest.approx(all_run.forward_flops["audio"] / 3)
    assert rested.backward_flops["audio"] == pytest.approx(all_run.backward_flops["audio"] / 3)
    assert rested.forward_flops["visual"] == all_run.forward_flops["visual"] > 0


def test_a_modality_may_be_laid_to_rest_when_an_epoch_begins(workplace):
    def deciding():
        from amst.methods.naive import Naive

        def decide(self, epoch, _batches):
            self.resting = {"audio"} if epoch == 1 else set()

        Naive.begin_epoch, Naive.resting = decide, set()
        Naive.active_modalities = lambda self, _epoch: frozenset(self.modalities) - self.resting

    place = workplace()
    process = place.start(deciding)
    assert process.wait() == 0, process.said
    rows = _history(place)
    assert [row["active"] for row in rows] == [
        "audio+text+visual",
        "text+visual",
        "audio+text+visual",
    ]
    assert [row["train_accuracy:modality/audio"] == "" for row in rows] == [False, True, False]


def test_an_encoder_that_rests_in_released_form_costs_its_forward_pass(workplace):
    settings = {"skip": {"audio": 3}, "skipped_encoder": "forward"}
    place, naive = workplace("amst_alternating", method_settings=settings), workplace()
    costs = []
    for each in (place, naive):
        each.finish()
        costs.append(read_record(each.out / "run.json").cost)
    assert [row["active"] for row in _history(place)] == [
        "audio+text+visual",
        "text+visual",
        "text+visual",
    ]
    released, all_run = costs
    assert released.forward_flops["audio"] == all_run.forward_flops["audio"]
    assert released.backward_flops["audio"] == pytest.approx(all_run.backward_flops["audio"] / 3)


def test_the_cost_is_the_operations_of_the_encoders_for_every_training_sample(workplace):
    place = workplace(recipe={"epochs": 2})
    place.finish()
    samples = 2 * len(read_split(place.digits.split).parts["train"])
    # A convolution: 2 * outputs * its side squared * inputs of an output. Sound is (1, 32, 16),
    # to which 4, then 8 channels halve the sides; a 1x1 convolution to 16 channels follows.
    audio = 2 * (4 * 16 * 8) * 9 * 1, 2 * (8 * 8 * 4) * 9 * 4, 2 * (16 * 8 * 4) * 1 * 8
    # Two pictures of (3, 24, 24) in a sample.
    frames = 2 * (4 * 12 * 12) * 9 * 3, 2 * (8 * 6 * 6) * 9 * 4, 2 * (16 * 6 * 6) * 1 * 8
    cost = read_record(place.out / "run.json").cost
    for name, layers in (("audio", audio), ("visual", [2 * each for each in frames])):
        assert cost.forward_flops[name] == samples * sum(layers)
        # Each layer's weights have a gradient, and the inputs of all but the first one.
        first, *others = layers
        assert cost.backward_flops[name] == samples * (first + 2 * sum(others))


def _steps(place):
    found = EventAccumulator(str(place.out / "tensorboard")).Reload()
    return [event.step for event in found.Scalars("val_accuracy/fused")]


def test_events_that_are_gone_are_written_anew_without_training(workplace):
    place = workplace()
    place.finish()
    record = (place.out / "run.json").read_bytes()
    shutil.rmtree(place.out / "tensorboard")
    process = place.finish()
    assert "epoch" not in process.said
    assert _steps(place) == [0, 1, 2]
    assert (place.out / "run.json").read_bytes() == record
    assert list(place.checkpoints.iterdir()) == []


@pytest.mark.parametrize("name", [name for name in FILES if name != "run.json"])
def test_a_run_that_lacks_a_file_is_not_done(workplace, undisturbed, name):
    place = workplace()
    place.finish()
    (place.out / name).unlink()
    assert "epoch 3/3" in place.finish().said
    assert place.results() == undisturbed(place.settings)


def test_events_that_vanish_while_a_run_trains_are_there_at_its_end(workplace):
    place = workplace(recipe={"epochs": 6})
    process = place.start()
    process.wait_for("epoch 2/6")
    shutil.rmtree(place.out / "tensorboard")
    assert process.wait() == 0, process.said
    assert _steps(place) == list(range(6))


_TRAIN = """
import sys
from pathlib import Path
from amst.config.run import RunSettings
from amst.training.execution import Execution
from amst.training.run import train
HEAVY = ("torch._dynamo", "torchvision", "transformers", "tensorboard", "pandas", "sklearn", "rich")
print([name for name in HEAVY if name in sys.modules])
manifest, split, out = map(Path, sys.argv[2:])
train(RunSettings.model_validate_json(sys.argv[1]), manifest, split, out / "run", out, Execution())
print([name for name in HEAVY if name in sys.modules])
"""


def test_neither_start_nor_training_imports_what_takes_seconds_and_is_not_needed(workplace):
    place = workplace(recipe={"epochs": 1})
    arguments = [place.settings.model_dump_json(), place.digits.manifest, place.digits.split]
    ended = subprocess.run(
        [sys.executable, "-c", _TRAIN, *map(str, arguments), str(place.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines() == ["[]", "['tensorboard']"]
