import errno
import gc
import os
import re
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.audio.plane import AudioPlane

from amst.config.run import VisualFeatures
from amst.errors import HostError
from amst.features.frames import FrameCollector
from amst.features.media import UnreadableError, decoding
from amst.features.recording import Cut, Sound, _Scene, first_channel, read_recording
from tests.datasets.rawmedia import truncate, write_video

EVERY = VisualFeatures(frames=3, per_second=10, size=16)


def numbered_video(path, frames, fps, times=None, rate=8000, seconds=None, sound_at=(0.0,)):
    """Frame n has the grey level n; the left channel of the sound counts in steps of 2^-15.

    The sound is parted evenly, and its parts begin at the times ``sound_at``.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=Fraction(fps))
        video.width, video.height, video.pix_fmt = 32, 32, "bgr0"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("pcm_s16le", rate=rate)
        audio.layout = "stereo"
        for number in range(frames):
            grey = np.full((32, 32, 3), number, np.uint8)
            frame = av.VideoFrame.from_ndarray(grey, format="rgb24")
            time = number / fps if times is None else times[number]
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(video.encode(frame))
        count = round(rate * (frames / fps if seconds is None else seconds))
        left = (np.arange(count) % 30000).astype(np.int16)
        both = np.stack([left, -left], axis=1)
        for time, part in zip(sound_at, np.split(both, len(sound_at)), strict=True):
            sound = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout="stereo")
            sound.sample_rate = rate
            sound.pts, sound.time_base = round(rate * time), Fraction(1, rate)
            container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def numbers(pictures):
    return [int(one[0, 0, 0]) for one in pictures.features]


def test_one_pass_gives_frames_and_sound(tmp_path):
    path = numbered_video(tmp_path / "a.mkv", frames=40, fps=10)
    (take,) = read_recording(path, [Cut()], EVERY, audio=True)
    assert numbers(take.pictures) == [0, 13, 26]
    assert (take.pictures.decoded, take.pictures.size) == (40, (32, 32))
    assert take.pictures.rate == pytest.approx(10, rel=0.05)
    assert take.sound.rate == 8000
    np.testing.assert_array_equal(take.sound.waveform, np.arange(32000) % 30000 / 2**15)


def test_no_frame_stays_in_memory(tmp_path):
    """Large ones would, one after the other, until the garbage collector comes."""
    path = tmp_path / "a.mp4"
    numbered_video(path, frames=30, fps=10)
    gc.collect()
    gc.disable()
    try:
        read_recording(path, [Cut()], EVERY, audio=True)
        assert not [kept for kept in gc.get_objects() if type(kept) is av.VideoFrame]
    finally:
        gc.enable()


def test_cuts_of_one_recording_may_overlap(tmp_path):
    path = numbered_video(tmp_path / "a.mkv", frames=60, fps=10)
    cuts = [Cut(1.0, 2.0), Cut(1.55, 3.0), Cut(4.0, 5.95)]
    takes = read_recording(path, cuts, EVERY, audio=True)
    # Frames at or after the start and before the end; counting starts at the first of them.
    assert [take.pictures.decoded for take in takes] == [10, 14, 20]
    assert [numbers(take.pictures) for take in takes] == [
        [10, 13, 16],
        [16, 20, 24],
        [40, 46, 52],
    ]
    for cut, take in zip(cuts, takes, strict=True):
        wanted = np.arange(round(8000 * cut.start), round(8000 * cut.end)) % 30000 / 2**15
        np.testing.assert_array_equal(take.sound.waveform, wanted)


def test_cuts_count_from_the_first_frame_wherever_the_clock_of_a_film_starts(tmp_path):
    times = [1 + number / 10 for number in range(40)]
    path = numbered_video(tmp_path / "a.mkv", frames=40, fps=10, times=times)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(1.0)
    (take,) = read_recording(path, [Cut(1.0, 2.0)], EVERY, audio=False)
    assert numbers(take.pictures) == [10, 13, 16]


@pytest.mark.parametrize(("sound_at", "pictures_at"), [(1.0, 0.0), (0.0, 1.0), (0.05, 0.0)])
@pytest.mark.parametrize("visual", [EVERY, None])
def test_sound_is_cut_where_it_lies_beside_the_pictures(visual, sound_at, pictures_at, tmp_path):
    times = [pictures_at + number / 10 for number in range(40)]
    path = numbered_video(
        tmp_path / "a.mkv", frames=40, fps=10, times=times, seconds=3.0, sound_at=(sound_at,)
    )
    (take,) = read_recording(path, [Cut(1.5, 1.7)], visual, audio=True)
    first = round(8000 * (1.5 + pictures_at - (sound_at if sound_at > 0.1 else 0)))
    np.testing.assert_array_equal(
        take.sound.waveform, np.arange(first, first + 1600) / np.float32(2**15)
    )


def test_a_gap_in_the_sound_moves_none_that_follows(tmp_path):
    path = numbered_video(tmp_path / "a.mkv", frames=60, fps=10, seconds=3.0, sound_at=(0.0, 4.0))
    cuts = [Cut(1.0, 2.0), Cut(3.5, 5.0), Cut(2.0, 3.0), Cut()]
    found = [take.sound.waveform for take in read_recording(path, cuts, EVERY, audio=True)]
    for sound, (begin, end) in zip(found, [(1, 1.5), (1.5, 2.5), (0, 0), (0, 3)], strict=True):
        count = np.arange(8000 * begin, 8000 * end)
        np.testing.assert_array_equal(sound, count / np.float32(2**15))


def test_a_cut_of_sound_goes_to_the_nearest_sample():
    sound = np.arange(100, dtype=np.float32)
    # 0.29 and 0.58 times 100 are a little less than 29 and 58 in floating point.
    assert Cut(0.29, 0.58).of(sound, 100).tolist() == [*range(29, 58)]
    assert Cut(0.292, 0.578).of(sound, 100).tolist() == [*range(29, 58)]
    assert Cut(None, 0.29).of(sound, 100).tolist() == [*range(29)]
    assert Cut(0.29).of(sound, 100).tolist() == [*range(29, 100)]


def test_a_cut_does_not_depend_on_the_others(tmp_path):
    path = numbered_video(tmp_path / "a.mkv", frames=60, fps=10)
    cuts = [Cut(0.5, 1.5), Cut(1.2, 4.0)]
    together = read_recording(path, cuts, EVERY, audio=True)
    for cut, take in zip(cuts, together, strict=True):
        (alone,) = read_recording(path, [cut], EVERY, audio=True)
        np.testing.assert_array_equal(alone.pictures.features, take.pictures.features)
        np.testing.assert_array_equal(alone.sound.waveform, take.sound.waveform)


def test_a_cut_behind_the_end_is_rejected_and_the_others_are_not(tmp_path):
    path = numbered_video(tmp_path / "a.mkv", frames=40, fps=10)
    whole, behind = read_recording(path, [Cut(0.0, 3.0), Cut(8.0, 12.0)], EVERY, audio=True)
    assert numbers(whole.pictures) == [0, 10, 20]
    assert isinstance(whole.sound, Sound)
    assert isinstance(behind.pictures, UnreadableError)
    assert isinstance(behind.sound, UnreadableError)


def test_of_a_file_that_is_cut_short_the_clips_before_its_end_are_used(tmp_path):
    path = tmp_path / "a.flv"
    write_video(path, seconds=10.0)
    truncate(path, 0.6)
    before, behind = read_recording(path, [Cut(1.0, 3.0), Cut(7.0, 9.0)], EVERY, audio=True)
    assert before.pictures.decoded == 20
    assert len(before.sound.waveform) == 2 * before.sound.rate
    assert "cut short at" in str(behind.pictures)
    assert "cut short at" in str(behind.sound)


def test_a_variable_frame_rate_counts_by_its_average(tmp_path):
    times = [0.1 * number for number in range(20)] + [2 + 0.02 * number for number in range(100)]
    path = numbered_video(tmp_path / "a.mkv", frames=120, fps=30, times=times, seconds=4.0)
    with av.open(str(path)) as container:
        fps = float(container.streams.video[0].average_rate)
    (take,) = read_recording(path, [Cut()], VisualFeatures(size=16), audio=False)
    whole = int(fps)
    kept = range(0, 120, whole)
    assert numbers(take.pictures) == [kept[i * (len(kept) // 3)] for i in range(3)]
    assert take.sound is None


@pytest.mark.parametrize("suffix", [".flv", ".mp4", ".avi"])
def test_whole_files_of_every_container(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_video(path, seconds=2.0, fps=10, channels=2)
    (take,) = read_recording(path, [Cut()], VisualFeatures(size=16), audio=True)
    assert (take.pictures.decoded, take.pictures.size, take.pictures.damaged) == (20, (48, 64), 0)
    assert len(take.sound.waveform) / take.sound.rate == pytest.approx(2.0, abs=0.15)
    assert 0.3 < np.abs(take.sound.waveform).max() < 1


@pytest.mark.parametrize("name", ["u8", "s16", "s32", "flt", "dbl"])
@pytest.mark.parametrize("planar", ["", "p"])
def test_the_first_channel_of_every_sample_format(name, planar):
    ramp = np.linspace(-0.9, 0.9, 50)
    scale = {"u8": 2**7, "s16": 2**15, "s32": 2**31}.get(name)
    dtype = {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}[name]
    left = ramp if scale is None else np.round(ramp * scale) + (128 if name == "u8" else 0)
    both = np.stack([left, left[::-1]]).astype(dtype)
    data = both if planar else both.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(data), format=name + planar, layout="stereo"
    )
    found = first_channel(frame)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ramp, atol=0.5 / scale if scale else 1e-7, rtol=1e-6)


@pytest.mark.parametrize("layout", ["stereo", "7.1", "hexadecagonal"])
def test_the_first_of_many_channels_is_found(layout):
    frame = av.AudioFrame(format="fltp", layout=layout, samples=50)
    ramp = np.linspace(-0.9, 0.9, 50, dtype=np.float32)
    plane = AudioPlane(frame, 0)
    plane.update(ramp.tobytes() + bytes(plane.buffer_size - ramp.nbytes))
    np.testing.assert_array_equal(first_channel(frame), ramp)


@pytest.mark.parametrize(("share", "used"), [(0.02, True), (0.5, False)])
def test_sound_of_which_more_than_one_piece_in_twenty_is_damaged_is_rejected(share, used, tmp_path):
    """What is left of the others may be anything, twenty channels among it."""
    path = tmp_path / "a.mp4"
    write_video(path, seconds=6.0)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    content = bytearray(path.read_bytes())
    for begin, size in packets[5 : 5 + round(share * len(packets))]:
        content[begin : begin + size] = bytes(each ^ 0xFF for each in content[begin : begin + size])
    path.write_bytes(content)
    (take,) = read_recording(path, [Cut()], None, audio=True)
    if used:
        assert isinstance(take.sound, Sound)
    else:
        assert "pieces of its audio are damaged" in str(take.sound)


def write_sound(path, parts, codec, rate=16000, **options):
    """Noise of these levels, two seconds each."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        noise = np.random.default_rng(0).uniform(-1, 1, (len(parts), 2 * rate))
        wave = (np.array(parts)[:, None] * noise).reshape(1, -1).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_raw_aac_is_not_missed_for_a_length_that_is_guessed(tmp_path):
    path = tmp_path / "a.aac"
    write_sound(path, [0, 0.5], "aac")
    with av.open(str(path)) as container:
        assert container.duration > 5e6, "ffmpeg's guess"
    (take,) = read_recording(path, [Cut()], None, audio=True)
    assert len(take.sound.waveform) / 16000 == pytest.approx(4, abs=0.1)


def test_an_mp3_is_missed_only_for_a_length_that_it_states(tmp_path):
    path = tmp_path / "a.mp3"
    write_sound(path, [0.5, 0.5], "libmp3lame")
    truncate(path, 0.6)
    (take,) = read_recording(path, [Cut()], None, audio=True)
    assert "cut short at 2.4" in str(take.sound)
    write_sound(path, [0.5, 0.5], "libmp3lame", write_xing="0")
    content = path.read_bytes()
    # A title at the end, as players add it, counts as sound where the length is guessed.
    path.write_bytes(content + b"APETAGEX" + bytes(len(content)))
    (take,) = read_recording(path, [Cut()], None, audio=True)
    assert len(take.sound.waveform) / 16000 == pytest.approx(4, abs=0.2)


def test_a_file_without_sound_has_an_empty_waveform(tmp_path):
    write_video(tmp_path / "a.mp4", sound=False)
    (take,) = read_recording(tmp_path / "a.mp4", [Cut()], None, audio=True)
    assert take.pictures is None
    assert len(take.sound.waveform) == 0


def test_a_file_without_frames_is_rejected_and_keeps_its_sound(tmp_path):
    write_video(tmp_path / "a.mp4", frames=0)
    (take,) = read_recording(tmp_path / "a.mp4", [Cut()], EVERY, audio=True)
    assert str(take.pictures) == "the file has no video stream"
    assert len(take.sound.waveform)


@pytest.mark.parametrize(
    ("suffix", "share", "reason"),
    [
        (".flv", 0.4, "cut short at"),
        (".avi", 0.4, "cut short at"),
        (".mp4", 0.6, "cannot be decoded"),  # its index stands at the end
    ],
)
def test_a_truncated_video_is_rejected(suffix, share, reason, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_video(path, seconds=6.0)
    truncate(path, share)
    assert reason in why_no_pictures(path)


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("suffix", [".flv", ".avi"])
def test_a_short_clip_may_not_lose_a_third_of_a_second(suffix, sound, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_video(path, seconds=2.5, fps=30, sound=sound)
    assert why_no_pictures(path) == "None"
    truncate(path, 0.8)
    assert re.search("cut short at|can be decoded", why_no_pictures(path))


def cut_at_tag(path, number):
    """Cut an FLV file off before a tag: no piece of what is left is incomplete."""
    content, at = path.read_bytes(), 13
    for _ in range(number):
        at += 15 + int.from_bytes(content[at + 1 : at + 4], "big")
    path.write_bytes(content[:at])


def test_a_clip_that_ends_at_the_border_of_a_tag_is_rejected(tmp_path):
    path = tmp_path / "a.flv"
    write_video(path, seconds=2.5, fps=30, sound=False)
    cut_at_tag(path, 46)
    assert "cut short at 1.4" in why_no_pictures(path)


def test_pictures_are_missed_where_the_sound_goes_on(tmp_path):
    path = tmp_path / "a.avi"
    write_video(path, seconds=10.0, fps=30)
    truncate(path, 0.95)
    (take,) = read_recording(path, [Cut()], EVERY, audio=True)
    assert "cut short at" in str(take.pictures)


def test_frames_that_the_container_counts_and_nobody_can_decode_are_missed(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, seconds=3.0, fps=10, sound=False)
    content = bytearray(path.read_bytes())
    sizes = content.index(b"stsz") + 16
    for number in range(5, 15):
        # A frame of one byte is passed over in silence.
        content[sizes + 4 * number : sizes + 4 * number + 4] = (1).to_bytes(4, "big")
    path.write_bytes(content)
    assert re.search(r"only \d+ of its 30 frames can be decoded", why_no_pictures(path))
    (take,) = read_recording(path, [Cut(0.0, 0.4)], EVERY, audio=False)
    assert take.pictures.decoded == 4, "a clip before them misses none"


TURNED = {
    "left": ((0, -1, 1, 0), lambda pixels: np.rot90(pixels)),
    "upside down": ((-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2)),
    "right": ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
    "mirrored": ((-1, 0, 0, 1), np.fliplr),
}
"""How a phone was held -> the upper left of the display matrix, and what it means."""


@pytest.mark.parametrize("held", TURNED)
def test_a_film_is_turned_as_it_says(held, tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, seconds=0.4, sound=False)
    (plain,) = read_recording(path, [Cut()], EVERY, audio=False)
    (a, b, c, d), meant = TURNED[held]
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    turned = 2**16 * np.array([a, b, 0, c, d, 0, 0, 0, 2**14])
    content[matrix : matrix + 36] = turned.astype(">i4").tobytes()
    path.write_bytes(content)
    (take,) = read_recording(path, [Cut()], EVERY, audio=False)
    assert take.pictures.size == ((64, 48) if b else (48, 64))
    for shown, decoded in zip(take.pictures.features, plain.pictures.features, strict=True):
        # The two passes of the resizing round in another order.
        assert np.abs(shown.astype(int) - meant(decoded)).max() <= 1


def test_a_format_that_is_not_known_is_told(tmp_path):
    path = tmp_path / "a.avi"
    write_video(path, seconds=0.4)
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"????"))
    with pytest.raises(UnreadableError, match="its video is in a format that is not known"):
        read_recording(path, [Cut()], EVERY, audio=True)
    (take,) = read_recording(path, [Cut()], None, audio=True)
    assert len(take.sound.waveform)


def hidden_start(path, seconds=2.0):
    """A copy of a video whose list of edits hides its first seconds, as cutting by copying does."""
    out = path.with_name("hidden.mp4")
    with (
        av.open(str(path)) as source,
        av.open(str(out), "w", options={"avoid_negative_ts": "disabled"}) as target,
    ):
        video = source.streams.video[0]
        stream = target.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.pts -= round(seconds / video.time_base)
                packet.dts -= round(seconds / video.time_base)
                packet.stream = stream
                target.mux(packet)
    return out


def test_frames_that_a_list_of_edits_hides_are_not_missed(tmp_path):
    write_video(tmp_path / "a.mp4", seconds=5.0, fps=10, sound=False)
    path = hidden_start(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 50
    (take,) = read_recording(path, [Cut()], EVERY, audio=False)
    assert take.pictures.decoded == pytest.approx(30, abs=2)


def test_an_annotation_may_run_a_little_over_the_end_of_its_recording(tmp_path):
    path = tmp_path / "a.avi"
    write_video(path, seconds=4.0)
    over, behind = read_recording(path, [Cut(2.0, 4.8), Cut(2.0, 5.5)], EVERY, audio=True)
    assert over.pictures.decoded == 20
    assert str(behind.sound) == "it ends at 5.50 s, its recording at 4.00"


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_title_in_latin_1_is_no_matter(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_video(path, seconds=1.0, title="Cafe dela")
    content = path.read_bytes()
    assert content.count(b"Cafe dela") == 1
    path.write_bytes(content.replace(b"Cafe dela", "Café delà".encode("latin-1")))
    (take,) = read_recording(path, [Cut()], EVERY, audio=True)
    assert take.pictures.decoded == 10


def test_whatever_a_decoder_raises_is_the_reason():
    told = r"its sound cannot be decoded \(KeyError\)"
    with pytest.raises(UnreadableError, match=told), decoding("its sound"):
        raise KeyError
    with pytest.raises(MemoryError), decoding("its sound"):
        raise MemoryError


def why_no_pictures(path):
    try:
        (take,) = read_recording(path, [Cut()], EVERY, audio=True)
    except UnreadableError as error:
        return str(error)
    return str(take.pictures if isinstance(take.pictures, UnreadableError) else None)


@pytest.mark.parametrize(
    ("frames", "damaged", "used"),
    [(3, 1, True), (3, 2, False), (40, 2, True), (40, 3, False), (60, 3, True)],
)
def test_one_frame_and_one_in_twenty_may_be_damaged(frames, damaged, used):
    collector = FrameCollector(EVERY, 10.0)
    for _ in range(frames):
        collector.add(av.VideoFrame(16, 16, "rgb24"))
    collector.damaged = damaged
    scene = _Scene(Cut(), collector)
    scene.finish()
    if used:
        assert scene.result.damaged == damaged
    else:
        told = f"{damaged} pieces of its video, {frames} frames, are damaged"
        assert str(scene.result) == told


def test_damaged_frames_count_where_they_lie():
    kept = []
    collector = SimpleNamespace(damaged=0, add=kept.append)
    scene = _Scene(Cut(1.0, 2.0), collector)
    for time, is_corrupt in ((0.5, True), (1.0, True), (1.5, False), (1.9, True)):
        scene.add(SimpleNamespace(is_corrupt=is_corrupt), time)
    assert (len(kept), collector.damaged) == (3, 2)


def test_a_damaged_video_is_rejected_or_says_how_much_is_damaged(tmp_path):
    path = tmp_path / "a.avi"
    write_video(path, seconds=6.0, sound=False)
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    for at in random.integers(len(content) // 4, len(content) * 3 // 4, 200):
        content[at] ^= 0xFF
    path.write_bytes(content)
    (take,) = read_recording(path, [Cut()], EVERY, audio=False)
    assert isinstance(take.pictures, UnreadableError) or take.pictures.damaged > 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"<html>not found</html>" * 50, "cannot be decoded"),
    ],
)
def test_what_is_no_video_is_told_in_one_line_without_a_path(content, reason, tmp_path):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(UnreadableError, match=reason) as error:
        read_recording(tmp_path / "a.mp4", [Cut()], EVERY, audio=True)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", ["a.flv", "a.mp4", "a.avi"])
@pytest.mark.parametrize("failing", [2, 3, -1])
def test_an_error_of_reading_is_no_end_of_the_file(name, failing, tmp_path, monkeypatch):
    """Decoders go on with what they have: a clip would be stored with other pictures, or lost."""
    write_video(tmp_path / name, seconds=2.0)
    reads, readv = [0], os.readv

    def counted(number: int, buffers: list) -> int:
        reads[0] += 1
        if reads[0] == failing:
            raise OSError(errno.EIO, "Input/output error")
        return readv(number, buffers)

    monkeypatch.setattr(os, "readv", counted)
    if failing < 0:
        read_recording(tmp_path / name, [Cut()], EVERY, audio=True)
        failing, reads[0] = reads[0], 0
    told = re.escape(f"{tmp_path / name} cannot be read (Input/output error). Call again")
    with pytest.raises(HostError, match=told):
        read_recording(tmp_path / name, [Cut()], EVERY, audio=True)
