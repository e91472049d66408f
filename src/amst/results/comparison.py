"""Paired comparisons of variants from the stored predictions of their runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from amst.errors import AmstError
from amst.files import reading
from amst.randomness import stream_seed
from amst.records import PREDICTIONS
from amst.results.cells import Cell, Collection
from amst.results.predictions import correctness
from amst.results.statistics import (
    DECIMALS,
    RESAMPLES,
    Floats,
    Interval,
    bootstrap_p,
    exact_mcnemar,
    group_resamples,
    holm,
    seed_bootstrap,
)

SIGNIFICANT = 0.05
"""Level that the adjusted p of a significant difference stays below."""
FEWEST_SEEDS = 3
"""Fewest common seeds that give a p: with two, 15 % of equal pairs came out as different."""
FEWEST_GROUPS = 5
"""Fewest test groups that are drawn as such: three give ten different resamples, five give 126."""
UNLISTED = ", whose groups are not all known"
"""Stands behind the name of a dataset whose list of samples is not there or lacks some of them."""


@dataclass(frozen=True)
class Estimate:
    """Accuracy of one variant with an interval over seeds and test groups or samples.

    Attributes:
        listed: whether the group of every test sample is known, if only that it has none.
        too_few: how many groups the test part has where samples were drawn for want of groups.
    """

    cell: Cell
    groups: int
    samples: int
    interval: Interval
    listed: bool
    too_few: int

    @property
    def drawn(self) -> str:
        """What of the test part was drawn: ``18 groups`` or ``150 samples``."""
        whole = self.groups == self.samples
        return f"{self.samples} samples" if whole else f"{self.groups} groups"

    @property
    def remark(self) -> str:
        """Why what was drawn makes p too small where groups differ; empty where it does not."""
        if not self.listed:
            return UNLISTED
        several = "group is" if self.too_few == 1 else "groups are"
        return f", whose {self.too_few} {several} too few to draw" if self.too_few else ""


@dataclass(frozen=True)
class Pair:
    """Accuracy of ``ours`` less that of ``theirs`` over their common seeds.

    Attributes:
        p: of no difference; None under ``FEWEST_SEEDS`` common seeds.
        adjusted: p after Holm's correction for all pairs of this dataset and split that have a p.
            Over one column of a table, so that no other dataset changes what is claimed of this.
        family: how many pairs these are.
        mcnemar: seed -> (only ours right, only theirs right, exact p).
    """

    ours: Cell
    theirs: Cell
    seeds: tuple[int, ...]
    interval: Interval
    p: float | None
    adjusted: float | None
    family: int
    mcnemar: Mapping[int, tuple[int, int, float]]


@dataclass(frozen=True)
class Comparison:
    """All pairs of variants on every split of every dataset.

    Attributes:
        resamples: of the bootstrap.
    """

    estimates: tuple[Estimate, ...]
    pairs: tuple[Pair, ...]
    resamples: int

    def between(self, ours: Cell, theirs: Cell) -> Pair | None:
        """The pair of two cells, whichever is named first; None without a common seed."""
        return self._by_cells.get(frozenset((ours.key, theirs.key)))

    @cached_property
    def _by_cells(self) -> dict[frozenset[tuple[str, str, str]], Pair]:
        return {frozenset((pair.ours.key, pair.theirs.key)): pair for pair in self.pairs}


def compare(
    collection: Collection,
    groups: Mapping[str, Mapping[str, str]],
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare the main predictions of all variants on the test part.

    Args:
        collection: the grid's cells; ``predictions.npz`` lies beside each finished record.
        groups: dataset -> sample id -> group (actor, video); a sample with an empty one or none,
            and all samples of a test part with fewer than ``FEWEST_GROUPS`` groups, stand for
            themselves.
        resamples: of the bootstrap.

    Raises:
        AmstError: predictions are missing, unreadable, or on other samples than the others.
    """
    estimates: list[Estimate] = []
    pairs: list[Pair] = []
    for dataset, split in collection.blocks:
        block = _Block(collection.block(dataset, split), groups.get(dataset, {}), resamples)
        estimates += [block.estimate(cell) for cell in block.cells]
        pairs += _corrected(
            [pair for two in combinations(block.cells, 2) for pair in block.pair(*two)]
        )
    return Comparison(tuple(estimates), tuple(pairs), resamples)


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of one dataset and split with p adjusted for all of them that have one."""
    adjusted = iter(holm([pair.p for pair in pairs if pair.p is not None]))
    family = sum(pair.p is not None for pair in pairs)
    return [
        replace(pair, adjusted=None if pair.p is None else next(adjusted), family=family)
        for pair in pairs
    ]


def best_of(cells: Sequence[Cell]) -> Cell | None:
    """The cell with the highest mean accuracy, the first one if several tie.

    Chosen among those with ``FEWEST_SEEDS`` seeds or more where there are any: nothing can be
    compared with a cell that has fewer.
    """
    finished = [cell for cell in cells if cell.records]
    enough = [cell for cell in finished if len(cell.records) >= FEWEST_SEEDS]
    return max(enough or finished, key=_mean_accuracy, default=None)


def leaders(collection: Collection, comparison: Comparison) -> set[tuple[str, str, str]]:
    """(dataset, split, variant) of the best and of all that are not significantly worse.

    A dataset where the best shares fewer than ``FEWEST_SEEDS`` seeds with all others has none, and
    so has one where no difference could be significant; a variant that shares fewer with the best
    is none.
    """
    found = set()
    blind = _blind(comparison)
    for block in collection.blocks:
        if block in blind:
            continue
        cells = collection.block(*block)
        best = best_of(cells)
        if best is None:
            continue
        pairs = {cell.variant: comparison.between(best, cell) for cell in cells if cell is not best}
        judged = {v: p for v, p in pairs.items() if p and p.adjusted is not None}
        if judged:
            equals = [v for v, pair in judged.items() if not _significantly_above(best, pair)]
            found |= {(*block, variant) for variant in (best.variant, *equals)}
    return found


def _significantly_above(cell: Cell, pair: Pair) -> bool:
    """Whether a cell of the pair is above the other one by more than chance.

    Over their common seeds the best of a dataset can be the lower one.
    """
    sign = 1 if pair.ours is cell else -1
    significant = pair.adjusted is not None and pair.adjusted < SIGNIFICANT
    return significant and sign * pair.interval.estimate > 0


def _blind(comparison: Comparison) -> dict[tuple[str, str], int]:
    """(dataset, split) of so many pairs that none of them can be significant, and how many."""
    families = {(pair.ours.dataset, pair.ours.split): pair.family for pair in comparison.pairs}
    least = bootstrap_p(0, comparison.resamples)
    return {block: size for block, size in families.items() if size * least >= SIGNIFICANT}


def blind_notes(collection: Collection, comparison: Comparison) -> tuple[str, ...]:
    """What is to be said of datasets where no difference could be significant."""
    return tuple(
        f"Nothing is bold on {collection.title(*block)}: for {pairs} pairs of variants no p of "
        f"{comparison.resamples:,} resamples is below {SIGNIFICANT} after Holm's correction, "
        "however large a difference. Choose by the table validation, and compare fewer variants."
        for block, pairs in _blind(comparison).items()
    )


def drawn_text(collection: Collection, comparison: Comparison) -> str:
    """What of each test part the bootstrap drew: ``150 samples of digits; 18 groups of CREMAD``."""
    drawn = {(e.cell.dataset, e.cell.split): e for e in comparison.estimates}
    return "; ".join(
        f"{e.drawn} of {collection.title(*block)}{e.remark}" for block, e in drawn.items()
    )


def groups_of(samples: Path) -> dict[str, str]:
    """Sample id -> group, empty where it has none, read from a list of samples.

    Raises:
        AmstError: as of ``rows_of``.
    """
    return {row["id"]: row["group"] for row in rows_of(samples)}


def rows_of(samples: Path) -> list[dict[str, str]]:
    """Id, label and group of each sample in a dataset's ``samples.jsonl``.

    Raises:
        AmstError: a line is no sample; names file and line.
    """
    found = []
    with reading(samples), samples.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                found.append({name: row[name] for name in ("id", "label", "group")})
            except (ValueError, KeyError, TypeError) as error:
                raise AmstError(
                    f"{samples}, line {number} is no sample", "Run the preparation again"
                ) from error
    return found


class _Block:
    """The test predictions of one split of one dataset and their group resamples."""

    def __init__(self, cells: Sequence[Cell], groups: Mapping[str, str], resamples: int) -> None:
        self.cells = [cell for cell in cells if cell.records]
        self.where = (cells[0].dataset, cells[0].split)
        self.column: dict[tuple[str, int], int] = {}
        rows: list[NDArray[np.bool_]] = []
        ids: list[str] = []
        first = ""
        for cell in self.cells:
            for run in cell.runs:
                if run.seed not in cell.records:
                    continue
                found, correct = correctness(run.path, cell.records[run.seed])
                if ids and found != ids:
                    raise AmstError(
                        f"{first} and {run.id} have {PREDICTIONS} of different test samples",
                        "Run again the one that was made with an older split",
                    )
                ids, first = found, first or run.id
                self.column[cell.variant, run.seed] = len(rows)
                rows.append(correct)
        self.correct = np.array(rows)
        self.listed = all(name in groups for name in ids)
        known = _groups_of(ids, groups)
        enough = len(set(known)) >= min(FEWEST_GROUPS, len(ids))
        self.groups = known if enough else list(ids)
        self.too_few = 0 if enough else len(set(known))
        if rows:
            seed = stream_seed(0, "test groups", *self.where)
            self.resampled = group_resamples(self.correct, self.groups, seed, resamples)

    def estimate(self, cell: Cell) -> Estimate:
        columns = self._columns(cell, tuple(cell.records))
        found = self._bootstrap(self.resampled[:, columns], self.correct[columns].mean(axis=1))
        # Stretched deviations may lead out of what an accuracy can be.
        interval = replace(found, low=max(0.0, found.low), high=min(1.0, found.high))
        count = len(set(self.groups)), len(self.groups)
        return Estimate(cell, *count, interval, self.listed, self.too_few)

    def pair(self, theirs: Cell, ours: Cell) -> Iterator[Pair]:
        """The comparison of two cells, p not yet adjusted; nothing without a common seed."""
        seeds = tuple(sorted(ours.records.keys() & theirs.records.keys()))
        if seeds:
            interval = self.difference(ours, theirs, seeds)
            p = interval.p if len(seeds) >= FEWEST_SEEDS else None
            tests = self.mcnemar(ours, theirs, seeds)
            yield Pair(ours, theirs, seeds, interval, p, None, 0, tests)

    def difference(self, ours: Cell, theirs: Cell, seeds: tuple[int, ...]) -> Interval:
        mine, other = self._columns(ours, seeds), self._columns(theirs, seeds)
        observed = self.correct[mine].mean(axis=1) - self.correct[other].mean(axis=1)
        return self._bootstrap(self.resampled[:, mine] - self.resampled[:, other], observed)

    def mcnemar(
        self, ours: Cell, theirs: Cell, seeds: tuple[int, ...]
    ) -> dict[int, tuple[int, int, float]]:
        columns = zip(self._columns(ours, seeds), self._columns(theirs, seeds), strict=True)
        tests = (exact_mcnemar(self.correct[a], self.correct[b]) for a, b in columns)
        return dict(zip(seeds, tests, strict=True))

    def _bootstrap(self, resampled: Floats, observed: Floats) -> Interval:
        # One stream per number of seeds: a pair's result depends on no other pair.
        seed = stream_seed(0, "seeds", *self.where, len(observed))
        return seed_bootstrap(resampled, [float(value) for value in observed], seed)

    def _columns(self, cell: Cell, seeds: Sequence[int]) -> list[int]:
        return [self.column[cell.variant, seed] for seed in seeds]


def _groups_of(ids: Sequence[str], groups: Mapping[str, str]) -> list[str]:
    """The group of each sample; a sample that has none is one by itself."""
    # The prefix keeps a group from sharing its name with a sample that has none.
    return [f"group {groups[name]}" if groups.get(name) else f"sample {name}" for name in ids]


def _mean_accuracy(cell: Cell) -> float:
    values = cell.values(cell.main)
    return round(fmean(values.values()), DECIMALS)
