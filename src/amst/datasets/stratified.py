"""Cutting samples 80/10/10 into parts: whole groups in one part, classes spread evenly."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from amst.randomness import stream_seed

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
"""Share of the samples in each part."""


def cut(
    labels: Mapping[str, str],
    groups: Mapping[str, str],
    seed: int,
    wanted: Mapping[str, float] = SHARES,
) -> dict[str, list[str]]:
    """Cut samples into train, val and test; a group goes to one part as a whole.

    Groups are dealt one by one, large before small and else in an order that the seed draws, each
    to the part where it leaves the smallest squared deviation from the wanted counts, summed over
    classes and the total and weighted by one over the part's share. This is the greedy idea of
    scikit-learn's ``StratifiedGroupKFold`` with parts of unequal size, no least number of groups
    and an order that no library version changes. Samples that are their own groups give the
    stratified random split, within about one sample per class and part.

    Args:
        labels: class by sample id.
        groups: group by sample id; the id itself where samples are independent.
        seed: the split's seed.
        wanted: share of the samples in each part.

    Returns:
        Ids by part, sorted; the same for any order of ``labels``.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for sample_id in sorted(labels):
        members[groups[sample_id]].append(sample_id)
    parts: dict[str, list[str]] = {part: [] for part in wanted}
    names = list(wanted)
    order = sorted(members, key=lambda group: _turn(group, len(members[group]), seed))
    counts = _class_counts([members[group] for group in order], labels)
    shares = np.array(list(wanted.values()))
    missing = shares[:, None] * counts.sum(axis=0)
    for group, added in zip(order, counts, strict=True):
        # (d + a)^2 - d^2 for a deviation d = -missing that grows by a.
        growth = (added * (added - 2 * missing)).sum(axis=1) / shares
        chosen = int(growth.argmin())
        missing[chosen] -= added
        parts[names[chosen]] += members[group]
    return {part: sorted(ids) for part, ids in parts.items()}


def _turn(group: str, size: int, seed: int) -> tuple[int, int]:
    """Sort key: groups of clearly larger size (a power of two) first, then as the seed draws."""
    return -size.bit_length(), stream_seed(seed, "split", group)


def _class_counts(
    groups: Sequence[Sequence[str]], labels: Mapping[str, str]
) -> NDArray[np.float64]:
    """Samples per class, and in the last column their total, for each group: (groups, C + 1)."""
    column = {label: index for index, label in enumerate(sorted(set(labels.values())))}
    counts = np.zeros((len(groups), len(column) + 1))
    for row, ids in enumerate(groups):
        for label, number in Counter(labels[sample_id] for sample_id in ids).items():
            counts[row, column[label]] = number
        counts[row, -1] = len(ids)
    return counts
