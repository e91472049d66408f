"""The main job with fewer samples, fewer methods and one seed: it shows what the suite is about."""

import csv
import os

from tests.end_to_end.suite import Suite

METHODS = ["unimodal_visual", "naive", "amst_joint"]
CHANCE = 0.1
"""Of ten digits."""


def test_joint_training_starves_the_pictures_and_amst_does_not(tmp_path):
    # of seeds 0 to 2 the one with neither the smallest nor the largest difference
    values = {"grid": {"methods": METHODS, "seeds": [1]}}
    values |= {"datasets": {"digits": {"generate": {"samples": 1800}, "shards": 1}}}
    suite = Suite.new(tmp_path, values)
    done = suite.snakemake("results/tables/main.csv")
    cores = len(os.sched_getaffinity(0))
    assert f"Provided cores: {cores}" in done.stdout + done.stderr, "all of them, unasked"
    rows = csv.DictReader(suite.table("unimodal").splitlines())
    mean = {
        (row["variant"], row["prediction"]): float(row["mean"])
        for row in rows
        if (row["part"], row["metric"]) == ("test", "accuracy")
    }
    assert all(mean[method, "fused"] > 3 * CHANCE for method in METHODS)
    alone, joint, skipping = (mean[method, "linear/visual"] for method in METHODS)
    assert 0.4 < mean["unimodal_visual", "fused"] < 0.9
    assert joint < alone - 0.1
    assert skipping > joint + 0.1
