import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.datasets import load_digits

from amst.datasets import digits
from amst.datasets.digits import DigitsSettings
from amst.datasets.registry import load
from amst.datasets.sentences import SENTENCES, WORDS
from amst.datasets.splits import leakage, make_split
from amst.errors import AmstError
from amst.files import sha256_of

SMALL = DigitsSettings(samples=90, pools=6)
KEYS = {
    (697, 1209): "1",
    (697, 1336): "2",
    (697, 1477): "3",
    (770, 1209): "4",
    (770, 1336): "5",
    (770, 1477): "6",
    (852, 1209): "7",
    (852, 1336): "8",
    (852, 1477): "9",
    (941, 1336): "0",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    digits.make(folder, SMALL)
    return folder


@pytest.fixture(scope="module")
def samples(raw):
    return list(load("digits").read(raw))


def test_every_clip_has_its_three_files_and_classes_are_equal(raw, samples):
    assert len(samples) == 90
    assert all((raw / file).is_file() for sample in samples for file in sample.files.values())
    labels = [sample.label for sample in samples]
    assert {labels.count(digit) for digit in "0123456789"} == {9}
    done = json.loads((raw / "digits.json").read_text())
    assert done["settings"] == SMALL.model_dump(mode="json")
    assert sum(done["parts"].values()) == 90


def test_equal_settings_give_equal_bytes(raw, tmp_path):
    digits.make(tmp_path, SMALL)
    made = {path.relative_to(raw): sha256_of(path) for path in raw.rglob("*.*")}
    again = {path.relative_to(tmp_path): sha256_of(path) for path in tmp_path.rglob("*.*")}
    assert made == again


def test_more_samples_leave_the_first_ones_as_they_are(raw, tmp_path):
    digits.make(tmp_path, SMALL.model_copy(update={"samples": 20}))
    for path in tmp_path.glob("*/*"):
        assert sha256_of(path) == sha256_of(raw / path.relative_to(tmp_path))


def test_another_seed_gives_other_files(raw, tmp_path):
    digits.make(tmp_path, SMALL.model_copy(update={"samples": 10, "seed": 1}))
    for path in tmp_path.glob("*/*.wav"):
        assert sha256_of(path) != sha256_of(raw / path.relative_to(tmp_path))


def test_without_noise_the_sound_is_the_tone_of_the_key(tmp_path):
    clear = {"audio_snr": 60.0, "audio_snr_spread": 0.0}
    digits.make(tmp_path, SMALL.model_copy(update={"samples": 30, **clear}))
    for sample in load("digits").read(tmp_path):
        waveform, rate = soundfile.read(tmp_path / sample.files["audio"])
        assert (rate, waveform.shape) == (8000, (4000,))
        power = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2
        loudness = {
            pair: min(power[round(tone * len(waveform) / rate)] for tone in pair) for pair in KEYS
        }
        assert KEYS[max(loudness, key=loudness.get)] == sample.label


def test_the_noise_is_as_loud_as_the_settings_say():
    quiet = SMALL.model_copy(update={"audio_snr": 90.0, "audio_snr_spread": 0.0})
    loud = SMALL.model_copy(update={"audio_snr": -10.0, "audio_snr_spread": 0.0})
    for clip in digits._clips(SMALL)[:5]:
        tone, mixed = digits._sound(clip, quiet), digits._sound(clip, loud)
        share = np.corrcoef(tone, mixed)[0, 1] ** 2  # tone's share of the power: 1 / (1 + 10)
        assert share == pytest.approx(1 / 11, abs=0.03)


def test_without_noise_the_pictures_are_scans_of_the_digit_from_one_pool(tmp_path):
    clear = {"picture_noise": 0.0, "picture_jitter": 0}
    settings = SMALL.model_copy(update={"samples": 60, **clear})
    digits.make(tmp_path, settings)
    images, labels = load_digits(return_X_y=True)
    users = {}
    for sample in load("digits").read(tmp_path):
        with av.open(str(tmp_path / sample.files["visual"])) as container:
            frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert len(frames) == 6
        found = [nearest_scan(frame, images) for frame in frames[::2]]
        assert len(set(found)) == 3
        assert {str(labels[scan]) for scan in found} == {sample.label}
        for scan in found:
            users.setdefault(scan, set()).add(sample.group)
    assert all(len(groups) == 1 for groups in users.values())


def nearest_scan(frame, images):
    """The scan that correlates best with the middle of a picture."""
    middle = frame[6:26, 6:26].astype(float)
    small = middle[[*range(1, 20, 5), *range(3, 20, 5)]][:, [*range(1, 20, 5), *range(3, 20, 5)]]
    order = np.argsort([*range(1, 20, 5), *range(3, 20, 5)])
    small = small[order][:, order].reshape(-1)
    centred = images - images.mean(axis=1, keepdims=True)
    score = centred @ (small - small.mean()) / np.linalg.norm(centred, axis=1)
    return int(score.argmax())


def test_without_errors_the_text_says_the_digit(tmp_path):
    digits.make(tmp_path, SMALL.model_copy(update={"typing_errors": 0.0}))
    for sample in load("digits").read(tmp_path):
        text = (tmp_path / sample.files["text"]).read_text().strip()
        assert text in {sentence.format(WORDS[int(sample.label)]) for sentence in SENTENCES}


def test_typing_errors_touch_letters_only_at_their_rate():
    clips = digits._clips(DigitsSettings())[:200]
    edits = letters = 0
    for clip in clips:
        plain = digits._sentence(clip, DigitsSettings(typing_errors=0.0))
        typed = digits._sentence(clip, DigitsSettings(typing_errors=0.2))
        assert re.fullmatch("[a-z ]+", typed)
        assert typed.count(" ") == plain.count(" ")
        edits += distance(plain, typed)
        letters += len(plain.replace(" ", ""))
    # A third of the errors puts another letter there, which is the same one once in 26 times.
    assert edits / letters == pytest.approx(0.2 * (1 - 1 / 78), abs=0.02)


def distance(one, other):
    """Least number of letters to be put in, left out or changed (Levenshtein)."""
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        above, row[0] = row[0], place
        for column, wanted in enumerate(other, 1):
            change = above + (letter != wanted)
            above = row[column]
            row[column] = min(change, row[column] + 1, row[column - 1] + 1)
    return row[-1]


@given(st.integers(30, 600), st.integers(3, 60))
def test_parts_are_made_of_whole_pools(count, pools):
    clips = digits._clips(DigitsSettings(samples=count, pools=pools))
    assert len({clip.id for clip in clips}) == count
    parts = {}
    for clip in clips:
        parts.setdefault(clip.pool, set()).add(clip.part)
    assert all(len(found) == 1 for found in parts.values())


def test_the_default_size_is_cut_80_10_10():
    parts = [clip.part for clip in digits._clips(DigitsSettings())]
    assert [parts.count(part) for part in ("train", "val", "test")] == [2400, 300, 300]


@pytest.mark.parametrize("name", ["random", "group"])
def test_no_split_shares_a_pool_between_parts(name, samples):
    split = make_split(name, load("digits"), samples, seed=3)
    report = leakage(split, samples)
    assert (report.ids, report.groups, report.overlaps) == ([], [], [])


@pytest.mark.parametrize("snr", [-100, 100])
def test_clips_of_the_most_extreme_settings_can_be_made(snr, tmp_path):
    extreme = {"seconds": 0.1, "scans": 9, "audio_snr": snr, "audio_snr_spread": 100}
    settings = DigitsSettings(samples=30, pools=3, picture_noise=100, **extreme)
    digits.make(tmp_path, settings.model_copy(update={"samples": 10}))
    for path in tmp_path.glob("audio/*"):
        waveform, _ = soundfile.read(path)
        assert len(waveform) == 800
        assert 0.19 < np.abs(waveform).max() < 0.91
    assert all(path.stat().st_size for path in tmp_path.glob("video/*"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seconds", 1e-9),
        ("seconds", 1e9),
        ("audio_snr", -1e6),
        ("audio_snr_spread", 1e308),
        ("picture_noise", 1e308),
    ],
)
def test_settings_of_which_no_clip_can_be_made_are_refused(key, value):
    with pytest.raises(ValidationError, match=rf"{key}\n +Input should be"):
        DigitsSettings(**{key: value})


def test_a_folder_that_was_not_made_to_its_end_is_refused(tmp_path):
    digits.make(tmp_path, SMALL.model_copy(update={"samples": 10}))
    (tmp_path / "digits.json").unlink()
    with pytest.raises(AmstError, match=r"digits\.json is missing"):
        list(load("digits").read(tmp_path))


@pytest.mark.parametrize("step", ["_write_sound", "write_text"])
def test_a_folder_that_was_not_made_again_to_its_end_is_refused_too(step, tmp_path, monkeypatch):
    settings = SMALL.model_copy(update={"samples": 10})
    digits.make(tmp_path, settings)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(digits, step, full)
    with pytest.raises(OSError, match="no space left"):
        digits.make(tmp_path, settings)
    with pytest.raises(AmstError, match=r"digits\.json is missing"):
        list(load("digits").read(tmp_path))


def test_the_page_has_every_setting_with_its_default():
    page = (Path(__file__).parents[2] / "docs/datasets/digits.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \| (\S+) \|", page, re.MULTILINE)
    settings = DigitsSettings().model_dump()
    assert {name: float(default) for name, default in told if name in settings} == settings
