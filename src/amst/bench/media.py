"""Recordings that the benchmarks measure on: real codecs, sizes and lengths, made here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

RATE = 16000
FPS = 30
CLIP = (480, 360)
DIALOGUE = (720, 480)
"""Width and height of CREMA-D's clips and of IEMOCAP's recordings."""

_PERIOD = 2 * FPS
"""Frames that a moving picture takes for its way and back."""


def photographs(size: tuple[int, int]) -> list[Image.Image]:
    """The photographs that scikit-learn ships, cut to the aspect of ``size`` and resized."""
    width, height = size
    return [_cut(Image.fromarray(each), width, height) for each in load_sample_images().images]


def _cut(picture: Image.Image, width: int, height: int) -> Image.Image:
    scale = max(width / picture.width, height / picture.height)
    box = (0.0, 0.0, width / scale, height / scale)
    return picture.resize((width, height), Image.Resampling.BICUBIC, box)


def write_clip(folder: Path, name: str, number: int, seconds: float) -> None:
    """A clip as CREMA-D has them: ``VideoFlash/<name>.flv`` and ``AudioWAV/<name>.wav``."""
    for part in ("VideoFlash", "AudioWAV"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"AudioWAV/{name}.wav", _sound(seconds), RATE)
    with av.open(str(folder / f"VideoFlash/{name}.flv"), "w") as container:
        stream = _video_stream(container, "flv", CLIP)
        for frame in _frames(number, round(seconds * FPS), CLIP):
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_dialogue(path: Path, minutes: float) -> None:
    """A recording as IEMOCAP has them: AVI with MPEG-4 video and stereo sound.

    The same two seconds of pictures follow each other: they are encoded once, decoded every time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = _video_stream(container, "mpeg4", DIALOGUE)
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        packets = [p for frame in _frames(0, _PERIOD, DIALOGUE) for p in video.encode(frame)]
        packets += video.encode(None)
        sound = np.repeat(_sound(_PERIOD / FPS), 2).reshape(1, -1)
        for turn in range(round(minutes * 60 * FPS / _PERIOD)):
            for place, packet in enumerate(packets):
                _mux_copy(container, video, packet, turn * _PERIOD + place)
            piece = av.AudioFrame.from_ndarray(sound, format="s16", layout="stereo")
            piece.sample_rate = RATE
            container.mux(audio.encode(piece))


def _mux_copy(container: Any, stream: Any, packet: Any, place: int) -> None:
    copied = av.Packet(bytes(packet))
    copied.stream, copied.time_base, copied.duration = stream, packet.time_base, packet.duration
    copied.pts = copied.dts = place
    copied.is_keyframe = packet.is_keyframe
    container.mux(copied)


def _video_stream(container: Any, codec: str, size: tuple[int, int]) -> Any:
    stream = container.add_stream(codec, rate=FPS)
    stream.width, stream.height = size
    stream.pix_fmt, stream.bit_rate = "yuv420p", 1_000_000
    stream.codec_context.thread_count = 1
    return stream


def _frames(number: int, count: int, size: tuple[int, int]) -> Iterator[Any]:
    """A photograph that moves to and fro."""
    width, height = size
    wide = photographs((width + _PERIOD, height))
    picture = np.asarray(wide[number % len(wide)])
    for index in range(count):
        shift = _PERIOD // 2 - abs(index % _PERIOD - _PERIOD // 2)
        pixels = np.ascontiguousarray(picture[:, shift : shift + width])
        yield av.VideoFrame.from_ndarray(pixels, format="rgb24")


def _sound(seconds: float) -> NDArray[np.int16]:
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).normal(0, 0.05, len(time))
    return ((0.3 * np.sin(2 * np.pi * 220 * time) + noise) * 32767).astype(np.int16)
