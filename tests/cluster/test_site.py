"""The site's file: checked before anything is submitted, and what training jobs ask for by it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.resources import Resource

from amst.cluster import site
from amst.errors import AmstError


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a site's file and name it."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        monkeypatch.setenv("AMST_SITE", str(path))
        return path

    return write


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acount: me", "acount: unknown key. Did you mean 'account'?"),
        ("gpu_request: gre", "gpu_request: unknown name 'gre'. Valid names: gpus, gres"),
        ("status_command: sact", "unknown name 'sact'. Valid names: '', sacct, squeue"),
        (
            "resources: {trian: {mem_mb: 1}}",
            "resources: unknown name 'trian'. Did you mean 'train'",
        ),
        ("resources: {train: {mem: 1}}", "resources.train: unknown name 'mem'. Did you mean 'mem_"),
        ("resources: {train: {clusters: b}}", "resources.train.clusters: jobs are submi"),
        ("resources: {train: }", "resources.train: expected a map of settings, got None"),
        ("jobs: many", "jobs: expected a whole number"),
        ("[gpu]", "is no map of settings"),
        ("account: [", "cannot be read: while parsing"),
    ],
)
def test_a_mistake_is_one_line_with_its_key(written, text: str, said: str):
    path = written(text)
    with pytest.raises(AmstError) as caught:
        site.read_site()
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing yet"])
def test_an_empty_file_is_the_defaults(written, text: str):
    written(text)
    assert site.read_site() == site.Site()


def test_a_named_file_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.setenv("AMST_SITE", "/none/site.yaml")
    with pytest.raises(AmstError, match=r"AMST_SITE: there is no file /none/site\.yaml"):
        site.read_site()


def test_the_file_beside_the_profile_counts_from_any_folder(tmp_path, monkeypatch):
    """An empty AMST_SITE names nothing."""
    profile, elsewhere = tmp_path / "profile", tmp_path / "elsewhere"
    profile.mkdir()
    elsewhere.mkdir()
    (profile / "site.yaml").write_text("account: lab")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("AMST_SITE", "")
    assert site.read_site(profile).account == "lab"


@pytest.mark.parametrize(
    ("settings", "gpus", "asked"),
    [
        ({}, 0, ("cpu", 0, "", "")),
        ({}, 2, ("gpu", 2, "", "")),
        ({"gpu_model": "a100"}, 0, ("cpu", 0, "", "")),
        ({"gpu_model": "a100"}, 1, ("gpu", 1, "a100", "")),
        ({"gpu_request": "gres"}, 0, ("cpu", 0, "", "")),
        ({"gpu_request": "gres"}, 1, ("gpu", 0, "", "gpu:1")),
        ({"gpu_request": "gres", "gpu_model": "a100"}, 2, ("gpu", 0, "", "gpu:a100:2")),
    ],
)
def test_gpus_are_asked_for_in_one_way_and_only_if_wanted(
    settings: dict[str, Any], gpus: int, asked: tuple[str, int, str, str]
):
    given = site.Site(**settings)
    found = given.partition(gpus), given.gpus(gpus), given.model(gpus), given.gres(gpus)
    assert found == asked


def test_memory_of_training_jobs_reaches_the_rule_which_lets_it_grow(written):
    written(yaml.safe_dump({"resources": {"train": {"mem_mb": 9, "runtime": 5}}}))
    environment: dict[str, str] = {}
    site.tell_rules(site.read_site(), environment)
    told = site.told_to_rules(environment)
    assert told == site.read_site()
    assert told.training_mem_mb == 9
    assert site.read_site().overriding() == {"train": {"runtime": 5}}
    written(yaml.safe_dump({"resources": {"train": {"mem_mb": 9}}}))
    assert site.read_site().overriding() == {}, "nothing that Snakemake is to set"


def test_an_expression_for_memory_stays_as_it_is(written):
    written("resources: {train: {mem_mb: 9 * attempt}}")
    assert site.read_site().overriding() == {"train": {"mem_mb": "9 * attempt"}}
    assert site.read_site().training_mem_mb == 0


@pytest.mark.parametrize("name", ["all", "open", "2024-55", "gpu", "a,b", "NAISS2024-5-1", "'cpu'"])
def test_names_reach_sbatch_as_they_are(written, name: str):
    written(yaml.safe_dump({"resources": {"train": {"slurm_partition": name}}}))
    given = site.read_site().overriding()["train"]["slurm_partition"]
    others = {"wildcards": None, "input": [], "attempt": 1, "async_run": None}
    asked = Resource.cli_evaluator("slurm_partition", given, **others)
    assert asked == name.strip("'")


def test_nothing_is_told_without_the_profile():
    assert site.told_to_rules({}) is None
