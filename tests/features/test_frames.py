import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from torchvision.transforms.v2 import functional as tv

from amst.config.run import VisualFeatures
from amst.features.frames import (
    FrameCollector,
    frame_rate,
    is_kept,
    read_picture,
    squeeze,
    taken,
)
from amst.features.media import UnreadableError

RATES = [1.0, 12.5, 23.976, 30000 / 1001, 30.0, 60.0]


def stated_indices(frames, fps, per_second, wanted):
    """Decoded frames that are stored, worked out by walking through the rule's words."""
    whole = int(fps) if fps >= 1 else 1
    step = whole // per_second if whole >= per_second else 1
    second, kept = 0, []
    while second * whole < frames:
        for place in range(0, step * per_second, step):
            index = second * whole + place
            if place < whole and index < frames:
                kept.append(index)
        second += 1
    return [kept[i * (len(kept) // wanted)] for i in range(wanted)]


class Frame:
    """A decoded frame that remembers its number: 8 x 6 pixels of the colour (n // 256, n % 256)."""

    def __new__(cls, number):
        pixels = np.zeros((6, 8, 3), np.uint8)
        pixels[..., 0], pixels[..., 1] = divmod(number, 256)
        return av.VideoFrame.from_ndarray(pixels, format="rgb24")


def stored_indices(frames, fps, per_second, wanted):
    collector = FrameCollector(VisualFeatures(frames=wanted, per_second=per_second, size=2), fps)
    for number in range(frames):
        collector.add(Frame(number))
    pictures = collector.finish()
    assert pictures.size == (6, 8)
    assert pictures.decoded == frames
    return [int(one[0, 0, 0]) * 256 + int(one[0, 0, 1]) for one in pictures.features]


@given(
    frames=st.integers(1, 400),
    fps=st.sampled_from(RATES) | st.floats(0.01, 240),
    per_second=st.integers(1, 8),
    wanted=st.integers(1, 5),
)
def test_stored_frames_are_those_of_the_rule(frames, fps, per_second, wanted):
    expected = stated_indices(frames, fps, per_second, wanted)
    assert stored_indices(frames, fps, per_second, wanted) == expected


@pytest.mark.parametrize(
    ("frames", "fps", "per_second", "expected"),
    [
        # 30 a second, one kept per second: 0, 30, 60, 90 of 100; every 4 // 3 = 1st of them.
        (100, 30.0, 1, [0, 30, 60]),
        # 23.976 counts as 23: 0, 23, ..., 115 of 120 are six; every second of them.
        (120, 23.976, 1, [0, 46, 92]),
        # 29.97 counts as 29, two a second stand 14 apart: 0 14 29 43 58 72.
        (80, 30000 / 1001, 2, [0, 29, 58]),
        (2, 12.5, 1, [0, 0, 0]),
        (3, 1.0, 1, [0, 1, 2]),
        (4, 0.4, 2, [0, 1, 2]),
        (61 * 5, 5.0, 1, [0, 100, 200]),
    ],
)
def test_stored_frames_of_known_clips(frames, fps, per_second, expected):
    assert stored_indices(frames, fps, per_second, 3) == expected


def test_no_frame_is_a_reason_to_reject():
    collector = FrameCollector(VisualFeatures(), 30.0)
    with pytest.raises(UnreadableError, match="no frame"):
        collector.finish()


def test_a_long_clip_keeps_few_frames_in_memory():
    collector = FrameCollector(VisualFeatures(size=2), 1.0)
    for number in range(400):
        collector.add(Frame(number))
    assert len(collector._waiting) <= 32
    assert len(collector._waiting) + len(collector._stored) <= 1 + 400 - 400 // 3


def test_colours_of_a_reserved_kind_are_those_of_none():
    found = []
    for matrix in (2, 3):
        frame = av.VideoFrame.from_ndarray(np.asarray(picture(48, 64)), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.colorspace = matrix
        collector = FrameCollector(VisualFeatures(frames=1, size=16), 1.0)
        collector.add(frame)
        found.append(collector.finish().features)
    np.testing.assert_array_equal(*found)


@given(st.integers(0, 400), st.sampled_from(RATES), st.integers(1, 4))
def test_a_whole_second_keeps_the_frames_asked_for(second, fps, per_second):
    whole = math.floor(fps)
    kept = [is_kept(second * whole + place, fps, per_second) for place in range(whole)]
    assert sum(kept) == min(per_second, whole)


@given(kept=st.integers(1, 400), wanted=st.integers(1, 8))
def test_frames_taken_are_evenly_spaced_from_the_first(kept, wanted):
    places = taken(kept, wanted)
    assert places[0] == 0
    assert len(places) == wanted
    assert max(places) < kept
    assert len(set(np.diff(places))) <= 1


@pytest.mark.parametrize("broken", [None, 0, Fraction(0), float("nan"), float("inf"), -25])
def test_a_broken_average_rate_gives_way_to_the_nominal_rate(broken):
    assert frame_rate(broken, Fraction(25)) == 25.0
    with pytest.raises(UnreadableError, match="no frame rate"):
        frame_rate(broken, broken)


def picture(height, width, seed=0):
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("height", "width"), [(360, 480), (100, 40), (64, 64), (720, 1280)])
def test_a_square_is_the_antialiased_bilinear_resize(height, width):
    original = picture(height, width)
    stored = squeeze(original, 64)
    exact = tv.resize(
        torch.from_numpy(np.array(original)).permute(2, 0, 1).double(), [64, 64], antialias=True
    )
    assert stored.dtype == np.uint8
    # The intermediate picture of the two passes is rounded too.
    assert np.abs(stored - exact.permute(1, 2, 0).numpy()).max() <= 1.01


def test_a_picture_of_the_stored_size_is_unchanged():
    original = picture(32, 32)
    np.testing.assert_array_equal(squeeze(original, 32), np.asarray(original))


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1"])
def test_pictures_of_every_mode_become_rgb(mode, tmp_path):
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    picture(48, 64).convert(mode).save(path)
    found = read_picture(path, VisualFeatures(frames=1, size=16))
    assert found.features.shape == (1, 16, 16, 3)
    assert (found.size, found.decoded, found.rate) == ((48, 64), 1, 0.0)
    with Image.open(path) as stored:
        np.testing.assert_array_equal(found.features[0], squeeze(stored.convert("RGB"), 16))


@pytest.mark.parametrize(
    ("orientation", "shown"),
    [
        (0, lambda pixels: pixels),
        (1, lambda pixels: pixels),
        (2, np.fliplr),
        (3, lambda pixels: np.rot90(pixels, 2)),
        (4, np.flipud),
        (5, lambda pixels: pixels.swapaxes(0, 1)),
        (6, lambda pixels: np.rot90(pixels, -1)),
        (7, lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1)),
        (8, np.rot90),
        (9, lambda pixels: pixels),
    ],
)
def test_a_photograph_is_turned_as_it_says(orientation, shown, tmp_path):
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture(48, 64).save(path, exif=exif)
    found = read_picture(path, VisualFeatures(frames=1, size=16))
    expected = Image.fromarray(shown(np.asarray(picture(48, 64))))
    assert found.size == (expected.height, expected.width)
    np.testing.assert_array_equal(found.features[0], squeeze(expected, 16))


def test_exif_data_that_make_no_sense_are_no_matter(tmp_path):
    picture(48, 64).save(tmp_path / "a.webp", exif=b"Exif\0\0no data", lossless=True)
    found = read_picture(tmp_path / "a.webp", VisualFeatures(frames=1, size=16))
    np.testing.assert_array_equal(found.features[0], squeeze(picture(48, 64), 16))


def test_16_bits_of_grey_keep_their_upper_8(tmp_path):
    deep = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, 0)
    Image.fromarray(deep).save(tmp_path / "a.png")
    found = read_picture(tmp_path / "a.png", VisualFeatures(frames=1, size=64))
    np.testing.assert_array_equal(found.features[0, :, :, 1], deep >> 8)


def test_values_without_a_scale_are_refused(tmp_path):
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.png", "TIFF")
    with pytest.raises(UnreadableError, match="32 bits"):
        read_picture(tmp_path / "a.png", VisualFeatures(frames=1))


def test_a_truncated_picture_is_refused(tmp_path):
    picture(200, 200).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableError, match="cannot be decoded"):
        read_picture(tmp_path / "a.jpg", VisualFeatures(frames=1))


def test_what_is_no_picture_is_told_without_a_path(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"GIF9?" * 50)
    with pytest.raises(UnreadableError, match="no known format") as error:
        read_picture(tmp_path / "a.jpg", VisualFeatures(frames=1))
    assert str(tmp_path) not in str(error.value)
