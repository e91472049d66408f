"""A grid that changed where Snakemake cannot know of it."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from amst.grid.unseen import has_no_note, hidden_change

FILE = Path("results/grid.json")
NAME = urlsafe_b64encode(str(FILE).encode()).decode()
NOTE = Path("notes/metadata", NAME)
OLD, NEW = '{"names": {"naive": "Joint \\"late\\""}}', '{"names": {"naive": "O\'Brien"}}'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NOTE.parent.mkdir(parents=True)
    FILE.parent.mkdir()
    FILE.write_text(OLD)


def note(*parameters):
    NOTE.write_text(json.dumps({"params": [repr(each) for each in parameters]}))


def test_an_equal_or_missing_file_is_no_change():
    assert hidden_change(FILE, OLD, Path("notes")) == ""
    FILE.unlink()
    assert hidden_change(FILE, NEW, Path("notes")) == ""


def test_a_file_that_snakemake_did_not_make_has_no_note():
    assert has_no_note(FILE, Path("notes"))
    assert has_no_note(FILE, Path("no-notes"))
    note(OLD)
    assert not has_no_note(FILE, Path("notes"))
    FILE.unlink()
    assert not has_no_note(FILE, Path("no-notes")), "it will be made"


def test_a_change_that_snakemake_sees_is_its_own_affair():
    note(OLD)
    assert hidden_change(FILE, NEW, Path("notes")) == ""


def test_a_call_that_does_not_compare_sees_no_change():
    note(OLD)
    said = hidden_change(FILE, NEW, Path("notes"), compared=False)
    assert "leaves params out" in said
    assert f"Delete {FILE}, {FILE.parent / 'figures'}, " in said, "drawn anew for nothing else"
    assert hidden_change(FILE, OLD, Path("notes"), compared=False) == ""


def test_without_a_note_a_change_is_told():
    for notes in (Path("notes"), Path("no-notes")):
        assert "it has no note of how" in hidden_change(FILE, NEW, notes)


def test_what_a_killed_call_was_writing_is_made_again_anyway():
    note(NEW)
    marker = Path("notes/incomplete", NAME)
    marker.parent.mkdir()
    marker.touch()
    assert hidden_change(FILE, NEW, Path("notes")) == ""
    NOTE.unlink()
    assert not has_no_note(FILE, Path("notes"))


def test_a_note_of_the_new_grid_is_none_of_this_file():
    note(NEW, 3)
    assert "made by --touch" in hidden_change(FILE, NEW, Path("notes"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"params": ["<x>"]}', '{"params": 3}'])
def test_a_damaged_note_is_none(text):
    NOTE.write_text(text)
    assert "it has no note" in hidden_change(FILE, NEW, Path("notes"))
