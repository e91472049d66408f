"""The benchmarks of loading and training measure what they say."""

import json
import threading
from copy import deepcopy
from dataclasses import asdict
from itertools import groupby
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from amst.bench import loading as bench_loading
from amst.bench import together
from amst.bench.loading import measure_loading
from amst.bench.loop import measure_loop
from amst.bench.ours import Ours, covered, without
from amst.bench.plain import PlainFiles
from amst.bench.prepared import prepare, settings_of
from amst.bench.speeds import LoaderRate
from amst.bench.together import measure_together
from amst.bench.training import Plan, _Subject, arithmetic_of, measure_training
from amst.bench.yardstick import (
    FRAMES,
    Clips,
    PlainTraining,
    pictures_of,
    random_batches,
)
from amst.config.run import Recipe
from amst.errors import AmstError
from amst.loading import loader as loading
from amst.loading.loader import spare_core
from amst.methods.naive import Naive
from amst.training.assembly import assemble_training
from amst.training.execution import Execution

CPU = torch.device("cpu")
BOTH = ("audio", "visual")


def test_methods_are_measured_beside_the_yardsticks_of_their_steps(
    config, clips, capsys, monkeypatch
):
    loaded, rates_of = [], PlainFiles.rates

    def rates(files):
        loaded.append(rates_of(files))
        return loaded[-1]

    monkeypatch.setattr(PlainFiles, "rates", rates)
    variants = [
        settings_of(config, "CREMAD", name, batch_size=2) for name in ("naive", "amst_joint")
    ]
    plan = Plan(batches=1, rounds=1, workers=0, epoch=2)
    found = measure_training(variants, clips.manifest, clips.split, Execution(), plan, clips.raw)
    naive, joint = found.methods
    for speed in found.methods:
        rates = (speed.samples, speed.steps, speed.yardstick.samples, speed.yardstick.steps)
        assert min(rates) > 0
        ours = (speed.samples, speed.steps)
        assert (speed.even, speed.even_steps) == ours, "all is fp32 here"
        assert (speed.plain, speed.plain_steps) == ours, "nothing is compiled on processors"
        assert speed.operations > 0 < speed.moved
        assert "convolution_backward" in speed.operators
        assert 0 < sum(speed.operators.values()) <= 1
        assert 0.02 < speed.busy < 50, "a share, if one that a profiler disturbs"
        assert min(speed.seconds.values()) >= 0
        assert speed.seconds["forward"] > 0 < speed.seconds["augment"]
    assert naive.yardstick != joint.yardstick, "that of AMST skips"
    assert naive.skipped_to_absent == {}
    assert set(joint.skipped_to_absent) == {"audio"}
    assert found.loader == LoaderRate(0, *loaded[0])
    assert min(loaded[0]) > 0
    ratio = joint.samples / joint.yardstick.samples
    absent = joint.skipped_to_absent["audio"]
    assert capsys.readouterr().err.splitlines()[:4] == [
        "turn 0 of 1",
        "turn 1 of 1",
        f"  naive: {naive.samples:.1f} samples per second, plain {naive.plain:.1f}, in equal "
        f"precision {naive.even:.1f}; yardstick {naive.yardstick.samples:.1f}: "
        + ", ".join([f"{naive.samples / naive.yardstick.samples:.2f}"] * 3),
        f"  amst_joint: {joint.samples:.1f} samples per second, plain {joint.plain:.1f}, in equal "
        f"precision {joint.even:.1f}; yardstick {joint.yardstick.samples:.1f}: "
        + ", ".join([f"{ratio:.2f}"] * 3)
        + f"; without audio {absent:.3f}",
    ], "told when a turn ends, as the call may not come to its end"
    said = "\n".join(found.lines())
    assert "ratio end to end" in said
    assert "epoch that skips audio" in said
    named = json.loads(json.dumps(asdict(found)))["methods"]
    assert [each["method"] for each in named] == ["naive", "amst_joint"]


def test_a_single_modality_is_not_compared_with_a_loader_of_two(config, clips):
    settings = settings_of(config, "CREMAD", "unimodal_audio", batch_size=2)
    plan = Plan(batches=1, rounds=1, workers=0, epoch=2)
    found = measure_training([settings], clips.manifest, clips.split, Execution(), plan, clips.raw)
    assert found.methods[0].yardstick is None


def test_methods_of_different_batch_sizes_are_refused(config, digits):
    variants = [settings_of(config, "digits", "naive", batch_size=size) for size in (8, 16)]
    plan = Plan(batches=1, rounds=1, workers=0, epoch=1)
    with pytest.raises(AmstError, match="different batch sizes"):
        measure_training(variants, digits.manifest, digits.split, Execution(), plan, None)


def test_another_precision_is_measured_beside_the_yardsticks(config, digits):
    variants = [settings_of(config, "digits", "naive", batch_size=8, precision="bf16")]
    plan = Plan(batches=1, rounds=1, workers=0, epoch=1)
    found = measure_training(variants, digits.manifest, digits.split, Execution(), plan, None)
    (speed,) = found.methods
    assert found.arithmetic == "bf16"
    assert speed.even > 0
    assert speed.even != speed.samples == speed.plain
    assert speed.yardstick is None is found.loader


def test_the_yardstick_draws_epochs_longer_than_its_files(clips):
    loader = random_batches(Clips(clips.raw, side=32), 4, workers=0, pin=False, batches=9)
    assert [len(labels) for _, _, labels in loader] == [4] * 9


def no_batch(epoch):
    raise LookupError(f"of epoch {epoch}")


def test_a_cycle_has_every_kind_of_epoch_as_often_as_the_schedule(config, digits, monkeypatch):
    settings = settings_of(config, "digits", "amst_alternating")
    ours = Ours(settings, digits.manifest, digits.split, Execution())
    assert ours.kinds == {0: 1, 1: 3}, "audio and text train in every fourth epoch"
    assert ours.skipped() == [("audio", "text")]
    assert ours.epoch_without(("audio", "text")) == 1
    assert ours.over_cycle({0: 8.0, 1: 4.0}) == 5.0
    with monkeypatch.context() as patch:
        patch.setattr(ours, "batch", no_batch)
        with pytest.raises(LookupError, match="of epoch 1"):
            ours.operators(1)  # those of most epochs
    first, later = ours.work_in(0), ours.work_in(1)
    mean = [(all_of_them + 3 * part) / 4 for all_of_them, part in zip(first, later, strict=True)]
    assert ours.work() == pytest.approx(mean, rel=0.01), "a first step also makes velocities"
    assert first > later
    assert first[1] > later[1]


@pytest.fixture
def ticking(monkeypatch):
    """A clock that goes on by so many seconds with every training step of a method."""

    def tick(ours, seconds):
        now, step = [0.0], ours.method.train_step

        def slow(batch, epoch):
            now[0] += seconds
            return step(batch, epoch)

        monkeypatch.setattr(ours.method, "train_step", slow)
        clock = SimpleNamespace(perf_counter=lambda: now[0])
        monkeypatch.setattr("amst.bench.ours.time", clock)

    return tick


def test_times_are_those_of_a_sample(config, digits, ticking):
    settings = settings_of(config, "digits", "naive", batch_size=8)
    ours = Ours(settings, digits.manifest, digits.split, Execution())
    ticking(ours, 4.0)
    assert ours.seconds(0, 3) == ours.step_seconds(0, 3) == 0.5
    assert ours.cycle_seconds(2) == ours.cycle_step_seconds(2) == 0.5


def test_an_epoch_that_skips_is_held_against_one_without_and_a_median_of_turns_counts(
    config, digits, monkeypatch
):
    settings = settings_of(config, "digits", "amst_joint", batch_size=8)
    ours = Ours(settings, digits.manifest, digits.split, Execution())
    subject = _Subject(ours, digits.manifest, digits.split, Execution())
    took = {"whole": 0.0}

    def seconds(measured, epoch, batches):
        return took["whole"] if len(measured.method.modalities) == 3 else 2.0

    monkeypatch.setattr(Ours, "seconds", seconds)
    monkeypatch.setattr(Ours, "step_seconds", lambda *given: 0.125)
    for whole, keep in ((100.0, False), (4.0, True), (0.5, True), (3.0, True)):
        took["whole"] = whole
        subject.measure(1, keep=keep)
    assert subject.latest({}) == (
        "amst_joint: 0.3 samples per second, plain 0.3, in equal precision 0.3; without audio+text "
        "1.500"
    ), "the last turn"
    for name in ("phases", "operators"):
        answer = {} if name == "phases" else ({}, 0.0)
        monkeypatch.setattr(Ours, name, lambda *given, answer=answer: answer)
    monkeypatch.setattr(Ours, "work", lambda measured: (7.0, 5.0))
    subject.look_closer(1)
    speed = subject.speed({})
    assert (speed.samples, speed.steps) == (1 / 3, 8)
    assert speed.skipped_to_absent == {"audio+text": 1.5}
    assert (speed.operations, speed.moved) == (7, 5)


def test_a_dataset_without_a_modality_has_no_skip_factor_of_it(config):
    settings = without(settings_of(config, "digits", "amst_joint"), ("audio",))
    assert set(settings.modalities) == {"text", "visual"}
    assert set(settings.method_settings["skip"]) == {"text"}


def test_the_yardstick_makes_the_batches_that_the_suite_makes(config, clips):
    files = Clips(clips.raw, side=32)
    sound, pictures, _ = next(iter(random_batches(files, 4, workers=0, pin=False, batches=1)))
    settings = settings_of(config, "CREMAD", "naive", batch_size=4)
    ours = Ours(settings, clips.manifest, clips.split, Execution()).batch(0)
    assert pictures.shape == ours.inputs["visual"].shape
    assert sound.shape[:2] == ours.inputs["audio"].shape[:2]
    plain, _ = next(iter(random_batches(pictures_of(files, 32), 4 * FRAMES, 0, False, 1)))
    assert plain.shape == (4 * FRAMES, 3, 32, 32)


@pytest.fixture
def plain_batch(clips):
    sound, pictures, labels = next(iter(random_batches(Clips(clips.raw, side=32), 4, 0, False, 1)))
    return {"audio": sound[:, :, :64, :32], "visual": pictures}, labels


@pytest.mark.parametrize("loops", [(True,), (False,), (True, True)], ids=str)
def test_the_yardstick_trains_jointly_and_in_turn(plain_batch, loops):
    training = plain_training(loops)
    losses = [training.step(*plain_batch, BOTH) for _ in range(3)]
    assert len(set(losses)) == 3


@pytest.mark.parametrize("in_turn", [True, False])
def test_the_yardstick_runs_a_skipped_modality_forward_only(plain_batch, in_turn):
    training = plain_training((in_turn,))
    encoders = training.models[0][0].encoders
    before = {name: deepcopy(encoders[name].state_dict()) for name in BOTH}
    training.step(*plain_batch, ("visual",))
    changed = {
        name: {k for k, v in encoders[name].state_dict().items() if not v.equal(before[name][k])}
        for name in BOTH
    }
    assert "conv1.weight" in changed["visual"]
    assert changed["audio"], "BatchNorm's statistics move"
    assert all("running" in key or "tracked" in key for key in changed["audio"])


@pytest.mark.parametrize(
    ("method", "loops", "schedule"),
    [
        ("naive", (False,), ((BOTH, 1),)),
        ("ogm_ge", (False,), ((BOTH, 1),)),
        ("amst_full", (True, True), ((BOTH, 1), (("visual",), 4))),
    ],
)
def test_the_yardstick_of_a_method_skips_as_the_method_does(config, clips, method, loops, schedule):
    settings = settings_of(config, "CREMAD", method, batch_size=4)
    ours = Ours(settings, clips.manifest, clips.split, Execution())
    assert ours.plain_key == (BOTH, loops, schedule), "methods of equal keys share a yardstick"


def test_phases_have_what_a_thread_would_load_in_their_own_time(config, clips, monkeypatch):
    settings = settings_of(config, "CREMAD", "naive", batch_size=4)
    ours = Ours(settings, clips.manifest, clips.split, Execution(residency="stream"))
    cutting, cut = set(), loading.cut

    def noted(*given):
        cutting.add(threading.current_thread())
        return cut(*given)

    monkeypatch.setattr(loading, "cut", noted)
    ours.seconds(0, 1)
    assert threading.main_thread() not in cutting, "epochs that are not taken apart"
    cutting.clear()
    assert ours.phases(1)["augment"] > 0
    assert cutting == {threading.main_thread()}


def test_a_device_is_busy_while_any_kernel_runs():
    def event(start, end, kind=DeviceType.CUDA, annotation=False):
        times = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(time_range=times, device_type=kind, is_user_annotation=annotation)

    traced = [
        event(10, 14),
        event(2, 5),
        event(4, 6),
        event(3, 4),
        event(0, 100, annotation=True),
        event(0, 100, kind=DeviceType.CPU),
    ]
    assert covered(SimpleNamespace(events=lambda: traced)) == 4 + 4
    assert covered(SimpleNamespace(events=lambda: None)) == 0


def test_what_is_measured_says_how_it_computes(config):
    settings = settings_of(config, "CREMAD", "naive", precision="bf16", compile=True)
    assert (
        arithmetic_of(settings, torch.device("cuda"), captured=True) == "bf16, compiled, captured"
    )
    assert arithmetic_of(settings, CPU, captured=True) == "bf16"
    plain = settings_of(config, "CREMAD", "naive")
    assert arithmetic_of(plain, torch.device("cuda"), captured=False) == "tf32 in convolutions"


def plain_training(loops):
    torch.manual_seed(0)
    return PlainTraining(loops, BOTH, 2, Recipe(learning_rate=0.01), CPU)


def test_every_residency_is_loaded_and_weighed(config, clips, monkeypatch):
    rates, rate_of = iter([100.0, 200.0, 300.0, 3.0, 4.0, 5.0]), bench_loading._rate

    def rate(batches, device):
        assert rate_of(batches, device) > 0
        return next(rates)

    monkeypatch.setattr(bench_loading, "_rate", rate)
    settings = settings_of(config, "CREMAD", "naive", batch_size=4)
    found = measure_loading(
        settings, clips.manifest, clips.split, ["host", "stream"], 1, 0, clips.raw
    )
    assert (found.rates, found.yardstick) == ({"host": 3, "stream": 4}, 5), "the first warms up"
    host, stream = (memory for memory in found.memory if memory.place == "host")
    assert host.features == stream.features > 0
    if not torch.cuda.is_available():
        inline = 0 if spare_core() else 2
        assert host.predicted - stream.predicted == host.features - inline * host.batch
    assert "yardstick" in "\n".join(found.lines())


def test_the_loop_is_measured_against_its_bare_steps(config, digits):
    settings = settings_of(config, "digits", "naive")
    cost = measure_loop(settings, digits.manifest, digits.split, Execution(), 1)
    assert cost.loop > 0 < cost.bare
    assert cost.least == cost.ratio == cost.most == cost.loop / cost.bare
    assert cost.lines() == [cost.lines()[0]]


def test_loop_and_bare_steps_take_turns_in_every_epoch(config, digits, monkeypatch):
    """So that a machine that slows down meanwhile slows both, and each has its own model."""
    settings = settings_of(config, "digits", "naive")
    settings = settings.model_copy(update={"recipe": Recipe(epochs=2, batch_size=8)})
    steps = []
    step = Naive.train_step

    def train_step(method, batch, epoch):
        steps.append((id(method), epoch))
        return step(method, batch, epoch)

    monkeypatch.setattr(Naive, "train_step", train_step)
    measure_loop(settings, digits.manifest, digits.split, Execution(), 1)
    measured = [key for key, _ in groupby(steps)][-4:]
    loop, bare = (method for method, _ in measured[:2])
    assert measured == [(loop, 0), (bare, 0), (loop, 1), (bare, 1)]
    assert loop != bare


def test_what_a_method_decides_before_an_epoch_is_what_is_measured(config, digits, monkeypatch):
    """As the training asks: who trains is known once ``begin_epoch`` is done."""
    settings = settings_of(config, "digits", "naive")
    settings = settings.model_copy(update={"recipe": Recipe(epochs=2, batch_size=8)})
    measured = digits.manifest, digits.split, Execution()

    def begin_epoch(method, epoch, batches):
        method.decided = frozenset(["audio", "visual"] if epoch else ["text", "visual"])

    monkeypatch.setattr(Naive, "begin_epoch", begin_epoch)
    monkeypatch.setattr(Naive, "active_modalities", lambda method, epoch: method.decided)
    ours = Ours(settings, *measured)
    assert ours.skipped() == [("audio",)]
    ours.method.decided = frozenset()
    assert set(ours.batch(0).inputs) == {"text", "visual"}
    assert set(ours.batch(1).inputs) == {"audio", "visual"}
    assert measure_loop(settings, *measured, 1).bare > 0
    rate, _ = together._rate(settings, *measured, 0.1, SimpleNamespace(wait=lambda: None))
    assert rate > 0


def test_runs_train_at_once(config, digits):
    settings = settings_of(config, "digits", "naive", batch_size=16)
    found = measure_together(
        settings, digits.manifest, digits.split, Execution(), [1, 2], seconds=0.5
    )
    assert set(found.rates) == {1, 2}
    assert min(found.rates.values()) > 0


def test_of_runs_at_once_only_what_is_trained_after_the_common_start_counts(
    config, digits, monkeypatch
):
    settings = settings_of(config, "digits", "naive", batch_size=8)
    run = assemble_training(settings, digits.manifest, digits.split, Execution())
    now, step, waited = [100.0], run.method.train_step, []

    def slow(batch, epoch):
        now[0] += 0.5
        return step(batch, epoch)

    monkeypatch.setattr(run.method, "train_step", slow)
    monkeypatch.setattr(together, "assemble_training", lambda *given: run)
    monkeypatch.setattr(together, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    barrier = SimpleNamespace(wait=lambda: waited.append(now[0]))
    rate, _ = together._rate(settings, digits.manifest, digits.split, Execution(), 1.2, barrier)
    assert waited == [101.5], "after three steps that warm up"
    assert now == [103.0]
    assert rate == 16, "three batches of 8 in one and a half seconds"


def test_a_run_that_fails_ends_the_others(config, digits, tmp_path):
    """One that dies before they start together leaves none waiting for it."""
    settings = settings_of(config, "digits", "naive", batch_size=16)
    with pytest.raises(AmstError, match="nowhere"):
        measure_together(
            settings, tmp_path / "nowhere", digits.split, Execution(), [2], seconds=0.5
        )


def test_a_dataset_that_cannot_be_made_is_refused(config, tmp_path):
    with pytest.raises(AmstError, match="CREMAD and digits"):
        prepare(config, "AVE", 20, tmp_path)
