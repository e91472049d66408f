"""Which frames of a clip are kept, and pictures as stored: RGB squeezed to a square."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from amst.config.run import VisualFeatures
from amst.features.media import UnreadableError, check_media, decoding, opened

_REFORMATTER = VideoReformatter()
"""Shared, since a new one prepares its tables and threads anew: 100 times the time of a picture."""
_UNCONVERTED = 32
"""Decoded frames that may wait unconverted, so that a long clip does not fill the memory."""
_RESERVED, _UNSPECIFIED = 3, 2
"""Codes of colour matrices. Some encoders write the first and mean none, which ffmpeg refuses."""


@dataclass(frozen=True)
class Pictures:
    """The pictures of one sample as they are stored.

    Attributes:
        features: (T, S, S, 3) uint8, RGB.
        size: (height, width) of the original, as it is shown.
        decoded: frames the clip has.
        rate: frames per second of the clip; 0 for a still picture.
        damaged: frames or packets that the decoder reported as damaged.
    """

    features: NDArray[np.uint8]
    size: tuple[int, int]
    decoded: int
    rate: float
    damaged: int = 0


def frame_rate(average: Any, nominal: Any) -> float:
    """Frames per second of a stream: its average rate, else its nominal rate.

    Raises:
        UnreadableError: neither is a positive number.
    """
    for rate in (average, nominal):
        if rate is not None and math.isfinite(rate) and rate > 0:
            return float(rate)
    raise UnreadableError(f"its video has no frame rate (average {average}, nominal {nominal})")


def is_kept(index: int, rate: float, per_second: int) -> bool:
    """Whether decoded frame ``index``, counted from 0, is among the ``per_second`` of its second.

    The frame rate counts as a whole number, rounded down but at least 1, and frames stand evenly
    in each group of that many.
    """
    whole = max(1, math.floor(rate))
    step = max(1, whole // per_second)
    place = index % whole
    return place < step * per_second and place % step == 0


def taken(kept: int, frames: int) -> list[int]:
    """Which of ``kept`` frames reach the encoder: ``frames`` of them, evenly from the first on.

    With fewer kept than wanted the first one is repeated.

    Raises:
        UnreadableError: there is no frame.
    """
    if kept == 0:
        raise UnreadableError("its video has no frame")
    return [place * (kept // frames) for place in range(frames)]


def squeeze(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """A picture resized to ``size`` x ``size``, antialiased bilinear, rounded: (S, S, 3) uint8."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR), dtype=np.uint8)


def turn(pixels: NDArray[np.uint8], matrix: bytes | None) -> NDArray[np.uint8]:
    """The pixels of a frame as players show it; a view.

    Phones film on their side or upside down and state how the frames are to be turned.

    Args:
        pixels: (height, width, ...) as decoded.
        matrix: the display matrix, nine 32-bit numbers a b u c d v x y w that take the place (x, y)
            to (ax + cy, bx + dy); None when the clip states none. Turns by other angles than
            quarters go to the nearest of them.
    """
    if matrix is None:
        return pixels
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32, 9).tolist()
    across, down = a, d
    if abs(b) > abs(a):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


_side_data: Any = SideDataContainer
"""Not ``frame.side_data``: the frame would keep that, which keeps the frame, and its pixels would
stay in memory until the garbage collector comes."""


def _display_matrix(frame: Any) -> bytes | None:
    try:
        stated = _side_data(frame).get("DISPLAYMATRIX")
    except ValueError:  # a kind of side data that PyAV does not know
        if frame.rotation:
            raise UnreadableError("how its frames are to be turned cannot be read") from None
        return None
    return None if stated is None else bytes(stated)


class FrameCollector:
    """Takes a clip's decoded frames one by one and keeps only those that may be stored.

    Args:
        features: frames wanted, frames kept per second, side of the stored square.
        rate: frames per second of the clip.
    """

    def __init__(self, features: VisualFeatures, rate: float) -> None:
        self._features = features
        self._rate = rate
        self._waiting: dict[int, Any] = {}
        self._stored: dict[int, NDArray[np.uint8]] = {}
        self._size: tuple[int, int] = (0, 0)
        self._kept = 0
        self.decoded = 0
        self.damaged = 0

    def add(self, frame: Any) -> None:
        """Take the next decoded frame (``av.VideoFrame``)."""
        if is_kept(self.decoded, self._rate, self._features.per_second):
            self._waiting[self._kept] = frame
            self._kept += 1
            self._forget()
        self.decoded += 1

    def _forget(self) -> None:
        """Drop frames that cannot be taken any more, however many follow."""
        earliest = self._kept // self._features.frames
        for held in (self._waiting, self._stored):
            for index in [index for index in held if 0 < index < earliest]:
                del held[index]
        if len(self._waiting) > _UNCONVERTED:
            self._convert(list(self._waiting))

    def _convert(self, indices: Sequence[int]) -> None:
        for index in indices:
            frame = self._waiting.pop(index)
            if frame.colorspace == _RESERVED:
                frame.colorspace = _UNSPECIFIED
            rgb: Any = _REFORMATTER.reformat(frame, format="rgb24", threads=1).to_ndarray()
            shown = Image.fromarray(turn(rgb, _display_matrix(frame)))
            if index == 0:
                self._size = (shown.height, shown.width)
            self._stored[index] = squeeze(shown, self._features.size)

    def finish(self) -> Pictures:
        """The stored pictures.

        Raises:
            UnreadableError: there was no frame.
        """
        indices = taken(self._kept, self._features.frames)
        self._convert([index for index in set(indices) if index in self._waiting])
        self._waiting.clear()
        return Pictures(
            features=np.stack([self._stored[index] for index in indices]),
            size=self._size,
            decoded=self.decoded,
            rate=self._rate,
            damaged=self.damaged,
        )


def read_picture(path: Path, features: VisualFeatures) -> Pictures:
    """A still picture in any colour space, repeated where more than one frame is wanted.

    It is turned as its EXIF orientation says; of 16 bits of grey the upper 8 are taken.

    Raises:
        UnreadableError: the file cannot be decoded or is cut short, or its values have no scale.
        HostError: its storage failed.
    """
    check_media(path)
    with opened(path) as file, decoding("its picture"):
        try:
            with Image.open(file) as picture:
                colours = _in_eight_bits(_turned(picture)).convert("RGB")
        except UnidentifiedImageError:
            # Its own text names the file with this machine's path.
            raise UnreadableError("its picture is in no known format") from None
    stored = squeeze(colours, features.size)
    return Pictures(
        features=np.repeat(stored[None], features.frames, axis=0),
        size=(colours.height, colours.width),
        decoded=1,
        rate=0.0,
    )


def _in_eight_bits(picture: Image.Image) -> Image.Image:
    """The picture, with 16 bits of grey reduced to 8; Pillow would take all above 255 for white."""
    if picture.mode in ("I", "F"):
        raise UnreadableError("its picture has values of 32 bits, whose scale nothing states")
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture


def _turned(picture: Image.Image) -> Image.Image:
    """A picture as it was taken; EXIF data that make no sense turn nothing."""
    with suppress(Exception):
        return ImageOps.exif_transpose(picture)
    return picture
