"""Which differences between variants are more than chance: intervals, pairs, McNemar, ranks."""

from collections.abc import Callable
from itertools import chain, combinations

import numpy as np

from amst.results.cells import Cell, Collection
from amst.results.comparison import FEWEST_GROUPS, Comparison, Pair, best_of, leaders
from amst.results.sheet import Block, Entry, Table, Value
from amst.results.statistics import FEWEST_FOR_WILCOXON, average_ranks, summarise, wilcoxon
from amst.results.tables.entries import NOTHING, mean_entry, number, origins, percent

PAIR = ("dataset", "split", "variant", "against")
SMALLEST_SHOWN = 0.001


def significance_table(collection: Collection, comparison: Comparison) -> Table:
    """Paired bootstrap of every pair; readers see each variant against the best of its dataset."""
    bold = leaders(collection, comparison)

    def entry(cell: Cell, best: Cell, pair: Pair | None) -> Entry:
        chosen = (cell.dataset, cell.split, cell.variant) in bold
        if cell is best:
            return Entry("best", chosen, cell.run_ids)
        return Entry(_difference(cell, pair), chosen, (*cell.run_ids, *best.run_ids))

    return Table(
        name="significance",
        caption="Test accuracy less that of the best variant of the dataset, in percentage "
        "points, over their common seeds, with 95 % interval and p.",
        columns=(
            *PAIR,
            *("difference", "ci95_low", "ci95_high", "p", "p_holm", "seeds", "resampled"),
        ),
        rows=tuple(_pair_row(pair, comparison) for pair in comparison.pairs),
        heads=("", *(collection.title(*block) for block in collection.blocks)),
        blocks=(_against_best(collection, comparison, entry),),
        notes=(
            "Paired bootstrap of the difference over seeds and test groups (actor, session or "
            f"video; samples where there are fewer than {FEWEST_GROUPS} groups), percentile "
            "interval; p after Holm's "
            f"correction for all {len(comparison.pairs)} pairs, all of which are in the CSV. "
            "Bold: the best and all that are not significantly worse at 0.05.",
        ),
        origins=origins(collection.cells),
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
                "seeds": len(estimate.seeds),
                "groups": estimate.groups,
                "samples": estimate.samples,
            }
        )
        text = f"{percent(interval.estimate)} [{percent(interval.low)}, {percent(interval.high)}]"
        shown[cell.dataset, cell.split, cell.variant] = Entry(
            f"{text} ({len(estimate.seeds)})", runs=cell.run_ids
        )
    return Table(
        name="intervals",
        caption="Test accuracy in % with the 95 % interval of a bootstrap over seeds and test "
        "groups (number of seeds).",
        columns=(
            *("dataset", "split", "variant", "accuracy", "ci95_low", "ci95_high"),
            *("seeds", "groups", "samples"),
        ),
        rows=tuple(rows),
        heads=("", *(collection.title(*block) for block in collection.blocks)),
        blocks=(
            _by_variant(
                collection,
                lambda cell: shown.get(
                    (cell.dataset, cell.split, cell.variant), mean_entry(None, cell)
                ),
            ),
        ),
        notes=("With one seed the interval knows nothing of the spread between seeds.",),
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

    def entry(cell: Cell, best: Cell, pair: Pair | None) -> Entry:
        if cell is best:
            return Entry("best", runs=cell.run_ids)
        if pair is None:
            return Entry(NOTHING)
        tests = ", ".join(p_text(pair.mcnemar[seed][2]) for seed in pair.seeds)
        return Entry(tests, runs=(*cell.run_ids, *best.run_ids))

    return Table(
        name="mcnemar",
        caption="p of the exact McNemar test against the best variant of the dataset, for each "
        "common seed in turn.",
        columns=(*PAIR, "seed", "only_variant_right", "only_against_right", "p"),
        rows=tuple(rows),
        heads=("", *(collection.title(*block) for block in collection.blocks)),
        blocks=(_against_best(collection, comparison, entry),),
        notes=(
            "Each p is of two trained models on one test part, not corrected and not to be "
            "pooled: it knows nothing of the spread between seeds.",
        ),
        origins=origins(collection.cells),
    )


def ranks_table(collection: Collection) -> Table:
    """Average rank over the datasets on which all ranked variants have results."""
    variants, datasets, scores = _complete_scores(collection)
    ranks = average_ranks(scores) if datasets else np.array([])
    rows: list[dict[str, Value]] = [
        {"variant": variant, "average_rank": float(rank), "datasets": len(datasets)}
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
            Entry(number(float(ranks[i]), 2), runs=tuple(chain(*runs[variants[i]]))),
        )
        for i in order
    ]
    return Table(
        name="ranks",
        caption="Average rank by test accuracy, 1 the best, of the variants that have results on "
        f"every dataset ({len(datasets)}: {', '.join(datasets) or 'none'}).",
        columns=("variant", "against", "average_rank", "datasets", "wilcoxon_p"),
        rows=tuple(rows),
        heads=("", "average rank"),
        blocks=(Block("", tuple(body)),),
        notes=(_wilcoxon_note(len(datasets)),),
        origins=origins(collection.cells),
    )


def p_text(p: float) -> str:
    """``0.012``, or ``<0.001``."""
    return f"<{SMALLEST_SHOWN}" if p < SMALLEST_SHOWN else f"{p:.3f}"


def _pair_row(pair: Pair, comparison: Comparison) -> dict[str, Value]:
    estimate = next(e for e in comparison.estimates if e.cell is pair.ours)
    grouped = estimate.groups < estimate.samples
    return {
        **_names(pair),
        "difference": pair.interval.estimate,
        "ci95_low": pair.interval.low,
        "ci95_high": pair.interval.high,
        "p": pair.interval.p,
        "p_holm": pair.adjusted,
        "seeds": len(pair.seeds),
        "resampled": f"{estimate.groups} {'groups' if grouped else 'samples'}",
    }


def _names(pair: Pair) -> dict[str, Value]:
    values = (pair.ours.dataset, pair.ours.split, pair.ours.variant, pair.theirs.variant)
    return dict(zip(PAIR, values, strict=True))


def _difference(cell: Cell, pair: Pair | None) -> str:
    if pair is None:
        return NOTHING
    # The pair may name the best variant first; readers always see the cell less the best.
    sign = 1 if pair.ours is cell else -1
    ends = sorted((sign * pair.interval.low, sign * pair.interval.high))
    text = f"{percent(sign * pair.interval.estimate)} [{percent(ends[0])}, {percent(ends[1])}]"
    return f"{text}, p {p_text(pair.adjusted)}"


def _by_variant(collection: Collection, entry: Callable[[Cell], Entry]) -> Block:
    rows = []
    for variant in collection.variants:
        row = [Entry(collection.label(variant))]
        for block in collection.blocks:
            cell = collection.find(*block, variant)
            row.append(entry(cell) if cell else Entry(NOTHING))
        rows.append(tuple(row))
    return Block("", tuple(rows))


def _against_best(
    collection: Collection,
    comparison: Comparison,
    entry: Callable[[Cell, Cell, Pair | None], Entry],
) -> Block:
    best = {block: best_of(collection.block(*block)) for block in collection.blocks}

    def against(cell: Cell) -> Entry:
        leader = best[cell.dataset, cell.split]
        if leader is None or not cell.records:
            return mean_entry(None, cell)
        return entry(cell, leader, comparison.between(cell, leader))

    return _by_variant(collection, against)


def _complete_scores(collection: Collection) -> tuple[list[str], list[str], np.ndarray]:
    """Variants that have results on every dataset, the datasets, (datasets, variants) accuracies.

    A dataset cut in several ways counts once, with the mean over its splits.
    """
    accuracy: dict[tuple[str, str], list[float]] = {}
    for cell in collection.cells:
        summary = summarise(list(cell.values(cell.main).values()))
        if summary:
            accuracy.setdefault((cell.dataset, cell.variant), []).append(summary.mean)
    datasets = sorted({cell.dataset for cell in collection.cells})
    variants = [v for v in collection.variants if all((d, v) in accuracy for d in datasets)]
    scores = [[float(np.mean(accuracy[d, v])) for v in variants] for d in datasets]
    return variants, datasets, np.array(scores).reshape(len(datasets), len(variants))


def _wilcoxon_note(datasets: int) -> str:
    if datasets >= FEWEST_FOR_WILCOXON:
        return "Wilcoxon's signed-rank test of every pair over the datasets is in the CSV."
    return (
        f"Described only, no test: over {datasets} dataset{'s' if datasets != 1 else ''} the "
        "smallest two-sided p that Wilcoxon's signed-rank test can give is "
        f"{min(1.0, 2 / 2**datasets):.4g}; it is made from {FEWEST_FOR_WILCOXON} datasets up."
    )
