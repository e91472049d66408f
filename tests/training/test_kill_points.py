"""A hundred kills at random moments of training and extraction; both end with the same bits.

Processes are forked from one that has the libraries loaded, so that a start costs milliseconds:
training from this one, extraction from a server of its own, since whoever has decoded a video
must not be forked. Moments are drawn by a seed, within the time that an undisturbed process takes
here and now; a run is killed some times and then left to end.
"""

import multiprocessing
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from amst.datasets.digits import Digits, DigitsSettings, make
from amst.features.extract import extract_shard
from amst.features.samples import write_samples
from amst.training.kept import KEPT
from tests.training.conftest import MODALITIES, started_again

TRAINING_KILLS = 60
EXTRACTION_KILLS = 40
OF_ONE_RUN = 6


class Forked:
    """A forked training process, with the verbs of a process of `multiprocessing`."""

    def __init__(self, process) -> None:
        self.process = process

    @property
    def exitcode(self) -> int | None:
        return self.process.code()

    def kill(self) -> None:
        self.process.send(signal.SIGKILL)

    def join(self) -> None:
        self.process.wait(200)

    def __str__(self) -> str:
        return self.process.said


def kills(start: Callable, moments: random.Random, wanted: int, about: float) -> int:
    """Start a process and kill it, again and again; how often it was killed before it ended.

    Args:
        start: starts a process.
        moments: when to kill.
        wanted: kills after which one is left to end.
        about: seconds that an undisturbed process takes.
    """
    for done in range(wanted):
        process, until = start(), time.monotonic() + moments.uniform(0, about)
        while process.exitcode is None and time.monotonic() < until:
            time.sleep(0.002)
        if process.exitcode is None:
            process.kill()
        process.join()
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0, f"attempt {done} ended by itself: {process}"
            return done
    process = start()
    process.join()
    assert process.exitcode == 0, str(process)
    return wanted


def test_training_killed_at_sixty_random_moments(workplace, undisturbed):
    moments, total, rounds = random.Random(5), 0, 0
    place = workplace(recipe={"epochs": 2})
    reference = undisturbed(place.settings)
    began = time.monotonic()
    place.finish()
    about = time.monotonic() - began
    while total < TRAINING_KILLS:
        place, rounds = workplace(recipe={"epochs": 2}), rounds + 1
        as_snakemake = bool(rounds % 2)
        place.execution = place.execution.model_copy(update={"keep": as_snakemake})

        def start(place=place, as_snakemake=as_snakemake) -> Forked:
            if as_snakemake:
                started_again(place)
            return Forked(place.start())

        at_most = min(OF_ONE_RUN, TRAINING_KILLS - total)
        total += kills(start, moments, at_most, about)
        assert place.results() == reference
        # A lock stays where the kill came after the record: it is a dead one's.
        assert {path.name for path in place.checkpoints.iterdir()} <= {"lock", KEPT}
        assert not [path for path in place.out.rglob(".*") if path.is_file()]
    assert rounds >= TRAINING_KILLS / OF_ONE_RUN


def prepare(folder: Path) -> None:
    """Make a raw tree of 30 clips."""
    make(folder / "raw", DigitsSettings(samples=30, pools=4))
    write_samples(Digits(), folder / "raw", folder / "samples.jsonl", folder / "rejected.jsonl")


def extract(folder: Path, out: Path) -> None:
    """Extract it to one shard."""
    features = {name: each.features for name, each in MODALITIES.items()}
    lists = (folder / "samples.jsonl", out / "0.h5", out / "0.rejected.jsonl")
    extract_shard(Digits(), folder / "raw", lists[0], 0, 1, features, *lists[1:])


@pytest.fixture
def server() -> ForkServerContext:
    """Forks processes that have loaded all that an extraction needs, and torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", __name__])
    return context


def test_extraction_killed_at_forty_random_moments(server: ForkServerContext, tmp_path: Path):
    def start(target: Callable[..., None], *arguments: Path):
        process = server.Process(target=target, args=arguments)
        process.start()
        return process

    for step in ((prepare, tmp_path), (extract, tmp_path, tmp_path / "whole")):
        (tmp_path / "whole").mkdir(exist_ok=True)
        began, process = time.monotonic(), start(*step)
        process.join(200)
        assert process.exitcode == 0
    about = time.monotonic() - began
    reference = (tmp_path / "whole/0.h5").read_bytes()
    moments, total, rounds = random.Random(6), 0, 0
    while total < EXTRACTION_KILLS:
        out, rounds = tmp_path / str(rounds), rounds + 1
        out.mkdir()
        at_most = min(OF_ONE_RUN, EXTRACTION_KILLS - total)
        total += kills(lambda out=out: start(extract, tmp_path, out), moments, at_most, about)
        assert (out / "0.h5").read_bytes() == reference
        assert (out / "0.rejected.jsonl").read_bytes() == b""
    assert rounds >= EXTRACTION_KILLS / OF_ONE_RUN
