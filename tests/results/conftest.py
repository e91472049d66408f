"""Runs as training leaves them: real records, histories and predictions in real folders."""

import csv
import json
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from amst.config.run import (
    Arithmetic,
    AudioFeatures,
    Modality,
    Recipe,
    RunSettings,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
    VisualFeatures,
)
from amst.datasets.splitfile import Split, write_split
from amst.features.manifest import Manifest
from amst.metrics import metrics_of, shapley
from amst.randomness import stream_seed
from amst.records import Cost, Environment, Result, RunRecord, read_record, write_record
from amst.results.cells import Run

MODALITIES = {
    "audio": Modality(kind="audio", features=AudioFeatures(), encoder=SmallCNN()),
    "text": Modality(kind="text", features=TextFeatures(), encoder=SmallTransformer()),
    "visual": Modality(kind="visual", features=VisualFeatures(), encoder=SmallCNN(), crop=32),
}
# method -> modality -> (accuracy it reaches, epochs it takes): audio is quick, visual is slow.
LEARNING = {
    "unimodal": {"audio": (0.70, 4), "text": (0.60, 5), "visual": (0.75, 12)},
    "naive": {"audio": (0.68, 4), "text": (0.50, 6), "visual": (0.40, 15)},
    "other": {"audio": (0.67, 5), "text": (0.58, 6), "visual": (0.70, 12)},
}
ELSEWHERE = 0.1
"""What a prediction loses at an epoch that is not the one the tables show it at."""
SKIPS = {"amst_alternating": {"audio": 5, "text": 10}, "amst_full": {"audio": 5, "text": 10}}


@dataclass(frozen=True)
class Plan:
    """One run to be made.

    ``shift`` moves every accuracy of the run; ``values`` fixes the accuracy of named predictions
    at the epoch that the tables show them at.
    """

    root: Path
    dataset: str = "digits"
    split: str = "random"
    variant: str = "naive"
    method: str = "naive"
    seed: int = 0
    modalities: tuple[str, ...] = ("audio", "text", "visual")
    classes: tuple[str, ...] = tuple("0123456789")
    samples: int = 60
    epochs: int = 30
    recipe: dict = field(default_factory=dict)
    precision: str = "fp32"
    tf32: str = "conv"
    shift: float = 0.0
    values: dict = field(default_factory=dict)
    method_settings: dict = field(default_factory=dict)
    state: str = "done"
    device: str = "cpu"
    seconds: float = 60.0

    def with_(self, **changes):
        return replace(self, **changes)

    @property
    def fused(self):
        if self.method == "mla":
            return ("entropy", "equal", "weights")
        return ("alternating", "fused", "joint") if self.method == "amst_full" else ("fused",)

    @property
    def selecting(self):
        """Fused predictions that select an epoch each; the branches of amst_full select none."""
        return self.fused if self.method == "mla" else ("fused",)

    @property
    def main(self):
        return "equal" if self.method == "mla" else "fused"

    def epoch_of(self, selecting):
        """The epoch that a fused prediction selected: the last one for the main prediction."""
        others = [name for name in self.selecting if name != self.main]
        return self.epochs - 1 - (0 if selecting == self.main else 1 + others.index(selecting))

    @property
    def evaluated(self):
        """(selected_by, prediction): all at every selected epoch, classifiers at the main one."""
        return [
            (selecting, prediction)
            for selecting in sorted(self.selecting)
            for prediction in (*self.fused, *self.per_modality)
            if selecting == self.main or "linear/" not in prediction
        ]

    @property
    def per_modality(self):
        names = [f"{kind}/{m}" for kind in ("modality", "linear") for m in self.modalities]
        if self.method != "unimodal":
            names += [f"probe/{m}" for m in self.modalities]
        if self.method == "amst_full":
            names += [f"joint/{name}" for name in names]
        return names

    def generator(self, *names):
        where = (self.dataset, self.split, self.variant)
        return np.random.default_rng(stream_seed(self.seed, *where, *names))


def run_of(plan):
    """The run as the tables are told of it; its files are made when it is done."""
    names = (plan.dataset, plan.split, plan.variant)
    folder = plan.root.joinpath(*names, f"seed{plan.seed}")
    if plan.state == "done":
        write_files(plan, folder)
    return Run(*names, plan.seed, folder / "run.json", plan.state, plan.method)


def write_files(plan, folder):
    folder.mkdir(parents=True)
    results, stored = [], {"classes": np.array(plan.classes)}
    for part in ("val", "test"):
        labels = np.arange(plan.samples) % len(plan.classes)
        stored[f"{part}/ids"] = np.array([f"{part}-{i:04d}" for i in range(plan.samples)])
        stored[f"{part}/labels"] = labels
        for selected_by, prediction in plan.evaluated:
            logits = logits_of(plan, prediction, part, labels, selected_by)
            key = "logits" if selected_by == plan.main else f"selected/{selected_by}"
            stored[f"{part}/{key}/{prediction}"] = logits
            results.append(
                Result(
                    selected_by=selected_by,
                    best_epoch=plan.epoch_of(selected_by),
                    prediction=prediction,
                    part=part,
                    samples=plan.samples,
                    metrics=metrics_of(logits, labels, plan.classes),
                )
            )
    np.savez(folder / "predictions.npz", **stored)
    write_history(plan, folder / "history.csv")
    columns = "train_seconds,validate_seconds,load_seconds,peak_host_bytes,peak_device_bytes"
    row = f"{plan.seconds},{plan.seconds / 5},0.0,{2**30},0"
    (folder / "cost.csv").write_text(f"epoch,{columns}\n0,{row}\n")
    write_record(folder / "run.json", record_of(plan, tuple(results)))


def record_of(plan, results):
    subsets = {
        "+".join(names): min(0.95, 0.3 + 0.2 * size)
        for size in range(1, len(plan.modalities) + 1)
        for names in combinations(plan.modalities, size)
    }
    settings = RunSettings(
        dataset=plan.dataset,
        split=plan.split,
        variant=plan.variant,
        seed=plan.seed,
        method=plan.method,
        method_settings=plan.method_settings,
        modalities={name: MODALITIES[name] for name in plan.modalities},
        recipe=Recipe(epochs=plan.epochs, **plan.recipe),
        arithmetic=Arithmetic(precision=plan.precision, tf32=plan.tf32),
    )
    return RunRecord(
        run=settings.run_id,
        settings=settings,
        settings_hash=settings.hash,
        digest=settings.hash,
        classes=plan.classes,
        main=plan.main,
        results=results,
        subset_accuracy=subsets,
        shapley=shapley(subsets, empty=1 / len(plan.classes)),
        parameters=1_000_000,
        cost=Cost(
            train_seconds=plan.seconds,
            validate_seconds=plan.seconds / 5,
            load_seconds=0.0,
            peak_host_bytes=2**30,
            peak_device_bytes=0,
            attempts=1,
            forward_flops=dict.fromkeys(plan.modalities, 1e12 * plan.epochs),
            backward_flops=dict.fromkeys(plan.modalities, 2e12 * plan.epochs),
            linear_seconds=0.0,
        ),
        environment=Environment(
            suite_version="0.1.0",
            commit="0123456789abcdef0123456789abcdef01234567",
            code_digest="c" * 64,
            package_digest="p" * 64,
            container_digest="",
            python="3.11.9",
            packages={"numpy": "2.4.6"},
            host="node1",
            device=plan.device,
        ),
        started="2025-01-01T00:00:00+00:00",
        finished="2025-01-01T00:02:00+00:00",
    )


def accuracy_of(plan, prediction):
    """What a prediction reaches at the end of training."""
    if prediction in plan.values:
        return plan.values[prediction]
    learning = LEARNING.get(plan.method, LEARNING["other"])
    name = prediction.rpartition("/")[2]
    if name in learning:
        return learning[name][0] + plan.shift
    more = 0.0 if plan.method == "unimodal" else 0.08
    return min(0.97, max(learning[m][0] for m in plan.modalities) + more + plan.shift)


def logits_of(plan, prediction, part, labels, selected_by):
    """Logits of which exactly the wanted share is correct, on samples that differ between seeds."""
    # A single modality's own prediction is its fused one.
    stream = "fused" if plan.method == "unimodal" else prediction
    at_its_own = selected_by == (prediction if prediction in plan.selecting else plan.main)
    generator = plan.generator(stream, part, *(() if at_its_own else (selected_by,)))
    noise = 0 if prediction in plan.values else generator.normal(0, 0.01)
    wanted = accuracy_of(plan, prediction) - (0 if at_its_own else ELSEWHERE)
    share = min(1.0, max(0.0, wanted + noise))
    right = generator.permutation(len(labels)) < round(share * len(labels))
    answers = np.where(right, labels, (labels + 1) % len(plan.classes))
    logits = generator.normal(0, 0.3, (len(labels), len(plan.classes)))
    logits[np.arange(len(labels)), answers] += 3
    return logits.astype(np.float32)


def write_history(plan, path):
    # Classifiers are fitted when the run ends.
    trained = (name for name in plan.per_modality if "linear/" not in name)
    names = sorted((*plan.fused, *trained))
    header = ["epoch", "active", "train_loss"]
    for name in names:
        header += [f"train_accuracy:{name}", f"val_loss:{name}", f"val_accuracy:{name}"]
    generator = plan.generator("history")
    luck = generator.normal(0, 0.02)
    chance = 1 / len(plan.classes)
    skips = SKIPS.get(plan.method, {})
    learning = LEARNING.get(plan.method, LEARNING["other"])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for epoch in range(plan.epochs):
            active = [m for m in plan.modalities if epoch % skips.get(m, 1) == 0]
            row = [epoch, "+".join(active), repr(2.3 * np.exp(-epoch / 8))]
            for name in names:
                final = accuracy_of(plan, name)
                slowness = learning.get(name.rpartition("/")[2], (0, 8))[1]
                reached = chance + (final - chance) * (1 - np.exp(-(epoch + 1) / slowness))
                value = float(np.clip(reached + luck + generator.normal(0, 0.012), 0, 1))
                row += [repr(value), repr(2.3 * (1 - value)), repr(value)]
            writer.writerow(row)


VARIANTS = {
    "unimodal_audio": ("unimodal", ("audio",)),
    "unimodal_text": ("unimodal", ("text",)),
    "unimodal_visual": ("unimodal", ("visual",)),
    "naive": ("naive", ("audio", "text", "visual")),
    "ogm_ge": ("ogm_ge", ("audio", "text", "visual")),
    "pmr": ("pmr", ("audio", "text", "visual")),
    "mslr": ("mslr", ("audio", "text", "visual")),
    "mla": ("mla", ("audio", "text", "visual")),
    "amst_alternating": ("amst_alternating", ("audio", "text", "visual")),
    "amst_joint": ("amst_joint", ("audio", "text", "visual")),
    "amst_full": ("amst_full", ("audio", "text", "visual")),
}


def plans_of(root, variants=tuple(VARIANTS), seeds=3, **changes):
    """A grid of plans, variants x seeds."""
    return [
        Plan(
            root, variant=name, method=VARIANTS[name][0], modalities=VARIANTS[name][1], seed=seed
        ).with_(**changes)
        for name in variants
        for seed in range(seeds)
    ]


@pytest.fixture
def plan(tmp_path):
    """A finished run of ``naive``; tests change what they are about."""
    return Plan(tmp_path / "runs")


@pytest.fixture
def make():
    """Make the files of plans: plans -> runs."""
    return lambda *plans: [run_of(plan) for plan in plans]


@pytest.fixture
def grid(tmp_path):
    """Plans of a grid: variants x seeds."""
    return lambda *variants, **changes: plans_of(tmp_path / "runs", variants, **changes)


@pytest.fixture
def write_grid():
    """Function: finished runs of ``naive`` on digits, a file -> the grid that plans them."""

    def write(runs, path):
        planned = {
            "format": 2,
            "metric": "accuracy",
            "names": {},
            "variants": [{"name": "naive", "method": "naive"}],
            "datasets": ["digits"],
            "features": {"digits": "digits"},
            "runs": {run.id: read_record(run.path).settings_hash for run in runs},
            "left_out": [],
        }
        path.write_text(json.dumps(planned))

    return write


@pytest.fixture
def write_data():
    """Write a manifest or split file; two are equal if what they are said to be of is."""

    def write(path, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name != "manifest.json":
            parts = {"train": [], "val": [], "test": [what]}
            write_split(path, Split(dataset="digits", name=path.stem, seed=0, parts=parts))
            return
        nothing = {"classes": (), "modalities": {}, "settings": {}, "shards": (), "rejected": ()}
        facts = {"dataset": "digits", "settings_hash": "", "vocabulary": None, "samples": 0}
        path.write_text(Manifest(listed=what, **facts, **nothing).model_dump_json())

    return write


@pytest.fixture
def typeset():
    """Let LaTeX set tables in a paper of two columns: the folder, names of tables -> its log."""
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("neither pdflatex nor tectonic is installed")

    def run(folder, *tables):
        (folder / "paper.tex").write_text(
            "\\documentclass[twocolumn]{article}\n\\usepackage{booktabs,graphicx}\n"
            "\\begin{document}\nText.\n"
            + "".join(f"\\input{{{name}}}\n" for name in tables)
            + "\\end{document}\n"
        )
        halt = ["-halt-on-error", "-interaction=nonstopmode"] if "pdflatex" in compiler else []
        done = subprocess.run([compiler, *halt, "paper.tex"], cwd=folder, capture_output=True)
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said[-2000:]
        assert (folder / "paper.pdf").stat().st_size > 1000
        return said

    return run


@pytest.fixture(scope="session")
def small_grid(tmp_path_factory):
    """Runs of five variants, three seeds, on one dataset; read only."""
    variants = ("unimodal_audio", "unimodal_visual", "naive", "mla", "amst_full")
    return [run_of(plan) for plan in plans_of(tmp_path_factory.mktemp("runs"), variants)]
