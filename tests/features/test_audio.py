import struct

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.compliance import kaldi

from amst.config.run import AudioFeatures
from amst.features.audio import filter_bank, log_mel, read_sound
from amst.features.media import UnreadableError

PLAIN = AudioFeatures(dtype="float32")


def sound(seed, count, level=0.5):
    random = np.random.default_rng(seed)
    return (level * random.uniform(-1, 1, count)).astype(np.float32)


def stated(waveform, rate, mel_bins=128):
    """The filter bank, stated once more with the options of Kaldi."""
    channel = torch.from_numpy(waveform)[None]
    return kaldi.fbank(
        channel - channel.mean(),
        htk_compat=True,
        sample_frequency=rate,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=mel_bins,
        dither=0.0,
        frame_length=25,
        frame_shift=10,
    ).numpy()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    seconds=st.floats(0.03, 2.0),
    level=st.floats(1e-4, 1.0),
)
def test_filter_banks_are_those_of_torchaudio_bit_for_bit(seed, rate, seconds, level):
    waveform = sound(seed, int(rate * seconds), level)
    np.testing.assert_array_equal(filter_bank(waveform, rate, 128), stated(waveform, rate))


def test_a_short_clip_is_padded_with_zeros_and_not_normalised():
    waveform = sound(0, 16000)
    stored = log_mel(waveform, 16000, PLAIN)
    wanted = stated(waveform, 16000)
    assert stored.shape == (1024, 128)
    np.testing.assert_array_equal(stored[: len(wanted)], wanted)
    assert not stored[len(wanted) :].any()


def test_a_clip_of_a_minute_is_cut():
    waveform = sound(0, 61 * 16000)
    stored = log_mel(waveform, 16000, PLAIN)
    np.testing.assert_array_equal(stored, stated(waveform, 16000)[:1024])


def test_half_precision_is_the_rounded_single_precision():
    waveform = sound(0, 8000)
    half = log_mel(waveform, 8000, AudioFeatures(mel_bins=32, frames=48))
    single = log_mel(waveform, 8000, AudioFeatures(mel_bins=32, frames=48, dtype="float32"))
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, single.astype(np.float16))


@pytest.mark.parametrize("count", [0, 1, 399])
def test_a_clip_below_one_window_is_rejected_or_filled(count):
    with pytest.raises(UnreadableError, match="no sound" if count == 0 else "25 ms"):
        log_mel(sound(0, count), 16000, PLAIN)
    filled = log_mel(sound(0, count), 16000, AudioFeatures(short_audio="fill", dtype="float32"))
    assert (filled[:512] == np.float32(0.01)).all()
    assert not filled[512:].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("count", [399, 16000])
@pytest.mark.parametrize("short_audio", ["reject", "fill"])
def test_values_that_are_no_numbers_are_refused(value, count, short_audio):
    waveform = sound(0, count)
    waveform[200] = value
    with pytest.raises(UnreadableError, match="values that are no numbers"):
        log_mel(waveform, 16000, AudioFeatures(short_audio=short_audio))


def test_a_sound_that_is_too_loud_to_be_squared_is_refused():
    with pytest.raises(UnreadableError, match=r"a peak of 1e\+30 of full scale"):
        log_mel(np.full(16000, 1e30, np.float32) * np.sign(sound(0, 16000)), 16000, PLAIN)


@pytest.mark.parametrize("rate", [1, 79])
def test_a_rate_of_which_a_window_has_no_filter_bank_is_refused(rate):
    with pytest.raises(UnreadableError, match=f"a sampling rate of {rate} Hz"):
        log_mel(sound(0, 400), rate, PLAIN)


def test_one_window_is_enough():
    assert log_mel(sound(0, 400), 16000, PLAIN)[0].any()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "FLOAT"])
def test_the_first_channel_is_read_at_its_native_rate(subtype, tmp_path):
    stereo = np.stack([sound(1, 5000), sound(2, 5000)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100, subtype=subtype)
    waveform, rate = read_sound(tmp_path / "a.wav")
    assert rate == 44100
    step = {"PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_U8": 2**-7, "FLOAT": 0}[subtype]
    np.testing.assert_allclose(waveform, stereo[:, 0], atol=step, rtol=0)


def test_what_is_no_sound_is_told_in_one_line_without_a_path(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"<html>not found</html>" * 40)
    with pytest.raises(UnreadableError, match="cannot be decoded") as error:
        read_sound(tmp_path / "a.wav")
    assert str(tmp_path) not in str(error.value)


def test_a_truncated_wav_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", sound(0, 16000), 16000, subtype="PCM_16")
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[: len(content) // 2])
    with pytest.raises(UnreadableError, match="of 32000 bytes"):
        read_sound(tmp_path / "a.wav")


def wav(path, chunk=b"", stated=None):
    """A WAV of 16000 samples, with a chunk before its data or another stated length of these."""
    soundfile.write(path, sound(0, 16000), 16000, subtype="PCM_16")
    content = path.read_bytes()
    if stated is not None:
        at = content.index(b"data") + 4
        content = content[:at] + struct.pack("<I", stated) + content[at + 4 :]
    path.write_bytes(content[:12] + chunk + content[12:])
    return path


def test_a_truncated_wav_with_a_chunk_of_odd_length_is_refused(tmp_path):
    path = wav(tmp_path / "a.wav", b"LIST" + struct.pack("<I", 3) + b"abc\0")
    assert len(read_sound(path)[0]) == 16000
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UnreadableError, match="31000 of 32000 bytes"):
        read_sound(path)


def test_a_wav_that_was_written_into_a_pipe_states_no_length(tmp_path):
    waveform, rate = read_sound(wav(tmp_path / "a.wav", stated=0xFFFFFFFF))
    assert (len(waveform), rate) == (16000, 16000)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
def test_an_empty_file_or_a_pointer_is_named_as_such(content, reason, tmp_path):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UnreadableError, match=reason):
        read_sound(tmp_path / "a.wav")


def test_a_missing_file_is_named_as_such(tmp_path):
    with pytest.raises(UnreadableError, match="cannot be opened"):
        read_sound(tmp_path / "a.wav")
