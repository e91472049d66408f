import base64
import io
import json
import re
import shutil

import matplotlib as mpl
import pytest
from PIL import Image

from amst.config.run import AudioFeatures, TextFeatures, VisualFeatures
from amst.datasets.base import Dataset, Sample
from amst.datasets.registry import load
from amst.datasets.splitfile import Split, write_split
from amst.datasets.splits import make_split
from amst.features.extract import extract_shard
from amst.features.report import write_report
from amst.features.report_page import without_pictures
from amst.features.samples import read_samples, write_samples
from amst.features.verification import write_manifest
from amst.files import sha256_of
from tests.datasets.rawmedia import write_bytes, write_video, write_wav


def prepared(dataset, raw, folder, features, shards=1):
    """The manifest of a dataset's features in so many shards, and its list of samples."""
    samples, rejected = folder / "samples.jsonl", folder / "rejected.jsonl"
    write_samples(dataset, raw, samples, rejected)
    paths = [folder / f"shards/{index:03d}.h5" for index in range(shards)]
    lost = [path.with_suffix(".jsonl") for path in paths]
    for index, (path, given_up) in enumerate(zip(paths, lost, strict=True)):
        extract_shard(dataset, raw, samples, index, shards, features, path, given_up)
    out = folder / "manifest.json"
    write_manifest(dataset, features, samples, paths, [rejected, *lost], out, lost_limit=1)
    return folder / "manifest.json", samples


@pytest.fixture
def digits(digits_raw, digits_features, tmp_path):
    dataset = load("digits")
    manifest, samples = prepared(dataset, digits_raw, tmp_path, digits_features, shards=3)
    split = tmp_path / "splits/random.json"
    write_split(split, make_split("random", dataset, read_samples(samples), 0))
    return dataset, manifest, samples, [split]


def test_the_report_counts_what_is_there(digits):
    report = write_report(*digits)
    assert (report.samples, report.expected, report.rejected) == (60, None, ())
    assert report.classes == {str(digit): 6 for digit in range(10)}
    assert report.modalities["audio"].seconds.maximum == 0.5
    assert report.modalities["visual"].frames.minimum == 6
    assert report.modalities["visual"].rates == {"12": 60}
    assert report.modalities["visual"].sizes == {"32x32": 60}
    assert (report.modalities["visual"].repeated, report.modalities["visual"].damaged) == (0, ())
    (split,) = report.splits
    shared = split.leakage
    assert (shared.ids, shared.groups, shared.media, shared.overlaps) == ([], [], [], [])
    assert sum(split.extracted.values()) == 60
    saved = json.loads(digits[1].with_name("report.json").read_text())
    assert saved == json.loads(report.model_dump_json())


def test_the_page_holds_all_it_shows(digits):
    write_report(*digits)
    page = digits[1].with_name("report.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(addresses) == 24 + 6
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert "http" not in re.sub(r'"data:[^"]*"', "", page)
    assert "clip-00000" in page


def test_equal_data_give_an_equal_page(digits):
    write_report(*digits)
    page = digits[1].with_name("report.html")
    first = page.read_bytes()
    write_report(*digits)
    assert page.read_bytes() == first


def test_what_is_passed_on_of_the_page_shows_none_of_the_data(digits):
    """`amst report` has the page without them: IEMOCAP's licence, for one, forbids to send them."""
    write_report(*digits)
    page = digits[1].with_name("report.html").read_text()
    sent = without_pictures(page)
    assert page.count("data:image") == 30
    assert "data:image" not in sent
    assert "<figcaption>" not in sent
    assert sent.count("which many licences forbid to pass on") == 2, "of sound and of pictures"
    kept = page.partition('<div class="sheet">')[0]
    assert sent.startswith(kept)
    assert sent.endswith(page.rpartition("</div>")[2])


def test_the_page_is_the_same_whatever_a_user_has_set_for_figures(digits):
    write_report(*digits)
    page = (digits[1].parent / "report.html").read_bytes()
    with mpl.rc_context({"text.usetex": True, "font.size": 30}):
        write_report(*digits)
    assert (digits[1].parent / "report.html").read_bytes() == page


def test_equal_sounds_in_two_parts_are_a_leak_and_equal_sentences_are_none(
    digits_raw, digits_features, tmp_path
):
    raw = shutil.copytree(digits_raw, tmp_path / "raw")
    rows = (raw / "labels.csv").read_text().splitlines(keepends=True)
    (raw / "labels.csv").write_text("".join([rows[0], rows[1], rows[6], rows[12]]))
    for kind in ("audio/{}.wav", "text/{}.txt"):
        shutil.copy(raw / kind.format("clip-00000"), raw / kind.format("clip-00011"))
    manifest, samples = prepared(load("digits"), raw, tmp_path / "out", digits_features)
    parts = {"train": ["clip-00000"], "val": ["clip-00011"], "test": ["clip-00005"]}
    path = tmp_path / "split.json"
    write_split(path, Split(dataset="digits", name="random", seed=0, parts=parts))
    (split,) = write_report(load("digits"), manifest, samples, [path]).splits
    (shared,) = split.leakage.media
    assert shared.value == f"audio {sha256_of(raw / 'audio/clip-00000.wav')}"
    assert shared.parts == {"train": ["clip-00000"], "val": ["clip-00011"]}


def test_all_splits_stand_in_one_table_of_classes(digits):
    dataset, manifest, samples, splits = digits
    group = manifest.with_name("group.json")
    write_split(group, make_split("group", dataset, read_samples(samples), 0))
    write_report(dataset, manifest, samples, [*splits, group])
    page = manifest.with_name("report.html").read_text()
    tables = [each for each in page.split("<table>") if "with features</td>" in each]
    (table,) = [each for each in tables if "<th>class</th>" in each]
    assert re.findall(r'colspan="3">(\w+)<', table) == ["random", "group"]
    assert len(re.findall(r"<tr><td>\d</td>(?:<td class=.number.>\d+</td>){6}</tr>", table)) == 10


def test_what_parts_share_is_in_the_report(digits):
    dataset, manifest, samples, (path,) = digits
    rows = read_samples(samples)
    one, other = (row.id for row in rows if row.group == rows[0].group and row.label in "01")
    rest = [row.id for row in rows if row.id not in (one, other)]
    parts = {"train": [one, *rest[1:]], "val": [other], "test": [rest[0]]}
    write_split(path, Split(dataset="digits", name="random", seed=0, parts=parts))
    (split,) = write_report(dataset, manifest, samples, [path]).splits
    assert [shared.value for shared in split.leakage.groups].count(rows[0].group) == 1
    assert not split.leakage.ids
    assert "in more than one part" in manifest.with_name("report.html").read_text()


def test_a_class_that_a_part_lacks_is_marked(digits):
    dataset, manifest, samples, (path,) = digits
    write_report(dataset, manifest, samples, [path])
    page = manifest.with_name("report.html").read_text()
    assert '<td class="number">0</td>' not in page
    assert "Without a sample" not in page
    by_label = {row.label: row.id for row in read_samples(samples)}
    all_but_nine = [sample for label, sample in by_label.items() if label != "9"]
    parts = {"train": [*by_label.values()], "val": all_but_nine, "test": all_but_nine}
    note = "val is a tenth of train"
    write_split(path, Split(dataset="digits", name="random", seed=0, parts=parts, note=note))
    (split,) = write_report(dataset, manifest, samples, [path]).splits
    assert split.missing == "9 in val and test (1 in all)"
    page = manifest.with_name("report.html").read_text()
    assert '<td class="number bad">0</td>' in page
    assert f"Without a sample: {split.missing}. Macro-F1" in page
    assert f"Note: {note}. In no part" in page


def test_oddities_are_in_the_report(tmp_path):
    raw = tmp_path / "raw"
    features = {
        "audio": AudioFeatures(mel_bins=16, frames=149),
        "visual": VisualFeatures(frames=3, size=16),
    }
    for index, name in enumerate(("1001_DFA_ANG_XX", "1002_DFA_ANG_XX", "1003_DFA_SAD_XX")):
        write_wav(raw / f"AudioWAV/{name}.wav", seconds=0.5 + index)
        write_video(raw / f"VideoFlash/{name}.flv", seconds=3.0 - index)
    write_wav(raw / "AudioWAV/1001_DFA_ANG_XX.wav", seconds=0.0)
    silent = raw / "AudioWAV/1002_DFA_ANG_XX.wav"
    content = silent.read_bytes()
    write_bytes(silent, content[:44] + bytes(len(content) - 44))
    manifest, samples = prepared(load("CREMAD"), raw, tmp_path / "out", features)
    first, second, third = (row.id for row in read_samples(samples))
    parts = {"train": [first, second], "val": [third], "test": [first]}
    places = {"absent": ["a", "b"], "unassigned": ["c"]}
    path = tmp_path / "split.json"
    write_split(path, Split(dataset="CREMAD", name="random", seed=0, parts=parts, **places))
    report = write_report(load("CREMAD"), manifest, samples, [path])
    (split,) = report.splits
    assert split.extracted == {"train": 1, "val": 1, "test": 0}
    assert (split.absent, split.unassigned) == (2, 1)
    assert (report.samples, report.expected) == (2, 7442)
    assert [row.id for row in report.rejected] == ["1001_DFA_ANG_XX"]
    assert report.modalities["audio"].silent == ("1002_DFA_ANG_XX",)
    assert report.modalities["audio"].cut == 1, "1.5 s are 148 windows of 25 ms, 10 ms apart"
    assert report.modalities["visual"].repeated == 2
    assert report.modalities["visual"].sizes == {"64x48": 2}
    page = manifest.with_name("report.html").read_text()
    assert "it has no sound" in page
    assert "-7440" in page


def test_rows_that_are_no_samples_by_definition_are_counted_with_their_reason(tmp_path, tree_of):
    tree = tree_of("MVSA")
    features = {
        "text": TextFeatures(tokens=8, tokenizer="digits"),
        "visual": VisualFeatures(frames=1, size=8),
    }
    manifest, samples = prepared(load("MVSA"), tree.raw, tmp_path / "out", features)
    report = write_report(load("MVSA"), manifest, samples, [])
    visual, text = (report.modalities[name] for name in ("visual", "text"))
    assert (visual.frames.maximum, visual.rates, visual.repeated) == (1, {"0": report.samples}, 0)
    assert text.full == report.samples
    assert report.set_aside == {"text and image are of opposite sentiment": 1}
    page = manifest.with_name("report.html").read_text()
    assert "No samples by definition" in page
    assert "text and image are of opposite sentiment" in page


def test_what_the_page_quotes_cannot_break_it(tmp_path):
    raw = tmp_path / "raw"
    write_wav(raw / "AudioWAV/<b>x.wav")
    write_wav(raw / "AudioWAV/1001_DFA_ANG_XX.wav")
    write_video(raw / "VideoFlash/1001_DFA_ANG_XX.flv")
    features = {"audio": AudioFeatures(mel_bins=16, frames=9), "visual": VisualFeatures(size=8)}
    manifest, samples = prepared(load("CREMAD"), raw, tmp_path / "out", features)
    write_report(load("CREMAD"), manifest, samples, [])
    page = manifest.with_name("report.html").read_text()
    assert "<b>x" not in page
    assert "&lt;b&gt;x" in page


def test_a_picture_like_a_line_does_not_fill_the_page(tmp_path):
    class Lines(Dataset):
        name = "Lines"
        modalities = {"picture": "visual"}  # noqa: RUF012
        classes = ("a",)

        def read(self, raw):
            for name in "ab":
                yield Sample(id=name, label="a", group="", files={"picture": f"{name}.png"})

    (tmp_path / "raw").mkdir()
    Image.new("RGB", (5000, 1)).save(tmp_path / "raw/a.png")
    Image.new("RGB", (1, 5000)).save(tmp_path / "raw/b.png")
    features = {"picture": VisualFeatures(size=8, frames=2)}
    manifest, samples = prepared(Lines(), tmp_path / "raw", tmp_path / "out", features)
    write_report(Lines(), manifest, samples, [])
    page = manifest.with_name("report.html").read_text()
    sizes = set()
    for shown in re.findall(r"data:image/png;base64,([^\"]+)", page):
        with Image.open(io.BytesIO(base64.b64decode(shown))) as picture:
            sizes.add(picture.size)
    assert sizes == {(2 * 8 * 112, 112), (2, 112)}
