"""The bundle for an archive: complete, checked, the same bytes every time."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pytest

from amst.errors import AmstError
from amst.records import read_record, write_record
from amst.results import bundle as bundle_module
from amst.results.bundle import SUMS, write_bundle
from amst.results.cells import collect
from amst.results.tables import Material

ORDER = ("naive", "amst_full")


def bundle(runs, out, partial=False, **options):
    count = write_bundle(material(runs, partial), out, **options)
    with tarfile.open(out) as archive:
        found = {
            entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()
        }
    assert count == len(found)
    return found


def material(runs, partial=False):
    return Material(collect(runs, ORDER, partial=partial))


@pytest.fixture
def runs(make, grid):
    return make(*grid(*ORDER, seeds=1))


def test_records_predictions_tables_and_figures_are_in_it(tmp_path, runs):
    found = bundle(runs, tmp_path / "mine.tar.gz")
    assert all(name.startswith("mine/") for name in found)
    run = "mine/runs/digits/random/naive/seed0"
    assert found[f"{run}/run.json"] == runs[0].path.read_bytes()
    with np.load(io.BytesIO(found[f"{run}/predictions.npz"])) as stored:
        assert stored["test/logits/fused"].shape == (60, 10)
    for name in (f"{run}/history.csv", "mine/tables/main.csv", "mine/tables/significance.tex"):
        assert found[name]
    assert found["mine/figures/curves-digits.pdf"].startswith(b"%PDF")
    assert not any(name.endswith(".safetensors") for name in found)


def test_every_file_has_its_checksum(tmp_path, runs):
    found = bundle(runs, tmp_path / "mine.tar.gz")
    lines = found.pop(f"mine/{SUMS}").decode().splitlines()
    sums = {f"mine/{line[66:]}": line[:64] for line in lines}
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def test_equal_content_gives_equal_bytes_at_any_time_in_any_order(tmp_path, runs):
    others = {"data/AVE/samples.jsonl": b"1", "data/CREMAD/samples.jsonl": b"2"}
    write_bundle(material(runs), tmp_path / "a" / "mine.tar.gz", others=others)
    os.utime(runs[0].path, (0, 0))
    others = dict(reversed(others.items()))
    write_bundle(material(runs[::-1]), tmp_path / "b" / "mine.tar.gz", others=others)
    first, second = (tmp_path / folder / "mine.tar.gz" for folder in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_weights_and_further_files_come_on_request(tmp_path, runs):
    for run in runs:
        run.path.with_name("weights.safetensors").write_bytes(b"weights")
    (tmp_path / "CITATION.cff").write_text("title: x\n")
    others = {"CITATION.cff": tmp_path / "CITATION.cff"}
    found = bundle(runs, tmp_path / "mine.tar.gz", weights=True, others=others)
    assert found["mine/runs/digits/random/naive/seed0/weights.safetensors"] == b"weights"
    assert found["mine/CITATION.cff"] == b"title: x\n"
    assert b"`weights.safetensors`" in found["mine/README.md"]


def test_unfinished_runs_are_refused_or_left_out(tmp_path, make, grid):
    plans = grid(*ORDER, seeds=1)
    runs = make(plans[0], plans[1].with_(state="failed"))
    with pytest.raises(AmstError, match="1 of 2 runs are not done"):
        write_bundle(material(runs), tmp_path / "mine.tar.gz")
    assert not (tmp_path / "mine.tar.gz").exists()
    found = bundle(runs, tmp_path / "mine.tar.gz", partial=True)
    assert not any("runs/digits/random/amst_full" in name for name in found)
    assert b"failed" in found["mine/tables/main.md"]
    page = found["mine/README.md"].decode()
    assert "1 of 2 runs of a grid" in page
    assert "amst tables --results . --grid settings/grid.json --out again --partial\n" in page
    assert "version 0.1.0, commit 0123456789abcdef0123456789abcdef01234567." in page
    assert "weights" not in page


def test_a_file_that_a_run_lacks_is_named(tmp_path, runs):
    runs[0].path.with_name("history.csv").unlink()
    with pytest.raises(AmstError, match=r"naive/seed0/history\.csv"):
        write_bundle(material(runs), tmp_path / "mine.tar.gz")
    assert not (tmp_path / "mine.tar.gz").exists()


def test_of_weights_that_are_gone_the_bundle_without_them_is_named(tmp_path, runs):
    with pytest.raises(AmstError, match=r"seed0/weights\.safetensors is missing\. Leave out"):
        write_bundle(material(runs), tmp_path / "mine.tar.gz", weights=True)


def test_a_run_that_is_made_again_while_files_are_packed_stops_the_bundle(
    tmp_path, runs, monkeypatch
):
    for name in ("write_tables", "write_figures"):
        monkeypatch.setattr(bundle_module, name, lambda *given: [])
    pack = bundle_module._pack

    def slow(*given):
        pack(*given)
        record = read_record(runs[0].path)
        write_record(runs[0].path, record.model_copy(update={"finished": "later"}))

    monkeypatch.setattr(bundle_module, "_pack", slow)
    with pytest.raises(AmstError, match=r"naive/seed0/run\.json was written anew meanwhile"):
        write_bundle(material(runs), tmp_path / "mine.tar.gz")
    assert not (tmp_path / "mine.tar.gz").exists()
