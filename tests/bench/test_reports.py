"""What benchmarks say of their figures: which is divided by which, and in what unit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from amst.bench import device, loading, together
from amst.bench.device import Peak
from amst.bench.extraction import ExtractionCost, Pace, Throughput, _median, _pace, _Timed
from amst.bench.graph import DryRun, JobCost
from amst.bench.loading import LoadSpeed, Memory
from amst.bench.loop import LoopCost
from amst.bench.plain import Plain, PlainFiles
from amst.bench.speeds import LoaderRate, PlainRate, Speed, Speeds
from amst.bench.squeeze import SqueezeError, SqueezeErrors
from amst.bench.tables import TableTimes, Timing
from amst.bench.together import Together
from amst.config.run import Arithmetic

PEAK = Peak(product=2e12, copy=50e9)
SPEED = Speed(
    method="naive",
    samples=300.0,
    steps=500.0,
    plain=150.0,
    plain_steps=250.0,
    even=120.0,
    even_steps=200.0,
    seconds={"load": 0.001, "forward": 0.003},
    operators={"mm": 0.75, "add": 0.125},
    busy=0.4,
    operations=2e9,
    moved=40e6,
    yardstick=PlainRate(samples=100.0, steps=125.0),
    skipped_to_absent={"audio": 1.05},
)


def test_training_is_told_as_multiples_of_the_yardstick():
    assert SPEED.lines(PEAK) == [
        "naive: 300.0 samples per second, without loading 500.0; plain 150.0 and 250.0; in the "
        "yardstick's precision 120.0 and 200.0",
        "  phases, waiting after each: load 25%, forward 75%",
        "  steps of most epochs: operators run in 40% of their time; of the operators' time "
        "mm 75%, add 12%",
        # 500 samples of 2 G operations, of the 2 T that a product does.
        "  operations: 2.00 G per sample, without loading 1.000 T per second, 50% of a large "
        "product's",
        # 250 samples of 40 MB, of the 50 GB that a copy moves.
        "  memory: operators read and write 40 MB per sample; without loading, plain, 10 GB per "
        "second, 20% of a copy's",
        "  yardstick: 100.0 samples per second, without its loader 125.0",
        "  ratio end to end: 3.00, plain 1.50, in equal precision 1.20",
        "  ratio to the yardstick without its loader: 2.40, plain 1.20, in equal precision 0.96",
        "  epoch that skips audio, by one where it is absent: 1.050",
    ]


def test_the_yardsticks_loader_is_held_against_torchvisions():
    loader = LoaderRate(workers=2, samples=80.0, pictures=90.0, torchvision=100.0)
    first, second, *_ = Speeds("a CPU", "fp32", PEAK, loader, [SPEED]).lines()
    assert first == (
        "a CPU, fp32: a matrix product does 2.00 T operations per second, a copy moves 50 GB per "
        "second"
    )
    assert second == (
        "the yardstick's loader, 2 workers: 80.0 samples per second; of pictures alone 90.0, 0.90 "
        "of torchvision's ImageFolder"
    )


def test_loading_is_told_as_multiples_of_the_yardstick_and_memory_in_mb():
    memory = Memory("stream", "host", features=5_000_000, predicted=0, measured=1_500_000, batch=1)
    lines = LoadSpeed("a CPU", {"host": 30.0, "stream": 15.0}, 10.0, 2, [memory]).lines()
    assert lines[1:4] == [
        "  host: 30.00, 3.00 of the yardstick",
        "  stream: 15.00, 1.50 of the yardstick",
        "  yardstick, 2 workers: 10.00",
    ]
    assert lines[-1].split() == ["stream", "host", "5.0", "0.0", "1.5", "0.0"]
    alone = LoadSpeed("a CPU", {"host": 30.0}, None, 2, []).lines()
    assert alone[1] == "  host: 30.00"


def test_loop_jobs_and_dry_runs_say_what_comes_on_top():
    (line,) = LoopCost(loop=12.0, bare=10.0, ratio=1.2, least=1.1, most=1.3).lines()
    assert line == (
        "all epochs by the loop: 12.00 s, their bare steps and predictions: 10.00 s, ratio 1.200 "
        "(1.100 to 1.300)"
    )
    assert JobCost(whole=9.0, training=2.5, linear=2.0, torch=1.5).lines() == [
        "training job of one epoch: 9.00 s, its epoch 2.50 s, its linear evaluation 2.00 s",
        "  besides: 4.50 s",
        "  `import torch` alone: 1.50 s",
    ]
    assert DryRun(20, 12.0, 200.0, 8.0, 100.0).lines()[1:] == [
        "  a bare graph of as many jobs and files: 8.0 s, 100 MB",
        "  ratio: 1.50",
    ]


def test_extraction_is_told_as_multiples_of_the_scripts():
    paces = Throughput(Pace(6, 8), kept=Pace(3, 2), every=Pace(4, 5), both=Pace(9, 7))
    found = ExtractionCost(paces, clip_mb=300.4, dialogue_mb=500.0, dialogue_minutes=2.5)
    assert [" ".join(line.split()) for line in found.lines()] == [
        "clips per second by the clock of processor time",
        "script, writes kept frames 3.00 2.00",
        "script, writes every frame 4.00 5.00",
        "extraction, 1 core 6.00 8.00",
        "ratio to script, kept frames 2.00 4.00",
        "ratio to script, every frame 1.50 1.60",
        # Clips of two cores by the time of both: twice as much in the time of one.
        "extraction, 2 cores 9.00 14.00",
        "gain of the second core 1.50 1.75",
        "peak of memory, a clip of 61 s: 300 MB",
        "peak of memory, a dialogue of 2.5 min: 500 MB",
    ]


def test_tables_are_told_as_multiples_of_reading_and_squeezing_by_its_error():
    found = TableTimes(7, 2.0, (Timing(("main", "cost"), 15.0), Timing(("ranks",), 3.0)))
    assert [line.strip() for line in found.lines()] == [
        "2.0 s  7 records, read by json.loads alone",
        "15.0 s    7.5 times that: main, cost",
        "3.0 s    1.5 times that: ranks",
    ]
    rows = SqueezeErrors((SqueezeError(256, 1.426, 4.2), SqueezeError(512, 0.5, 2.0))).lines()
    assert [row.split() for row in rows[2:]] == [["256", "1.43", "4.20"], ["512", "0.50", "2.00"]]


def test_runs_at_once_are_told_by_all_that_they_get_done_beside_one_alone():
    lines = Together("a GPU", {1: 40.0, 2: 60.0}).lines()
    assert [line.split() for line in lines[2:]] == [["1", "40.0", "1.00"], ["2", "60.0", "1.50"]]


def test_the_pace_of_workers_is_that_of_all_from_the_first_begin_to_the_last_end():
    two = [_Timed(clips=6, begin=10, end=13, cpu=2), _Timed(clips=6, begin=11, end=14, cpu=4)]
    assert _pace(two) == Pace(wall=3, cpu=2)
    assert _median([Pace(1, 9), Pace(5, 7), Pace(2, 8)]) == Pace(2, 8)


def test_the_best_of_a_device_is_counted_in_operations_and_in_bytes_both_ways(monkeypatch):
    monkeypatch.setattr(device, "_median_seconds", lambda device, work: 0.5)
    settings = SimpleNamespace(arithmetic=Arithmetic())
    peak = device.measure_peak(torch.device("cpu"), settings)
    # A product of squares of side n does n multiplications and additions for each of its n x n.
    assert peak.product == 2 * 512**3 / 0.5
    assert peak.copy == pytest.approx(2 * 2**26 / 0.5)


def test_the_yardsticks_rates_are_of_clips_and_its_time_is_that_of_a_cycle(monkeypatch):
    files = object.__new__(PlainFiles)
    vars(files).update(_clips="clips", _silent="silent", _pictures="pictures")
    samples = {"clips": 8.0, "silent": 9.0, "pictures": 30.0}
    monkeypatch.setattr("amst.bench.plain._loader_rate", samples.__getitem__)
    assert files.rates() == (8, 9, 10), "three pictures to a clip"
    yardstick = object.__new__(Plain)
    yardstick._schedule = ((("audio", "visual"), 1), (("visual",), 4))
    assert yardstick._over_cycle(lambda trained: 3.0 * len(trained)) == (6 + 4 * 3) / 5
    yardstick._found = [(0.5, 0.25), (0.1, 0.05), (0.2, 0.125)]
    assert yardstick.rate() == PlainRate(samples=5, steps=8)
    assert yardstick.latest() == 5


def test_a_loader_s_rate_is_of_batches_per_second(monkeypatch):
    clock = SimpleNamespace(perf_counter=iter([10.0, 14.0]).__next__)
    monkeypatch.setattr("amst.bench.loading.time", clock)
    assert loading._rate(range(8), torch.device("cpu")) == 2


def test_the_yardsticks_times_are_those_of_a_clip_with_its_loader_and_without(monkeypatch):
    now, trained = [0.0], []

    def step(inputs, labels, names):
        now[0] += 4
        trained.append(names)

    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("amst.bench.plain.time", clock)
    monkeypatch.setattr("amst.bench.plain._released_arithmetic", lambda: None)
    yardstick = object.__new__(Plain)
    vars(yardstick).update(
        device=torch.device("cpu"),
        _schedule=((("visual",), 2),),
        _files=[({}, torch.zeros(2))] * 3,
        _ready=({}, torch.zeros(8)),
        _training=SimpleNamespace(step=step),
        _found=[],
    )
    yardstick.measure(5)
    assert yardstick._found == [(2, 0.5)], "of batches of two from files, of one of eight at hand"
    assert trained == [("visual",)] * 8


def test_what_runs_at_once_get_done_is_summed(monkeypatch):
    monkeypatch.setattr(together, "_train", lambda *given: (10.0, "a GPU"))
    monkeypatch.setattr(
        together, "ProcessPoolExecutor", lambda runs, context, **given: ThreadPoolExecutor(runs)
    )
    nothing = SimpleNamespace()
    found = together.measure_together(nothing, Path(), Path(), nothing, [1, 3], seconds=1)
    assert found == Together("a GPU", {1: 10, 3: 30})
