"""One pass over a container: the sound and the pictures of all samples that lie in it."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from amst.config.run import VisualFeatures
from amst.features.frames import FrameCollector, Pictures, frame_rate
from amst.features.media import UnreadableError, check_media

_EARLY_SECONDS = 1.0
_EARLY_SHARE = 0.1
"""A file is cut short when it ends earlier than it says by more than both of these."""
_DAMAGED_SHARE = 0.05
_CLOCK_RATE = 1000
_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}


@dataclass(frozen=True)
class Cut:
    """Where a sample lies in its recording, in seconds from the first frame; None is an end of it.

    It holds the frames and sound samples at or after ``start`` and before ``end``.
    """

    start: float | None = None
    end: float | None = None

    def holds(self, time: float) -> bool:
        """Whether ``time`` lies in the cut."""
        return (self.start or 0.0) <= time and (self.end is None or time < self.end)

    def of(self, waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """The cut's share of a recording's sound, (n,); a view."""
        end = len(waveform) if self.end is None else round(self.end * rate)
        return waveform[round((self.start or 0.0) * rate) : end]


@dataclass(frozen=True)
class Sound:
    """One channel of sound: (n,) float32 with full scale 1, and the sampling rate in Hz."""

    waveform: NDArray[np.float32]
    rate: int


@dataclass
class Take:
    """What a cut gave. Each part is None when not asked for, or the reason why there is none."""

    pictures: Pictures | UnreadableError | None = None
    sound: Sound | UnreadableError | None = None


def read_recording(
    path: Path, cuts: Sequence[Cut], visual: VisualFeatures | None, audio: bool
) -> list[Take]:
    """Decode a container once.

    Held in memory: the first channel of the sound, and of each cut only the frames that may be
    stored; a dialogue of ten minutes stays far below 1 GB.

    Args:
        path: a file with video, sound, or both.
        cuts: the samples that lie in it.
        visual: how pictures are stored; None to leave the video alone.
        audio: whether sound is wanted. A file without sound gives an empty waveform.

    Returns:
        One take per cut, in their order.

    Raises:
        UnreadableError: the file cannot be opened, or is cut short before the end of every cut.
    """
    check_media(path)
    try:
        with av.open(str(path)) as container:
            return _Pass(container, cuts, visual, audio).run()
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableError(f"the file cannot be decoded ({error.strerror})") from error


@dataclass
class _Scene:
    """The pictures of one cut while the recording is decoded."""

    cut: Cut
    collector: FrameCollector
    result: Pictures | UnreadableError | None = None

    @property
    def is_open(self) -> bool:
        return self.result is None

    def add(self, frame: Any, time: float) -> None:
        """Take a frame if it lies in the cut; finish when it lies behind."""
        if self.cut.holds(time):
            self.collector.add(frame)
            self.collector.damaged += bool(frame.is_corrupt)
        elif self.cut.end is not None and time >= self.cut.end:
            self.finish()

    def finish(self) -> None:
        """Turn the frames into what is stored; the others are let go."""
        damaged, decoded = self.collector.damaged, self.collector.decoded
        try:
            if damaged > max(1, _DAMAGED_SHARE * decoded):
                raise UnreadableError(
                    f"{damaged} pieces of its video, {decoded} frames, are damaged"
                )
            self.result = self.collector.finish()
        except UnreadableError as error:
            self.result = error


@dataclass
class _Pass:
    """One pass over an open container."""

    container: Any
    cuts: Sequence[Cut]
    visual: VisualFeatures | None
    audio: bool
    _scenes: list[_Scene] = field(default_factory=list)
    _no_pictures: UnreadableError | None = None
    _samples: "array[float]" = field(default_factory=lambda: array("f"))
    _sound_pieces: int = 0
    _sound_rate: int = 0
    _sound_damaged: int = 0
    _frames: int = 0
    _frame_rate: float = 0.0
    _first: Any = None
    _reached: float = 0.0

    def run(self) -> list[Take]:
        """Decode to the end, or to where the file can be read no further."""
        streams = self.container.streams
        video = streams.video[0] if self.visual is not None and streams.video else None
        sound = streams.audio[0] if self.audio and streams.audio else None
        for stream in (video, sound):
            if stream is not None:
                # One worker is one core; the workflow runs one worker per shard.
                stream.codec_context.thread_count = 1
        self._open_scenes(video)
        for packet in self._packets():
            if packet.stream is video and self._scenes:
                self._add_video(packet)
            elif packet.stream is sound:
                self._add_sound(packet)
        return [Take(*taken) for taken in zip(self._pictures(), self._sounds(), strict=True)]

    def _open_scenes(self, video: Any) -> None:
        if self.visual is None:
            return
        try:
            if video is None:
                raise UnreadableError("the file has no video stream")
            self._frame_rate = frame_rate(video.average_rate, nominal_rate(video))
        except UnreadableError as error:
            self._no_pictures = error
            return
        self._scenes = [
            _Scene(cut, FrameCollector(self.visual, self._frame_rate)) for cut in self.cuts
        ]

    def _packets(self) -> Iterator[Any]:
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets)
            except (StopIteration, av.error.FFmpegError):
                return
            if packet.pts is not None:
                end = packet.pts + (packet.duration or 0)
                self._reached = max(self._reached, seconds(end, packet.time_base))
            yield packet

    def _add_video(self, packet: Any) -> None:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            frames = []
            for scene in self._scenes:
                if scene.is_open and scene.cut.holds(self._frames / self._frame_rate):
                    scene.collector.damaged += 1
        for frame in frames:
            time = self._time(frame)
            for scene in self._scenes:
                if scene.is_open:
                    scene.add(frame, time)
            self._frames += 1

    def _time(self, frame: Any) -> float:
        """Seconds from the first decoded frame."""
        if frame.pts is None:
            return self._frames / self._frame_rate
        if self._first is None:
            self._first = frame.pts
        return seconds(frame.pts - self._first, frame.time_base)

    def _add_sound(self, packet: Any) -> None:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self._sound_damaged += 1
            return
        for frame in frames:
            self._sound_rate = frame.sample_rate
            # Grows in place: a list of pieces would be there a second time when it is joined.
            self._samples.frombytes(first_channel(frame).tobytes())
            self._sound_pieces += 1

    def _pictures(self) -> list[Pictures | UnreadableError | None]:
        if not self._scenes:
            return [self._no_pictures] * len(self.cuts)
        for scene in self._scenes:
            if scene.is_open:
                scene.finish()
        return [self._cut_short(scene.cut) or scene.result for scene in self._scenes]

    def _sounds(self) -> list[Sound | UnreadableError | None]:
        if not self.audio:
            return [None] * len(self.cuts)
        rate, damaged = self._sound_rate, self._sound_damaged
        if damaged > max(1, _DAMAGED_SHARE * (damaged + self._sound_pieces)):
            error = UnreadableError(f"{damaged} pieces of its audio are damaged")
            return [error] * len(self.cuts)
        whole = np.frombuffer(self._samples, np.float32)
        return [self._cut_short(cut) or Sound(cut.of(whole, rate), rate) for cut in self.cuts]

    def _cut_short(self, cut: Cut) -> UnreadableError | None:
        """The reason, when the file ends well before the cut or before the end it states."""
        wanted = cut.end or stated_seconds(self.container)
        length = wanted - (cut.start or 0.0)
        if wanted - self._reached <= max(_EARLY_SECONDS, _EARLY_SHARE * length):
            return None
        return UnreadableError(f"the file is cut short at {self._reached:.2f} of {wanted:.2f} s")


def seconds(ticks: int, time_base: Fraction) -> float:
    """``float(ticks * time_base)``, to the last bit, without the cost of making a fraction."""
    return ticks * time_base.numerator / time_base.denominator


def stated_seconds(container: Any) -> float:
    """How long a file says it is; 0 when it does not say.

    The count of frames speaks too: for a file that was cut short, the reader of AVI shortens the
    duration to what is there.
    """
    counted = [
        float(video.frames / video.average_rate)
        for video in container.streams.video
        if video.frames and video.average_rate
    ]
    return max([(container.duration or 0) / av.time_base, *counted])


def nominal_rate(video: Any) -> Any:
    """Frame rate that a video stream states; None when that is only the tick of its clock.

    A container with a clock of milliseconds and no stated rate (FLV) seems to have 1000 frames a
    second.
    """
    rate = video.base_rate
    ticks = 1 / video.time_base if video.time_base else None
    return None if rate == ticks and rate is not None and rate >= _CLOCK_RATE else rate


def first_channel(frame: Any) -> NDArray[np.float32]:
    """First channel of a decoded piece of sound (``av.AudioFrame``): (n,) float32, full scale 1."""
    name = frame.format.name.removesuffix("p")
    samples = frame.to_ndarray()
    channel = samples[0] if frame.format.is_planar else samples[0, :: len(frame.layout.channels)]
    if name in _SCALE:
        offset = 128 if name == "u8" else 0
        return ((channel.astype(np.float64) - offset) / _SCALE[name]).astype(np.float32)
    return np.array(channel, np.float32)
