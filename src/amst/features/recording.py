"""One pass over a container: the sound and the pictures of all samples that lie in it."""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.plane import AudioPlane
from numpy.typing import NDArray

from amst.config.run import VisualFeatures
from amst.features.frames import FrameCollector, Pictures, frame_rate
from amst.features.media import UnreadableError, check_media, decoding, opened

_EARLY_SECONDS = 0.2
"""A file is cut short when it, or a stream that says how long it is, ends this much too early."""
_BEYOND_SECONDS = 1.0
_BEYOND_SHARE = 0.1
"""An annotated clip may end behind its whole recording by the larger of these."""
_DAMAGED_SHARE = 0.05
_ASIDE_SECONDS = 0.1
"""Sound counts as gapless, and as beginning with the pictures, as long as it is no more than this
aside: encoders add silence before it, AVI shows reordered frames late, clocks round."""
_RAW = frozenset({"aac", "mp3"})
_CLOCK_RATE = 1000
_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31}
_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}


@dataclass(frozen=True)
class Piece:
    """Sound without a gap: when it begins, in seconds, and the number of its first sample."""

    time: float
    first: int


def _sample_at(time: float, rate: int, pieces: Sequence[Piece]) -> int:
    """The first sample at or after a time, in whatever piece it lies; to the nearest sample."""
    begun = [number for number, piece in enumerate(pieces) if piece.time <= time]
    if not begun:
        return pieces[0].first
    piece, after = pieces[begun[-1]], pieces[begun[-1] + 1 :]
    sample = piece.first + round((time - piece.time) * rate)
    return min(sample, after[0].first) if after else sample


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

    def of(
        self, waveform: NDArray[np.float32], rate: int, pieces: Sequence[Piece] = ()
    ) -> NDArray[np.float32]:
        """The cut's share of a recording's sound, (n,); a view.

        Args:
            waveform: the sound, one piece after the other.
            rate: sampling rate in Hz.
            pieces: when each of its pieces begins; none for sound without a gap that begins with
                the recording.
        """
        pieces = pieces or (Piece(0.0, 0),)
        begin = 0 if self.start is None else _sample_at(self.start, rate, pieces)
        end = len(waveform) if self.end is None else _sample_at(self.end, rate, pieces)
        return waveform[begin:end]

    def beyond(self, length: float) -> UnreadableError | None:
        """The reason, when a recording of so many seconds ends well before the cut does."""
        if self.end is None:
            return None
        allowed = max(_BEYOND_SECONDS, _BEYOND_SHARE * (self.end - (self.start or 0.0)))
        if self.end - length <= allowed:
            return None
        return UnreadableError(f"it ends at {self.end:.2f} s, its recording at {length:.2f}")


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
        One take per cut, in their order; one that the file does not reach says so in its parts.

    Raises:
        UnreadableError: the file cannot be opened, or a stream of it is in no known format.
        HostError: its storage failed.
    """
    check_media(path)
    # Titles and comments in the file may be in any encoding; they are of no use here.
    with (
        opened(path) as file,
        decoding("the file"),
        av.open(file, metadata_errors="replace") as container,
    ):
        return _Pass(container, cuts, visual, audio).run()


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
class _Reach:
    """From where to where the packets of a stream go, in seconds."""

    first: float = math.inf
    end: float = 0.0

    def add(self, packet: Any) -> None:
        """Note a packet that has a time."""
        self.first = min(self.first, seconds(packet.pts, packet.time_base))
        end = packet.pts + (packet.duration or 0)
        self.end = max(self.end, seconds(end, packet.time_base))

    @property
    def length(self) -> float:
        return max(0.0, self.end - self.first)


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
    _sound_frames: int = 0
    _pieces: list[Piece] = field(default_factory=list)
    _sound_rate: int = 0
    _sound_damaged: int = 0
    _frames: int = 0
    _frame_rate: float = 0.0
    _first: Any = None
    _begin: float | None = None
    _reached: dict[int, _Reach] = field(default_factory=lambda: defaultdict(_Reach))

    def run(self) -> list[Take]:
        """Decode to the end, or to where the file can be read no further."""
        streams = self.container.streams
        video = streams.video[0] if self.visual is not None and streams.video else None
        sound = streams.audio[0] if self.audio and streams.audio else None
        for stream in (video, sound):
            if stream is not None:
                if stream.codec_context is None:
                    raise UnreadableError(f"its {stream.type} is in a format that is not known")
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
                self._reached[packet.stream.index].add(packet)
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
            self._begin = seconds(frame.pts, frame.time_base)
        return seconds(frame.pts - self._first, frame.time_base)

    def _add_sound(self, packet: Any) -> None:
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self._sound_damaged += 1
            return
        for frame in frames:
            self._sound_rate = frame.sample_rate
            if frame.pts is not None:
                self._place(seconds(frame.pts, frame.time_base), len(self._samples))
            # Grows in place: a list of pieces would be there a second time when it is joined.
            self._samples.frombytes(first_channel(frame).tobytes())
            self._sound_frames += 1

    def _place(self, time: float, sample: int) -> None:
        """Begin a piece of sound where a sample is not at the time that follows from those before.

        Packets that were lost, or never sent while nobody spoke, leave such gaps.
        """
        if self._pieces:
            last = self._pieces[-1]
            expected = last.time + (sample - last.first) / self._sound_rate
            if abs(time - expected) <= _ASIDE_SECONDS:
                return
        self._pieces.append(Piece(time, sample))

    def _placed(self, video: Any) -> list[Piece]:
        """The pieces of sound in seconds from the first frame, or from the sound if none is."""
        if not self._pieces:
            return []
        begin = self._begin
        if begin is None and video is not None:
            begin = self._reached[video.index].first
        first = self._pieces[0].time
        if begin is None or not math.isfinite(begin) or abs(first - begin) <= _ASIDE_SECONDS:
            begin = first
        return [Piece(piece.time - begin, piece.first) for piece in self._pieces]

    def _pictures(self) -> list[Pictures | UnreadableError | None]:
        if not self._scenes:
            return [self._no_pictures] * len(self.cuts)
        for scene in self._scenes:
            if scene.is_open:
                scene.finish()
        video = self.container.streams.video[0]
        return [
            self._cut_short(scene.cut, video) or self._undecoded(scene.cut, video) or scene.result
            for scene in self._scenes
        ]

    def _sounds(self) -> list[Sound | UnreadableError | None]:
        if not self.audio:
            return [None] * len(self.cuts)
        rate, damaged = self._sound_rate, self._sound_damaged
        if damaged > max(1, _DAMAGED_SHARE * (damaged + self._sound_frames)):
            error = UnreadableError(f"{damaged} pieces of its audio are damaged")
            return [error] * len(self.cuts)
        whole = np.frombuffer(self._samples, np.float32)
        stream = next(iter(self.container.streams.audio), None)
        pieces = self._placed(next(iter(self.container.streams.video), None))
        return [
            self._cut_short(cut, stream) or Sound(cut.of(whole, rate, pieces), rate)
            for cut in self.cuts
        ]

    def _cut_short(self, cut: Cut, stream: Any) -> UnreadableError | None:
        """The reason, when the stream ends before the cut does, or before the end it states."""
        whole = stated_seconds(self.container)
        own = stream_seconds(self.container, stream) if stream is not None else 0.0
        if own:
            stated, reached = own, self._reached[stream.index].length
        else:
            # All streams of a file that is cut short end about there.
            stated, reached = whole, max((each.end for each in self._reached.values()), default=0.0)
        wanted = stated if cut.end is None else min(cut.end, stated)
        if wanted - reached > _EARLY_SECONDS + self._last_frame:
            return UnreadableError(f"the file is cut short at {reached:.2f} of {wanted:.2f} s")
        return cut.beyond(max(whole, reached))

    @property
    def _last_frame(self) -> float:
        """Seconds that the last frame is shown, of which FLV says nothing."""
        return 1.0 / self._frame_rate if self._frame_rate else 0.0

    def _undecoded(self, cut: Cut, video: Any) -> UnreadableError | None:
        """The reason, when the decoder gave clearly less frames than the container counts."""
        if cut != Cut() or not video.frames:
            return None
        shown = stream_seconds(self.container, video) * self._frame_rate
        # A list of edits hides frames that the container counts.
        wanted = min(video.frames, round(shown)) if shown else video.frames
        if wanted - self._frames <= 1 + _EARLY_SECONDS * self._frame_rate:
            return None
        return UnreadableError(f"only {self._frames} of its {wanted} frames can be decoded")


def seconds(ticks: int, time_base: Fraction) -> float:
    """``float(ticks * time_base)``, to the last bit, without the cost of making a fraction."""
    return ticks * time_base.numerator / time_base.denominator


def is_guessed(container: Any) -> bool:
    """Whether ffmpeg works a length out from the size, which misleads where the bit rate varies.

    It does so for raw AAC, and for MP3 without the header that counts the frames; from that it also
    knows how much silence the encoder put before the sound.
    """
    audio = container.streams.audio
    return container.format.name in _RAW and not any(stream.start_time for stream in audio)


def stated_seconds(container: Any) -> float:
    """How long a file says it is; 0 when it does not say."""
    if is_guessed(container):
        return 0.0
    streams = (stream_seconds(container, video) for video in container.streams.video)
    return max([(container.duration or 0) / av.time_base, *streams])


def stream_seconds(container: Any, stream: Any) -> float:
    """How long a stream says it is; 0 when it does not say.

    Of AVI the count of frames speaks, since its reader shortens the duration of a file that was
    cut short to what is there. Of other containers it does not: a list of edits hides frames.
    """
    if is_guessed(container):
        return 0.0
    counted = stream.frames and getattr(stream, "average_rate", None)
    if container.format.name == "avi" and counted:
        return float(stream.frames / stream.average_rate)
    return seconds(stream.duration, stream.time_base) if stream.duration else 0.0


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
    step = 1 if frame.format.is_planar else len(frame.layout.channels)
    # Not `to_ndarray`: of eight planes and more (7.1, or a damaged piece that claims to be so)
    # PyAV 18 takes what lies behind their list for planes too, which ends the process.
    plane: Any = AudioPlane(frame, 0)
    channel = np.frombuffer(plane, _TYPES[name], step * frame.samples)[::step]
    if name in _SCALE:
        offset = 128 if name == "u8" else 0
        return ((channel.astype(np.float64) - offset) / _SCALE[name]).astype(np.float32)
    return np.array(channel, np.float32)
