"""Extraction against a plain yardstick, on one core and on two; its peak of memory.

The yardstick does what such scripts do, and no more: OpenCV decodes and converts every frame, each
of them, or each that is kept, becomes a JPEG file, the filter bank one ``.npy`` file per clip. It
does not read the JPEG files again, squeezes nothing and computes no checksum; the filter bank and
the kept frames are the same.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from amst.config.run import AudioFeatures, Features, VisualFeatures
from amst.errors import AmstError
from amst.training.recorder import peak_host_bytes

AUDIO, VISUAL = AudioFeatures(), VisualFeatures()
FEATURES: dict[str, dict[str, Features]] = {
    "CREMAD": {"audio": AUDIO, "visual": VISUAL},
    "IEMOCAP": {"audio": AUDIO, "visual": VisualFeatures(per_second=2)},
}
DISTINCT = 4
"""Clips that are really encoded; the others are copies of them under other names."""

LONG_CLIP = 61.0
"""Seconds of the clip whose extraction's memory is taken."""

Work = Callable[[Path], int]


@dataclass(frozen=True)
class Pace:
    """How fast clips went through one worker or several.

    Attributes:
        wall: clips per second of the clock; what a shared machine disturbs.
        cpu: clips per second of processor time, all workers together.
    """

    wall: float
    cpu: float

    def over(self, other: "Pace") -> "Pace":
        """Both as multiples of the other's."""
        return Pace(self.wall / other.wall, self.cpu / other.cpu)


@dataclass(frozen=True)
class Throughput:
    """Medians of several rounds, in each of which all took turns.

    Attributes:
        extraction: ours, one worker on one core.
        kept: the yardstick that writes the frames that are kept, one worker on the same core.
        every: the yardstick that writes every frame, likewise.
        both: ours, two workers on two cores; None on a machine with one.
    """

    extraction: Pace
    kept: Pace
    every: Pace
    both: Pace | None

    def lines(self) -> list[str]:
        """Both kinds of pace of each, and what one is of another."""
        ours, both = self.extraction, self.both
        scripts = {"kept frames": self.kept, "every frame": self.every}
        told = [
            "clips per second                     by the clock   of processor time",
            *(_row(f"script, writes {what}", pace) for what, pace in scripts.items()),
            _row("extraction, 1 core", ours),
            *(_row(f"  ratio to script, {what}", ours.over(p)) for what, p in scripts.items()),
        ]
        if both is not None:
            # Clips of two cores by the time of both: twice as much in the time of one.
            doubled = Pace(both.wall, 2 * both.cpu)
            told += [
                _row("extraction, 2 cores", doubled),
                _row("  gain of the second core", doubled.over(ours)),
            ]
        return told


@dataclass(frozen=True)
class ExtractionCost:
    """What extraction takes of time and memory.

    Attributes:
        throughput: how fast clips become features.
        clip_mb: highest resident memory of a worker that extracts a clip of 61 s.
        dialogue_mb: the same for a dialogue of IEMOCAP, an utterance every six seconds.
        dialogue_minutes: length of that dialogue.
    """

    throughput: Throughput
    clip_mb: float
    dialogue_mb: float
    dialogue_minutes: float

    def lines(self) -> list[str]:
        """Paces, then peaks of memory."""
        long = f"a dialogue of {self.dialogue_minutes:g} min"
        return [
            *self.throughput.lines(),
            f"peak of memory, a clip of {LONG_CLIP:g} s: {self.clip_mb:.0f} MB",
            f"peak of memory, {long}: {self.dialogue_mb:.0f} MB",
        ]


def _row(what: str, pace: Pace) -> str:
    return f"{what:<32} {pace.wall:12.2f}   {pace.cpu:17.2f}"


def make_clips(raw: Path, clips: int, seconds: float) -> Path:
    """A raw folder in CREMA-D's layout with so many clips."""
    from amst.bench.media import write_clip

    for number in range(clips):
        name = f"{1001 + number}_DFA_{('ANG', 'SAD')[number % 2]}_XX"
        if number < DISTINCT:
            write_clip(raw, name, number, seconds)
            continue
        source = f"{1001 + number % DISTINCT}_DFA_{('ANG', 'SAD')[number % 2]}_XX"
        for file in ("VideoFlash/{}.flv", "AudioWAV/{}.wav"):
            (raw / file.format(name)).write_bytes((raw / file.format(source)).read_bytes())
    return raw


def make_dialogue(raw: Path, minutes: float) -> Path:
    """A raw folder in IEMOCAP's layout with one dialogue, an utterance every six seconds."""
    from amst.bench.media import write_dialogue

    for session in range(1, 6):
        for folder in ("EmoEvaluation", "transcriptions", "avi/DivX"):
            (raw / f"Session{session}/dialog/{folder}").mkdir(parents=True, exist_ok=True)
    name, root = "Ses01F_impro01", raw / "Session1/dialog"
    begins = [6.0 * number for number in range(int(minutes * 10))]
    votes = [f"[{t} - {t + 5.5}]\t{name}_F{t:05.0f}\tneu\t[2.5, 2.5, 2.5]" for t in begins]
    words = [f"{name}_F{t:05.0f} [{t}-{t + 5.5}]: Well." for t in begins]
    (root / f"EmoEvaluation/{name}.txt").write_text("\n".join(votes) + "\n")
    (root / f"transcriptions/{name}.txt").write_text("\n".join(words) + "\n")
    write_dialogue(root / f"avi/DivX/{name}.avi", minutes)
    return raw


def extract(raw: Path, dataset: str = "CREMAD") -> int:
    """Our extraction of all samples of a raw folder into one shard; returns how many."""
    from amst.datasets.registry import load
    from amst.features.extract import extract_shard
    from amst.features.samples import write_samples

    facts, out = load(dataset), raw.with_name(f"{raw.name}-shards")
    samples, lost = out / "samples.jsonl", out / "rejected.jsonl"
    write_samples(facts, raw, samples, lost)
    done = extract_shard(facts, raw, samples, 0, 1, FEATURES[dataset], out / "000.h5", lost)
    if done.rejected:
        raise AmstError(f"the benchmark's own recordings cannot be read; see {lost}")
    return done.samples


def plain(raw: Path, every_frame: bool = False, share: tuple[int, int] = (0, 1)) -> int:
    """The yardstick on a folder of clips; returns how many.

    Args:
        raw: a raw folder in CREMA-D's layout.
        every_frame: whether each frame becomes a JPEG file, not only those that are kept.
        share: (i, n) for every n-th clip from the i-th on.
    """
    import cv2
    import numpy as np

    from amst.features.audio import log_mel, read_sound
    from amst.features.frames import is_kept

    cv2.setNumThreads(1)
    out = raw.with_name(f"{raw.name}-plain")
    out.mkdir(exist_ok=True)
    first, step = share
    clips = sorted((raw / "VideoFlash").iterdir())[first::step]
    for clip in clips:
        video, index = cv2.VideoCapture(str(clip)), 0
        per_second = video.get(cv2.CAP_PROP_FPS)
        there, frame = video.read()
        while there:
            if every_frame or is_kept(index, per_second, VISUAL.per_second):
                cv2.imwrite(str(out / f"{clip.stem}-{index:05d}.jpg"), frame)
            index += 1
            there, frame = video.read()
        sound, rate = read_sound(raw / f"AudioWAV/{clip.stem}.wav")
        np.save(out / f"{clip.stem}.npy", log_mel(sound, rate, AUDIO))
    return len(clips)


@dataclass(frozen=True)
class _Timed:
    clips: int
    begin: float
    end: float
    cpu: float


def _timed(work: Work, raw: Path) -> _Timed:
    begin, used = time.monotonic(), time.process_time()
    clips = work(raw)
    return _Timed(clips, begin, time.monotonic(), time.process_time() - used)


def _pace(timed: Sequence[_Timed]) -> Pace:
    clips = sum(each.clips for each in timed)
    wall = max(each.end for each in timed) - min(each.begin for each in timed)
    return Pace(clips / wall, clips / sum(each.cpu for each in timed))


def _settle(core: int) -> None:
    """One core and one thread for this worker, whatever its libraries would like."""
    os.sched_setaffinity(0, {core})
    os.environ.update(OMP_NUM_THREADS="1", OPENCV_FFMPEG_CAPTURE_OPTIONS="threads;1")


class _Workers:
    """Processes of their own, one per core, whose libraries are loaded and warm."""

    def __init__(self, cores: Sequence[int], warm: Path, stack: ExitStack) -> None:
        start = get_context("spawn")
        self._pools = [
            stack.enter_context(
                ProcessPoolExecutor(1, mp_context=start, initializer=_settle, initargs=(core,))
            )
            for core in cores
        ]
        for pool in self._pools:
            for work in (extract, plain):
                pool.submit(work, warm).result()

    def run(self, work: Work, folders: Sequence[Path]) -> Pace:
        """Each folder in a worker of its own, all at the same time."""
        pairs = zip(self._pools, folders, strict=False)
        waiting: list[Future[_Timed]] = [pool.submit(_timed, work, raw) for pool, raw in pairs]
        return _pace([future.result() for future in waiting])


def measure_extraction(
    folder: Path, clips: int, seconds: float, rounds: int, minutes: float
) -> ExtractionCost:
    """Throughput on clips made here, then memory on a long clip and on a dialogue.

    Args:
        folder: an empty folder; it is filled.
        clips: clips per worker and turn.
        seconds: length of a clip.
        rounds: turns; medians are taken over them.
        minutes: length of the dialogue.
    """
    throughput = measure_throughput(folder, clips, seconds, rounds)
    long = make_clips(folder / "long", 1, LONG_CLIP)
    talk = make_dialogue(folder / "talk", minutes)
    clip_mb = measure_memory(extract, long)
    dialogue_mb = measure_memory(partial(extract, dataset="IEMOCAP"), talk)
    return ExtractionCost(throughput, clip_mb, dialogue_mb, minutes)


def measure_throughput(folder: Path, clips: int, seconds: float, rounds: int) -> Throughput:
    """Extraction and yardstick on clips made here, a worker per core, all in turns.

    Args:
        folder: an empty folder; it is filled.
        clips: clips per worker and turn.
        seconds: length of a clip.
        rounds: turns; medians are taken over them.
    """
    cores = sorted(os.sched_getaffinity(0))[:2]
    folders = [make_clips(folder / f"raw{core}", clips, seconds) for core in cores]
    warm = make_clips(folder / "warm", 1, seconds)
    found: dict[str, list[Pace]] = {"extraction": [], "kept": [], "every": [], "both": []}
    with ExitStack() as stack:
        workers = _Workers(cores, warm, stack)
        for _ in range(rounds):
            found["extraction"].append(workers.run(extract, folders[:1]))
            found["kept"].append(workers.run(plain, folders[:1]))
            found["every"].append(workers.run(partial(plain, every_frame=True), folders[:1]))
            if len(cores) > 1:
                found["both"].append(workers.run(extract, folders))
    medians = {name: _median(paces) for name, paces in found.items() if paces}
    return Throughput(medians["extraction"], medians["kept"], medians["every"], medians.get("both"))


def _median(paces: Sequence[Pace]) -> Pace:
    return Pace(
        statistics.median(pace.wall for pace in paces), statistics.median(p.cpu for p in paces)
    )


def measure_memory(work: Work, raw: Path) -> float:
    """Highest resident memory in MB of a fresh process that does ``work``, libraries included."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak, work, raw).result()


def _peak(work: Work, raw: Path) -> float:
    work(raw)
    return peak_host_bytes() / 1e6
