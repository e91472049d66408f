"""Splits: parts that are what their name says, and reports of what they share."""

import hashlib
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amst.datasets.base import PARTS, Dataset, Rejected, Sample
from amst.datasets.lists import LISTS, ListFile
from amst.datasets.registry import load
from amst.datasets.splitfile import Split, read_split, write_split
from amst.datasets.splits import URFUNNY_TRAIN_START, leakage, make_split
from amst.errors import AmstError


def sample(sample_id, label="a", group=None, **more):
    return Sample(id=sample_id, label=label, group=group or sample_id, files={}, **more)


def samples_in(groups, per_group, classes="abc"):
    return [
        sample(f"g{group}-{index}", classes[index % len(classes)], f"g{group}")
        for group in range(groups)
        for index in range(per_group)
    ]


def sizes(split):
    return {part: len(ids) for part, ids in split.parts.items()}


@st.composite
def manifests(draw):
    """Samples of 2 to 4 classes in at least 12 groups of 1 to 5."""
    labels = draw(
        st.lists(
            st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), min_size=12, max_size=60
        )
    )
    return [
        sample(f"{group}-{index}", label, f"g{group}")
        for group, members in enumerate(labels)
        for index, label in enumerate(members)
    ]


class Grouped(Dataset):
    name = "grouped"
    splits = ("random", "group")

    def read(self, raw):
        yield from ()


class KeptTogether(Grouped):
    random_keeps_groups = True


@pytest.mark.parametrize("name", ["random", "group"])
@settings(max_examples=40, deadline=None)
@given(samples=manifests(), seed=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_seeded_cuts_are_partitions_that_no_order_changes(name, samples, seed, order):
    split = make_split(name, Grouped, samples, seed)
    ids = [each for part in PARTS for each in split.parts[part]]
    assert sorted(ids) == sorted(each.id for each in samples)
    order.shuffle(samples)
    assert make_split(name, Grouped, samples, seed) == split


@pytest.mark.parametrize(("name", "dataset"), [("group", Grouped), ("random", KeptTogether)])
@settings(max_examples=40, deadline=None)
@given(samples=manifests(), seed=st.integers(0, 9))
def test_whole_groups_are_in_no_two_parts(name, dataset, samples, seed):
    part_of = {}
    for part, ids in make_split(name, dataset, samples, seed).parts.items():
        for each in ids:
            group = each.split("-")[0]
            assert part_of.setdefault(group, part) == part


def test_another_seed_gives_another_cut_of_the_same_sizes():
    samples = samples_in(40, 6)
    for name in ("random", "group"):
        first, second = (make_split(name, Grouped, samples, seed) for seed in (0, 1))
        assert first.parts != second.parts
        assert sizes(first) == sizes(second) == {"train": 192, "val": 24, "test": 24}


def test_a_cut_that_would_leave_a_part_empty_is_refused():
    with pytest.raises(AmstError, match="has no sample in val and test"):
        make_split("group", Grouped, samples_in(1, 50), 0)


def test_names_of_splits_are_checked():
    with pytest.raises(AmstError, match=r"no split 'grp'. Its splits are: amst, group, random"):
        make_split("grp", load("CREMAD"), samples_in(20, 3), 0)


def test_a_repeated_id_is_refused():
    with pytest.raises(AmstError, match="several rows with the id a1"):
        make_split("random", Grouped, [sample("a1"), sample("a1")], 0)


def test_official_parts_are_those_of_the_dataset():
    samples = [sample("1", part="train"), sample("2", part="val"), sample("3", part="test")]
    split = make_split("official", load("AVE"), [*samples, sample("4")], 0)
    assert split.parts == {"train": ["1"], "val": ["2"], "test": ["3"]}
    assert split.unassigned == ["4"]


class NoVal(Grouped):
    splits = ("official",)
    groups = "singers"


def with_parts(samples, test):
    parts = {True: "test", False: "train"}
    return [each.model_copy(update={"part": parts[each.group in test]}) for each in samples]


def test_a_val_that_the_dataset_lacks_is_cut_from_train_where_its_class_says_so(
    tmp_path, monkeypatch
):
    samples = with_parts(samples_in(20, 6), test=("g3", "g7"))
    with pytest.raises(AmstError, match=r"no sample in val\. If .* `val_from_train = True`"):
        make_split("official", NoVal, samples, 0)
    monkeypatch.setattr(NoVal, "val_from_train", True)
    split = make_split("official", NoVal, samples, 0)
    assert sizes(split) == {"train": 96, "val": 12, "test": 12}
    val, train = ({each.split("-")[0] for each in split.parts[part]} for part in ("val", "train"))
    assert len(val) == 2
    assert not val & train
    assert split.note.startswith("val is a seeded tenth of train (whole groups: singers)")
    assert make_split("official", NoVal, samples, 1).parts["val"] != split.parts["val"]
    write_split(tmp_path / "s.json", split)
    assert read_split(tmp_path / "s.json") == split
    stated = [*samples, sample("v", part="val")]
    assert make_split("official", NoVal, stated, 0).parts["val"] == ["v"]
    write_split(tmp_path / "s.json", make_split("official", NoVal, stated, 0))
    assert "note" not in (tmp_path / "s.json").read_text()


class Folds(Grouped):
    splits = ("fold1", "fold2", "half")


def folded(samples=12):
    """Fold 1 tests on the first third and fold 2 on the second; half trains on less of fold 1."""
    thirds = ({"fold1": "test"}, {"fold1": "val", "fold2": "test"}, {"fold1": "train"})
    rows = [
        sample(f"s{n:02}", group=f"g{n}", parts=thirds[3 * n // samples]) for n in range(samples)
    ]
    less = rows[-1].model_copy(update={"parts": {"half": "train", **rows[-1].parts}})
    return [*rows[:-1], less]


def test_splits_of_other_names_are_cut_by_the_parts_that_rows_state():
    rows = folded()
    split = make_split("fold1", Folds, rows[::-1], 0)
    ids = [row.id for row in rows]
    assert split.parts == {"train": ids[8:], "val": ids[4:8], "test": ids[:4]}
    assert (split.name, split.unassigned) == ("fold1", [])
    with pytest.raises(
        AmstError, match=r"fold2 of grouped has no sample in train and val\. No sam"
    ):
        make_split("fold2", Folds, rows, 0)
    tests = [row.model_copy(update={"parts": {"half": "test", **row.parts}}) for row in rows]
    cut = [sample(f"t{n}", parts={"half": "train"}) for n in range(20)]
    with pytest.raises(AmstError, match=r"in val\. If that split has a val, .* `val_from_train = "):
        make_split("half", Folds, [*tests, *cut], 0)


class FoldsWithoutVal(Folds):
    val_from_train = True


def test_a_val_is_cut_from_the_train_of_a_split_of_another_name_too():
    rows = [sample(f"s{n:02}", parts={"half": "train" if n < 20 else "test"}) for n in range(30)]
    split = make_split("half", FoldsWithoutVal, rows, 0)
    assert sizes(split) == {"train": 18, "val": 2, "test": 10}
    assert split.note == "val is a seeded tenth of train: the split has none of its own"


def test_a_part_without_samples_is_told_with_what_helps(monkeypatch):
    monkeypatch.setattr(NoVal, "val_from_train", True)
    samples = samples_in(20, 6)
    with pytest.raises(AmstError, match=r"no sample in test\. No sample that was found states"):
        make_split("official", NoVal, with_parts(samples, test=()), 0)
    with pytest.raises(AmstError, match=r"no sample in val\. A val can be cut from a train of"):
        make_split("official", NoVal, with_parts(samples[:12], test=("g1",)), 0)
    with pytest.raises(AmstError, match=r"in val\. Samples are missing: `amst check-data IEMOCAP`"):
        make_split(
            "group-fold1",
            load("IEMOCAP"),
            [sample(s, group=s) for s in ("Session1", "Session3")],
            0,
        )


@pytest.mark.parametrize(("fold", "val"), [(1, 2), (4, 5), (5, 1)])
def test_an_iemocap_fold_tests_one_session_and_validates_on_the_next(fold, val):
    samples = [sample(f"{s}-{n}", group=f"Session{s}") for s in range(1, 6) for n in range(3)]
    split = make_split(f"group-fold{fold}", load("IEMOCAP"), samples, 0)
    assert {each[0] for each in split.parts["test"]} == {str(fold)}
    assert {each[0] for each in split.parts["val"]} == {str(val)}
    assert len(split.parts["train"]) == 9


def urfunny(*ids):
    return [sample(str(each), "FUNNY", "train") for each in ids]


def test_the_urfunny_rule_by_hand():
    """Twenty made-up ids, sorted as integers (as text 101 would come before 12).

    The shuffle is spelled out as Fisher and Yates' from the end, with draws below n made of the
    generator's random bits as the Python library defines them.
    """
    ids = [
        101,
        3,
        20,
        9,
        1500,
        28,
        12,
        15,
        700,
        450,
        333,
        222,
        111,
        640,
        645,
        650,
        655,
        660,
        665,
        5,
    ]
    by_hand = sorted(ids)
    generator = random.Random(0)
    for last in range(len(by_hand) - 1, 0, -1):
        other = last + 1
        while other > last:
            other = generator.getrandbits((last + 1).bit_length())
        by_hand[last], by_hand[other] = by_hand[other], by_hand[last]
    split = make_split("amst", load("URFUNNY"), urfunny(*ids), seed=7)
    assert split.parts["train"] == [str(each) for each in by_hand[:16]]
    assert split.parts["val"] == [str(each) for each in by_hand[16:18]]
    assert split.parts["test"] == [str(each) for each in by_hand[18:]]
    assert split.parts["train"][:3] == ["333", "700", "660"]


def test_the_parts_of_urfunny_are_rounded_down_and_the_rest_is_for_the_test():
    split = make_split("amst", load("URFUNNY"), urfunny(*range(26)), 0)
    # 0.8 x 26 = 20.8 and 0.1 x 26 = 2.6.
    assert sizes(split) == {"train": 20, "val": 2, "test": 4}


def test_a_lost_urfunny_clip_changes_no_other_clips_part():
    whole = make_split("amst", load("URFUNNY"), urfunny(*range(100)), 0)
    lost = [
        Rejected(id="17", reason="no file"),
        Rejected(id="urfunny2_videos/400.mp4", reason="no annotation"),
    ]
    rest = [each for each in urfunny(*range(100)) if each.id != "17"]
    split = make_split("amst", load("URFUNNY"), rest, 0, rejected=lost)
    assert split.parts == {
        part: [each for each in ids if each != "17"] for part, ids in whole.parts.items()
    }
    assert split.absent == ["17"]


def test_ids_that_are_not_those_of_urfunny_are_noticed():
    with pytest.raises(AmstError, match=", ".join(URFUNNY_TRAIN_START)):
        make_split("amst", load("URFUNNY"), urfunny(*range(10166)), 0)


@pytest.fixture
def mvsa_lists(tmp_path, monkeypatch):
    """Published lists of a miniature MVSA, known by their checksums as the real ones are."""
    rows = {"train": "5.jpg positive\n3.jpg neutral\n", "val": "7.jpg negative\n"}
    rows["test"] = "3.jpg neutral\n9.jpg positive\n"
    files = []
    (tmp_path / "MVSA").mkdir()
    for part, text in rows.items():
        (tmp_path / f"MVSA/my_{part}_mvsa.txt").write_text(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        files.append(ListFile(part, f"MVSA/my_{part}_mvsa.txt", digest, text.count("\n")))
    monkeypatch.setitem(LISTS, "MVSA", tuple(files))
    return tmp_path


def pairs(**labels):
    return [sample(pair[1:], label) for pair, label in labels.items()]


def test_published_lists_keep_their_order_and_name_what_is_lacking(mvsa_lists):
    samples = pairs(_3="neutral", _5="positive", _7="negative", _11="positive")
    split = make_split("amst", load("MVSA"), samples, 0, mvsa_lists)
    assert split.parts == {"train": ["5", "3"], "val": ["7"], "test": ["3"]}
    assert split.absent == ["9"]
    assert split.unassigned == ["11"]
    leaks = leakage(split, samples)
    assert [shared.value for shared in leaks.ids] == ["3"]
    assert leaks.groups == [], "a sample without a group shares it with nobody"


def test_what_lists_lack_and_what_they_name_in_vain_is_sorted_and_named_once(mvsa_lists):
    samples = pairs(_5="positive", _7="negative", _9="positive", _12="neutral", _11="positive")
    split = make_split("amst", load("MVSA"), samples, 0, mvsa_lists)
    assert split.absent == ["3"], "which two lists name"
    assert split.unassigned == ["11", "12"]


def test_a_label_that_differs_from_the_published_list_is_an_error(mvsa_lists):
    samples = pairs(_3="neutral", _5="negative", _7="negative", _9="positive")
    with pytest.raises(AmstError, match="sample 5 of MVSA is 'negative' in the raw data"):
        make_split("amst", load("MVSA"), samples, 0, mvsa_lists)


def test_an_amst_split_without_lists_says_how_to_get_them(tmp_path):
    with pytest.raises(AmstError, match="amst fetch-lists CREMAD"):
        make_split("amst", load("CREMAD"), [sample("1")], 0)
    with pytest.raises(AmstError, match=r"no list .*80_train_cre.txt"):
        make_split("amst", load("CREMAD"), [sample("1")], 0, tmp_path)


def test_a_split_is_read_as_it_was_written(tmp_path):
    split = make_split("random", Grouped, samples_in(20, 3), 4)
    write_split(tmp_path / "random.json", split)
    assert read_split(tmp_path / "random.json") == split


def test_samples_without_a_group_are_not_one_group(monkeypatch):
    rows = [sample(f"s{n}", "ab"[n % 2]).model_copy(update={"group": ""}) for n in range(40)]
    alone = make_split("group", Grouped, rows, 4)
    assert {part: len(ids) for part, ids in alone.parts.items()} == {
        "train": 32,
        "val": 4,
        "test": 4,
    }
    assert leakage(alone, rows).groups == []
    stated = [row.model_copy(update={"part": "train"}) for row in rows]
    tested = sample("t", "a").model_copy(update={"part": "test"})
    monkeypatch.setattr(NoVal, "val_from_train", True)
    parts = make_split("official", NoVal, [*stated, tested], 4).parts
    assert (len(parts["train"]), len(parts["val"])) == (36, 4)


def test_a_split_written_by_hand_has_all_parts(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(
        '{"format": 1, "dataset": "X", "name": "x", "seed": 0, "parts": {"test": ["a"]}}'
    )
    said = "mine.json: parts: no train and no val; a part without samples is an empty list. Mend"
    with pytest.raises(AmstError, match=re.escape(said)):
        read_split(path)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}', "[1, 2", '{"é"'])
def test_a_damaged_split_file_is_named(content, tmp_path):
    path = tmp_path / "random.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(AmstError, match=r"random.json (is not a|has) split .*delete any other if"):
        read_split(path)
    with pytest.raises(AmstError, match=r"other.json is not a split .*No such file"):
        read_split(tmp_path / "other.json")


@pytest.fixture
def leaky():
    samples = [
        sample("t1", "a", "g1", part="train"),
        sample("t2", "b", "g2", part="train"),
        sample("v1", "a", "g1", part="val"),
        sample("e1", "a", "g3", part="test"),
    ]
    return make_split("official", load("AVE"), samples, 0), samples


def test_leakage_finds_groups_and_counts_classes(leaky):
    report = leakage(*leaky)
    assert report.counts == {
        "train": {"a": 1, "b": 1},
        "val": {"a": 1, "b": 0},
        "test": {"a": 1, "b": 0},
    }
    assert [(shared.value, shared.parts) for shared in report.groups] == [
        ("g1", {"train": ["t1"], "val": ["v1"]})
    ]
    assert report.media is None
    assert report.missing == {"b": ["val", "test"]}
    assert report.missing_line == "b in val and test (1 in all)"


def test_of_many_classes_that_a_part_lacks_only_some_are_named():
    rows = [sample(f"{c}{n}", f"class{c:02}") for c in range(12) for n in range(2)]
    line = leakage(make_split("random", load("MVSA"), rows, 0), rows).missing_line
    assert line.count(" in all)") == 8
    assert line.endswith(", and 4 more classes")


def test_leakage_finds_equal_bytes_per_modality(leaky):
    checksums = {
        "t1": {"audio": "aa", "visual": "11"},
        "t2": {"audio": "bb", "visual": "22"},
        "v1": {"audio": "cc", "visual": "22"},
        "e1": {"audio": "dd", "visual": "bb"},
    }
    report = leakage(*leaky, checksums)
    assert [(shared.value, shared.parts) for shared in report.media] == [
        ("visual 22", {"train": ["t2"], "val": ["v1"]})
    ]


def test_clips_of_one_recording_are_not_equal_media():
    samples = [
        sample("t", part="train", start=0.0, end=1.0),
        sample("v", part="val", start=1.0, end=2.0),
        sample("e", part="test", start=0.0, end=1.0),
    ]
    split = make_split("official", load("AVE"), samples, 0)
    report = leakage(split, samples, {each: {"audio": "aa"} for each in "tve"})
    assert [shared.parts for shared in report.media] == [{"train": ["t"], "test": ["e"]}]


def test_clips_of_one_recording_that_overlap_are_told():
    one, other = {"audio": "a.avi", "visual": "a.avi"}, {"audio": "b.wav", "visual": "b.avi"}
    files = {"t1": one, "t2": one, "v": one, "e": one, "t3": other, "e2": other, "w": one}
    times = {"t1": (0, 2), "t2": (2, 4), "v": (1.5, 1.8), "e": (4, 5), "t3": (0, 9), "e2": (8, 10)}
    samples = [
        sample(name, start=float(a), end=float(b)).model_copy(update={"files": files[name]})
        for name, (a, b) in times.items()
    ]
    samples.append(sample("w").model_copy(update={"files": one}))
    parts = {"train": ["t1", "t2", "t3"], "val": ["v", "w"], "test": ["e", "e2"]}
    report = leakage(Split(dataset="X", name="random", seed=0, parts=parts), samples)
    assert [(shared.value, shared.parts) for shared in report.overlaps] == [
        ("a.avi", {"train": ["t1"], "val": ["v"]}),
        ("b.avi", {"train": ["t3"], "test": ["e2"]}),
        ("b.wav", {"train": ["t3"], "test": ["e2"]}),
    ]


def test_a_split_of_other_samples_is_refused(leaky):
    split, samples = leaky
    with pytest.raises(AmstError, match="names e1, which is no sample"):
        leakage(split, samples[:-1])


def test_a_cut_by_groups_shares_nothing():
    samples = samples_in(30, 6)
    report = leakage(make_split("group", Grouped, samples, 0), samples, {})
    assert (report.ids, report.groups, report.media, report.overlaps) == ([], [], [], [])
