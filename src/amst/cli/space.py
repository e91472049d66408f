"""How much disk and how many files a grid takes, from what is there and from the settings.

Nothing here needs torch or HDF5: a login node with the light set-up plans too.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from amst import grid
from amst.cluster.image import image_name
from amst.config.run import (
    AudioFeatures,
    Features,
    Modality,
    ResNet18,
    Roberta,
    RunSettings,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
    VisualFeatures,
)
from amst.datasets import registry
from amst.datasets.digits import DigitsSettings
from amst.errors import AmstError
from amst.features.manifest import read_manifest
from amst.features.samples import read_summary
from amst.files import sizes_below
from amst.pretrained import STAGED, model_folder
from amst.provenance import SOURCE
from amst.records import RECORD, RUN_FILES, WEIGHTS

_ROW_EXTRAS = 250  # bytes of a sample besides its features: id, group, checksums, paths
_EVALUATED = 0.3  # share of the samples in validation and test part
_RUN_EXTRAS = 100_000  # bytes of a run besides weights and predictions: record, history, events
_RUN_FILES = len(RUN_FILES) + 1  # and events
_STATES = 3  # two are kept, and a third is there while it is written
_BEST = 3  # weights of best epochs that these refer to
_BLOCK = 4096  # bytes that the smallest file takes
_IMAGE = 5_000_000_000  # bytes of an image of the pinned packages
_MODEL = 500_000_000  # bytes of RoBERTa-base with its tokenizer
_VOCABULARY = 50_265  # of RoBERTa


@dataclass(frozen=True)
class Space:
    """What one thing takes on disk.

    Attributes:
        size: bytes; None where nothing tells.
        how: what the number comes from.
        measured: whether it is there already and was looked at.
    """

    what: str
    size: int | None
    files: int
    how: str
    measured: bool = False


@dataclass(frozen=True)
class RunSpace:
    """What a finished run of one dataset and variant takes, and a working one at its peak."""

    size: int
    checkpoints: int
    measured: bool


@dataclass
class _Sizes:
    """Sizes of finished runs' folders, by dataset and variant."""

    runs: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    weights: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)


def row_bytes(features: Features) -> int:
    """Bytes that one modality of a sample takes in a shard."""
    match features:
        case AudioFeatures():
            each = 2 if features.dtype == "float16" else 4
            return features.frames * features.mel_bins * each
        case VisualFeatures():
            return features.frames * features.size**2 * 3
        case TextFeatures():
            return features.tokens * 5  # ids of four bytes, a mask of one


def parameters(modality: Modality, embedding: int) -> tuple[int, int]:
    """(all, those that train) of an encoder, about; a head is some thousands more."""
    match modality.encoder:
        case ResNet18():
            count = 11_177_000 + (0 if embedding == 512 else 512 * embedding)
            return count, count
        case Roberta() as encoder:
            return 124_646_000, 7_088_000 * encoder.trainable_layers
        case SmallCNN() as encoder:
            channels = (1 if modality.kind == "audio" else 3, *encoder.widths)
            pairs = zip(channels, encoder.widths, strict=False)
            count = sum(9 * a * b + 2 * b for a, b in pairs)
            if encoder.widths[-1] != embedding:
                count += encoder.widths[-1] * embedding
            return count, count
        case SmallTransformer() as encoder:
            tokens = getattr(modality.features, "tokens", 0)
            known = 64 if getattr(modality.features, "tokenizer", "") == "digits" else _VOCABULARY
            width = encoder.width
            count = (known + tokens) * width + encoder.layers * 12 * width**2 + width * embedding
            return count, count


def samples_of(config: grid.Config, owner: str, results: Path) -> tuple[int | None, str]:
    """Samples of a dataset, and what says so: its manifest, its list, or the registry."""
    folder = results / "features" / owner
    if (folder / "manifest.json").is_file():
        return read_manifest(folder / "manifest.json").samples, "in the manifest"
    with suppress(AmstError):
        return read_summary(folder / "samples.jsonl").samples, "listed"
    generate = config.datasets[owner].generate
    if generate is not None:
        return DigitsSettings.model_validate(generate).samples, "to be made"
    return registry.load(owner).expected_samples, "expected"


def space_of(config: grid.Config, results: Path, jobs: int) -> list[Space]:
    """What the grid takes when all its runs are done, and its working checkpoints at their peak.

    Args:
        config: the configuration.
        results: folder that the workflow writes to.
        jobs: runs that train at a time.
    """
    owners = list(dict.fromkeys(grid.features_owner(config, n) for n in config.grid.datasets))
    cells = grid.cells(config)
    runs, checkpoints = _runs(config, results, cells, jobs)
    outputs = len(cells) * _RUN_FILES + sum(2 * config.datasets[name].shards for name in owners)
    noted = outputs + 2 * (len(cells) + sum(config.datasets[name].shards for name in owners))
    return [
        *(_features(config, name, results) for name in owners),
        *runs,
        checkpoints,
        *_models(config),
        _image(config),
        Space("logs and notes", noted * _BLOCK, noted, "logs, benchmarks, Snakemake's metadata"),
    ]


def _features(config: grid.Config, owner: str, results: Path) -> Space:
    what, folder = f"features {owner}", results / "features" / owner
    manifest = folder / "manifest.json"
    if manifest.is_file():
        paths = read_manifest(manifest).paths(manifest)
        if all(path.is_file() for path in paths):
            size, files = _measure(folder)
            return Space(what, size, files, f"{len(paths)} shards", measured=True)
    samples, source = samples_of(config, owner, results)
    files = 2 * config.datasets[owner].shards + 5 + len(config.datasets[owner].splits)
    if samples is None:
        return Space(what, None, files, "not known how many samples")
    row = sum(row_bytes(each) for each in grid.features_of(config, owner).values()) + _ROW_EXTRAS
    return Space(what, samples * row, files, f"{samples} samples {source}, {_bytes(row)} each")


def _runs(
    config: grid.Config, results: Path, cells: list[grid.Cell], jobs: int
) -> tuple[list[Space], Space]:
    """Space of the runs of each dataset, and of the checkpoints of those that train at once."""
    found = _finished(results, cells)
    resolve = grid.Resolver(config)
    expected: dict[tuple[str, str], RunSpace] = {}
    spaces, working = [], []
    for dataset in config.grid.datasets:
        own = [cell for cell in cells if cell.dataset == dataset]
        samples = samples_of(config, grid.features_owner(config, dataset), results)[0] or 0
        sizes, files, done = 0, 0, 0
        for cell in own:
            key = (dataset, cell.variant)
            if key not in expected:
                expected[key] = _expected(resolve(cell), samples, found)
            done += cell.run in found.files
            sizes += expected[key].size
            files += found.files.get(cell.run, _RUN_FILES)
            if cell.run not in found.files:
                working.append(expected[key].checkpoints)
        like = sum(expected[dataset, cell.variant].measured for cell in own)
        how = f"{len(own)} runs: {done} done, {like - done} like them, {len(own) - like} by weights"
        spaces.append(Space(f"runs {dataset}", sizes, files, how, done == len(own)))
    peak = sorted(working, reverse=True)[:jobs]
    how = f"{len(peak)} runs at once (--jobs), the largest; they go when a run is done"
    return spaces, Space("working checkpoints", sum(peak), (_STATES + _BEST) * len(peak), how)


def _finished(results: Path, cells: Iterable[grid.Cell]) -> _Sizes:
    sizes = _Sizes()
    for cell in cells:
        folder, key = results / "runs" / cell.run, (cell.dataset, cell.variant)
        if (folder / RECORD).is_file():
            size, sizes.files[cell.run] = _measure(folder)
            sizes.runs.setdefault(key, []).append(size)
            weights = folder / WEIGHTS
            if weights.is_file():
                sizes.weights.setdefault(key, []).append(weights.stat().st_size)
    return sizes


def _expected(settings: RunSettings, samples: int, found: _Sizes) -> RunSpace:
    """What a run takes: as finished ones of its dataset and variant do, else by its encoders."""
    key = (settings.dataset, settings.variant)
    used = settings.modalities
    counts = [parameters(modality, settings.embedding) for modality in used.values()]
    everything, trained = (sum(each) for each in zip(*counts, strict=True))
    weights = round(fmean(found.weights.get(key) or [4 * everything]))
    checkpoints = round(weights * (_STATES * (1 + trained / everything) + _BEST))
    if key in found.runs:
        return RunSpace(round(fmean(found.runs[key])), checkpoints, measured=True)
    classes, heads = len(registry.load(settings.dataset).classes), 1 + 2 * len(used)
    predictions = round(_EVALUATED * samples * 4 * classes * heads)
    return RunSpace(weights + predictions + _RUN_EXTRAS, checkpoints, measured=False)


def _models(config: grid.Config) -> list[Space]:
    """Fetched models of the grid."""
    spaces = []
    for name in grid.models_of(config, config.grid.datasets):
        folder = model_folder(name, STAGED)
        if folder.is_dir():
            spaces.append(Space(f"model {name}", *_measure(folder), "fetched", measured=True))
        else:
            spaces.append(Space(f"model {name}", _MODEL, 8, "as RoBERTa-base"))
    return spaces


def _image(config: grid.Config) -> Space:
    path = Path(config.container.image or f"containers/{image_name(SOURCE.parent)}")
    if path.is_file():
        return Space("image", path.stat().st_size, 1, str(path), measured=True)
    return Space("image", _IMAGE, 1, "only with --sdm apptainer")


def _measure(folder: Path) -> tuple[int, int]:
    """(bytes, files) below a folder."""
    sizes = sizes_below(folder)
    return sum(sizes), len(sizes)


def table(spaces: list[Space]) -> list[str]:
    """Lines of a table with a sum; '~' marks what was estimated."""
    known = [space for space in spaces if space.size is not None]
    sure = all(space.measured for space in spaces)
    more = "" if len(known) == len(spaces) else ", and what is not known"
    total = Space(
        "in all",
        sum(space.size or 0 for space in known),
        sum(space.files for space in spaces),
        ("measured" if sure else "~ is estimated, the rest is there and measured") + more,
        sure,
    )
    rows = [("disk", "size", "files", "")]
    for space in (*spaces, total):
        mark = "" if space.measured else "~"
        size = "?" if space.size is None else mark + _bytes(space.size)
        rows.append((space.what, size, f"{mark}{space.files}", space.how))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows
    ]


def _bytes(size: int) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"


def samples_by_dataset(config: grid.Config, results: Path) -> Mapping[str, int]:
    """Samples of every dataset of the grid of which it is known how many there are."""
    counts = {}
    for name in config.grid.datasets:
        try:
            count = samples_of(config, grid.features_owner(config, name), results)[0]
        except AmstError:  # a damaged manifest stops training, not planning
            continue
        if count:
            counts[name] = count
    return counts
