"""Splits: named ways to cut a dataset into the parts train, val and test, and what leaks in them.

A split is made from rows of the raw manifest alone, before any file is decoded, and has a seed of
its own. Seeded splits depend on the ids, never on the order of the rows.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from amst.datasets.base import BUILT_IN, FOLDS, PARTS, Dataset, Part, Rejected, Sample
from amst.datasets.lists import read_lists
from amst.datasets.splitfile import Split
from amst.datasets.stratified import cut
from amst.errors import AmstError

URFUNNY_TRAIN_START = ("10397", "3517", "6401")
"""Where the derived `amst` split of the complete UR-FUNNY V2 begins: a check of ids and rule."""

VAL_OF_TRAIN = {"train": 0.9, "val": 0.1}
"""Shares of a train that a val is cut from, where the dataset's own split has none."""

MOST_SHOWN = 8
"""Classes that are named in one line."""

_Parts = dict[str, list[str]]
_Places = dict[str, dict[Part, list[str]]]


def make_split(
    name: str,
    dataset: Dataset | type[Dataset],
    samples: Sequence[Sample],
    seed: int,
    lists: Path | None = None,
    rejected: Iterable[Rejected] = (),
) -> Split:
    """Cut ``dataset`` by the split ``name``.

    Args:
        name: one of ``dataset.splits``.
        dataset: whose samples these are.
        samples: the usable rows of the raw manifest, in any order.
        seed: the split's own seed, used by `random` and `group`, and where a val is cut from train.
        lists: folder with the published lists of the `amst` split (see `amst.datasets.lists`).
        rejected: the other rows of the raw manifest. Only a derived `amst` split needs them: its
            shuffle counts every annotated id, so that one lost file changes no other's part.

    Raises:
        AmstError: the dataset has no such split, two rows have one id, a list is missing or not
            the published one or has other labels than the rows, or a part would be empty.
    """
    if name not in dataset.splits:
        raise AmstError(
            f"dataset {dataset.name} has no split {name!r}",
            f"Its splits are: {', '.join(dataset.splits)}",
        )
    _refuse_repeated(samples)
    absent: list[str] = []
    note = ""
    if name == "random":
        parts = _seeded(samples, seed, whole_groups=dataset.random_keeps_groups)
    elif name == "group":
        parts = _seeded(samples, seed, whole_groups=True)
    elif name in FOLDS:
        parts = _fold(samples, FOLDS[name])
    elif _is_stated(name):
        parts = _stated(samples, name)
        if dataset.val_from_train and not parts["val"]:
            parts, note = _with_val(name, dataset, samples, parts, seed)
    elif dataset.name == "URFUNNY":
        parts, absent = _derived(samples, rejected, dataset.expected_samples)
    else:
        parts, absent = _listed(dataset, samples, lists)
    _refuse_empty(dataset, name, parts)
    assigned = {sample_id for ids in parts.values() for sample_id in ids}
    unassigned = sorted(sample.id for sample in samples if sample.id not in assigned)
    return Split(
        dataset=dataset.name,
        name=name,
        seed=seed,
        parts=parts,
        absent=absent,
        unassigned=unassigned,
        note=note,
    )


def _seeded(samples: Sequence[Sample], seed: int, whole_groups: bool) -> _Parts:
    labels = {sample.id: sample.label for sample in samples}
    groups = {sample.id: _group(sample) if whole_groups else sample.id for sample in samples}
    return cut(labels, groups, seed)


def _group(sample: Sample) -> str:
    """Its group; a sample without one is its own."""
    return sample.group or sample.id


def _fold(samples: Sequence[Sample], fold: int) -> _Parts:
    """IEMOCAP: test is session ``fold``, val the next one, train the rest."""
    test, val = f"Session{fold}", f"Session{fold % len(FOLDS) + 1}"
    part_of = {test: "test", val: "val"}
    parts: _Parts = {part: [] for part in PARTS}
    for sample in samples:
        parts[part_of.get(sample.group, "train")].append(sample.id)
    return {part: sorted(ids) for part, ids in parts.items()}


def _is_stated(name: str) -> bool:
    """Whether the rows say who is in which part of a split."""
    return name == "official" or name not in BUILT_IN


def _stated(samples: Sequence[Sample], name: str) -> _Parts:
    parts: _Parts = {part: [] for part in PARTS}
    for sample in samples:
        part = sample.part if name == "official" else sample.parts.get(name)
        if part is not None:
            parts[part].append(sample.id)
    return {part: sorted(ids) for part, ids in parts.items()}


def _with_val(
    name: str,
    dataset: Dataset | type[Dataset],
    samples: Sequence[Sample],
    parts: _Parts,
    seed: int,
) -> tuple[_Parts, str]:
    """The parts with a val that is cut from train, and the note of that."""
    train = set(parts["train"])
    of_train = [sample for sample in samples if sample.id in train]
    labels = {sample.id: sample.label for sample in of_train}
    groups = {sample.id: _group(sample) if dataset.groups else sample.id for sample in of_train}
    whole = f" (whole groups: {dataset.groups})" if dataset.groups else ""
    owner = "dataset" if name == "official" else "split"
    note = f"val is a seeded tenth of train{whole}: the {owner} has none of its own"
    return {**parts, **cut(labels, groups, seed, VAL_OF_TRAIN)}, note


def _derived(
    samples: Sequence[Sample], rejected: Iterable[Rejected], expected: int | None
) -> tuple[_Parts, list[str]]:
    """UR-FUNNY: all annotated ids in numeric order, shuffled by Python's generator at seed 0."""
    usable = {sample.id for sample in samples}
    lost = {row.id for row in rejected if row.id.isdecimal()} - usable
    ids = sorted(usable | lost, key=int)
    complete = len(ids) == expected
    random.Random(0).shuffle(ids)
    train, val = int(0.8 * len(ids)), int(0.1 * len(ids))
    if complete and tuple(ids[:3]) != URFUNNY_TRAIN_START:
        raise AmstError(
            f"the derived amst split of URFUNNY begins with {', '.join(ids[:3])}, not "
            f"{', '.join(URFUNNY_TRAIN_START)}",
            "The ids in language_sdk.pkl are not those of UR-FUNNY V2; get the file again",
        )
    whole = {"train": ids[:train], "val": ids[train : train + val], "test": ids[train + val :]}
    parts = {part: [each for each in whole[part] if each in usable] for part in whole}
    return parts, sorted(lost, key=int)


def _listed(
    dataset: Dataset | type[Dataset], samples: Sequence[Sample], lists: Path | None
) -> tuple[_Parts, list[str]]:
    """The parts of the published lists, in their order, with what the raw manifest lacks."""
    if lists is None:
        raise AmstError(
            f"the amst split of {dataset.name} needs the published lists",
            f"Fetch them (`amst fetch-lists {dataset.name}`), or set datasets.{dataset.name}.lists",
        )
    labels = {sample.id: sample.label for sample in samples}
    parts: _Parts = {part: [] for part in PARTS}
    absent = []
    for part, entries in read_lists(dataset.name, lists).items():
        for entry in entries:
            if entry.id not in labels:
                absent.append(entry.id)
            elif labels[entry.id] != entry.label:
                raise AmstError(
                    f"sample {entry.id} of {dataset.name} is {labels[entry.id]!r} in the raw data "
                    f"and {entry.label!r} in the published {part} list",
                    "The raw folder holds another release of the dataset, or was changed",
                )
            else:
                parts[part].append(entry.id)
    return parts, sorted(set(absent))


def _refuse_repeated(samples: Sequence[Sample]) -> None:
    repeated = [each for each, n in Counter(sample.id for sample in samples).items() if n > 1]
    if repeated:
        raise AmstError(
            f"the raw manifest has several rows with the id {min(repeated)}",
            "Delete it, and call `snakemake` without targets",
        )


def _refuse_empty(dataset: Dataset | type[Dataset], name: str, parts: _Parts) -> None:
    empty = [part for part in PARTS if not parts[part]]
    if not empty:
        return
    if not _is_stated(name):
        cut_by_seed = name in ("random", "group")
        remedy = "A seeded cut needs about ten samples or groups"
        if not cut_by_seed:
            remedy = (
                f"Samples are missing: `amst check-data {dataset.name}` tells of the raw folder"
            )
    elif empty != ["val"]:
        remedy = "No sample that was found states that part: look for its list and its files"
    elif dataset.val_from_train:
        remedy = "A val can be cut from a train of about ten samples or groups and more"
    else:
        remedy = (
            "If that split has a val, look for its list and its files; if not, state "
            "`val_from_train = True` in the dataset's class, and val is cut from train"
        )
    raise AmstError(
        f"split {name} of {dataset.name} has no sample in {' and '.join(empty)}", remedy
    )


class Shared(BaseModel):
    """Something that lies in several parts: an id, a group, a medium, seconds of a recording.

    Attributes:
        value: the id, the group, ``<modality> <SHA-256>``, or the path of the recording.
        parts: ids of the samples with it, by part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: str
    parts: dict[Part, list[str]]


class LeakageReport(BaseModel):
    """What the parts of a split share, and the classes in each.

    Attributes:
        dataset: name of the dataset.
        split: name of the split.
        counts: samples by part and class; a class without samples is listed with 0.
        ids: ids in several parts.
        groups: groups in several parts; empty where the dataset has no groups.
        media: byte-identical media in several parts; None where no checksums were given.
        overlaps: recordings with clips in several parts that share some of their seconds, as of
            two persons who speak at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    split: str
    counts: dict[Part, dict[str, int]]
    ids: list[Shared]
    groups: list[Shared]
    media: list[Shared] | None
    overlaps: list[Shared]

    @property
    def missing(self) -> dict[str, list[Part]]:
        """Class -> parts that hold no sample of it, of classes that are not in every part."""
        labels = next(iter(self.counts.values()))
        empty = {c: [part for part in PARTS if not self.counts[part][c]] for c in labels}
        return {label: parts for label, parts in empty.items() if parts}

    @property
    def missing_line(self) -> str:
        """The same in one line, with how many samples such a class has; empty if there is none."""
        named = []
        for label, parts in [*self.missing.items()][:MOST_SHOWN]:
            number = sum(counts[label] for counts in self.counts.values())
            named.append(f"{label} in {' and '.join(parts)} ({number} in all)")
        more = len(self.missing) - len(named)
        return ", ".join([*named, f"and {more} more classes"] if more else named)


def leakage(
    split: Split,
    samples: Iterable[Sample],
    sha256: Mapping[str, Mapping[str, str]] | None = None,
) -> LeakageReport:
    """What the parts of ``split`` share.

    Args:
        split: the split.
        samples: rows of the raw manifest; those in no part do not matter. A sample without a
            group (it is empty, or its id) shares it with nobody.
        sha256: checksum of each raw file, by sample id and modality; None when not yet known.
            Clips cut from one recording are the same medium only if start and end agree too.

    Raises:
        AmstError: the split names an id that ``samples`` lack.
    """
    by_id = {sample.id: sample for sample in samples}
    _refuse_foreign(split, by_id)
    labels = sorted({sample.label for sample in by_id.values()})
    counts: dict[Part, dict[str, int]] = {}
    ids: _Places = defaultdict(lambda: defaultdict(list))
    groups: _Places = defaultdict(lambda: defaultdict(list))
    media: _Places = defaultdict(lambda: defaultdict(list))
    for part in PARTS:
        found = Counter(by_id[each].label for each in split.parts[part])
        counts[part] = {label: found[label] for label in labels}
        for sample in (by_id[each] for each in dict.fromkeys(split.parts[part])):
            ids[sample.id][part].append(sample.id)
            if _group(sample) != sample.id:
                groups[sample.group][part].append(sample.id)
            for modality, digest in (sha256 or {}).get(sample.id, {}).items():
                media[_medium(sample, modality, digest)][part].append(sample.id)
    return LeakageReport(
        dataset=split.dataset,
        split=split.name,
        counts=counts,
        ids=_in_several(ids),
        groups=_in_several(groups),
        media=None if sha256 is None else _in_several(media),
        overlaps=_in_several(_overlapping(split, by_id)),
    )


def _refuse_foreign(split: Split, by_id: Mapping[str, Sample]) -> None:
    foreign = sorted({each for ids in split.parts.values() for each in ids} - set(by_id))
    if foreign:
        raise AmstError(
            f"split {split.name} of {split.dataset} names {foreign[0]}, which is no sample",
            "Delete its file, and call `snakemake` without targets",
        )


def _medium(sample: Sample, modality: str, digest: str) -> str:
    is_whole = sample.start is None or modality in sample.whole
    clip = "" if is_whole else f" {sample.start}-{sample.end}"
    return f"{modality} {digest}{clip}"


def _overlapping(split: Split, by_id: Mapping[str, Sample]) -> _Places:
    """Path of a recording -> clips, by part, that share seconds of it with one of another part."""
    clips: dict[str, list[tuple[float, float, Part, str]]] = defaultdict(list)
    for part in PARTS:
        for sample in (by_id[each] for each in dict.fromkeys(split.parts[part])):
            if sample.start is not None and sample.end is not None:
                for path in set(sample.files.values()):
                    clips[path].append((sample.start, sample.end, part, sample.id))
    found: _Places = defaultdict(lambda: defaultdict(list))
    for path, of_recording in clips.items():
        for start, end, part, each in of_recording:
            if any(s < end and start < e and p != part for s, e, p, _ in of_recording):
                found[path][part].append(each)
    return found


def _in_several(places: _Places) -> list[Shared]:
    """What lies in more than one part, sorted."""
    return [
        Shared(value=value, parts={part: sorted(ids) for part, ids in parts.items()})
        for value, parts in sorted(places.items())
        if len(parts) > 1
    ]
