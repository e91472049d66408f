"""What the results cost: hours, memory and floating-point operations."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from amst.records import RunRecord
from amst.results.cells import Cell, Collection
from amst.results.sheet import TIMES, Block, Entry, Table, Value
from amst.results.statistics import Summary, summarise
from amst.results.tables.entries import (
    COUNTS,
    IDENTITY,
    NOTHING,
    SPREAD,
    counts,
    identity,
    modalities_of,
    origins,
    seeds_text,
    spread,
    states_text,
)

ABOUT = ("device", "quantity", "modality", "unit")
COLUMNS = (*IDENTITY, *ABOUT, *SPREAD, *COUNTS, "reference", "ratio_to_naive")
BASELINE = "naive"
"""Name of the method that ratios are taken to, and of its variant if there are several."""
HOUR = 3600
GIB = 2**30
Quantity = Callable[[RunRecord], float | None]


def hours(record: RunRecord) -> float:
    """Hours on the device: training, validation and waiting for batches, of all epochs.

    What a kill took away and was trained again counts once.
    """
    return record.cost.seconds / HOUR


def operations(record: RunRecord) -> float:
    """Floating-point operations of the whole training, forward and backward."""
    return sum(record.cost.forward_flops.values()) + sum(record.cost.backward_flops.values())


def cost_table(collection: Collection) -> Table:
    """Cost of every variant, with the ratio to the naive one paired over seeds."""
    modalities = modalities_of(collection.cells)
    rows, blocks = [], []
    references = {}
    for dataset, split in collection.blocks:
        cells = collection.block(dataset, split)
        naive = baseline(cells)
        if naive:
            references[collection.title(dataset, split)] = collection.label(naive.variant)
        rows += [row for cell in cells for row in _tidy(cell, naive, modalities)]
        body = tuple(_readers_row(collection, cell, naive, modalities) for cell in cells)
        blocks.append(Block(collection.title(dataset, split), body))
    ratio = f"{TIMES} {collection.label(BASELINE)}"
    heads = ("seeds", "device", "hours", ratio, "epochs", "host GiB", "device GiB")
    return Table(
        name="cost",
        caption="Cost of one run, mean over seeds: hours on the device (training, validation and "
        "waiting for batches), epochs, peak memory, and floating-point operations of training "
        "(forward and backward) per modality.",
        columns=COLUMNS,
        rows=tuple(rows),
        heads=("", *heads, *(f"FLOP {name}" for name in modalities), f"FLOP {ratio}"),
        blocks=tuple(blocks),
        notes=(
            f"{ratio}: ratio to joint training{_named(references)}, paired over seeds; for "
            "hours only over the seeds where both ran on the same device model, captured and "
            "shared with other runs alike.",
            *_altogether(collection.records),
        ),
        origins=origins(collection.cells),
    )


def _altogether(records: Sequence[RunRecord]) -> Iterator[str]:
    """What a venue's checklist asks for: the hours of all runs, on each model of device."""
    spent: dict[str, list[float]] = {}
    for record in records:
        spent.setdefault(record.environment.device, []).append(hours(record))
    if spent:
        told = [f"{sum(h):.3g} hours on {device} ({len(h)})" for device, h in spent.items()]
        yield f"All runs together (how many): {'; '.join(told)}."


def baseline(cells: Sequence[Cell]) -> Cell | None:
    """The cell that ratios are taken to: the variant ``naive``, else the method's first one."""
    found = [cell for cell in cells if cell.method == BASELINE]
    return min(found, key=lambda cell: cell.variant != BASELINE, default=None)


def _named(references: Mapping[str, str]) -> str:
    """Which variants ratios are taken to, each with its datasets where they differ."""
    names = set(references.values())
    if len(names) > 1:
        return f" ({'; '.join(f'{name} on {title}' for title, name in references.items())})"
    return f" ({names.pop()})" if names else ""


def _quantities(modalities: list[str]) -> Iterator[tuple[str, str, str, Quantity]]:
    """(name, modality, unit, how to read it) of every quantity of the tidy form."""
    yield "hours", "", "h", hours
    yield "train_hours", "", "h", lambda record: record.cost.train_seconds / HOUR
    yield "validate_hours", "", "h", lambda record: record.cost.validate_seconds / HOUR
    yield "load_hours", "", "h", lambda record: record.cost.load_seconds / HOUR
    yield "epochs", "", "", lambda record: float(record.settings.recipe.epochs)
    yield "best_epoch", "", "", best_epoch
    yield "parameters", "", "", lambda record: float(record.parameters)
    yield "peak_host", "", "byte", lambda record: float(record.cost.peak_host_bytes)
    yield "peak_device", "", "byte", peak_device
    yield "flops", "", "FLOP", operations
    for name in modalities:
        yield "forward_flops", name, "FLOP", _flops_of(name, backward=False)
        yield "backward_flops", name, "FLOP", _flops_of(name, forward=False)


def peak_device(record: RunRecord) -> float | None:
    """Most memory held on the device, in bytes; None on a CPU, which has none of its own."""
    return float(record.cost.peak_device_bytes) or None


def best_epoch(record: RunRecord) -> float | None:
    """Epoch that the validation part selected for the main prediction, counted from 0."""
    rows = (row for row in record.results if row.selected_by == record.main)
    return next((float(row.best_epoch) for row in rows), None)


def _tidy(cell: Cell, naive: Cell | None, modalities: list[str]) -> list[dict[str, Value]]:
    if not cell.records:
        return [{**identity(cell), "quantity": "hours", "unit": "h", **counts(cell, None)}]
    rows = []
    for name, modality, unit, quantity in _quantities(modalities):
        summary = _summary(cell, quantity)
        if summary is None:
            continue
        same_device = name.endswith("hours") or name == "peak_device"
        about: dict[str, Value] = {
            "device": devices(cell),
            "quantity": name,
            "modality": modality,
            "unit": unit,
        }
        ratio: dict[str, Value] = {
            "reference": naive.variant if naive else None,
            "ratio_to_naive": ratio_to(naive, cell, quantity, same_device),
        }
        rows.append(
            {**identity(cell), **about, **spread(summary), **counts(cell, summary), **ratio}
        )
    return rows


def devices(cell: Cell) -> str:
    """The device models that the cell's runs used."""
    return ", ".join(sorted({record.environment.device for record in cell.records.values()}))


def ratio_to(naive: Cell | None, cell: Cell, quantity: Quantity, same_device: bool) -> float | None:
    """Mean over common seeds of the ratio to ``naive``; None where no seed gives one.

    Args:
        naive: what the ratio is to.
        cell: what the ratio is of.
        quantity: read from each record.
        same_device: whether only seeds count that both trained on the same device model.
    """
    if naive is None:
        return None
    ratios = []
    for seed in sorted(cell.records.keys() & naive.records.keys()):
        mine, other = cell.records[seed], naive.records[seed]
        if same_device and mine.environment.device != other.environment.device:
            continue
        ours, theirs = quantity(mine), quantity(other)
        if ours is not None and theirs:
            ratios.append(ours / theirs)
    summary = summarise(ratios)
    return summary.mean if summary else None


def _summary(cell: Cell, quantity: Quantity) -> Summary | None:
    values = [quantity(record) for record in cell.records.values()]
    return summarise([value for value in values if value is not None])


def _readers_row(
    collection: Collection, cell: Cell, naive: Cell | None, modalities: list[str]
) -> tuple[Entry, ...]:
    label = Entry(collection.label(cell.variant))
    spent = _summary(cell, hours)
    if spent is None:
        empty = [Entry(NOTHING)] * (7 + len(modalities))
        return (label, Entry(states_text(cell)), *empty)
    texts = [
        seeds_text(spent.count, cell),
        devices(cell),
        f"{spent.mean:.3g}",
        _ratio_text(ratio_to(naive, cell, hours, same_device=True)),
        _mean_text(cell, lambda record: record.settings.recipe.epochs, "{:.0f}"),
        _mean_text(cell, lambda record: record.cost.peak_host_bytes / GIB, "{:.1f}"),
        _mean_text(cell, lambda record: (peak := peak_device(record)) and peak / GIB, "{:.1f}"),
        *(_flops_text(_summary(cell, _flops_of(name))) for name in modalities),
        _ratio_text(ratio_to(naive, cell, operations, same_device=False)),
    ]
    return (label, *(Entry(text, runs=cell.run_ids) for text in texts))


def _flops_of(modality: str, forward: bool = True, backward: bool = True) -> Quantity:
    def quantity(record: RunRecord) -> float | None:
        cost = record.cost
        if modality not in cost.forward_flops:
            return None
        there = cost.forward_flops[modality] if forward else 0.0
        return there + (cost.backward_flops.get(modality, 0.0) if backward else 0.0)

    return quantity


def _mean_text(cell: Cell, quantity: Quantity, form: str) -> str:
    summary = _summary(cell, quantity)
    return form.format(summary.mean) if summary else NOTHING


def _ratio_text(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}"


def _flops_text(summary: Summary | None) -> str:
    """Three digits and an SI prefix: ``1.23 P``."""
    if summary is None:
        return NOTHING
    value = summary.mean
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if value < 999.5:
            return f"{value:.3g} {prefix}".rstrip()
        value /= 1000
    return f"{value:.3g} Z"
