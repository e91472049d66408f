"""`amst adopt` marks what it is told to, keeps what was said before, and changes nothing else."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.errors import AmstError
from amst.grid import Config, read_config
from amst.grid.adoptions import Adoptions
from amst.provenance import package_digest, training_digest, with_packages
from amst.records import RUN_FILES, read_record, write_record
from tests.cli.test_plan import finished, made_by

ROOT = Path(__file__).parents[2]
RESULTS = Path("results")
NAIVE, PMR = "digits/random/naive/seed0", "digits/random/pmr/seed0"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """That of the working folder, which has two finished runs of earlier code."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "config.yaml", tmp_path)
    config = read_config(Path("config.yaml"))
    for method in ("naive", "pmr"):
        made_by(finished(config, RESULTS, "digits", method, 1.0) / "run.json", "")
    return config


def adopt(*runs: str, reason: str = "a comment") -> str:
    done = CliRunner().invoke(app, ["adopt", *runs, "--reason", reason], catch_exceptions=False)
    return done.output


def record_of(run: str) -> Path:
    return RESULTS / "runs" / run / "run.json"


def reasons(run: str) -> tuple[str, ...]:
    return read_record(record_of(run)).adopted


def test_the_digest_and_the_reason_are_noted_below_those_of_earlier_times(config: Config):
    record = read_record(record_of(NAIVE))
    write_record(record_of(NAIVE), record.model_copy(update={"adopted": ("code 1: an earlier",)}))
    assert adopt(NAIVE, reason=" a comment ") == f"{NAIVE}: adopted\n"
    digest = training_digest("naive")
    assert reasons(NAIVE) == ("code 1: an earlier", f"code {digest}: a comment")
    (noted,) = [path for path in RESULTS.glob("*.json") if NAIVE in path.read_text()]
    assert json.loads(noted.read_text()) == {
        NAIVE: {"from": with_packages(""), "to": with_packages(digest)}
    }
    adopt(PMR)
    assert set(json.loads(noted.read_text())) == {NAIVE, PMR}
    assert reasons(PMR) == (f"code {training_digest('pmr')}: a comment",)


def test_a_run_of_this_code_needs_no_adoption(config: Config):
    made_by(record_of(NAIVE), training_digest("naive"))
    before = record_of(NAIVE).read_bytes()
    assert adopt(NAIVE) == f"{NAIVE}: code and packages are those it was made with\n"
    assert record_of(NAIVE).read_bytes() == before


@pytest.mark.parametrize(
    ("runs", "reason", "said"),
    [
        ((NAIVE, "digits/random/mla/seed0"), "a comment", "mla/seed0 has not finished"),
        ((NAIVE, "naive"), "a comment", "'naive' is not the name of a run"),
        ((NAIVE,), "  ", "--reason is empty"),
    ],
)
def test_what_cannot_be_adopted_leaves_all_named_runs_as_they_were(
    config: Config, runs: tuple[str, ...], reason: str, said: str
):
    before = {path: path.read_bytes() for path in RESULTS.rglob("*") if path.is_file()}
    with pytest.raises(AmstError, match=said):
        adopt(*runs, reason=reason)
    assert {path: path.read_bytes() for path in RESULTS.rglob("*") if path.is_file()} == before


def test_a_run_that_other_packages_made_is_adopted_with_theirs(config: Config):
    """As where an update takes another version of a package that has no part in training."""
    made = {"code_digest": "c0de", "package_digest": "1234"}
    record = read_record(record_of(NAIVE))
    environment = record.environment.model_copy(update=made)
    write_record(record_of(NAIVE), record.model_copy(update={"environment": environment}))
    assert adopt(NAIVE) == f"{NAIVE}: adopted\n"
    code = training_digest("naive")
    assert reasons(NAIVE) == (f"code {code}, packages {package_digest()}: a comment",)
    for name in set(RUN_FILES) - {"run.json"}:
        record_of(NAIVE).with_name(name).touch()
    present, data = with_packages(code), (Path("none"), Path("none"))
    found = Adoptions(RESULTS).made_by(NAIVE, record.settings_hash, present, data)
    assert found == "c0de-1234"
    done = CliRunner().invoke(app, ["plan", "--runs"], catch_exceptions=False)
    assert NAIVE not in done.output


def test_a_run_that_is_trained_anew_for_its_data_is_not_called_adopted(config: Config):
    for path in ("manifest.json", "splits/random.json"):
        file = RESULTS / "features/digits" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    with pytest.raises(AmstError, match=f"{NAIVE} would be trained anew all the same: data chang"):
        adopt(NAIVE)
    assert not reasons(NAIVE)
    assert NAIVE not in Adoptions(RESULTS)


def test_what_another_call_adopts_meanwhile_stays_adopted(config: Config):
    one, other = Adoptions(RESULTS), Adoptions(RESULTS)
    one.add(NAIVE, "a", "b")
    other.add(PMR, "c", "d")
    one.save()
    other.save()
    assert NAIVE in Adoptions(RESULTS)
    assert PMR in Adoptions(RESULTS)


def test_a_reason_given_twice_for_the_same_code_is_noted_once(config: Config):
    """As by a second call, where the first one found the disk full at its end."""
    adopt(NAIVE)
    adopt(NAIVE)
    assert len(reasons(NAIVE)) == 1


@pytest.mark.parametrize("anew", [True, False])
def test_a_record_that_is_written_or_deleted_meanwhile_is_not_brought_back(
    config: Config, anew: bool, monkeypatch: pytest.MonkeyPatch
):
    def meanwhile(method: str) -> str:
        record = read_record(record_of(NAIVE))
        record_of(NAIVE).unlink()
        if anew:
            write_record(record_of(NAIVE), record.model_copy(update={"finished": "later"}))
        return "now"

    monkeypatch.setattr("amst.cli.plan.training_digest", meanwhile)
    with pytest.raises(AmstError, match="naive/seed0 was changed meanwhile"):
        adopt(NAIVE)
    assert record_of(NAIVE).is_file() == anew
    assert not anew or not reasons(NAIVE)
    assert not (RESULTS / "adopted.json").exists()
