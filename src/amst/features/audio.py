"""Sound to Kaldi log-mel filter banks."""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torchaudio.compliance import kaldi

from amst.config.run import AudioFeatures
from amst.features.media import UnreadableError, check_media, decoding, opened

_FILL = 0.01
_FILLED_FRAMES = 512
_SMALLEST_WINDOW = 2
"""Samples of the shortest window that has a filter bank."""
_STREAMED = (0, 0xFFFFFFFF)


def log_mel(waveform: NDArray[np.float32], rate: int, features: AudioFeatures) -> NDArray[Any]:
    """The stored features of one clip.

    The mean is removed; then ``torchaudio.compliance.kaldi.fbank`` with a Hanning window of 25 ms,
    a shift of 10 ms, no energy and no dither; zero-padded or cut to ``features.frames``. Not
    normalised (settings of the AST models, Gong et al., Interspeech 2021).

    Args:
        waveform: (n,), one channel, full scale 1.
        rate: sampling rate in Hz.
        features: mel bins, frames, element type, and what to do with a clip below one window.

    Returns:
        (frames, mel bins) in ``features.dtype``.

    Raises:
        UnreadableError: the clip is shorter than one window, unless it is to be filled, holds
            values that are not finite or too large to be squared, or states a rate that is none.
    """
    if not np.isfinite(waveform).all():
        raise UnreadableError("its sound holds values that are no numbers")
    stored = np.zeros((features.frames, features.mel_bins), features.dtype)
    if len(waveform) < max(1, int(rate * features.window)):
        if features.short_audio == "reject":
            raise UnreadableError(
                f"its sound is {len(waveform)} samples long, less than one 25 ms window"
                if len(waveform)
                else "it has no sound"
            )
        # What the released extraction writes for such a clip: 512 rows, then its zero padding.
        stored[:_FILLED_FRAMES] = _FILL
        return stored
    if rate * features.window < _SMALLEST_WINDOW:
        raise UnreadableError(f"its sound states a sampling rate of {rate} Hz")
    bank = filter_bank(waveform, rate, features.mel_bins)[: features.frames]
    if not np.isfinite(bank).all():
        raise UnreadableError(f"its sound has a peak of {np.abs(waveform).max():.0e} of full scale")
    stored[: len(bank)] = bank
    return stored


def filter_bank(waveform: NDArray[np.float32], rate: int, mel_bins: int) -> NDArray[np.float32]:
    """All frames of a clip before padding and storage: (frames, mel bins) float32."""
    sound = torch.from_numpy(waveform)[None]
    bank = kaldi.fbank(
        sound - sound.mean(),
        htk_compat=True,
        sample_frequency=rate,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=mel_bins,
        dither=0.0,
        frame_length=1000 * AudioFeatures.window,
        frame_shift=1000 * AudioFeatures.shift,
    )
    return bank.numpy()


def read_sound(path: Path) -> tuple[NDArray[np.float32], int]:
    """The first channel of a sound file (WAV, FLAC, Ogg) and its sampling rate in Hz.

    Returns:
        (n,) float32 with full scale 1, and the rate.

    Raises:
        UnreadableError: the file cannot be decoded or is cut short.
        HostError: its storage failed.
    """
    check_media(path)
    with opened(path) as file, decoding("its sound"):
        try:
            samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            # Its own text names the file with this machine's path.
            raise ValueError(error.error_string) from error
        _check_whole(file)
    return np.ascontiguousarray(samples[:, 0]), int(rate)


def _check_whole(file: BinaryIO) -> None:
    """Refuse a RIFF file that ends before its data chunk does; libsndfile reads it silently."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(4) != b"RIFF":
        return
    file.seek(12)
    while len(header := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", header)
        if name == b"data":
            present = size - file.tell()
            if length not in _STREAMED and present < length:
                raise UnreadableError(f"its sound is cut short: {present} of {length} bytes")
            return
        file.seek(length + length % 2, 1)
