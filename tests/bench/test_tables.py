"""The benchmark of tables measures tables of real records."""

from amst.bench.tables import time_tables
from amst.records import read_record
from amst.results.names import TABLE_NAMES


def test_all_tables_are_made_and_timed_those_with_the_bootstrap_apart(tmp_path):
    found = time_tables(100, tmp_path, significance=True)
    plain, compared = found.sets
    assert found.records == 100
    assert found.parsing > 0
    assert {*plain.tables, *compared.tables} == set(TABLE_NAMES)
    assert {path.stem for path in (tmp_path / "tables").glob("*.csv")} == set(TABLE_NAMES)
    assert plain.seconds > 0
    assert compared.seconds > 0


def test_records_are_such_as_training_leaves(tmp_path):
    time_tables(1, tmp_path)
    paths = sorted((tmp_path / "runs").rglob("run.json"))
    assert len(paths) == 100
    record = read_record(paths[0])
    assert record.settings.run_id == paths[0].parent.relative_to(tmp_path / "runs").as_posix()
