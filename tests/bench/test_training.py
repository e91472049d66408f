"""The benchmarks of loading and training measure what they say."""

import json
from dataclasses import asdict

import pytest
import torch

from amst.bench.loading import measure_loading
from amst.bench.loop import measure_loop
from amst.bench.prepared import prepare, settings_of
from amst.bench.together import measure_together
from amst.bench.training import Ours, Plan, measure_training, without
from amst.bench.yardstick import FRAMES, Clips, PlainTraining, clip_loader, picture_loader
from amst.config.run import Recipe
from amst.errors import AmstError
from amst.training.execution import Execution

CPU = torch.device("cpu")


def test_training_is_measured_beside_the_yardstick(config, clips):
    settings = settings_of(config, "CREMAD", "amst_joint", batch_size=4)
    plan = Plan(batches=1, rounds=1, workers=0)
    found = measure_training(settings, clips.manifest, clips.split, Execution(), plan, clips.raw)
    rates = (found.samples, found.steps, found.yardstick, found.yardstick_steps)
    assert all(rate and rate > 0 for rate in rates)
    assert found.operations > 0
    assert set(found.skipped_to_absent) == {"audio"}
    assert min(found.seconds.values()) >= 0
    assert found.seconds["forward"] > 0 < found.seconds["augment"]
    said = "\n".join(found.lines())
    assert "ratio, end to end" in said
    assert "epoch that skips audio" in said
    assert json.loads(json.dumps(asdict(found)))["method"] == "amst_joint"


def test_a_cycle_has_every_kind_of_epoch_as_often_as_the_schedule(config, digits):
    settings = settings_of(config, "digits", "amst_alternating")
    ours = Ours(settings, digits.manifest, digits.split, Execution())
    assert ours.kinds == {0: 1, 1: 3}, "audio and text train in every fourth epoch"
    assert ours.skipped() == [("audio", "text")]
    assert ours.epoch_without(("audio", "text")) == 1
    assert ours.over_cycle({0: 8.0, 1: 4.0}) == 5.0
    all_of_them = sum(ours.operations_in(epoch) * n for epoch, n in ours.kinds.items())
    assert ours.operations() == pytest.approx(all_of_them / 4)
    assert ours.operations_in(0) > ours.operations_in(1)


def test_a_dataset_without_a_modality_has_no_skip_factor_of_it(config):
    settings = without(settings_of(config, "digits", "amst_joint"), ("audio",))
    assert set(settings.modalities) == {"text", "visual"}
    assert set(settings.method_settings["skip"]) == {"text"}


def test_the_yardstick_makes_the_batches_that_the_suite_makes(config, clips):
    files = Clips(clips.raw, side=32)
    sound, pictures, _ = next(iter(clip_loader(files, 4, workers=0)))
    settings = settings_of(config, "CREMAD", "naive", batch_size=4)
    ours = Ours(settings, clips.manifest, clips.split, Execution()).batch(0)
    assert pictures.shape == ours.inputs["visual"].shape
    assert sound.shape[:2] == ours.inputs["audio"].shape[:2]
    plain, _ = next(iter(picture_loader(files, 32, 4, workers=0)))
    assert plain.shape == (4 * FRAMES, 3, 32, 32)


def test_the_yardstick_trains_jointly_and_in_turn(clips):
    files = Clips(clips.raw, side=32)
    sound, pictures, labels = next(iter(clip_loader(files, 4, workers=0)))
    inputs = {"audio": sound[:, :, :64, :32], "visual": pictures}
    torch.manual_seed(0)
    training = PlainTraining("amst_full", ["audio", "visual"], 2, Recipe(learning_rate=0.01), CPU)
    losses = [training.step(inputs, labels) for _ in range(3)]
    assert len(set(losses)) == 3


def test_every_residency_is_loaded_and_weighed(config, clips):
    settings = settings_of(config, "CREMAD", "naive", batch_size=4)
    found = measure_loading(
        settings, clips.manifest, clips.split, ["host", "stream"], 1, 0, clips.raw
    )
    assert set(found.rates) == {"host", "stream"}
    assert found.yardstick
    host, stream = found.memory
    assert host.features == stream.features > 0
    assert host.predicted - stream.predicted == host.features - 2 * host.batch
    assert "yardstick" in "\n".join(found.lines())


def test_the_loop_is_measured_against_its_bare_steps(config, digits):
    settings = settings_of(config, "digits", "naive")
    cost = measure_loop(settings, digits.manifest, digits.split, Execution(), 1)
    assert cost.loop > 0 < cost.bare
    assert cost.lines() == [cost.lines()[0]]


def test_runs_train_at_once(config, digits):
    settings = settings_of(config, "digits", "naive", batch_size=16)
    found = measure_together(settings, digits.manifest, digits.split, [1, 2], seconds=0.5)
    assert set(found.rates) == {1, 2}
    assert min(found.rates.values()) > 0


def test_a_dataset_that_cannot_be_made_is_refused(config, tmp_path):
    with pytest.raises(AmstError, match="CREMAD and digits"):
        prepare(config, "AVE", 20, tmp_path)
