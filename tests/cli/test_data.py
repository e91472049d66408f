"""What the steps from raw media to shards say of what they found."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from amst.cli import app
from amst.config.run import AudioFeatures, VisualFeatures
from amst.datasets.base import Rejected, Sample
from amst.datasets.cremad import CREMAD
from amst.datasets.splitfile import read_split
from amst.features.extract import extract_shard
from amst.features.samples import write_samples
from tests.datasets.rawtrees import build


@pytest.mark.parametrize(
    ("more", "told"), [(0, ""), (1, ", more than there should be: look for copies")]
)
def test_more_samples_than_expected_are_remarked_on(more, told, tmp_path, monkeypatch):
    tree = build("CREMAD", tmp_path / "raw", per_class=1)
    monkeypatch.setattr(CREMAD, "expected_samples", 6 - more)
    lists = [f"--{name}={tmp_path / name}.jsonl" for name in ("out", "rejected")]
    options = ["--raw", str(tree.raw), "--options", "{}", *lists]
    done = CliRunner().invoke(app, ["samples", "CREMAD", *options], catch_exceptions=False)
    assert done.output == f"CREMAD: 6 samples of {6 - more} expected{told}, 0 rejected\n"


def test_a_shard_has_the_same_bytes_on_any_number_of_threads(tmp_path):
    raw, samples = build("CREMAD", tmp_path / "raw", per_class=1).raw, tmp_path / "samples.jsonl"
    write_samples(CREMAD(), raw, samples, tmp_path / "lost.jsonl")
    clip = next((raw / "AudioWAV").iterdir())
    # No whole steps of 16 bits, as sums of these are exact; PyTorch shares out more than 32,768.
    noise = np.random.default_rng(1).standard_normal(40_000) / 10
    soundfile.write(clip, noise, 16_000, subtype="FLOAT")
    features = {"audio": AudioFeatures(dtype="float32"), "visual": VisualFeatures(size=8)}
    assert torch.get_num_threads() == 1
    out, rejected = tmp_path / "one.h5", tmp_path / "rejected.jsonl"
    extract_shard(CREMAD(), raw, samples, 0, 1, features, out, rejected)
    given = {name: each.model_dump(mode="json") for name, each in features.items()}
    files = {"raw": raw, "samples": samples, "out": tmp_path / "two.h5"}
    options = {"of": 1, "options": "{}", "features": json.dumps(given)} | files
    command = [sys.executable, "-m", "amst", "extract", "CREMAD", "0"]
    command += [f"--{name}={value}" for name, value in options.items()]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "2"}, check=True)
    assert files["out"].read_bytes() == out.read_bytes()


def test_a_class_that_a_part_lacks_is_told_with_the_split(tmp_path):
    labels = ["Anger"] * 30 + ["Fear"] * 6
    rows = [
        Sample(id=f"{n:02}", label=label, group=f"{n:02}", files={})
        for n, label in enumerate(labels)
    ]
    lines = "".join(f"{row.model_dump_json()}\n" for row in rows)
    (tmp_path / "samples.jsonl").write_text(lines)
    (tmp_path / "rejected.jsonl").write_text("")
    options = ["--folder", str(tmp_path), "--seed", "0", "--lists", str(tmp_path)]
    done = CliRunner().invoke(app, ["split", "CREMAD", "random", *options], catch_exceptions=False)
    sizes, missing = done.output.splitlines()
    assert sizes.startswith("CREMAD, split random: train ")
    assert missing == "  without a sample: Fear in test (6 in all)"


def test_a_val_that_is_cut_from_train_is_told_with_the_split(tmp_path, monkeypatch):
    monkeypatch.setattr(CREMAD, "splits", ("official",))
    monkeypatch.setattr(CREMAD, "val_from_train", True)
    rows = [
        Sample(id=f"{n}", label="Anger", group=f"{n}", files={}, part=part)
        for n, part in enumerate(["train"] * 20 + ["test"])
    ]
    lines = "".join(f"{row.model_dump_json()}\n" for row in rows)
    (tmp_path / "samples.jsonl").write_text(lines)
    (tmp_path / "rejected.jsonl").write_text("")
    options = ["--folder", str(tmp_path), "--seed", "0", "--lists", str(tmp_path)]
    done = CliRunner().invoke(app, ["split", "CREMAD", "official", *options])
    assert done.output.splitlines() == [
        "CREMAD, split official: train 18, val 2, test 1",
        "  val is a seeded tenth of train (whole groups: actor): the dataset has none of its own",
    ]


def test_a_rejected_sample_keeps_its_place_in_the_derived_split(tmp_path):
    rows = [
        Sample(id=str(n), label="FUNNY", group="train", files={}) for n in range(100) if n != 17
    ]
    lines = "".join(f"{row.model_dump_json()}\n" for row in rows)
    (tmp_path / "samples.jsonl").write_text(lines)
    row = Rejected(id="17", reason="its video is missing")
    (tmp_path / "rejected.jsonl").write_text(f"{row.model_dump_json()}\n")
    options = ["--folder", str(tmp_path), "--seed", "0", "--lists", str(tmp_path)]
    out = ["--out", str(tmp_path / "amst.json")]
    command = ["split", "URFUNNY", "amst", *options, *out]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    assert read_split(tmp_path / "amst.json").absent == ["17"]
