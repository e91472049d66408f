import ctypes
import faulthandler
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import amst
from amst.config.run import AudioFeatures, TextFeatures, VisualFeatures
from amst.datasets.base import Dataset, Sample
from amst.datasets.registry import load
from amst.errors import AmstError, HostError
from amst.features import extract as extract_module
from amst.features.audio import log_mel
from amst.features.extract import extract_shard
from amst.features.recording import Cut, read_recording
from amst.features.samples import read_rejected, read_samples, write_lines
from amst.features.shards import Shard
from amst.features.text import load_tokenizer
from amst.files import sha256_of
from tests.datasets import rawtrees
from tests.datasets.rawmedia import write_image

SMALL = {
    "audio": AudioFeatures(mel_bins=16, frames=64),
    "text": TextFeatures(tokens=8, tokenizer="digits"),
    "visual": VisualFeatures(frames=3, per_second=2, size=16),
}


def extract(dataset, raw, samples, out, features=SMALL, shard=0, shards=1):
    chosen = {name: features[name] for name in dataset.modalities}
    rejected = out.with_suffix(".rejected.jsonl")
    summary = extract_shard(dataset, raw, samples, shard, shards, chosen, out, rejected)
    lost = {row.id: row.reason for row in read_rejected(rejected)}
    assert summary.rejected == len(lost)
    return summary, lost


def test_features_are_those_of_the_raw_files(digits_raw, digits_features, listed, tmp_path):
    dataset, samples = listed("digits", digits_raw)
    extract(dataset, digits_raw, samples, tmp_path / "0.h5", digits_features)
    tokenizer = load_tokenizer(digits_features["text"])
    rows = {row.id: row for row in read_samples(samples)}
    with Shard(tmp_path / "0.h5") as shard:
        assert sorted(shard.ids) == sorted(rows)
        for index, name in list(enumerate(shard.ids))[::15]:
            sample = rows[name]
            assert shard.classes[shard.labels[index]] == sample.label
            assert shard.groups[index] == sample.group
            waveform, rate = soundfile.read(digits_raw / sample.files["audio"], dtype="float32")
            bank = log_mel(waveform, rate, digits_features["audio"])
            np.testing.assert_array_equal(shard.array("audio/features")[index], bank)
            video = digits_raw / sample.files["visual"]
            (take,) = read_recording(video, [Cut()], digits_features["visual"], audio=False)
            np.testing.assert_array_equal(
                shard.array("visual/features")[index], take.pictures.features
            )
            sentence = (digits_raw / sample.files["text"]).read_text().strip()
            ids, mask = tokenizer.encode(sentence, 24)
            np.testing.assert_array_equal(shard.array("text/ids")[index], ids)
            np.testing.assert_array_equal(shard.array("text/mask")[index], mask)
            assert shard.texts("audio/path")[index] == sample.files["audio"]
            assert shard.texts("visual/sha256")[index] == sha256_of(video)
        assert shard.vocabulary == tokenizer.vocabulary


def test_shards_hold_every_sample_once_and_have_stable_bytes(
    digits_raw, digits_features, listed, tmp_path
):
    dataset, samples = listed("digits", digits_raw)
    found = []
    for index in range(3):
        for name in ("a", "b"):
            out = tmp_path / name / f"{index}.h5"
            extract(dataset, digits_raw, samples, out, digits_features, index, 3)
        assert sha256_of(tmp_path / f"a/{index}.h5") == sha256_of(tmp_path / f"b/{index}.h5")
        with Shard(tmp_path / f"a/{index}.h5") as shard:
            found += shard.ids
    assert sorted(found) == [row.id for row in read_samples(samples)]


def test_a_shard_without_samples_is_a_shard(digits_raw, digits_features, listed, tmp_path):
    dataset, _ = listed("digits", digits_raw)
    write_lines(tmp_path / "none.jsonl", [])
    extract(dataset, digits_raw, tmp_path / "none.jsonl", tmp_path / "0.h5", digits_features)
    with Shard(tmp_path / "0.h5") as shard:
        shard.verify()
        assert len(shard) == 0


@pytest.mark.parametrize("name", rawtrees.NAMES)
def test_every_oddity_of_the_raw_trees_is_rejected_or_used(name, tmp_path, listed, tree_of):
    tree = tree_of(name, oddities=True)
    dataset, samples = listed(name, tree.raw)
    short = {"sound of no length", "sound shorter than a window"}
    _, lost = extract(dataset, tree.raw, samples, tmp_path / "0.h5")
    too_short = {sample for sample, what in tree.unusual.items() if what in short}
    assert set(lost) == set(tree.damaged) | too_short
    for reason in lost.values():
        assert "\n" not in reason
        assert str(tree.raw) not in reason
    with Shard(tmp_path / "0.h5") as shard:
        assert set(shard.ids) == set(tree.samples) - set(lost)


def test_short_audio_is_filled_when_the_settings_say_so(tmp_path, listed, tree_of):
    tree = tree_of("CREMAD", oddities=True)
    dataset, samples = listed("CREMAD", tree.raw)
    filled = {**SMALL, "audio": AudioFeatures(mel_bins=16, frames=64, short_audio="fill")}
    _, lost = extract(dataset, tree.raw, samples, tmp_path / "0.h5", filled)
    assert set(lost) == set(tree.damaged)
    with Shard(tmp_path / "0.h5") as shard:
        row = shard.ids.index("1078_MTI_SAD_XX")
        assert (shard.array("audio/features")[row] == np.float16(0.01)).all()
        assert shard.array("audio/seconds")[row] == 0


def test_stereo_sound_gives_its_first_channel_and_a_long_clip_is_cut(tmp_path, listed, tree_of):
    tree = tree_of("CREMAD", oddities=True)
    dataset, samples = listed("CREMAD", tree.raw)
    extract(dataset, tree.raw, samples, tmp_path / "0.h5")
    with Shard(tmp_path / "0.h5") as shard:
        stereo = shard.ids.index("1086_DFA_NEU_XX")
        both, rate = soundfile.read(tree.raw / "AudioWAV/1086_DFA_NEU_XX.wav", dtype="float32")
        left = log_mel(np.ascontiguousarray(both[:, 0]), rate, SMALL["audio"])
        np.testing.assert_array_equal(shard.array("audio/features")[stereo], left)
        minute = shard.ids.index("1089_DFA_DIS_XX")
        assert shard.array("audio/seconds")[minute] == pytest.approx(61)
        assert shard.array("visual/decoded")[minute] == 61


def test_what_is_known_of_two_clips_of_cremad(tmp_path, listed, tree_of):
    tree = tree_of("CREMAD", oddities=True)
    silent = (tree.raw / "AudioWAV/1076_MTI_SAD_XX.wav").read_bytes()
    # what the pointer to it in the dataset's repository says
    assert len(silent) == 82260
    assert hashlib.sha256(silent).hexdigest().startswith("2759bb80ce3ac9a6")
    dataset, samples = listed("CREMAD", tree.raw)
    whole = {**SMALL, "audio": AudioFeatures(mel_bins=16, frames=300)}
    extract(dataset, tree.raw, samples, tmp_path / "0.h5", whole)
    with Shard(tmp_path / "0.h5") as shard:
        row = shard.ids.index("1076_MTI_SAD_XX")
        bank = shard.array("audio/features")[row]
        assert shard.array("audio/peak")[row] == 0
        assert len(np.unique(bank[:255])) == 1, "the logarithm of the smallest number, as released"
        assert not bank[255:].any()
        minute = shard.ids.index("1064_IEO_DIS_MD")
        assert shard.array("audio/seconds")[minute] == pytest.approx(4.1)
        assert shard.array("visual/decoded")[minute] == 305


def test_an_utterance_with_a_wav_of_its_own_takes_that_whole(tmp_path):
    raw = tmp_path / "raw"
    rawtrees.write_video(raw / "d.avi", seconds=4.0)
    rawtrees.write_wav(raw / "u.wav", seconds=0.5)
    cut = {"start": 1.0, "end": 3.0, "label": "neu", "group": "Session1"}
    both = Sample(id="both", files={"audio": "d.avi", "visual": "d.avi"}, **cut)
    own = Sample(id="own", files={"audio": "u.wav", "visual": "d.avi"}, whole=("audio",), **cut)
    # A recording of the whole dialogue beside its video is cut as the video is.
    beside = Sample(id="beside", files={"audio": "d.wav", "visual": "d.avi"}, **cut)
    rawtrees.write_wav(raw / "d.wav", seconds=3.5)
    short = Sample(id="short", files={"audio": "u.wav", "visual": "d.avi"}, **cut)
    write_lines(tmp_path / "s.jsonl", [both, own, beside, short])
    _, lost = extract(load("IEMOCAP"), raw, tmp_path / "s.jsonl", tmp_path / "0.h5")
    assert lost == {"short": "audio: it ends at 3.00 s, its recording at 0.50"}
    with Shard(tmp_path / "0.h5") as shard:
        assert shard.ids == ["beside", "both", "own"]
        assert shard.array("audio/seconds").tolist() == [2.0, 2.0, 0.5]
        assert shard.array("visual/decoded").tolist() == [20, 20, 20]


def test_pictures_of_one_film_are_stored_as_each_modality_says(tmp_path, monkeypatch):
    class Paces(Dataset):
        name = "Paces"
        modalities = {"fast": "visual", "slow": "visual", "sound": "audio"}  # noqa: RUF012
        classes = ("a",)

        def read(self, raw):
            """Its rows are written below."""

    settings = {
        "fast": VisualFeatures(frames=3, per_second=5, size=16),
        "slow": VisualFeatures(frames=4, per_second=1, size=8),
        "sound": SMALL["audio"],
    }
    rawtrees.write_video(tmp_path / "d.mp4", seconds=7.0)
    row = Sample(id="a", label="a", group="", files=dict.fromkeys(settings, "d.mp4"))
    write_lines(tmp_path / "s.jsonl", [row])
    _, lost = extract(Paces(), tmp_path, tmp_path / "s.jsonl", tmp_path / "0.h5", settings)
    assert lost == {}
    with Shard(tmp_path / "0.h5") as shard:
        for name in ("fast", "slow"):
            (take,) = read_recording(tmp_path / "d.mp4", [Cut()], settings[name], audio=False)
            stored = shard.array(f"{name}/features")[0]
            np.testing.assert_array_equal(stored, take.pictures.features)
        assert shard.array("sound/peak")[0] > 0
    read = []
    counted = lambda *given: read.append(given) or read_recording(*given)  # noqa: E731
    monkeypatch.setattr(extract_module, "read_recording", counted)
    alike = settings | {"slow": settings["fast"]}
    extract(Paces(), tmp_path, tmp_path / "s.jsonl", tmp_path / "1.h5", alike)
    assert len(read) == 1, "of modalities that say the same"


def test_a_sample_whose_file_cannot_be_read_is_listed_with_the_file(tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "0.h5"
    rawtrees.write_video(raw / "d.avi", seconds=1.0)
    files = {"audio": "u.wav", "visual": "d.avi"}
    row = Sample(id="a", label="neu", group="Session1", files=files)
    write_lines(tmp_path / "s.jsonl", [row])
    _, lost = extract(load("IEMOCAP"), raw, tmp_path / "s.jsonl", out)
    assert lost["a"].startswith("audio: the file cannot be opened")
    assert [row.file for row in read_rejected(out.with_suffix(".rejected.jsonl"))] == ["u.wav"]


@pytest.mark.parametrize("text", [None, "inline"])
@pytest.mark.parametrize("first", ["check", "decoder"])
@pytest.mark.parametrize("name", ["a.wav", "a.jpg", "a.mp4", "a.txt"])
def test_a_file_whose_storage_fails_is_no_lost_sample(name, first, text, tmp_path, monkeypatch):
    """A network file system that is away for a second must not take samples out of a dataset.

    It may be away at the first look into a file, while that is decoded, or for its checksum.
    """
    raw, out = tmp_path / "raw", tmp_path / "0.h5"
    if first == "decoder":
        for module in ("audio", "extract", "frames", "recording"):
            monkeypatch.setattr(f"amst.features.{module}.check_media", lambda *_, **__: None)
    raw.mkdir()
    (raw / name).symlink_to("/proc/self/mem")  # nothing is mapped at its begin: an error of reading
    modality = {"a.wav": "audio", "a.txt": "text"}.get(name, "visual")

    class Anything(Dataset):
        name, classes = "anything", ("x",)

        modalities = {modality: modality}  # noqa: RUF012

        def read(self, raw):
            yield Sample(id="a", label="x", group="", files={modality: name}, text=text)

    write_lines(tmp_path / "s.jsonl", Anything().read(raw))
    with pytest.raises(HostError, match=rf"raw/{name} cannot be read \(Input/output error\)"):
        extract(Anything(), raw, tmp_path / "s.jsonl", out)
    assert not out.exists()


def test_a_decoder_that_crashes_says_in_which_file(tmp_path, monkeypatch):
    raw, said = tmp_path / "raw", tmp_path / "said.txt"
    write_image(raw / "first.jpg")
    write_image(raw / "é.jpg")
    files = ("first.jpg", "é.jpg")
    rows = [Sample(id=f, label="neutral", group=f, files={"visual": f}, text="") for f in files]
    write_lines(tmp_path / "s.jsonl", rows)
    read = extract_module.read_picture

    def crashing(path, features):
        return read(path, features) if path.name == "first.jpg" else ctypes.string_at(0)

    monkeypatch.setattr(extract_module, "read_picture", crashing)
    if not (child := os.fork()):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with said.open("w") as file:
            faulthandler.enable(file)
            extract(load("MVSA"), raw, tmp_path / "s.jsonl", tmp_path / "0.h5")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV
    assert r'File "\xe9.jpg", line 1' in said.read_text()
    assert "first.jpg" not in said.read_text()


@pytest.mark.parametrize("name", ["a.jpg", "A.JPG"])
def test_a_picture_is_no_film_whatever_the_case_of_its_suffix(name, tmp_path):
    write_image(tmp_path / "raw" / name)
    row = Sample(id="a", label="neutral", group="a", files={"visual": name}, text="a word")
    write_lines(tmp_path / "s.jsonl", [row])
    assert extract(load("MVSA"), tmp_path / "raw", tmp_path / "s.jsonl", tmp_path / "0.h5")[1] == {}
    with Shard(tmp_path / "0.h5") as shard:
        assert shard.array("visual/rate").tolist() == [0]


def test_a_text_may_be_empty(digits_raw, digits_features, listed, tmp_path):
    dataset, samples = listed("digits", digits_raw)
    row = read_samples(samples)[0]
    for file in row.files.values():
        (tmp_path / "raw" / file).parent.mkdir(parents=True)
        shutil.copy(digits_raw / file, tmp_path / "raw" / file)
    (tmp_path / "raw" / row.files["text"]).write_text("")
    write_lines(tmp_path / "s.jsonl", [row])
    out = tmp_path / "0.h5"
    assert extract(dataset, tmp_path / "raw", tmp_path / "s.jsonl", out, digits_features)[1] == {}
    with Shard(out) as shard:
        assert shard.array("text/mask")[0].sum() == 1, "the start"


def test_missing_settings_of_a_modality_are_an_error(digits_raw, listed, tmp_path):
    dataset, samples = listed("digits", digits_raw)
    out = tmp_path / "0.h5"
    with pytest.raises(AmstError, match="no feature settings for audio, text"):
        extract_shard(dataset, digits_raw, samples, 0, 1, {"visual": SMALL["visual"]}, out, out)


def test_pictures_and_text_are_extracted_without_torch(tmp_path, tree_of, listed):
    tree = tree_of("MVSA")
    _, samples = listed("MVSA", tree.raw)
    features = {name: SMALL[name].model_dump() for name in ("text", "visual")}
    code = (
        "import json, sys; from pathlib import Path; from pydantic import TypeAdapter\n"
        "from amst.config.run import Features; from amst.datasets.registry import load\n"
        "from amst.features.extract import extract_shard\n"
        "raw, samples, out = map(Path, sys.argv[1:4])\n"
        "features = TypeAdapter(dict[str, Features]).validate_json(sys.argv[4])\n"
        "extract_shard(load('MVSA'), raw, samples, 0, 1, features, out, out.with_suffix('.r'))\n"
        "assert 'torch' not in sys.modules\n"
    )
    out = tmp_path / "0.h5"
    subprocess.run(
        [sys.executable, "-c", code, tree.raw, samples, out, json.dumps(features)],
        check=True,
        env={"PYTHONPATH": str(Path(amst.__file__).parents[1])},
    )
    with Shard(out) as shard:
        assert len(shard) == len(tree.samples)
