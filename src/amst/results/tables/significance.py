"""Which differences between variants are more than chance: intervals, pairs, McNemar, ranks."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, combinations

import numpy as np

from amst.results.cells import Cell, Collection
from amst.results.comparison import (
    FEWEST_SEEDS,
    Comparison,
    Pair,
    best_of,
    blind_notes,
    drawn_text,
    leaders,
)
from amst.results.sheet import Block, Entry, Table, Value
from amst.results.statistics import FEWEST_FOR_WILCOXON, average_ranks, summarise, wilcoxon
from amst.results.tables.entries import (
    COUNTS,
    NOTHING,
    by_variant,
    counts,
    mean_entry,
    number,
    origins,
    percent,
    seeds_text,
)

PAIR = ("dataset", "split", "variant", "against")
SMALLEST_SHOWN = 0.001
SHARED_CLIPS = ("IEMOCAP", "IEMOCAP3")
"""Datasets that are cut from the same recordings."""
SURENESS = (
    "Seeds deviate by Student's t quantiles. Where few seeds spread much more than the noise of "
    "the test part, or few groups are drawn, p still comes out too small after Holm's correction."
)
"""Stands under everything that rests on the bootstrap."""
THE_BEST = (
    f"The best is the highest of the variants with {FEWEST_SEEDS} seeds or more, where there are "
    "any."
)
"""Stands under everything that compares with the best of a dataset."""


def significance_table(collection: Collection, comparison: Comparison) -> Table:
    """Paired bootstrap of every pair; readers see each variant against the best of its dataset."""
    bold = leaders(collection, comparison)

    def entries(cell: Cell, best: Cell, pair: Pair | None) -> list[Entry]:
        chosen = cell.key in bold
        if cell is best:
            seeds = Entry(seeds_text(len(cell.records), cell), runs=cell.run_ids)
            return [Entry("best", chosen, cell.run_ids), Entry(NOTHING), Entry(NOTHING), seeds]
        if pair is None:
            return [Entry("no common seed"), *[Entry(NOTHING)] * 3]
        runs = (*_runs(cell, pair.seeds), *_runs(best, pair.seeds))
        first, *others = _texts(cell, pair)
        return [Entry(first, chosen, runs), *(Entry(text, runs=runs) for text in others)]

    heads = ("difference", "95 % interval", "p", "seeds")
    return Table(
        name="significance",
        caption="Test accuracy at the epoch with the highest validation accuracy, less that of the "
        "best variant of the dataset, in percentage points, over their common seeds, with 95 % "
        "interval and p.",
        columns=(
            *PAIR,
            *("difference", "ci95_low", "ci95_high", "p", "p_holm", "family", "seeds", "resampled"),
        ),
        rows=tuple(_pair_row(pair, comparison) for pair in comparison.pairs),
        heads=("", *heads),
        blocks=_against_best(collection, comparison, entries, len(heads)),
        notes=(
            "Paired bootstrap of the difference over seeds and the test part"
            f"{_of(collection, comparison)}; the interval is of each difference by itself. p "
            "is after Holm's correction for all pairs of variants of one dataset and split, so an "
            "interval may leave out 0 where p is above 0.05. Bold: the best and all that are not "
            f"significantly worse at 0.05. Under {FEWEST_SEEDS} common seeds there is no p, and "
            "the interval of one common seed knows nothing of the spread between seeds. "
            f"{THE_BEST}",
            *blind_notes(collection, comparison),
            SURENESS,
        ),
        origins=origins(collection.cells),
        beside=("All pairs of variants are in significance.csv.",),
    )


def intervals_table(collection: Collection, comparison: Comparison) -> Table:
    """Accuracy of every variant with a bootstrap interval over seeds and test groups."""
    rows: list[dict[str, Value]] = []
    shown: dict[tuple[str, str, str], Entry] = {}
    for estimate in comparison.estimates:
        cell, interval = estimate.cell, estimate.interval
        rows.append(
            {
                "dataset": cell.dataset,
                "split": cell.split,
                "variant": cell.variant,
                "accuracy": interval.estimate,
                "ci95_low": interval.low,
                "ci95_high": interval.high,
                "seeds": len(cell.records),
                "groups": estimate.groups,
                "samples": estimate.samples,
            }
        )
        text = f"{percent(interval.estimate)} [{percent(interval.low)}, {percent(interval.high)}]"
        shown[cell.key] = Entry(
            f"{text} ({seeds_text(len(cell.records), cell)})", runs=cell.run_ids
        )
    return Table(
        name="intervals",
        caption="Test accuracy in % at the epoch with the highest validation accuracy, "
        "the 95 % interval of a bootstrap over seeds and the test part"
        f"{_of(collection, comparison)}, and in brackets the number of seeds.",
        columns=(
            *("dataset", "split", "variant", "accuracy", "ci95_low", "ci95_high"),
            *("seeds", "groups", "samples"),
        ),
        rows=tuple(rows),
        heads=("", *(collection.title(*block) for block in collection.blocks)),
        blocks=by_variant(collection, lambda cell: shown.get(cell.key, mean_entry(None, cell))),
        notes=(
            "With one seed the interval knows nothing of the spread between seeds. Ends are cut "
            "at 0 and 100.",
            SURENESS,
        ),
        origins=origins(collection.cells),
    )


def mcnemar_table(collection: Collection, comparison: Comparison) -> Table:
    """Exact McNemar test of every pair and seed; readers see each variant against the best."""
    rows: list[dict[str, Value]] = [
        {
            **_names(pair),
            "seed": seed,
            "only_variant_right": test[0],
            "only_against_right": test[1],
            "p": test[2],
        }
        for pair in comparison.pairs
        for seed, test in pair.mcnemar.items()
    ]

    seeds = sorted({seed for pair in comparison.pairs for seed in pair.seeds})

    def entries(cell: Cell, best: Cell, pair: Pair | None) -> list[Entry]:
        if cell is best:
            return [Entry("best", runs=cell.run_ids), *[Entry(NOTHING)] * (len(seeds) - 1)]
        tests = pair.mcnemar if pair else {}
        return [
            Entry(p_text(tests[seed][2]), runs=(*_runs(cell, [seed]), *_runs(best, [seed])))
            if seed in tests
            else Entry(NOTHING)
            for seed in seeds
        ]

    heads = [f"seed {seed}" for seed in seeds] or ["p"]
    return Table(
        name="mcnemar",
        caption="p of the exact McNemar test against the best variant of the dataset, for each "
        "common seed, at the epochs with the highest validation accuracy.",
        columns=(*PAIR, "seed", "only_variant_right", "only_against_right", "p"),
        rows=tuple(rows),
        heads=("", *heads),
        blocks=_against_best(collection, comparison, entries, len(heads)),
        notes=(
            "Each p is of two trained models on one test part, not corrected and not to be "
            f"pooled: it knows nothing of the spread between seeds. {THE_BEST}",
        ),
        origins=origins(collection.cells),
        beside=("All pairs of variants are in mcnemar.csv.",),
    )


def ranks_table(collection: Collection) -> Table:
    """Average rank over the datasets, of the variants that have results on every split of them."""
    variants, datasets, scores = _complete_scores(collection)
    ranks = average_ranks(scores) if datasets else np.array([])
    seeds = {variant: _seeds_of(collection, variant) for variant in variants}
    rows: list[dict[str, Value]] = [
        {
            "variant": variant,
            "average_rank": float(rank),
            "datasets": len(datasets),
            **seeds[variant][0],
        }
        for variant, rank in zip(variants, ranks, strict=True)
    ]
    for (i, theirs), (j, ours) in combinations(enumerate(variants), 2):
        p = wilcoxon(scores[:, j].tolist(), scores[:, i].tolist())
        if p is not None:
            row: dict[str, Value] = {"variant": ours, "against": theirs, "wilcoxon_p": p}
            rows.append({**row, "datasets": len(datasets)})
    order = sorted(range(len(variants)), key=lambda i: (ranks[i], i))
    runs = {v: [c.run_ids for c in collection.cells if c.variant == v] for v in variants}
    body = [
        (
            Entry(collection.label(variants[i])),
            *(
                Entry(text, runs=tuple(chain(*runs[variants[i]])))
                for text in (number(float(ranks[i]), 2), seeds[variants[i]][1])
            ),
        )
        for i in order
    ]
    return Table(
        name="ranks",
        caption="Average rank by test accuracy at the epoch with the highest validation accuracy, "
        "1 the best, of the variants that have results on "
        f"every dataset ({len(datasets)}: {', '.join(map(collection.label, datasets)) or 'none'})"
        f"{_split_text(collection)}.",
        columns=("variant", "against", "average_rank", "datasets", "wilcoxon_p", *COUNTS),
        rows=tuple(rows),
        heads=("", "average rank", "seeds"),
        blocks=(Block("", tuple(body)),),
        notes=("Seeds: those of all datasets together.", *_wilcoxon_note(collection, datasets)),
        origins=origins(collection.cells),
        beside=_wilcoxon_beside(len(datasets)),
    )


def p_text(p: float) -> str:
    """``0.012``, or ``<0.001``."""
    return f"<{SMALLEST_SHOWN}" if p < SMALLEST_SHOWN else f"{p:.3f}"


def _pair_row(pair: Pair, comparison: Comparison) -> dict[str, Value]:
    estimate = next(e for e in comparison.estimates if e.cell is pair.ours)
    return {
        **_names(pair),
        "difference": pair.interval.estimate,
        "ci95_low": pair.interval.low,
        "ci95_high": pair.interval.high,
        "p": pair.p,
        "p_holm": pair.adjusted,
        "family": pair.family,
        "seeds": len(pair.seeds),
        "resampled": estimate.drawn,
    }


def _names(pair: Pair) -> dict[str, Value]:
    values = (pair.ours.dataset, pair.ours.split, pair.ours.variant, pair.theirs.variant)
    return dict(zip(PAIR, values, strict=True))


def _texts(cell: Cell, pair: Pair) -> tuple[str, str, str, str]:
    """Difference, interval, p and seeds of a cell less the best."""
    # The pair may name the best variant first; readers always see the cell less the best.
    sign = 1 if pair.ours is cell else -1
    ends = sorted((sign * pair.interval.low, sign * pair.interval.high))
    return (
        percent(sign * pair.interval.estimate),
        f"[{percent(ends[0])}, {percent(ends[1])}]",
        NOTHING if pair.adjusted is None else p_text(pair.adjusted),
        seeds_text(len(pair.seeds), cell),
    )


def _runs(cell: Cell, seeds: Iterable[int]) -> tuple[str, ...]:
    chosen = set(seeds)
    return tuple(run.id for run in cell.runs if run.seed in chosen and run.seed in cell.records)


def _of(collection: Collection, comparison: Comparison) -> str:
    text = drawn_text(collection, comparison)
    return f" (drawn were {text})" if text else ""


def _against_best(
    collection: Collection,
    comparison: Comparison,
    entries: Callable[[Cell, Cell, Pair | None], list[Entry]],
    width: int,
) -> tuple[Block, ...]:
    """A block per dataset: side by side, six of them would be too small to read."""
    blocks = []
    for block in collection.blocks:
        cells = collection.block(*block)
        best = best_of(cells)
        rows = []
        for cell in cells:
            label = Entry(collection.label(cell.variant))
            if best is None or not cell.records:
                found = [mean_entry(None, cell), *[Entry(NOTHING)] * (width - 1)]
            else:
                found = entries(cell, best, comparison.between(cell, best))
            rows.append((label, *found))
        blocks.append(Block(collection.title(*block), tuple(rows)))
    return tuple(blocks)


def _complete_scores(collection: Collection) -> tuple[list[str], list[str], np.ndarray]:
    """Variants that have results on every split, the datasets, (datasets, variants) accuracies.

    A dataset cut in several ways counts once, with the mean over its splits: one that lacks a split
    would have that of the others, which may be the easier ones.
    """
    accuracy: dict[tuple[str, str, str], float] = {}
    for cell in collection.cells:
        summary = summarise(list(cell.values(cell.main).values()))
        if summary:
            accuracy[cell.key] = summary.mean
    blocks, datasets = collection.blocks, collection.datasets
    variants = [v for v in collection.variants if all((*block, v) in accuracy for block in blocks)]
    scores = [
        [float(np.mean([accuracy[*b, v] for b in blocks if b[0] == d])) for v in variants]
        for d in datasets
    ]
    return variants, datasets, np.array(scores).reshape(len(datasets), len(variants))


def _split_text(collection: Collection) -> str:
    """How several splits of a dataset count; nothing where none has several."""
    several = len(collection.blocks) > len(collection.datasets)
    return " and on every split, by the mean over a dataset's splits" if several else ""


def _seeds_of(collection: Collection, variant: str) -> tuple[dict[str, Value], str]:
    """How many seeds a variant has on all datasets together: as columns and as text."""
    cells = [cell for cell in collection.cells if cell.variant == variant]
    done = sum(len(cell.records) for cell in cells)
    together = Cell("", "", variant, tuple(chain(*(cell.runs for cell in cells))), {})
    return {**counts(together, None), "seeds": done}, seeds_text(done, together)


def _wilcoxon_note(collection: Collection, datasets: Sequence[str]) -> tuple[str, ...]:
    shared = [collection.label(name) for name in SHARED_CLIPS if name in datasets]
    together = f"{' and '.join(shared)} share clips: they are not independent of each other."
    also = (together,) if len(shared) > 1 else ()
    if len(datasets) >= FEWEST_FOR_WILCOXON:
        return also
    smallest = min(1.0, 2 / 2 ** len(datasets))
    return (
        f"Described only: a test over datasets is made from {FEWEST_FOR_WILCOXON} of them up. Over "
        f"{len(datasets)} the smallest two-sided p of Wilcoxon's signed-rank test is "
        f"{smallest:.4g}, before any correction for several pairs.",
        *also,
    )


def _wilcoxon_beside(datasets: int) -> tuple[str, ...]:
    if datasets < FEWEST_FOR_WILCOXON:
        return ()
    return ("Wilcoxon's signed-rank test of every pair, p not corrected, is in ranks.csv.",)
