"""What an adoption is still worth."""

import json

import pytest

from amst.errors import AmstError
from amst.files import write_json
from amst.grid.adoptions import Adoptions
from amst.provenance import package_digest, with_packages
from amst.records import RUN_FILES
from amst.training.state import adopted_file, run_digest

RUN = "digits/random/naive/seed0"
OLD, NEW = "old-packages", "new-packages"


@pytest.fixture
def data(tmp_path):
    files = tmp_path / "manifest.json", tmp_path / "split.json"
    for file in files:
        file.write_text("{}")
    return files


@pytest.fixture
def record(tmp_path, data):
    """The record of a run that old code made, adopted for new code."""
    folder = tmp_path / "runs" / RUN
    folder.mkdir(parents=True)
    for name in RUN_FILES:
        (folder / name).write_text("")
    values = {
        "settings_hash": "settings",
        "digest": run_digest("settings", "old", "packages", *data),
        "environment": {"code_digest": "old", "package_digest": "packages"},
    }
    (folder / "run.json").write_text(json.dumps(values))
    adoptions = Adoptions(tmp_path)
    adoptions.add(RUN, OLD, NEW)
    adoptions.save()
    return folder / "run.json"


def made_by(results, data, settings="settings", present=NEW):
    return Adoptions(results).made_by(RUN, settings, present, data)


def test_an_adopted_run_counts_as_made_with_its_own_code(tmp_path, record, data):
    assert RUN in Adoptions(tmp_path)
    assert made_by(tmp_path, data) == OLD
    data[0].unlink()
    assert made_by(tmp_path, data) == OLD, "made again, it is what it was"


def test_an_adoption_is_for_one_state_of_code_and_packages(tmp_path, record, data):
    for present in ("newer-packages", "new-others", OLD):
        assert made_by(tmp_path, data, present=present) == present


def test_an_adoption_that_an_earlier_version_noted_is_of_the_code_alone(tmp_path, record, data):
    """As up to commit d30224c, when other packages trained every run anew."""
    write_json(adopted_file(tmp_path), {RUN: {"from": "old", "to": "new"}})
    assert made_by(tmp_path, data, present=with_packages("new")) == with_packages("new")
    made = record.read_text().replace('"packages"', f'"{package_digest()}"')
    changed = run_digest("settings", "old", package_digest(), *data)
    before = run_digest("settings", "old", "packages", *data)
    record.write_text(made.replace(before, changed))
    assert made_by(tmp_path, data, present=with_packages("new")) == with_packages("old")


@pytest.mark.parametrize("lost", RUN_FILES)
def test_a_run_that_has_lost_a_file_is_trained_by_the_present_code(tmp_path, record, data, lost):
    record.with_name(lost).unlink()
    assert made_by(tmp_path, data) == NEW


def test_a_run_that_was_trained_again_is_not_the_adopted_one(tmp_path, record, data):
    again = record.read_text().replace('"code_digest": "old"', '"code_digest": "new"')
    record.write_text(again)
    assert made_by(tmp_path, data) == NEW


def test_other_settings_or_data_end_an_adoption(tmp_path, record, data):
    assert made_by(tmp_path, data, settings="others") == NEW
    data[1].write_text("{1}")
    assert made_by(tmp_path, data) == NEW


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', '{"a": {"from": "x"}}'])
def test_a_damaged_file_of_adoptions_is_told_in_one_line(tmp_path, text):
    adopted_file(tmp_path).write_text(text)
    with pytest.raises(AmstError, match=r"adopted\.json is damaged .* adopt again"):
        Adoptions(tmp_path)


def test_without_a_file_nothing_is_adopted(tmp_path, data):
    assert RUN not in Adoptions(tmp_path)
    assert made_by(tmp_path, data) == NEW
