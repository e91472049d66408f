"""The readers of the raw layouts: every row is a sample or is rejected with its reason."""

import errno
import io
import os
import pickle
import shutil
from pathlib import Path

import pytest

from amst.datasets import mvsa, rawfiles
from amst.datasets.base import Rejected, Sample
from amst.datasets.iemocap import IEMOCAP
from amst.datasets.mvsa import MVSA, combined
from amst.datasets.registry import load
from amst.errors import AmstError
from amst.features.samples import list_samples, raw_files, read_rejected, write_samples
from tests.datasets import rawtrees
from tests.datasets.rawmedia import LFS_POINTER, write_wav

ANNOTATIONS = {
    "AVE": ["Annotations.txt", "AVE"],
    "CREMAD": ["AudioWAV", "VideoFlash"],
    "IEMOCAP": ["Session4/dialog/EmoEvaluation", "Session2/dialog/avi/DivX"],
    "MVSA": ["labelResultAll.txt", "data"],
    "URFUNNY": ["language_sdk.pkl", "humor_label_sdk.pkl", "data_folds.pkl", "urfunny2_videos"],
}


def rows_of(name, raw):
    rows = list(load(name).read(raw))
    samples = {row.id: row for row in rows if isinstance(row, Sample)}
    rejected = {row.id: row for row in rows if isinstance(row, Rejected)}
    assert len(samples) + len(rejected) == len(rows)
    return samples, rejected


@pytest.mark.parametrize(
    ("name", "missing"), [(name, each) for name, found in ANNOTATIONS.items() for each in found]
)
def test_what_is_there_and_cannot_be_read_is_one_line(name, missing, tmp_path, tree_of):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of(name).raw, raw)
    target = raw / missing
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    # A link to itself: as with permissions, opening fails where nothing is missing.
    target.symlink_to(target)
    with pytest.raises(AmstError, match=f"{missing} cannot be read") as error:
        list_samples(load(name), raw)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".jpg", ".txt"])
def test_a_list_is_not_made_while_the_storage_of_one_file_fails(suffix, tree_of, monkeypatch):
    """The error of reading, unlike that of opening, does not say of which file it is."""
    raw, opened = tree_of("MVSA").raw, Path.open
    file = min((raw / "data").glob(f"*{suffix}"))

    class Away(io.BytesIO):
        def read(self, *_):
            raise OSError(errno.EIO, "Input/output error")

    def fail(path, *arguments, **named):
        return Away() if path == file else opened(path, *arguments, **named)

    monkeypatch.setattr(Path, "open", fail)
    monkeypatch.setattr(rawfiles, "_LFS_LARGEST", 1e9)
    with pytest.raises(AmstError, match=rf"{file.name} cannot be read \(Input/output error\)"):
        list_samples(load("MVSA"), raw)


def test_a_caption_whose_storage_fails_is_not_rejected(tree_of, monkeypatch):
    raw = tree_of("MVSA").raw

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(mvsa, "decode", fail)
    with pytest.raises(AmstError, match=r"data/\d+\.txt cannot be read \(Input/output error\)"):
        list_samples(load("MVSA"), raw)


@pytest.mark.parametrize("oddities", [False, True])
@pytest.mark.parametrize("name", rawtrees.NAMES)
def test_a_tree_gives_its_samples_and_a_reason_for_every_other_row(name, oddities, tree_of):
    tree = tree_of(name, oddities)
    samples, rejected = rows_of(name, tree.raw)
    assert {each: sample.label for each, sample in samples.items()} == tree.samples
    assert set(rejected) == set(tree.rejected)
    for each, reason in tree.rejected.items():
        assert reason in rejected[each].reason
        assert "\n" not in rejected[each].reason


@pytest.mark.parametrize(
    ("name", "missing"), [(name, file) for name, files in ANNOTATIONS.items() for file in files]
)
def test_what_no_row_can_do_without_is_named_when_it_is_missing(name, missing, tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of(name).raw, raw)
    shutil.rmtree(raw / missing) if (raw / missing).is_dir() else (raw / missing).unlink()
    with pytest.raises(AmstError, match=missing):
        list(load(name).read(raw))


def test_an_annotation_that_git_lfs_did_not_fetch_is_named(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("MVSA").raw, raw)
    (raw / "labelResultAll.txt").write_bytes(LFS_POINTER)
    with pytest.raises(AmstError, match=r"labelResultAll.txt is a Git LFS pointer"):
        list(load("MVSA").read(raw))


def test_cremad_groups_clips_by_actor(tree_of):
    samples, _ = rows_of("CREMAD", tree_of("CREMAD").raw)
    sample = samples["1001_DFA_ANG_XX"]
    assert (sample.group, sample.label) == ("1001", "Anger")
    assert sample.files == {
        "audio": "AudioWAV/1001_DFA_ANG_XX.wav",
        "visual": "VideoFlash/1001_DFA_ANG_XX.flv",
    }


def test_an_ave_video_with_two_categories_gives_two_samples_of_one_group(tree_of):
    samples, _ = rows_of("AVE", tree_of("AVE").raw)
    both = [sample for sample in samples.values() if sample.group == "-Mini_00002"]
    assert [sample.id for sample in both] == [
        "-Mini_00002:Baby cry, infant cry",
        "-Mini_00002:Ukulele",
    ]
    assert (
        both[0].files == both[1].files == dict.fromkeys(("audio", "visual"), "AVE/-Mini_00002.mp4")
    )


def test_ave_knows_the_parts_of_its_own_lists_and_does_without_them(tree_of, tmp_path):
    samples, _ = rows_of("AVE", tree_of("AVE").raw)
    assert {sample.part for sample in samples.values()} == {"train", "val", "test"}
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("AVE").raw, raw)
    for name in ("trainSet.txt", "valSet.txt", "testSet.txt"):
        (raw / name).unlink()
    samples, rejected = rows_of("AVE", raw)
    assert {sample.part for sample in samples.values()} == {None}
    assert not rejected


@pytest.mark.parametrize(
    ("name", "file"), [("AVE", "Annotations.txt"), ("MVSA", "labelResultAll.txt")]
)
def test_annotations_without_a_header_are_read_too(name, file, tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of(name).raw, raw)
    lines = (raw / file).read_text().splitlines()
    (raw / file).write_text("\n".join(lines[1:]))
    assert rows_of(name, raw) == rows_of(name, tree_of(name).raw)


@pytest.mark.parametrize(
    ("text", "image", "label"),
    [
        ("positive", "positive", "positive"),
        ("neutral", "neutral", "neutral"),
        ("neutral", "negative", "negative"),
        ("positive", "neutral", "positive"),
        ("positive", "negative", None),
        ("negative", "positive", None),
    ],
)
def test_mvsa_joins_the_labels_of_text_and_image(text, image, label):
    assert combined(text, image) == label


def test_mvsa_counts_the_pairs_it_sets_aside_by_definition(tree_of):
    tree = tree_of("MVSA", oddities=True)
    assert load("MVSA").set_aside(tree.raw) == {"text and image are of opposite sentiment": 1}


def test_mvsa_captions_are_read_as_utf8_or_else_latin1(tree_of):
    samples, _ = rows_of("MVSA", tree_of("MVSA", oddities=True).raw)
    # The real ones are in GB18030 and were read so for the published figures.
    assert samples["5001"].text == "RT @so: cut¡\xad"
    assert samples["5002"].text == "naïve ☺"
    assert samples["5001"].files == {"text": "data/5001.txt", "visual": "data/5001.jpg"}


def test_mvsa_captions_can_be_read_as_what_they_are(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("MVSA", oddities=True).raw, raw)

    def captions():
        rows = load("MVSA", {"captions": "gb18030"}).read(raw)
        return {row.id: row.text for row in rows if isinstance(row, Sample)}

    assert captions()["5001"] == "RT @so: cut…"
    assert captions()["5002"] == "naïve ☺", "UTF-8 goes before"
    (raw / "data/5001.txt").write_bytes("olé!".encode("latin-1"))
    assert captions()["5001"] == "olé!", "which is no GB18030"
    assert MVSA("gb18030").fingerprint() != MVSA().fingerprint()
    assert "captions" not in MVSA().fingerprint(), "else features without the option are made anew"
    with pytest.raises(AmstError, match=r"'gbk'\. It can be latin-1 or gb18030"):
        MVSA("gbk")


def test_an_iemocap_utterance_is_a_clip_of_its_dialogue(tree_of):
    samples, _ = rows_of("IEMOCAP", tree_of("IEMOCAP").raw)
    sample = samples["Ses01F_impro01_F002"]
    video = "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    assert sample.files == {"audio": video, "visual": video}
    assert (sample.start, sample.end) == (1.1, 2.1)
    assert (sample.group, sample.text) == ("Session1", None)


def test_iemocap3_has_the_same_samples_with_their_text(tree_of):
    raw = tree_of("IEMOCAP", oddities=True).raw
    two, _ = rows_of("IEMOCAP", raw)
    three, _ = rows_of("IEMOCAP3", raw)
    assert list(two) == list(three)
    # A colon in the text does not cut it, and the first of two transcripts counts.
    assert {sample.text for sample in three.values()} == {"Well -- I said: all right."}
    assert all(three[each].model_copy(update={"text": None}) == two[each] for each in two)


def test_a_transcript_is_not_cut_at_an_ellipsis_of_windows(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("IEMOCAP").raw, raw)
    path = raw / "Session1/dialog/transcriptions/Ses01F_impro01.txt"
    path.write_bytes(path.read_bytes().replace(b"Well -- I", b"Well\x85 I"))
    samples, _ = rows_of("IEMOCAP3", raw)
    assert samples["Ses01F_impro01_F002"].text == "Well\x85 I said: all right."


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("CREMAD", b"AudioWAV/1001_\xe9_ANG_XX.wav", "has a name that is not UTF-8; rename it"),
        ("AVE", b"AVE/caf\xe9.mp4", "has no row in Annotations.txt"),
        ("IEMOCAP", b"Session1/dialog/EmoEvaluation/\xe9.txt", "has a name that is not UTF-8"),
    ],
)
def test_a_file_whose_name_is_not_utf8_is_rejected_and_listed(
    name, file, reason, tree_of, tmp_path
):
    tree, raw = tree_of(name), tmp_path / "raw"
    shutil.copytree(tree.raw, raw)
    (raw / os.fsdecode(file)).write_bytes(b"content")
    summary = write_samples(load(name), raw, tmp_path / "s.jsonl", tmp_path / "r.jsonl")
    assert summary.samples == len(tree.samples)
    (row,) = read_rejected(tmp_path / "r.jsonl")
    assert row.reason.startswith(row.file)
    assert row.file == file.decode(errors="backslashreplace")
    assert reason in row.reason


def test_an_iemocap_evaluation_with_another_suffix_is_named(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("IEMOCAP").raw, raw)
    path = raw / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    path.rename(path.with_suffix(".TXT"))
    samples, rejected = rows_of("IEMOCAP", raw)
    (row,) = rejected.values()
    name = "Session1/dialog/EmoEvaluation/Ses01F_impro01.TXT"
    assert row.reason == f"{name} is not named *.txt; rename it"
    assert not any(each.startswith("Ses01F_impro01") for each in samples)


def test_iemocap_can_take_the_sound_from_the_sentences(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("IEMOCAP").raw, raw)
    folder = "Session1/sentences/wav/Ses01F_impro01"
    (raw / folder / "Ses01F_impro01_F004.wav").unlink()
    write_wav(raw / folder / "._Ses01F_impro01_F002.wav")
    rows = {row.id: row for row in IEMOCAP(audio_from="sentences").read(raw)}
    sample = rows["Ses01F_impro01_F002"]
    assert sample.files["audio"] == f"{folder}/Ses01F_impro01_F002.wav"
    assert sample.files["visual"] == "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    assert sample.whole == ("audio",)
    assert rows["Ses01F_impro01_F004"].reason == f"{folder}/Ses01F_impro01_F004.wav is missing"
    assert IEMOCAP("sentences").fingerprint() != IEMOCAP().fingerprint()


def test_iemocap_refuses_an_unknown_source_of_sound():
    with pytest.raises(AmstError, match="dialogue or sentences"):
        IEMOCAP(audio_from="mixer")


def test_iemocap_counts_the_labels_it_does_not_use(tree_of):
    assert load("IEMOCAP").set_aside(tree_of("IEMOCAP").raw) == {"label xxx is not used": 10}


def add_utterance(raw, label, times="[0.2000 - 0.9000]", text="Well."):
    """Append an utterance to the first dialogue; its id."""
    folder, name = raw / "Session1/dialog", "Ses01F_impro01"
    path = folder / f"EmoEvaluation/{name}.txt"
    utterance = f"{name}_F8{path.read_text().count(name):02d}"
    with path.open("a") as file:
        file.write(f"{times}\t{utterance}\t{label}\t[2.5, 2.5, 2.5]\n")
    with (folder / f"transcriptions/{name}.txt").open("a") as file:
        file.write(f"{utterance} [000.2-000.9]: {text}\n")
    return utterance


def test_iemocap_sets_every_label_aside_that_is_no_class(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("IEMOCAP").raw, raw)
    labels = ("dis", "fea", "hap", "oth", "sur", "xxx")
    for label in labels:
        add_utterance(raw, label)
    counts = {f"label {label} is not used": 1 for label in labels}
    assert load("IEMOCAP").set_aside(raw) == counts | {"label xxx is not used": 11}
    assert rows_of("IEMOCAP", raw) == rows_of("IEMOCAP", tree_of("IEMOCAP").raw)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"times": "[0.9000 - 0.9000]"}, "ends at 0.9 s, before it starts"),
        ({"text": ""}, "impro01.txt has no text for it"),
    ],
)
def test_an_iemocap_utterance_without_length_or_words_is_rejected(more, reason, tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("IEMOCAP").raw, raw)
    utterance = add_utterance(raw, "neu", **more)
    assert rows_of("IEMOCAP", raw)[1][utterance].reason.endswith(reason)


def test_changed_sentences_of_iemocap_are_noticed_where_they_are_used(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("IEMOCAP").raw, raw)
    datasets = IEMOCAP("dialogue"), IEMOCAP("sentences")
    before = [raw_files(dataset, raw) for dataset in datasets]
    write_wav(raw / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F002.wav", seconds=0.7)
    after = [raw_files(dataset, raw) for dataset in datasets]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_urfunny_takes_the_punchline_and_the_fold(tree_of):
    samples, _ = rows_of("URFUNNY", tree_of("URFUNNY").raw)
    assert list(samples) == ["1", "4", "7", "10"]
    assert samples["4"].text == "and that is not the end of clip 4"
    assert samples["4"].label == "FUNNY"
    assert (samples["7"].group, samples["7"].part) == ("dev", "val")


def test_urfunny_rejects_strange_ids_and_labels_and_strips_sentences(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("URFUNNY").raw, raw)
    sentences, labels = (
        pickle.loads((raw / name).read_bytes())
        for name in ("language_sdk.pkl", "humor_label_sdk.pkl")
    )
    sentences[1]["punchline_sentence"] = " so it ends \n"
    sentences[-3] = sentences[1]
    labels |= {4: [1], 7: "1", 10: 1.0}
    (raw / "language_sdk.pkl").write_bytes(pickle.dumps(sentences))
    (raw / "humor_label_sdk.pkl").write_bytes(pickle.dumps(labels))
    samples, rejected = rows_of("URFUNNY", raw)
    assert samples["1"].text == "so it ends"
    assert samples["10"].label == "FUNNY"
    assert {name: row.reason.partition(" (")[0] for name, row in rejected.items()} == {
        "4": "clip 4 has the label [1], not 0 or 1",
        "7": "clip 7 has the label '1', not 0 or 1",
        "language_sdk.pkl:-3": "id '-3' is no number",
    }


def test_urfunny_refuses_folds_of_other_names(tree_of, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tree_of("URFUNNY").raw, raw)
    (raw / "data_folds.pkl").write_bytes(pickle.dumps({"train": [1], "valid": [4]}))
    with pytest.raises(AmstError, match="train, valid, not train, dev and test"):
        list(load("URFUNNY").read(raw))
    (raw / "data_folds.pkl").write_bytes(pickle.dumps([1, 4]))
    with pytest.raises(AmstError, match="holds a list"):
        list(load("URFUNNY").read(raw))
