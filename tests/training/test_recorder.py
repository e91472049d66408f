import csv
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from amst.training.recorder import CostRow, EpochRow, Recorder, has_events, peak_host_bytes


def _rows(epochs):
    recorder = Recorder()
    for epoch in range(epochs):
        recorder.history.append(
            EpochRow(
                epoch=epoch,
                active=("audio", "visual") if epoch else ("visual",),
                train_loss=1 / 3 + epoch,
                train_accuracy={"fused": 0.1},
                val_loss={"fused": 0.2, "modality/audio": 0.7},
                val_accuracy={"fused": 0.3, "modality/audio": 0.4},
                scalars={"share/a:b": 1 / 7 + epoch} | ({"found": 5.0} if epoch else {}),
            )
        )
        recorder.costs.append(CostRow(epoch, 1.0, 2.0, 3.0, 4, 5, finished=1e9 + epoch))
    return recorder


def _table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_floats_are_written_so_that_they_come_back_exactly(tmp_path):
    _rows(1).write_tables(tmp_path)
    assert float(_table(tmp_path / "history.csv")[0]["train_loss"]) == 1 / 3


def test_figures_of_predictions_that_were_not_run_are_empty_cells(tmp_path):
    _rows(2).write_tables(tmp_path)
    rows = _table(tmp_path / "history.csv")
    assert [row["train_accuracy:modality/audio"] for row in rows] == ["", ""]
    assert [row["active"] for row in rows] == ["visual", "audio+visual"]


def test_numbers_of_the_method_have_columns_of_their_own(tmp_path):
    _rows(2).write_tables(tmp_path)
    rows = _table(tmp_path / "history.csv")
    assert [row["method:found"] for row in rows] == ["", "5.0"]
    assert [float(row["method:share/a:b"]) for row in rows] == [1 / 7, 1 / 7 + 1]
    assert list(rows[0])[-2:] == ["method:found", "method:share/a:b"]


def test_a_history_without_numbers_of_a_method_is_read(tmp_path):
    rows = _rows(2)
    rows.history = [replace(row, scalars={}) for row in rows.history]
    rows.write_tables(tmp_path)
    assert not any(name.startswith("method") for name in _table(tmp_path / "history.csv")[0])
    assert Recorder.from_tables(tmp_path, ended=1e9).history == rows.history


def test_times_are_in_the_table_of_cost_alone(tmp_path):
    _rows(1).write_tables(tmp_path)
    assert not any("second" in name for name in _table(tmp_path / "history.csv")[0])
    assert _table(tmp_path / "cost.csv")[0]["load_seconds"] == "3.0"
    assert "finished" not in _table(tmp_path / "cost.csv")[0]


def test_rows_survive_a_checkpoint():
    recorder = _rows(3)
    again = Recorder.from_state(recorder.state())
    assert again.history == recorder.history
    assert again.costs == recorder.costs


def test_events_of_an_earlier_attempt_are_replaced(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _rows(5).events(tmp_path).close()
    events = _rows(2).events(tmp_path)
    later = _rows(3)
    events.add(later.history[2], later.costs[2])
    # whoever looks on sees an epoch when it is done
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in found.Scalars("train_loss")] == [0, 1, 2]
    events.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    scalars = found.Scalars("val_accuracy/modality/audio")
    assert [event.step for event in scalars] == [0, 1, 2]
    assert [event.wall_time for event in scalars] == [1e9, 1e9 + 1, 1e9 + 2]
    assert [event.step for event in found.Scalars("method/found")] == [1, 2]
    assert len(list(tmp_path.iterdir())) == 1


def test_event_files_that_cannot_be_written_end_no_run(tmp_path, capsys):
    rows, events = _rows(3), _rows(1).events(tmp_path)
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), events._file.fileno())
    for row, cost in zip(rows.history[1:], rows.costs[1:], strict=True):
        events.add(row, cost)
    events.close()
    assert capsys.readouterr().err.count("no more events for TensorBoard") == 1
    assert not has_events(tmp_path), "the run's end writes all of them, where there are none"


def test_a_folder_for_events_that_cannot_be_made_ends_no_run(tmp_path, capsys):
    (tmp_path / "file").touch()
    rows = _rows(2)
    rows.events(tmp_path / "file" / "tensorboard").close()
    assert capsys.readouterr().err.count("no more events for TensorBoard") == 1


def test_rows_come_back_from_the_tables_with_times_counted_back_from_the_end(tmp_path):
    rows = _rows(3)
    rows.write_tables(tmp_path)
    again = Recorder.from_tables(tmp_path, ended=1e9)
    assert again.history == rows.history
    assert [cost.finished for cost in again.costs] == [1e9 - 12, 1e9 - 6, 1e9]
    assert [replace(cost, finished=0) for cost in again.costs] == [
        replace(cost, finished=0) for cost in rows.costs
    ]


def test_equal_rows_give_equal_event_files(tmp_path):
    for name in ("one", "two"):
        _rows(2).events(tmp_path / name).close()
    one, two = (next((tmp_path / name).iterdir()) for name in ("one", "two"))
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


def test_the_peak_of_memory_is_in_bytes():
    assert 10_000_000 < peak_host_bytes() < 1e12


def test_what_a_parent_holds_is_not_memory_of_the_process():
    held = b"x" * 400_000_000
    code = "from amst.training.recorder import peak_host_bytes; print(peak_host_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert 10_000_000 < int(done.stdout) < len(held)
