"""The embedded dataset: ten digits as keypad tone, handwritten pictures and a typed sentence.

Made by the project itself, without download, in the raw layout

``audio/<id>.wav``, ``video/<id>.mp4``, ``text/<id>.txt``, ``labels.csv``, ``digits.json``

and then treated as every other dataset. Pictures are the 1797 scans of 8 x 8 pixels that
scikit-learn ships (Alpaydin and Kaynak, UCI, 1998). They are divided into pools first; a clip takes
its scans from one pool, which is its group, so a split that keeps groups shares no scan.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from amst.config.run import Kind, Settings
from amst.datasets.base import Dataset, Rejected, Sample
from amst.datasets.sentences import SENTENCES, WORDS
from amst.errors import AmstError
from amst.files import write_json, write_text
from amst.randomness import stream_seed

_KEY_ROWS = (941, 697, 697, 697, 770, 770, 770, 852, 852, 852)
_KEY_COLUMNS = (1336, 1209, 1336, 1477, 1209, 1336, 1477, 1209, 1336, 1477)
"""The two frequencies in Hz of the keys 0 to 9 (ITU-T Q.23)."""

_RATE = 8000
_SIDE = 32
_SCAN_SIDE = 20
_FRAMES_PER_SECOND = 12
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_PARTS = (("train", 0.8), ("val", 0.9), ("test", 1.0))
_DONE = "digits.json"


class DigitsSettings(Settings):
    """How the embedded dataset is made. The defaults were fixed by single-modality probes."""

    # Ten digits from three pools, one for each part: with less, a part has none.
    samples: int = Field(3000, ge=30, description="clips, the classes in equal numbers")
    seed: int = Field(0, ge=0)
    pools: int = Field(30, ge=3, le=150, description="groups of clips that share scans")
    # At 12 frames per second, less than a tenth of a second may have no frame.
    seconds: float = Field(0.5, ge=0.1, le=600, description="length of a clip")
    scans: PositiveInt = Field(3, description="different scans shown one after the other")
    audio_snr: float = Field(
        -11.5, ge=-100, le=100, description="mean of keypad tone against white noise, in dB"
    )
    audio_snr_spread: float = Field(
        6.0, ge=0, le=100, description="largest distance from that mean, in dB"
    )
    picture_noise: float = Field(
        0.8, ge=0, le=100, description="standard deviation; 1 is ink on paper"
    )
    picture_jitter: int = Field(5, ge=0, le=6, description="largest shift in pixels of 32")
    typing_errors: float = Field(0.12, ge=0, lt=1, description="share of letters mistyped")


@dataclass(frozen=True)
class _Clip:
    """One clip to be made: which digit it shows, from which pool of scans."""

    id: str
    digit: int
    pool: int
    part: str


class Digits(Dataset):
    """Ten digits as keypad tone, handwritten pictures and a typed sentence."""

    name = "digits"
    modalities: ClassVar[Mapping[str, Kind]] = {
        "audio": "audio",
        "text": "text",
        "visual": "visual",
    }
    classes = tuple("0123456789")
    splits: ClassVar[tuple[str, ...]] = ("random", "group")
    groups = "pool of scans"
    random_keeps_groups = True
    is_made = True

    def read(self, raw: Path) -> Iterator[Sample | Rejected]:
        """Rows of ``labels.csv``.

        Raises:
            AmstError: the raw folder was not made to its end.
        """
        if not (raw / _DONE).is_file():
            raise AmstError(f"{raw} holds no complete digits ({_DONE} is missing)", "Make it again")
        with (raw / "labels.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                yield Sample(
                    id=row["id"],
                    label=row["digit"],
                    group=row["pool"],
                    part=row["part"],
                    files={
                        "audio": f"audio/{row['id']}.wav",
                        "text": f"text/{row['id']}.txt",
                        "visual": f"video/{row['id']}.mp4",
                    },
                )


def make(raw: Path, settings: DigitsSettings) -> dict[str, Any]:
    """Make the raw folder; equal settings give equal bytes.

    Args:
        raw: folder to fill; ``digits.json`` appears in it last, and without it none of the
            other files is read.
        settings: what to make.

    Returns:
        The content of ``digits.json``: settings, and clips per part.
    """
    (raw / _DONE).unlink(missing_ok=True)
    for folder in ("audio", "video", "text"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    clips = _clips(settings)
    pools = _scan_pools(settings)
    for clip in clips:
        frames = _frames(clip, pools[clip.digit][clip.pool], settings)
        _write_sound(raw / "audio" / f"{clip.id}.wav", _sound(clip, settings))
        _write_video(raw / "video" / f"{clip.id}.mp4", frames)
        sentence = _sentence(clip, settings)
        (raw / "text" / f"{clip.id}.txt").write_text(sentence + "\n", encoding="utf-8")
    rows = [f"{clip.id},{clip.digit},pool-{clip.pool:03d},{clip.part}\n" for clip in clips]
    write_text(raw / "labels.csv", "id,digit,pool,part\n" + "".join(rows))
    parts = [clip.part for clip in clips]
    done = {
        "settings": settings.model_dump(mode="json"),
        "parts": {part: parts.count(part) for part, _ in _PARTS},
    }
    write_json(raw / _DONE, done)
    return done


def _clips(settings: DigitsSettings) -> list[_Clip]:
    """Digits and pools in equal numbers; pools are dealt to the parts 80/10/10."""
    clips = []
    for index in range(settings.samples):
        pool = index // 10 % settings.pools
        part = next(part for part, end in _PARTS if pool < round(end * settings.pools))
        clips.append(_Clip(f"clip-{index:05d}", index % 10, pool, part))
    return clips


def _scan_pools(settings: DigitsSettings) -> list[list[NDArray[np.float32]]]:
    """Scans by digit and pool, (scans, 8, 8) each, ink 1 on paper 0; no scan is in two pools."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(stream_seed(settings.seed, "pools"))
    pools = []
    for digit in range(10):
        scans = (images[labels == digit] / 16).reshape(-1, 8, 8).astype(np.float32)
        order = random.permutation(len(scans))
        pools.append([scans[chosen] for chosen in np.array_split(order, settings.pools)])
    return pools


def _random(clip: _Clip, settings: DigitsSettings, what: str) -> np.random.Generator:
    return np.random.default_rng(stream_seed(settings.seed, clip.id, what))


def _sound(clip: _Clip, settings: DigitsSettings) -> NDArray[np.float64]:
    """The digit's key tone with random phases in white noise, at a random level below 1: (n,)."""
    random = _random(clip, settings, "audio")
    time = np.arange(round(settings.seconds * _RATE)) / _RATE
    tone = np.zeros_like(time)
    for frequency in (_KEY_ROWS[clip.digit], _KEY_COLUMNS[clip.digit]):
        tone += np.sin(2 * np.pi * (frequency * time + random.random()))
    # Two sines of amplitude 1 have power 1.
    ratio = settings.audio_snr + settings.audio_snr_spread * random.uniform(-1, 1)
    noise = random.standard_normal(time.shape) * 10 ** (-ratio / 20)
    mixed = tone + noise
    return mixed * (random.uniform(0.2, 0.9) / np.abs(mixed).max())


def _write_sound(path: Path, waveform: NDArray[np.float64]) -> None:
    """Write 16-bit mono WAV at 8 kHz."""
    import soundfile

    # In memory first: libsndfile waits for the disk with every file that it closes.
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform, _RATE, subtype="PCM_16", format="WAV")
    path.write_bytes(encoded.getvalue())


def _sentence(clip: _Clip, settings: DigitsSettings) -> str:
    """A sentence with the digit's word, its letters mistyped at random."""
    random = _random(clip, settings, "text")
    typed = []
    for letter in SENTENCES[random.integers(len(SENTENCES))].format(WORDS[clip.digit]):
        if letter != " " and random.random() < settings.typing_errors:
            wrong = _LETTERS[random.integers(len(_LETTERS))]
            letter = ("", letter + letter, wrong)[random.integers(3)]
        typed.append(letter)
    return "".join(typed)


def _frames(
    clip: _Clip, scans: NDArray[np.float32], settings: DigitsSettings
) -> list[NDArray[np.uint8]]:
    """Different scans one after the other, each shifted and noisy: frames (32, 32, 3)."""
    random = _random(clip, settings, "visual")
    frames = round(settings.seconds * _FRAMES_PER_SECOND)
    chosen = random.permutation(len(scans))[: settings.scans]
    pictures = [_picture(scans[index], random, settings) for index in chosen]
    return [pictures[frame * len(pictures) // frames] for frame in range(frames)]


def _picture(
    scan: NDArray[np.float32], random: np.random.Generator, settings: DigitsSettings
) -> NDArray[np.uint8]:
    """A scan on a (32, 32, 3) picture: enlarged, shifted, and noise added."""
    from PIL import Image

    large = Image.fromarray(scan).resize((_SCAN_SIDE, _SCAN_SIDE), Image.Resampling.BILINEAR)
    margin = (_SIDE - _SCAN_SIDE) // 2
    jitter = settings.picture_jitter
    top, left = margin + random.integers(-jitter, jitter + 1, size=2)
    canvas = np.zeros((_SIDE, _SIDE))
    canvas[top : top + _SCAN_SIDE, left : left + _SCAN_SIDE] = np.asarray(large)
    canvas += random.standard_normal(canvas.shape) * settings.picture_noise
    grey = np.clip(40 + 175 * canvas, 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _write_video(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """Write MPEG-4 video without anything that changes from call to call (time, version)."""
    import av

    with av.open(str(path), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(_FRAMES_PER_SECOND))
        stream.width = stream.height = _SIDE
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.qmin = context.qmax = 3
        context.thread_count = 1
        context.flags |= av.codec.context.Flags.bitexact
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
