"""`amst check-data` leaves with 0 only where all is well; the steps before it take options."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from amst.cli import app
from amst.datasets.splitfile import read_split
from amst.errors import AmstError
from tests.datasets.rawtrees import build

ROOT = Path(__file__).parents[2]
MVSA = {
    "raw": "raw",
    "shards": 1,
    "max_lost": 1,
    "split": "random",
    "split_seed": 3,
    "embedding": 8,
    "modalities": {
        "text": {
            "features": {"tokens": 8, "tokenizer": "digits"},
            "encoder": {"name": "small_transformer"},
        },
        "visual": {"features": {"size": 16}, "encoder": {"name": "small_cnn"}, "crop": 12},
    },
}
PRETRAINED = {"modalities": {"text": {"encoder": {"name": "roberta", "weights": "a/model"}}}}


def amst(*arguments):
    """Exit code and output of a command."""
    command, *others = arguments
    done = CliRunner().invoke(app, [command, "--configfile", "small.yaml", *others])
    if isinstance(done.exception, Exception) and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A working folder with a small MVSA up to its manifest, through the commands."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"datasets": {"MVSA": MVSA}}))
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({"datasets": {"MVSA": PRETRAINED}}))
    build("MVSA", tmp_path / "raw", per_class=5)
    folder = tmp_path / "results/features/MVSA"
    for command, *more, out in (
        ("samples", "samples.jsonl"),
        ("extract", "0", "shards/000.h5"),
        ("manifest", "manifest.json"),
    ):
        assert amst(command, "MVSA", *more, "--out", str(folder / out))[0] == 0
    return folder


def test_the_exit_code_says_whether_all_is_there_and_well(prepared):
    assert amst("check-data", "MVSA")[0] == 0
    code, said = amst("check-data", "CREMAD", "MVSA")
    assert code == 1, "the first of them is not there"
    assert "  missing  raw folder: the raw folder data/CREMAD of CREMAD is missing" in said
    code, said = amst("check-data", "MVSA", "--configfile", "model.yaml")
    assert "  missing  model a/model: `amst fetch-model a/model` fetches it" in said
    assert code == 1, "a model is not there"
    (prepared / "shards/000.h5").write_bytes(b"")
    code, said = amst("check-data", "MVSA")
    assert "  wrong    shard results/features/MVSA/shards/000.h5 cannot be opened" in said
    assert code == 1


def test_options_of_the_steps_go_before_the_configuration(prepared):
    with pytest.raises(AmstError, match=r"4496 of 4511 samples are lost, more than 0\.00%"):
        amst("manifest", "MVSA", "--max-lost", "0", "--out", "other.json")
    for options, seed in (((), 3), (("--seed", "5"), 5)):
        assert amst("split", "MVSA", "random", *options, "--out", "split.json")[0] == 0
        assert read_split("split.json").seed == seed
    others = ("--out", "other.h5", "--rejected", "other.jsonl")
    with pytest.raises(AmstError, match=r"MVSA has no shard 1\. Its shards are 0 to 0"):
        amst("extract", "MVSA", "1", *others)
    assert amst("extract", "MVSA", "1", "--of", "2", *others)[0] == 0


def test_steps_by_hand_write_nothing_that_snakemake_would_take_for_its_own(prepared):
    def files():
        return {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    (prepared.parents[2] / "raw/data/0001.jpg").write_bytes(b"")
    before = files()
    code, said = amst("samples", "MVSA")
    assert code == 0
    assert "MVSA: 15 samples of 4511 expected, 1 rejected\n" in said
    assert "  rejected data/0001.jpg has no row in" in said
    assert amst("split", "MVSA", "random")[0] == 0
    for command in (("extract", "MVSA", "0"), ("manifest", "MVSA")):
        assert amst(*command)[0] == 2, "where to, must be said"
    assert files() == before


def test_the_data_report_looks_into_all_splits_unless_some_are_given(prepared):
    split = str(prepared / "splits/random.json")
    assert amst("split", "MVSA", "random", "--out", split)[0] == 0
    assert CliRunner().invoke(app, ["data-report", "MVSA"]).exit_code == 0
    report = json.loads((prepared / "report.json").read_text())
    assert [split["name"] for split in report["splits"]] == ["random"]
