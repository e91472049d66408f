"""A wrong configuration gives one line: the key's path, what is wrong, the nearest valid name."""

from pathlib import Path
from typing import Any

import pytest

from amst.errors import AmstError
from amst.grid import check_config, merge, read_config

ROOT = Path(__file__).parents[2]


def put(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``values`` with ``value`` at the dotted ``path``."""
    *folders, last = path.split(".")
    inner = values
    for folder in folders:
        inner = inner.setdefault(folder, {})
    inner[last] = value
    return values


def test_the_shipped_configurations_are_valid():
    config = read_config(ROOT / "config.yaml")
    assert config.grid.datasets == ("digits",)
    paper = read_config(ROOT / "config.yaml", ROOT / "workflow/configs/paper.yaml")
    assert len(paper.grid.datasets) == 6
    assert paper.grid.methods == config.grid.methods


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("grid.sedes", [0], "grid.sedes: unknown key. Did you mean 'seeds'?"),
        ("container.image", "docker://example/amst:1", "container.image: a published image needs"),
        ("recipes", {}, "recipes: unknown key. Did you mean 'recipe'?"),
        ("recipe.epoch", 3, "recipe.epoch: unknown key. Did you mean 'epochs'?"),
        ("recipe.epochs", 0, "recipe.epochs: input should be greater than 0, got 0"),
        ("recipe.epochs", "many", "recipe.epochs: input should be a valid integer"),
        ("grid.seeds", [], "grid.seeds: tuple should have at least 1 item"),
        ("grid.seeds", [-1], "grid.seeds.0: input should be greater than or equal to 0, got -1"),
        ("grid.seeds", [0, 0], "grid.seeds: 0 stands twice"),
        ("grid.datasets", ["digit"], "grid.datasets: unknown name 'digit'. Did you mean 'digits'?"),
        ("grid.methods", ["navie"], "grid.methods: unknown name 'navie'. Did you mean 'naive'?"),
        ("datasets.CREMADD", {"raw": "x"}, "unknown name 'CREMADD'. Did you mean 'CREMAD'?"),
        ("datasets.CREMAD.raw", "", "datasets.CREMAD.raw: missing. Set it to the folder"),
        ("datasets.CREMAD.split", "groups", "datasets.CREMAD.split: unknown name 'groups'"),
        ("datasets.CREMAD.shard", 3, "datasets.CREMAD.shard: unknown key. Did you mean 'shards'?"),
        ("datasets.CREMAD.modalities", {"vision": {}}, "unknown name 'vision'. Did you mean 'vis"),
        (
            "datasets.CREMAD.modalities",
            {"audio": {"features": {"mel_bin": 3}}},
            "datasets.CREMAD.modalities.audio.features.mel_bin: unknown key. Did you mean 'mel_b",
        ),
        (
            "datasets.digits.modalities",
            {"audio": {"encoder": {"name": "small_cnn", "width": [3]}}},
            "encoder.small_cnn.width: unknown key. Did you mean 'widths'?",
        ),
        ("datasets.digits.method_defaults", {"skipp": {}}, "Did you mean 'skip'?"),
        (
            "datasets.digits.method_defaults",
            {"skip": {"audoi": 5}},
            "datasets.digits.method_defaults.skip: unknown name 'audoi'. Did you mean 'audio'?",
        ),
        (
            "datasets.digits.generate",
            {"sampels": 3},
            "datasets.digits.generate.sampels: unknown key. Did you mean 'samples'?",
        ),
        (
            "methods.naive",
            {"method": "amst_joint", "skip": {"audoi": 2}},
            "methods.naive.skip on digits: unknown name 'audoi'. Did you mean 'audio'?",
        ),
        ("methods.a/b", {"method": "naive"}, "methods.a/b: 'a/b' cannot be a folder's name"),
        ("datasets.digits.recipe", {"batch": 3}, "datasets.digits.recipe.batch: unknown key"),
        ("methods.naive.method", "naiv", "methods.naive.method: unknown name 'naiv'. Did you mean"),
        ("methods.amst.skp", 3, "methods.amst.skp: unknown key. Did you mean 'skip'?"),
        ("methods.amst.skip", {"audio": 0}, "methods.amst.skip.audio: input should be greater"),
        ("methods.short.recipe", {"epochs": "x"}, "methods.short.recipe.epochs: input should be"),
        ("methods.short.sweep", {"head": "concat"}, "methods.short.sweep.head: expected a list"),
        ("methods.empty", {}, "methods.empty.method: missing. Valid names: amst_alternating"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path_and_the_nearest_name(values, path, value, message):
    with pytest.raises(AmstError) as caught:
        check_config(put(values, path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_part_is_named(values):
    del values["grid"]
    with pytest.raises(AmstError, match=r"^grid: missing"):
        check_config(values)


def test_broken_yaml_is_told_with_its_line(tmp_path):
    (tmp_path / "config.yaml").write_text("grid:\n  seeds: [1\nmethods: {}\n")
    with pytest.raises(AmstError, match=r"config.yaml, line 3: not YAML"):
        read_config(tmp_path / "config.yaml")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(AmstError, match=r"there is no .*nothing\.yaml"):
        read_config(tmp_path / "nothing.yaml")


def test_maps_merge_and_lists_replace():
    base = {"grid": {"seeds": [0, 1], "datasets": ["a"]}, "x": 1}
    over = {"grid": {"seeds": [5]}, "y": {"z": 2}}
    assert merge(base, over) == {
        "grid": {"seeds": [5], "datasets": ["a"]},
        "x": 1,
        "y": {"z": 2},
    }
