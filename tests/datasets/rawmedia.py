"""Small real media files for tests: what a raw tree holds, whole and damaged."""

from fractions import Fraction
from pathlib import Path
from zlib import crc32

import av
import numpy as np
import soundfile
from PIL import Image

RATE = 16000
SIZE = (64, 48)
"""Width and height of the videos and pictures, in pixels."""

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)


def tone(name, class_index, seconds, rate=RATE, channels=1):
    """A tone whose pitch is the class, in noise of the file's own: (samples, channels) int16."""
    rng = np.random.default_rng(crc32(str(name).encode()))
    time = np.arange(round(seconds * rate)) / rate
    wave = np.sin(2 * np.pi * (200 + 60 * class_index) * time + rng.uniform(0, 6))
    noise = rng.normal(0, 0.2, (len(time), channels))
    return ((0.4 * wave[:, None] + 0.2 * noise) * 32767).astype(np.int16)


def picture(name, class_index, frame=0, size=SIZE):
    """A coloured ramp whose hue is the class, with a bar that moves: (height, width, 3) uint8."""
    width, height = size
    rng = np.random.default_rng(crc32(str(name).encode()))
    angle = class_index + np.array([0.0, 2.1, 4.2])
    colour = 127 + 100 * np.sin(angle) + rng.uniform(-15, 15, 3)
    ramp = np.linspace(0.5, 1.0, width)[None, :, None]
    pixels = np.tile(colour * ramp, (height, 1, 1))
    bar = (int(rng.integers(width)) + 3 * frame) % width
    pixels[:, bar : bar + 4] = 255
    return pixels.clip(0, 255).astype(np.uint8)


def write_wav(path, class_index=0, seconds=1.0, rate=RATE, channels=1):
    """A PCM WAV file; ``seconds=0`` gives a header without a sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(path.name, class_index, seconds, rate, channels), rate)


def write_silence(path, seconds):
    """A PCM WAV file whose every sample is 0, byte for byte as sound tools write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * RATE), np.int16), RATE)


def write_image(path, class_index=0, mode="RGB", size=SIZE):
    """A JPEG of a mode that JPEG has (RGB, L, CMYK), else a PNG under whatever name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture(path.name, class_index, size=size)).convert(mode)
    image.save(path, "JPEG" if mode in ("RGB", "L", "CMYK") else "PNG")


def write_video(
    path, class_index=0, seconds=2.0, fps=10, sound=True, frames=None, channels=1, title=""
):
    """A video in the codecs its suffix usually holds (.flv, .mp4, .avi).

    Args:
        frames: how many, if not ``seconds * fps``; with 0 there is a sound stream only.
        sound: whether there is a sound stream.
        title: a title that the file holds.
    """
    video_codec, audio_codec, rate = {
        ".flv": ("flv", "libmp3lame", 22050),
        ".mp4": ("mpeg4", "aac", 22050),
        ".avi": ("mpeg4", "pcm_s16le", RATE),
    }[path.suffix]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        count = round(seconds * fps) if frames is None else frames
        video = container.add_stream(video_codec, rate=Fraction(fps)) if count else None
        audio = container.add_stream(audio_codec, rate=rate) if sound else None
        if video is not None:
            video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        if audio is not None:
            audio.layout = "stereo" if channels == 2 else "mono"
        for index in range(count):
            pixels = picture(path.name, class_index, index)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if video is not None:
            container.mux(video.encode(None))
        if audio is not None:
            wave = tone(path.name, class_index, seconds, rate, channels)
            frame = av.AudioFrame.from_ndarray(
                wave.reshape(1, -1), format="s16", layout=audio.layout.name
            )
            frame.sample_rate = rate
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))


def truncate(path: Path, share=0.5):
    """Cut a file off after ``share`` of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def erase_frame_rate(path: Path, value=0.0):
    """Make the frame rate that an .flv file states ``value``."""
    content = bytearray(path.read_bytes())
    at = content.index(b"framerate") + len(b"framerate") + 1
    content[at : at + 8] = np.array(value, ">f8").tobytes()
    path.write_bytes(content)


def write_bytes(path: Path, content: bytes):
    """A file of exactly these bytes, in a folder made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
