"""What every registered dataset promises, whichever it is: the check of docs/add-a-dataset.md."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import amst.datasets
from amst.config.run import Kind
from amst.datasets import digits, registry
from amst.datasets.base import BUILT_IN, FOLDS, PARTS, Rejected, Sample
from amst.datasets.facts import check_facts
from amst.datasets.registry import load, names
from amst.datasets.splits import leakage, make_split
from amst.errors import AmstError
from amst.features.samples import list_samples
from tests.datasets import rawtrees

ROOT = Path(amst.datasets.__file__).parents[3]
NAMES = names()
MOST_CLASSES = 30
"""So many classes, of those that a dataset has, are in its miniature tree."""


def _is_derived(dataset):
    """Whether it is another registered dataset, cut by a list of one's own."""
    return any(type(load(name)) in type(dataset).__mro__[1:] for name in NAMES)


WHOLE = [
    name for name in NAMES if name in ("digits", *rawtrees.NAMES) or not _is_derived(load(name))
]
"""Datasets with a page and a miniature raw tree of their own."""


@pytest.fixture(scope="session")
def raw_of(tree_of, tmp_path_factory):
    """A miniature raw folder of any registered dataset."""
    small = tmp_path_factory.mktemp("digits")
    digits.make(small, digits.DigitsSettings(samples=60, pools=12, seconds=0.2))
    return lambda name: small if name == "digits" else tree_of(name).raw


def samples_of(name, raw):
    return [row for row in load(name).read(raw) if isinstance(row, Sample)]


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_stated(name):
    dataset = load(name)
    assert dataset.name == name
    assert list(dataset.classes) == sorted(set(dataset.classes))
    assert len(dataset.classes) > 1
    assert len(dataset.modalities) > 1
    assert set(dataset.modalities.values()) <= set(get_args(Kind))
    assert dataset.splits
    assert dataset.fingerprint() == load(name).fingerprint()


@pytest.mark.parametrize("name", WHOLE)
def test_its_page_tells_layout_and_command(name):
    page = (ROOT / (load(name).page or f"docs/datasets/{name}.md")).read_text(encoding="utf-8")
    # IEMOCAP is a view of the shards of IEMOCAP3.
    shards = "IEMOCAP3" if name == "IEMOCAP" else name
    assert f"snakemake results/features/{shards}/manifest.json" in page, "targets come first"
    assert f"amst samples {name}" in page
    for split in load(name).splits:
        assert f"`{split}`" in page
    if load(name).expected_samples is not None:
        assert re.search(rf"\b{load(name).expected_samples}\b", page)


def test_reading_needs_neither_torch_nor_a_media_library():
    readers = [name for name in NAMES if name != "digits"]
    code = (
        "import sys, amst.datasets.registry, amst.datasets.splits\n"
        f"for name in {readers}: amst.datasets.registry.load(name)\n"
        "print({'torch', 'pandas', 'av', 'cv2', 'soundfile', 'PIL', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", WHOLE)
def test_rows_are_complete_and_always_the_same(name, raw_of):
    dataset, raw = load(name), raw_of(name)
    rows = list(dataset.read(raw))
    assert rows == list(dataset.read(raw))
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert not isinstance(row, Rejected), row
        assert row.label in dataset.classes
        assert row == Sample.model_validate_json(row.model_dump_json())
        assert all((raw / file).is_file() for file in row.files.values())
        for modality, kind in dataset.modalities.items():
            assert modality in row.files or (kind == "text" and row.text)
    assert len({row.label for row in rows}) >= min(len(dataset.classes), MOST_CLASSES)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        (name, split)
        for name in WHOLE
        for split in load(name).splits
        if split != "amst" or name == "URFUNNY"
    ],
)
def test_every_split_that_needs_no_published_list_cuts_the_samples(name, split, tree_of, raw_of):
    _check_cut(load(name), split, samples_of(name, raw_of(name)))


def _check_cut(dataset, split, samples):
    samples = [*samples, *_more(dataset)]
    cut = make_split(split, dataset, samples, seed=0)
    ids = [each for part in PARTS for each in cut.parts[part]]
    assert sorted([*ids, *cut.unassigned]) == sorted(sample.id for sample in samples)
    report = leakage(cut, samples)
    assert not report.ids
    if split in ("group", *FOLDS) or dataset.random_keeps_groups:
        assert not report.groups


def _more(dataset):
    """Rows that make a tree of any size large enough to be cut, each a group of its own."""
    return [
        Sample(
            id=str(80000 + index),
            label=dataset.classes[index % len(dataset.classes)],
            group=str(80000 + index),
            files={},
            part=PARTS[index % 3],
            parts={split: PARTS[index % 3] for split in dataset.splits if split not in BUILT_IN},
        )
        for index in range(30)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_raw_folder_is_a_clear_error(name, tmp_path):
    with pytest.raises(AmstError, match=re.escape(str(tmp_path))):
        list(load(name).read(tmp_path))


def test_an_unknown_dataset_is_an_error_that_names_the_known_ones():
    with pytest.raises(AmstError, match="CREMAD"):
        load("CREMA-D")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("IEMOCAP", "dataset IEMOCAP has no option 'audio_form'. Its options: audio_from"),
        ("CREMAD", "dataset CREMAD has no option 'audio_form'. It has none"),
    ],
)
def test_an_option_that_a_dataset_lacks_is_an_error_that_names_those_it_has(name, said):
    with pytest.raises(AmstError, match=re.escape(said)):
        load(name, {"audio_form": "sentences"})


@pytest.mark.parametrize(
    "line", ["class Talk(Dataset): name = 'Talks'", "class Talk: name = 'Talk'"]
)
def test_a_file_without_the_dataset_that_is_registered_for_it_is_told(line, tmp_path, monkeypatch):
    monkeypatch.setitem(registry._MODULES, "Talk", f"talk{len(line)}")
    monkeypatch.setattr(amst.datasets, "__path__", [*amst.datasets.__path__, str(tmp_path)])
    file = tmp_path / f"talk{len(line)}.py"
    file.write_text(f"from amst.datasets.base import Dataset\n\n\n{line}\n")
    with pytest.raises(AmstError) as caught:
        load("Talk")
    assert str(caught.value) == (
        f"{file} defines no dataset 'Talk'. "
        'Derive its class from Dataset and state `name = "Talk"` in it'
    )


@pytest.mark.parametrize("name", ["My Birds", "Birds+Cats", "birds/2", "-birds", ""])
def test_a_name_that_breaks_commands_or_wildcards_is_refused(name):
    called = type("Walk", (digits.Digits,), {"name": name})
    with pytest.raises(AmstError, match=re.escape(f"mine.py: Walk cannot be called {name!r}. Use")):
        check_facts(called, "mine.py")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "dataset Walk: there is no amst/datasets/walk0.py. Correct its line in _MODULES"),
        ("class Walk(Dataset)", "walk1.py, line 4: expected ':'. Mend the file"),
        (
            "class Walk(Dataset):\n    name = 'Walk'\n    classes = ()",
            "walk2.py: class Walk lacks modalities, read. See docs/add-a-dataset.md",
        ),
        *(
            (
                f"class Walk(Dataset):\n    name = 'Walk'\n    classes = {classes}\n"
                "    modalities = read = {}",
                f"walk{number}.py: the classes of Walk are no sorted tuple of texts.",
            )
            for number, classes in enumerate(
                ((False, True), ["a", "b"], ("b", "a"), ("a", "a")), start=3
            )
        ),
        *(
            (
                "class Walk(Dataset):\n    name = 'Walk'\n    classes = ('a', 'b')\n"
                f"    read = None\n    modalities = {{'acc': 'audio'}}\n    {fact}",
                f"walk_{number}.py: {wrong}",
            )
            for number, (fact, wrong) in enumerate(
                (
                    (
                        "modalities = {'acc': 'series'}",
                        "modality acc of Walk is of the kind 'series'. The kinds are audio, vis",
                    ),
                    *(
                        (
                            f"modalities = {{'{called}': 'audio'}}",
                            f"a modality of Walk cannot be called '{called}'. Use no + and no /",
                        )
                        for called in ("left+right", "rgb/flow", "label", "")
                    ),
                    ("splits = ('fold1')", "the splits of Walk are no tuple of texts that differ"),
                    ("splits = ('a', 'a')", "the splits of Walk are no tuple of texts that differ"),
                    ("splits = ('fold/1',)", "the split 'fold/1' of Walk cannot name a folder"),
                    ("splits = ('.1',)", "the split '.1' of Walk cannot name a folder"),
                    ("splits = ('amst',)", "Walk has the split amst, and Walk no published lists"),
                    (
                        "splits = ('group-fold2',)",
                        "Walk has the split group-fold2, which is of sessions of IEMOCAP. "
                        "Name the split otherwise and state `parts` in its rows",
                    ),
                )
            )
        ),
    ],
)
def test_a_slip_in_a_dataset_s_file_or_line_is_told_in_a_line(source, said, tmp_path, monkeypatch):
    (name,) = re.findall(r"walk_?\d+", said)
    monkeypatch.setitem(registry._MODULES, "Walk", name)
    monkeypatch.setattr(amst.datasets, "__path__", [*amst.datasets.__path__, str(tmp_path)])
    if source:
        file = tmp_path / f"{name}.py"
        file.write_text(f"from amst.datasets.base import Dataset\n\n\n{source}\n")
    with pytest.raises(AmstError, match=re.escape(said)):
        load("Walk")


def _example(name="Birdsong", **known):
    page = (ROOT / "docs/add-a-dataset.md").read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if name in c)
    exec(code, known)
    return known[name]()


def test_the_example_of_splits_of_one_s_own_cuts_by_its_list(tmp_path):
    parts = {"1001_DFA_ANG_XX": "train", "1002_DFA_HAP_XX": "val", "1003_DFA_SAD_XX": "test"}
    more = {f"{1005 + n}_DFA_SAD_XX": {"fold1": "train"} for n in range(8)}
    lists = {clip: {"fold1": part, "fold2": part} for clip, part in parts.items()}
    (tmp_path / "mine.json").write_text(json.dumps({**lists, **more}))
    dataset = _example("MyCREMAD", __file__=str(tmp_path / "mine.py"))
    for clip in (*parts, *more, "1004_DFA_SAD_XX"):
        for folder, suffix in (("AudioWAV", "wav"), ("VideoFlash", "flv")):
            path = tmp_path / folder / f"{clip}.{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"a clip")
    check_facts(type(dataset), "mine.py")
    samples, rejected = list_samples(dataset, tmp_path)
    assert not rejected
    whole, split, less = (
        make_split(name, dataset, samples, seed=0) for name in ("fold1", "fold2", "fold1-quarter")
    )
    assert split.parts == {part: [clip] for clip, part in parts.items()}
    assert split.unassigned == ["1004_DFA_SAD_XX", *more]
    train, of_whole = set(less.parts["train"]), set(whole.parts["train"])
    assert train < of_whole
    assert {**less.parts, "train": []} == {**whole.parts, "train": []}
    (tmp_path / "mine.json").write_text(json.dumps({**lists, "1009": {"fold1": "test"}}))
    with pytest.raises(AmstError, match="1 ids of the list are no clips: 1009"):
        list(dataset.read(tmp_path))


def test_a_new_dataset_needs_a_tree_and_a_split_of_one_s_own_does_not(tmp_path):
    with pytest.raises(LookupError, match=r"Add makers of Birdsong to tests/datasets/rawtrees\.py"):
        rawtrees.build("Birdsong", tmp_path)
    assert not _is_derived(_example())
    assert _is_derived(_example("MyCREMAD"))


@pytest.mark.parametrize("split", [*_example().splits, "groups-of-mine"])
def test_a_new_dataset_of_few_classes_passes_the_check_of_splits(split, tmp_path):
    dataset = _example()
    dataset.splits = (*dataset.splits, "groups-of-mine")
    for number, label in enumerate(2 * dataset.classes):
        path = tmp_path / f"clips/{label}/b{number % 2}-{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a clip")
    _check_cut(dataset, split, list(dataset.read(tmp_path)))


def test_the_example_of_a_new_dataset_works(tmp_path):
    for clip in ("finch/b1-1", "finch/b2-1", "robin/b1-2", "wren/b1-3"):
        path = tmp_path / f"clips/{clip}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if clip == "finch/b2-1" else b"a clip")
    rows = list(_example().read(tmp_path))
    assert [(row.id, getattr(row, "group", "rejected")) for row in rows] == [
        ("b1-1", "b1"),
        ("b2-1", "rejected"),
        ("b1-2", "b1"),
        ("b1-3", "b1"),
    ]
    (tmp_path / "clips/robin/b1-2.mp4").unlink()
    (tmp_path / "clips/robin").rmdir()
    assert [row.id for row in _example().read(tmp_path)] == ["b1-1", "b2-1", "b1-3"]
