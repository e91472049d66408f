import hashlib
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst.datasets.base import Dataset, Rejected, Sample
from amst.datasets.cremad import CREMAD
from amst.datasets.registry import load
from amst.errors import AmstError
from amst.features.samples import (
    list_samples,
    main_file,
    raw_files,
    read_rejected,
    read_samples,
    read_summary,
    remainder,
    samples_of_shards,
    write_lines,
    write_samples,
)
from amst.results.comparison import rows_of

IEMOCAP3 = load("IEMOCAP3")


class Pairs(Dataset):
    """Rows as given, whatever is in the raw folder."""

    name = "pairs"
    modalities = {"sound": "audio", "words": "text"}  # noqa: RUF012
    classes = ("no", "yes")
    expected_samples = 5
    splits = ("fold1", "random")

    def __init__(self, rows):
        self.rows = rows

    def read(self, raw):
        yield from self.rows


def pair(name, label="yes", file="a.wav", text="a word", **more):
    more = {"group": name, **more}
    return Sample(id=name, label=label, files={"sound": file}, text=text, **more)


def listed(tmp_path, rows):
    (tmp_path / "raw/folder").mkdir(parents=True)
    (tmp_path / "raw/a.wav").write_bytes(b"sound")
    out, rejected = tmp_path / "out/samples.jsonl", tmp_path / "out/rejected.jsonl"
    summary = write_samples(Pairs(rows), tmp_path / "raw", out, rejected)
    return summary, read_samples(out), read_rejected(rejected)


def unstamped(sample):
    return sample.model_copy(update={"stamp": None})


def test_what_is_left_of_a_raw_folder_is_not_taken_for_it(tmp_path):
    rows = [pair(name) for name in "abcd"]
    before, _, _ = listed(tmp_path, rows)
    raw, out = tmp_path / "raw", tmp_path / "out/samples.jsonl"

    def said(rows, now="other", max_lost=0.25):
        return remainder(Pairs(rows), raw, now, out, max_lost)

    assert said(rows[:3]) == "", "as many as may be lost"
    assert said(rows[:2]) == f"{raw} gives 2 of the 4 samples that were listed in it"
    assert said(rows[:2], max_lost=0.5) == ""
    assert said([], now=before.raw_files) == "", "nothing has changed"
    assert said([*rows, pair("e")]) == "", "more are welcome"
    (raw / "a.wav").unlink()
    assert said(rows) == f"{raw} gives 0 of the 4 samples that were listed in it"
    raw.rename(tmp_path / "elsewhere")
    assert said(rows).startswith(f"4 samples were listed in {raw}, and the raw folder")
    out.with_suffix(".json").unlink()
    assert said([]) == "", "nothing was made of it"


def test_another_raw_file_changes_the_row_and_the_digest_of_the_folder(tmp_path):
    before, (row, _), _ = listed(tmp_path, [pair("a"), pair("b")])
    out, raw = tmp_path / "out/samples.jsonl", tmp_path / "raw"
    (raw / ".hidden").write_bytes(b"of no matter")
    assert write_samples(Pairs([]), raw, out, tmp_path / "r") == before.model_copy(
        update={"samples": 0}
    )
    (raw / "a.wav").write_bytes(b"another sound")
    after = write_samples(Pairs([pair("a")]), raw, out, tmp_path / "r")
    assert after.raw_files != before.raw_files
    (changed,) = read_samples(out)
    assert changed.stamp != row.stamp
    assert unstamped(changed) == unstamped(row)


def test_a_raw_folder_that_changes_while_it_is_listed_is_listed_again(tmp_path):
    class Growing(Pairs):
        def read(self, raw):
            yield from self.rows
            (raw / "b.wav").write_bytes(b"another sound")

    (tmp_path / "a.wav").write_bytes(b"sound")
    dataset, before = Growing([pair("a")]), raw_files(Pairs([]), tmp_path)
    out = tmp_path.parent / f"{tmp_path.name}-out"
    summary = write_samples(dataset, tmp_path, out / "s.jsonl", out / "r.jsonl")
    assert summary.raw_files == before != raw_files(dataset, tmp_path)


def test_rows_are_listed_by_id_with_all_they_say(tmp_path):
    rows = [pair("ü2", start=1.5, end=2.0, part="val"), pair("a1", text="zwei\nZeilen")]
    rows[0] = rows[0].model_copy(update={"parts": {"fold1": "test"}})
    summary, samples, rejected = listed(tmp_path, rows)
    assert [unstamped(sample) for sample in samples] == [rows[1], rows[0]]
    assert rejected == []
    assert (summary.samples, summary.rejected, summary.expected) == (2, 0, 5)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (pair("b", label="maybe"), "unknown class 'maybe'"),
        (pair("b", part="valid"), "part 'valid' is none of train, val, test"),
        (
            pair("b", parts={"fold1": "dev"}),
            "part 'dev' of split fold1 is none of train, val",
        ),
        (pair("b", parts={"fold2": "val"}), "its parts name 'fold2': splits of the dataset's own"),
        (
            pair("b", parts={"random": "val"}),
            "its parts name 'random': splits of the dataset",
        ),
        (pair("b", file="b.wav"), "its sound file is missing"),
        (pair("b", file="folder"), "its sound file is a folder"),
        (pair("b", file=""), "its sound file is missing"),
        (pair("b", start=math.nan, end=2.0), "its start is nan, no time in seconds"),
        (pair("b", start=1.0, end=math.inf), "its end is inf, no time in seconds"),
        (pair("b", start=5.0, end=3.5), "its start, 5 s, is not before its end, 3.5 s"),
        (pair("b", start=3.5, end=3.5), "its start, 3.5 s, is not before its end, 3.5 s"),
        (pair("b", group="\ud83d"), "its group holds what is no character of UTF-8"),
        (pair("b", group="b\0"), "its id or group holds a NUL character"),
        (pair("b", text="half an emoji: \ud83d"), "its text holds what is no character of UTF-8"),
        (pair("b", file="M\udcfcller.wav"), "its sound file holds what is no character of UTF-8"),
        (pair("b\0", group="b"), "its id or group holds a NUL character"),
        (pair("b", text=None), "it has no words"),
        (Sample(id="b", label="no", group="b", files={}, text="x"), "it has no sound"),
        (pair("b", whole=("audio",)), "`whole` is audio: not each of them has a file of its own"),
        (pair("a"), "its id is taken"),
        (Rejected(id="b", reason="for its own reason"), "for its own reason"),
    ],
)
def test_what_cannot_be_a_sample_is_listed_with_the_reason(row, reason, tmp_path):
    summary, samples, rejected = listed(tmp_path, [pair("a"), row])
    assert [unstamped(sample) for sample in samples] == [pair("a")]
    assert len(rejected) == summary.rejected == 1
    assert rejected[0].id == row.id
    assert reason in rejected[0].reason


def test_files_that_are_there_are_not_looked_at_as_folders(tmp_path, monkeypatch):
    """Each look is a call to a file server."""
    looked = []
    is_folder = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda path: looked.append(path) or is_folder(path))
    listed(tmp_path, [pair("a"), pair("b", file="folder")])
    assert tmp_path / "raw/a.wav" not in looked
    assert tmp_path / "raw/folder" in looked


def test_a_lost_row_whose_id_is_not_utf_8_is_listed_with_it_escaped(tmp_path):
    lost = Rejected(id="b\ud83d", reason="M\udcfcller is missing", file="M\udcfcller")
    _, _, rejected = listed(tmp_path, [pair("a\ud83d"), lost])
    assert [row.id for row in rejected] == [r"a\ud83d", r"b\ud83d"]
    assert rejected[0].reason == "its id holds what is no character of UTF-8"
    assert rejected[1].file == r"M\udcfcller"


def test_a_row_that_is_none_is_told_with_the_reader_and_the_row_before(tmp_path):
    class Careless(Pairs):
        def read(self, raw):
            yield pair("a")
            yield pair("b", label=True)

    (tmp_path / "a.wav").write_bytes(b"sound")
    with pytest.raises(AmstError) as caught:
        list_samples(Careless([]), tmp_path)
    assert re.fullmatch(
        rf"{re.escape(__file__)}, line \d+: the row after a has the Sample field label = True: "
        r"Input should be a valid string\. Mend the reader; labels and ids are text",
        str(caught.value),
    )


@pytest.mark.parametrize("row", [None, {"id": "b", "label": "c"}])
def test_what_a_reader_yields_besides_rows_is_told(tmp_path, row):
    (tmp_path / "a.wav").write_bytes(b"sound")
    with pytest.raises(
        AmstError, match=r"Pairs\.read yields .* after a, which is neither a Sample"
    ):
        list_samples(Pairs([pair("a"), row]), tmp_path)


def test_rejected_rows_are_listed_by_id_and_reason(tmp_path):
    order = [("b", "y"), ("c", "x"), ("b", "x"), ("a", "z")]
    _, _, found = listed(tmp_path, [Rejected(id=name, reason=reason) for name, reason in order])
    assert [(row.id, row.reason) for row in found] == sorted(order)


def test_rows_of_files_that_the_suite_makes_have_no_times_in_them(tmp_path):
    """Made again from the same settings they are the same, and nothing is extracted anew."""
    dataset = Pairs([pair("a")])
    dataset.is_made = True
    (tmp_path / "a.wav").write_bytes(b"sound")
    summary = write_samples(dataset, tmp_path, tmp_path / "s.jsonl", tmp_path / "r.jsonl")
    assert summary.raw_files == ""
    assert read_samples(tmp_path / "s.jsonl") == [pair("a")]


def test_a_missing_raw_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(AmstError, match="nowhere"):
        write_samples(Pairs([]), tmp_path / "nowhere", tmp_path / "s", tmp_path / "r")


def test_a_broken_line_is_named(tmp_path):
    write_lines(tmp_path / "s.jsonl", [pair("a"), pair("b")])
    with (tmp_path / "s.jsonl").open("a") as file:
        file.write('{"id": "c"}\n')
    with pytest.raises(AmstError, match=r"s\.jsonl, line 3"):
        read_samples(tmp_path / "s.jsonl")


def test_a_line_that_is_no_utf_8_is_named(tmp_path):
    write_lines(tmp_path / "s.jsonl", [pair("a"), pair("é")])
    content = (tmp_path / "s.jsonl").read_text()
    (tmp_path / "s.jsonl").write_text(content, encoding="latin-1")
    for read in (read_samples, rows_of):
        with pytest.raises(AmstError, match=r"s\.jsonl, line 2"):
            read(tmp_path / "s.jsonl")
    (tmp_path / "s.json").write_bytes(b"\xff")
    with pytest.raises(AmstError, match=r"s\.json is no summary"):
        read_summary(tmp_path / "s.jsonl")


def utterances(dialogues):
    return [
        Sample(
            id=f"{dialogue}_{number:02d}",
            label="neu",
            group="Session1",
            files={"audio": f"{dialogue}.avi", "visual": f"{dialogue}.avi"},
            start=float(number),
            end=number + 0.5,
            text="yes",
        )
        for dialogue in dialogues
        for number in range(3)
    ]


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=12), st.integers(1, 9))
def test_each_sample_is_in_one_shard_by_the_checksum_of_its_main_file(dialogues, shards):
    samples = utterances(dialogues)
    cut = samples_of_shards(samples, IEMOCAP3, shards)
    assert len(cut) == shards
    for index, shard in enumerate(cut):
        for sample in shard:
            digest = hashlib.sha256(sample.files["visual"].encode()).digest()
            assert int.from_bytes(digest, "big") % shards == index
    assert sorted(s.id for shard in cut for s in shard) == sorted(s.id for s in samples)


@given(st.sets(st.text("abcdef", min_size=1, max_size=4), max_size=8), st.integers(1, 9))
def test_one_more_raw_file_changes_one_shard(dialogues, shards):
    before = samples_of_shards(utterances(sorted(dialogues)), IEMOCAP3, shards)
    after = samples_of_shards(utterances([*sorted(dialogues), "new"]), IEMOCAP3, shards)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == 1


def test_samples_of_a_recording_stand_together_in_order_of_time():
    samples = utterances(["b", "a"])[::-1]
    (shard,) = samples_of_shards(samples, IEMOCAP3, 1)
    assert shard == utterances(["a", "b"])
    first, second = (shard[0].model_copy(update={"id": name}) for name in ("x", "y"))
    assert samples_of_shards([second, first], IEMOCAP3, 1) == [[first, second]]


def test_the_main_file_is_the_video_or_else_the_sound_or_else_the_text():
    files = {"audio": "a.wav", "visual": "v.avi", "text": "t.txt"}
    sample = utterances(["x"])[0].model_copy(update={"files": files})
    assert main_file(sample, IEMOCAP3) == "v.avi"
    del files["visual"]
    assert main_file(sample, IEMOCAP3) == "a.wav"
    del files["audio"]
    assert main_file(sample, IEMOCAP3) == "t.txt"
    files.clear()
    assert main_file(sample, IEMOCAP3) == sample.id


def test_files_of_a_modality_that_a_derived_class_has_not_count_for_nothing():
    heard = type("Heard", (CREMAD,), {"name": "Heard", "modalities": {"audio": "audio"}})()
    sample = Sample(id="c", label="Anger", group="1", files={"audio": "a.wav", "visual": "v.flv"})
    assert samples_of_shards([sample], heard, 1) == [[sample]]
    assert main_file(sample, heard) == "a.wav"


def test_the_summary_stands_beside_the_list(tmp_path):
    summary, _, _ = listed(tmp_path, [pair("a1")])
    assert read_summary(tmp_path / "out/samples.jsonl") == summary


def test_a_list_without_its_summary_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(AmstError, match=r"samples\.json is no summary"):
        read_summary(tmp_path / "samples.jsonl")
