"""`amst tables`, `figures`, `report` and `export` as a user calls them."""

import errno
import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst.cli import app
from amst.cli.results import files_of_settings
from amst.errors import AmstError
from amst.files import write_json
from amst.grid import as_dict, read_config
from amst.provenance import REQUIREMENTS
from amst.records import read_record, write_record
from amst.results.names import CHECKOUT


@pytest.fixture
def results(make, plan, write_grid):
    """A results folder with two finished runs and a stale grid.json."""
    folder = plan.root.parent
    runs = make(plan, plan.with_(seed=1))
    write_grid(runs, folder / "planned.json")
    (folder / "grid.json").write_text("stale")
    samples = folder / "features" / "digits" / "samples.jsonl"
    samples.parent.mkdir(parents=True)
    rows = [
        {"id": f"test-{i:04d}", "label": f"{i % 10}", "group": f"actor{i % 6}", "files": {"a": "b"}}
        for i in range(60)
    ]
    samples.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def amst(results, *arguments):
    where = ("--results", str(results), "--grid", str(results / "planned.json"))
    done = CliRunner().invoke(app, [*arguments, *where])
    if done.exception is not None:
        raise done.exception
    return done.stdout


WITHOUT = """
import sys
from amst.cli import main

class Absent:
    def find_spec(name, path=None, target=None):
        if name in {absent}:
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Absent)
main()
"""
"""The command line where some modules are not installed."""


def pinned(file: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+)==", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("command", ["tables", "figures", "report", "export"])
def test_the_light_set_up_is_enough(results, tmp_path, command):
    """A login node without torch makes tables while jobs compute in the image."""
    beyond = pinned(REQUIREMENTS) - pinned(REQUIREMENTS.with_name("requirements-light.txt"))
    assert "torch" in beyond
    absent = [
        module
        for module, packages in packages_distributions().items()
        if all(re.sub("[-_.]+", "-", name).lower() in beyond for name in packages)
    ]
    program = WITHOUT.format(absent=absent)
    file = [str(tmp_path / "all.tar.gz")] if command == "export" else []
    call = [sys.executable, "-c", program, command, *file, "--partial", "--results", str(results)]
    call += ["--grid", str(results / "planned.json")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_drawn_are_the_groups_of_the_dataset_whose_shards_are_used(results):
    planned = json.loads((results / "planned.json").read_text())
    planned["features"] = {"digits": "owner"}
    (results / "planned.json").write_text(json.dumps(planned))
    (results / "features/digits").rename(results / "features/owner")
    amst(results, "tables", "--only", "intervals")
    text = (results / "tables/intervals.md").read_text()
    assert "(drawn were 6 groups of digits)" in text


@pytest.mark.parametrize("lost", ["a line", "the file"])
def test_a_list_of_samples_that_is_not_whole_is_told_with_what_was_drawn(results, lost):
    samples = results / "features/digits/samples.jsonl"
    first, *others = samples.read_text().splitlines(keepends=True)
    samples.write_text("".join(others))
    if lost == "the file":
        samples.unlink()
    where = ("--results", str(results), "--grid", str(results / "planned.json"))
    call = ["tables", "--only", "intervals", "--only", "significance", *where]
    done = CliRunner().invoke(app, call, catch_exceptions=False)
    assert (f"{samples} is missing: p and intervals of digits" in done.stderr) == (
        lost == "the file"
    )
    drawn = "60 samples" if lost == "the file" else "7 groups"
    for table in ("intervals", "significance"):
        text = (results / f"tables/{table}.md").read_text()
        assert f"(drawn were {drawn} of digits, whose groups are not all known)" in text
    samples.write_text(f"{first}{others[0][:20]}")
    with pytest.raises(AmstError, match=r"samples\.jsonl, line 2 is no sample"):
        amst(results, "tables")


def test_outdated_runs_are_refused_and_named_in_partial_tables(results):
    planned = json.loads((results / "planned.json").read_text())
    planned["runs"]["digits/random/naive/seed1"] = "0" * 16
    (results / "planned.json").write_text(json.dumps(planned))
    for command in ("tables", "figures", "report"):
        with pytest.raises(AmstError, match=r"seed1 \(outdated\)"):
            amst(results, command)
    assert not (results / "tables").exists()
    assert "from 1 of 2 runs" in amst(results, "tables", "--partial")
    assert "(1 of 2, 1 outdated)" in (results / "tables/partial/main.md").read_text()


@pytest.mark.parametrize("command", ["tables", "export"])
def test_runs_of_the_last_call_are_not_to_be_deleted_but_its_configuration_given(results, command):
    """As where `snakemake --configfile small.yaml` is followed by a call without that file."""
    planned = json.loads((results / "planned.json").read_text())
    (results / "grid.json").write_text(json.dumps(planned))
    change_plan(results, runs=dict.fromkeys(planned["runs"], "0" * 16))
    with pytest.raises(AmstError) as refused:
        amst(results, command)
    assert (
        "2 outdated runs have the settings of the last call of Snakemake: give its --configfile "
        "here, too, or --grid results/grid.json, unless an update of the suite has changed them; or"
    ) in str(refused.value)
    assert f"`amst {command} --partial`" in str(refused.value)
    assert "delete" not in str(refused.value)
    (results / "grid.json").write_text("{}")
    with pytest.raises(AmstError, match=f"delete the folder of .* `amst {command} --partial`"):
        amst(results, command)


@pytest.mark.parametrize("command", ["tables", "figures", "report"])
def test_a_run_without_its_history_is_left_out_of_partial_output_and_named(results, command):
    (results / "runs/digits/random/naive/seed1/history.csv").unlink()
    with pytest.raises(AmstError, match=r"seed1 \(damaged\); .*history\.csv is missing\. .*again"):
        amst(results, command)
    where = ("--results", str(results), "--grid", str(results / "planned.json"))
    done = CliRunner().invoke(app, [command, "--partial", *where])
    assert done.exit_code == 0
    assert "left out: " in done.stderr
    assert "seed1/history.csv cannot be read" in done.stderr
    assert (results / "report-partial.html").exists() == (command == "report")
    assert not (results / "report.html").exists()
    assert not list(results.glob("figures/*.pdf")), "beside those of all runs"


@pytest.fixture
def made_again(monkeypatch):
    """Every run is made again, validated as worse, as soon as its record has been read."""

    def read(path):
        record = read_record(path)
        lower = [
            row.model_copy(update={"metrics": row.metrics.model_copy(update={"accuracy": 0.1})})
            if row.part == "val"
            else row
            for row in record.results
        ]
        write_record(path, record.model_copy(update={"results": tuple(lower)}))
        return record

    return lambda: monkeypatch.setattr("amst.results.cells.read_record", read)


def change_plan(results, **values):
    planned = json.loads((results / "planned.json").read_text())
    (results / "planned.json").write_text(json.dumps(planned | values))


@pytest.mark.parametrize("datasets", [["digits", "CREMAD"], ["CREMAD", "digits"]])
def test_tables_have_the_datasets_in_the_order_of_the_grid(results, make, plan, datasets):
    planned = json.loads((results / "planned.json").read_text())
    (other,) = make(plan.with_(dataset="CREMAD"))
    runs = planned["runs"] | {other.id: read_record(other.path).settings_hash}
    change_plan(results, runs=runs, datasets=datasets)
    amst(results, "tables", "--only", "main")
    lines = (results / "tables/main.md").read_text().splitlines()
    assert f"|  | {' | '.join(datasets)} |" in lines


def test_tables_and_figures_of_a_report_rest_on_one_reading(results, made_again):
    change_plan(results, left_out=["mla does not apply"], features={"digits": "owner"})
    (results / "features/owner").mkdir()
    (results / "features/owner/report.html").write_text("<p>Data of the owner</p>")
    (results / "report-partial.html").touch()
    assert "report-partial.html removed: it was of unfinished runs" in amst(results, "report")
    assert not (results / "report-partial.html").exists()
    before = (results / "report.html").read_bytes()
    assert b"mla does not apply" in before
    assert b"<p>Data of the owner</p>" in before
    made_again()
    amst(results, "report")
    assert (results / "report.html").read_bytes() == before
    amst(results, "report")
    assert (results / "report.html").read_bytes() != before


def test_a_bundle_does_not_mix_runs_with_those_made_meanwhile(results, made_again, tmp_path):
    made_again()
    with pytest.raises(AmstError, match=r"seed0/run\.json was written anew meanwhile"):
        amst(results, "export", str(tmp_path / "mine.tar.gz"))
    assert list(tmp_path.glob("*mine*")) == []


def test_readers_are_shown_names_of_the_configuration_and_machines_are_not(results):
    planned = json.loads((results / "planned.json").read_text())
    planned["names"] = {"naive": "Joint & <late>", "digits": "100% Digits"}
    (results / "planned.json").write_text(json.dumps(planned))
    amst(results, "tables")
    shown = {
        "md": ("Joint & \\<late>", "100% Digits"),
        "tex": (r"Joint \& $<$late$>$", r"100\% Digits"),
        "html": ("Joint &amp; &lt;late&gt;", "100% Digits"),
    }
    for form, (variant, dataset) in shown.items():
        text = (results / f"tables/main.{form}").read_text()
        assert variant in text
        assert dataset in text
    for path in (results / "tables").glob("*.csv"):
        assert "Joint" not in path.read_text()
        assert "Digits" not in path.read_text()
    assert "digits,random,naive" in (results / "tables/main.csv").read_text()


def test_names_stand_in_the_configuration(tmp_path):
    names = tmp_path / "names.yaml"
    names.write_text("tables: {names: {naive: Joint training, digits: Spoken digits}}\n")
    where = ["--results", str(tmp_path), "--configfile", str(names)]
    call = ["tables", "--partial", "--only", "main", *where]
    assert CliRunner().invoke(app, call).exit_code == 0
    lines = (tmp_path / "tables/partial/main.md").read_text().splitlines()
    assert "|  | Spoken digits |" in lines
    assert "| Joint training | missing |" in lines
    assert "| mla | missing |" in lines


def test_complete_tables_clear_the_partial_ones_and_say_so(results):
    amst(results, "tables", "--partial")
    amst(results, "tables", "--only", "main")
    assert (results / "tables/partial").is_dir(), "one table is not all"
    assert "partial removed" in amst(results, "tables")
    assert not (results / "tables/partial").exists()
    assert (results / "tables/main.csv").is_file()
    assert "removed" not in amst(results, "tables")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("tables", "--only", "mian"), r"--only: unknown name 'mian'\. Did you mean 'main'"),
        (("figures", "--only", "x"), r"--only: unknown name 'x'\. Valid names: curves, hours"),
        (("export", "mine.zip"), r"mine\.zip is no \.tar\.gz\. Name a file that ends in"),
        (("export", "..tar.gz"), r"\.\.tar\.gz is no \.tar\.gz\. Name a file that ends in"),
        (("export", ".tar.gz"), r"^\.tar\.gz is no \.tar\.gz\. Name a file that ends in"),
        (("tables", "--published", "nope.csv"), r"--published: there is no file nope\.csv"),
        (("report", "--published", "nope.csv"), r"--published: there is no file nope\.csv"),
        (("export", "--published", "nope.csv"), r"--published: there is no file nope\.csv"),
    ],
)
def test_a_mistyped_name_or_path_is_refused_before_anything_is_made(results, command, said):
    before = sorted(results.rglob("*"))
    with pytest.raises(AmstError, match=said):
        amst(results, *command)
    assert sorted(results.rglob("*")) == before


def test_a_checkout_without_published_figures_has_an_empty_table(results, monkeypatch, tmp_path):
    monkeypatch.setattr("amst.cli.results.PUBLISHED", tmp_path / "none.csv")
    amst(results, "tables", "--only", "reproduction", "--published", str(tmp_path / "none.csv"))
    assert (results / "tables/reproduction.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("others", ["writes", "removes"])
def test_complete_tables_stay_where_the_partial_ones_cannot_be_cleared(
    results, monkeypatch, others
):
    """Snakemake deletes the tables of a job that fails; and another user's folder never goes."""
    amst(results, "tables", "--partial")
    rmtree = shutil.rmtree

    def disturbed(path):
        if others == "removes":
            rmtree(path)
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    monkeypatch.setattr(shutil, "rmtree", disturbed)
    where = ("--results", str(results), "--grid", str(results / "planned.json"))
    done = CliRunner().invoke(app, ["tables", *where], catch_exceptions=False)
    assert done.exit_code == 0
    assert ("tables/partial is of unfinished runs, and stays" in done.stderr) == (
        others == "writes"
    )
    assert (results / "tables/main.csv").is_file()


def test_complete_figures_clear_the_partial_ones(results):
    (results / "figures/partial").mkdir(parents=True)
    amst(results, "figures", "--only", "schedule")
    assert (results / "figures/partial").exists(), "one figure is not all"
    assert "figures/partial removed" in amst(results, "figures")
    assert not (results / "figures/partial").exists()


def test_the_metric_of_the_plan_is_that_of_the_main_table(results):
    change_plan(results, metric="macro_f1")
    amst(results, "tables", "--only", "main")
    assert "acro" in (results / "tables/main.md").read_text().partition("\n")[0]


def test_runs_are_held_against_the_data_of_the_dataset_whose_shards_they_use(results, write_data):
    change_plan(results, features={"digits": "owner"})
    folder = results / "features/owner"
    amst(results, "tables", "--only", "runs")
    for file in ("manifest.json", "splits/random.json"):
        write_data(folder / file, "of which no run was made")
    with pytest.raises(AmstError, match=r"2 of 2 runs .*seed0 \(outdated\)"):
        amst(results, "tables", "--only", "runs")


def test_a_grid_of_another_version_is_refused(results):
    (results / "planned.json").write_text('{"format": 1}')
    with pytest.raises(AmstError, match="has grid format 1, this version reads 2"):
        amst(results, "tables")


def test_who_has_an_older_bundle_is_not_told_to_make_its_grid(results):
    planned = json.loads((results / "planned.json").read_text())
    del planned["names"], planned["datasets"]  # as commit 207f3df wrote it
    (results / "planned.json").write_text(json.dumps(planned))
    said = "of a bundle is read by a checkout of the commit that its README.md names"
    with pytest.raises(AmstError, match=f"names: Field required. .*; that {said}"):
        amst(results, "tables")


@pytest.mark.parametrize("text", ["", "null", "3", "[]", pytest.param("[" * 2000, id="deep")])
def test_a_file_that_is_no_grid_is_told(results, text):
    (results / "planned.json").write_text(text)
    with pytest.raises(
        AmstError, match=r"planned\.json is not a grid .*Make it: snakemake results/"
    ):
        amst(results, "tables")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"runs": None}, "runs: Input should be a valid dictionary. Make it: snakemake"),
        ({"runs": {"a": "b"}}, r"runs.a.[key]: String should match"),
        (
            {"runs": {"digits/random/naive/seed0": 3}},
            "runs.digits/random/naive/seed0: Input should",
        ),
        ({"variants": [3]}, "variants.0: Input should be"),
        ({"variants": []}, "digits/random/naive/seed0: variants has no naive. Make it:"),
        ({"features": 3}, "features: Input should be a valid dictionary"),
        ({"metric": "loss"}, "metric: Input should be 'accuracy', 'macro_f1' or"),
        ({"left_out": 3}, "left_out: Input should be a valid list"),
        ({"names": [1]}, "names: Input should be a valid dictionary"),
        ({"datasets": [1]}, "datasets.0: Input should be a valid string"),
    ],
)
def test_what_is_wrong_in_a_grid_is_told_in_one_line(results, changed, said):
    change_plan(results, **changed)
    with pytest.raises(AmstError) as caught:
        amst(results, "tables")
    assert str(caught.value).startswith(f"{results}/planned.json: {said}")
    assert "\n" not in str(caught.value)


def test_the_bundle_has_what_is_planned_and_what_tables_are_made_of(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {"manifest.json": "{}", "splits/group.json": "[1]", "splits/amst.json": "[2]"}
    weights = {f"naive/seed{seed}/weights.safetensors": f"weights {seed}" for seed in (0, 1)}
    for folder, files in (
        (results / "features/digits", data),
        (results / "runs/digits/random", weights),
    ):
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    published = results / "published.csv"
    published.write_text(
        "dataset,split,method,variant,head_or_prediction,seeds,part,metric,value,best_epoch,source\n"
    )
    amst(results, "export", "mine.tar.gz", "--published", str(published), "--weights")
    with tarfile.open("mine.tar.gz") as archive:
        archive.extractall(filter="data")
    bundle = Path("mine")
    planned = json.loads((results / "planned.json").read_text())
    assert json.loads((bundle / "settings/grid.json").read_text()) == planned
    assert (bundle / "reference/published.csv").read_bytes() == published.read_bytes()
    samples = (bundle / "data/digits/samples.jsonl").read_text().splitlines()
    assert len(samples) == 60
    assert json.loads(samples[1]) == {"id": "test-0001", "label": "1", "group": "actor1"}
    for name, text in data.items():
        assert (bundle / f"data/digits/{name}").read_text() == text
    for name, text in weights.items():
        assert (bundle / f"runs/digits/random/{name}").read_text() == text
    for name in ("CITATION.cff", "LICENSE", "requirements.txt"):
        assert (bundle / name).stat().st_size

    # as its page says: the files are whole, and tables made from them are those in it
    monkeypatch.chdir(bundle)
    _, commands, _ = Path("README.md").read_text().split("```\n")
    sums, tables, differ, evaluate = commands.splitlines()
    subprocess.run(shlex.split(sums), check=True)
    done = CliRunner().invoke(app, shlex.split(tables)[1:], catch_exceptions=False)
    assert done.stderr == ""
    subprocess.run(shlex.split(differ), check=True)
    assert "6 groups of digits" in Path("again/intervals.md").read_text()
    assert evaluate == "amst evaluate digits/random/naive/seed0 --results . --from-predictions"


def test_a_bundle_has_the_files_of_the_configuration_that_planned_its_grid(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    own = {
        "config.yaml": (CHECKOUT / "config.yaml").read_text(),
        "one/more.yaml": "grid: {methods: [naive], seeds: [7]}\n",
        "two/more.yaml": "datasets: {digits: {recipe: {epochs: 2}}}\n",
    }
    for name, text in own.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    files, file = [Path(name) for name in own], Path("grid.json")
    planned = json.loads(json.dumps(as_dict(read_config(*files))))
    write_json(file, planned)
    over = ["--configfile", "one/more.yaml", "--configfile", "two/more.yaml"]
    call = ["export", "mine.tar.gz", "--partial", "--grid", "grid.json", *over]
    assert CliRunner().invoke(app, call, catch_exceptions=False).stderr == ""
    with tarfile.open("mine.tar.gz") as archive:
        for number, (name, text) in enumerate(own.items()):
            member = archive.extractfile(f"mine/settings/{number}-{Path(name).name}")
            assert member.read().decode() == text

    assert files_of_settings(planned, None, files[1:]) == files
    with pytest.raises(AmstError, match=r"grid\.json: the configuration plans another grid"):
        files_of_settings(planned, file, files[1:2])
    assert files_of_settings(planned, file, None) == []
    Path("config.yaml").unlink()
    assert files_of_settings(planned, file, None) == []
    other, absent = capsys.readouterr().err.splitlines()
    assert other.startswith("left out: the files of the configuration: the configuration plans a")
    assert "there is no file config.yaml" in absent


def test_a_bundle_without_a_name_is_written_to_the_folder_of_its_results(
    results, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert amst(results, "export").startswith(f"{results}/export.tar.gz: ")
    assert (results / "export.tar.gz").is_file()
    assert not list(Path().iterdir())


def test_data_of_a_bundle_that_are_not_there_are_told(results, write_data):
    call = ["export", "--results", str(results), "--grid", str(results / "planned.json")]
    change_plan(results, features={"digits": "owner"})
    files = [results / "features/owner" / name for name in ("manifest.json", "splits/random.json")]

    def told():
        done = CliRunner().invoke(app, [*call, "--partial"], catch_exceptions=False)
        return [line for line in done.stderr.splitlines() if "Make it again: snakemake" in line]

    *_, manifest, split = told()
    assert manifest == f"left out: {files[0]} is missing. Make it again: snakemake {files[0]}"
    assert split == f"left out: {files[1]} is missing. Make it again: snakemake {files[1]}"
    write_data(files[1], "")
    assert told()[-1] == manifest


def test_tables_that_are_written_elsewhere_leave_those_of_unfinished_runs(
    results, tmp_path_factory
):
    (results / "tables/partial").mkdir(parents=True)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert "removed" not in amst(results, "tables", "--out", str(elsewhere))
    assert (elsewhere / "main.md").exists()
    assert [path.name for path in (results / "tables").iterdir()] == ["partial"]


def test_a_bundle_says_where_its_runs_were_made_by_code_that_no_commit_holds(results, tmp_path):
    where = ["--results", str(results), "--grid", str(results / "planned.json")]
    call = ["export", str(tmp_path / "mine.tar.gz"), *where]

    def said():
        done = CliRunner().invoke(app, call, catch_exceptions=False)
        with tarfile.open(tmp_path / "mine.tar.gz") as archive:
            return done.stderr, archive.extractfile("mine/README.md").read().decode()

    message, page = said()
    assert "note: " not in message
    assert "+changes" not in page
    path = next((results / "runs").glob("*/*/*/seed1/run.json"))
    record = read_record(path)
    edited = record.environment.model_copy(update={"commit": "abc+changes"})
    write_record(path, record.model_copy(update={"environment": edited}))
    message, page = said()
    assert "note: 1 of its runs were made by a checkout with changes" in message
    assert "commit abc+changes. `+changes`: that checkout had code which no commit holds" in page
