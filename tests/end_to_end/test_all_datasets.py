"""From raw folders to the table: all real datasets in one call, on miniature raw trees."""

import csv
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from amst.datasets.registry import load
from tests.datasets.rawtrees import NAMES, Tree, build
from tests.end_to_end.suite import Suite
from tests.modelhub import serving, tiny_roberta

METHOD = "amst_alternating"
"""Of the paper's, one that takes each dataset's own skip factors."""
OWNERS = tuple(name for name in NAMES if name != "IEMOCAP")
"""Datasets with shards of their own; IEMOCAP reads those of IEMOCAP3."""
PER_CLASS = {"AVE": 1, "CREMAD": 2, "IEMOCAP3": 1, "MVSA": 5}
"""Samples per class, where not six."""
SPLITS = {
    "AVE": "official",
    "CREMAD": "group",
    "IEMOCAP": "group-fold1",
    "IEMOCAP3": "group-fold1",
    "URFUNNY": "amst",
}
"""The split that is trained on, where not `random`."""
ODD = ("CREMAD", "IEMOCAP3", "MVSA", "URFUNNY")
"""Datasets whose trees hold every known oddity; most of such a small tree is then lost."""

MODEL = "somebody/tiny"
"""A pretrained model on the hub of this test: all tokenizers, and the weights of one encoder."""

ROBERTA = {"name": "roberta", "weights": MODEL, "trainable_layers": 1}
SMALL_TRANSFORMER = {"name": "small_transformer", "layers": 1, "heads": 2, "width": 8}
SMALL_CNN = {"name": "small_cnn", "widths": [4, 8]}


def split_of(dataset: str) -> str:
    return SPLITS.get(dataset, "random")


def modalities(dataset: str) -> dict[str, Any]:
    """Small features and encoders of a dataset's modalities."""
    stills = {"frames": 1} if dataset == "MVSA" else {}
    all_of_them = {
        "audio": {"features": {"mel_bins": 16, "frames": 48}, "encoder": SMALL_CNN},
        "text": {
            "features": {"tokenizer": MODEL, "tokens": 16},
            "encoder": ROBERTA if dataset == "MVSA" else SMALL_TRANSFORMER,
        },
        "visual": {"features": {"size": 32, **stills}, "encoder": SMALL_CNN, "crop": 28},
    }
    found = {name: dict(all_of_them[kind]) for name, kind in load(dataset).modalities.items()}
    for own in found.values() if dataset not in OWNERS else ():
        del own["features"]  # those of the dataset that it shares with
    return found


def settings(trees: dict[str, Tree]) -> dict[str, Any]:
    """What is merged over config.yaml: the trees as raw folders, everything else small."""
    datasets: dict[str, Any] = {
        name: {
            "split": split_of(name),
            "embedding": 8,
            "modalities": modalities(name),
            "recipe": {"epochs": 1, "decay_every": 1},
            "resources": {"gpu": 0, "threads": 1, "mem_mb": 2000, "runtime": 10},
        }
        for name in NAMES
    }
    for name, tree in trees.items():
        datasets[name] |= {
            "raw": str(tree.raw),
            "shards": 2 if name == "IEMOCAP3" else 1,
            "max_lost": 1,
        }
    return {
        "grid": {"datasets": list(NAMES), "methods": [METHOD], "seeds": [0]},
        "datasets": datasets,
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, dict[str, Tree]]:
    """All datasets through one call of Snakemake, up to the tables and one data report."""
    folder = tmp_path_factory.mktemp("all-datasets")
    trees = {
        name: build(name, folder / "raw" / name, PER_CLASS.get(name, 6), oddities=name in ODD)
        for name in OWNERS
    }
    suite = Suite.new(folder, settings(trees))
    files = tiny_roberta(tmp_path_factory.mktemp("model"))
    with serving() as hub, pytest.MonkeyPatch.context() as environment:
        hub.content = {f"/{MODEL}/resolve/main/{name}": data for name, data in files.items()}
        environment.setenv("HF_ENDPOINT", hub.address)
        suite.snakemake("results/tables/main.csv", "results/features/IEMOCAP3/report.html")
    assert len(hub.asked) == len(files), "each file is fetched once, by the rule that does it"
    return suite, trees


def test_every_dataset_goes_from_its_raw_folder_into_the_table(prepared):
    suite, _ = prepared
    rows = list(csv.DictReader(io.StringIO(suite.table())))
    assert {row["dataset"] for row in rows} == set(NAMES)
    for dataset in NAMES:
        folder = f"results/runs/{dataset}/{split_of(dataset)}/{METHOD}/seed0"
        record = json.loads(suite.file(f"{folder}/run.json").read_text())
        assert record["settings"]["modalities"].keys() == modalities(dataset).keys()


@pytest.mark.parametrize("dataset", OWNERS)
def test_what_cannot_be_used_is_listed_and_the_rest_is_there(prepared, dataset: str):
    suite, trees = prepared
    manifest = json.loads(suite.file(f"results/features/{dataset}/manifest.json").read_text())
    tree = trees[dataset]
    reasons = {row["id"]: row["reason"] for row in manifest["rejected"]}
    assert reasons.keys() == tree.rejected.keys() | tree.damaged.keys() | silent(tree)
    assert all(piece in reasons[sample] for sample, piece in tree.rejected.items())
    assert manifest["samples"] == len(tree.samples) - len(tree.damaged) - len(silent(tree))


def test_the_data_report_counts_what_is_no_sample_by_definition(prepared):
    suite, _ = prepared
    report = json.loads(suite.file("results/features/IEMOCAP3/report.json").read_text())
    assert report["set_aside"] == {"label xxx is not used": 10}


def silent(tree: Tree) -> set[str]:
    """Samples without a window of sound, which `short_audio: reject` gives up."""
    return {sample for sample, what in tree.unusual.items() if what.startswith("sound ")}


def test_iemocap_is_a_view_of_the_shards_of_iemocap3(prepared):
    suite, _ = prepared
    assert suite.file("results/features/IEMOCAP3/manifest.json").exists()
    assert not suite.file("results/features/IEMOCAP").exists()


def test_what_is_there_is_checked_by_one_command(prepared):
    suite, _ = prepared
    shutil.copy(suite.checkout / "config.yaml", suite.work)
    done = suite.amst("check-data", "MVSA", "--configfile", str(suite.config), check=False)
    assert done.returncode == 0, "all that is lost is within max_lost"
    assert re.search(r"ok +raw folder \S+: \d+ samples of 4511 expected, \d+ rej", done.stdout)
    assert re.search(r"noted +lost in extraction: 5010: visual: its picture", done.stdout)
    assert re.search(r"ok +split random: \d+ / \d+ / \d+\n", done.stdout)
    assert re.search(r"ok +results/features/MVSA/manifest\.json: \d+ samples in 1", done.stdout)


def test_a_shard_with_one_flipped_byte_is_refused_by_name_before_training(prepared, tmp_path):
    suite = prepared[0].copy(tmp_path / "copy")
    shard = suite.file("results/features/MVSA/shards/000.h5")
    times = shard.stat()
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    # As a disk does it: no time of the file tells that something happened.
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))
    run = f"results/runs/MVSA/random/{METHOD}/seed0"
    suite.file(f"{run}/run.json").unlink()
    assert suite.snakemake(f"{run}/run.json", check=False).returncode != 0
    log = suite.file(f"logs/train/MVSA/random/{METHOD}/seed0.log").read_text()
    named = r"amst: shard results/features/MVSA/shards/000\.h5 is damaged: visual of sample \d+ "
    assert re.search(named, log)
    assert not suite.file(f"{run}/history.csv").exists()


def test_over_the_limit_nothing_trains_and_the_message_names_the_list(prepared, tmp_path):
    suite = prepared[0].copy(tmp_path / "copy")
    values = yaml.safe_load(suite.config.read_text())
    values["datasets"]["MVSA"]["max_lost"] = 0.01
    suite.configure(values)
    run = f"results/runs/MVSA/random/{METHOD}/seed0"
    shutil.rmtree(suite.file(run))
    assert suite.snakemake(f"{run}/run.json", check=False).returncode != 0
    log = suite.file("logs/manifest/MVSA.log").read_text()
    assert re.search(r"MVSA: \d+ of 4511 samples are lost, more than 1\.00%", log)
    assert "results/features/MVSA/lost.csv" in log
    assert "data/5010.jpg" in suite.file("results/features/MVSA/lost.csv").read_text()
    assert not suite.file(run).exists()
