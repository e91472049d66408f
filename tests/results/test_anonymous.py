"""Bundles and reports for double-blind review: whole and checkable, and of nobody."""

import io
import json
import os
import shlex
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from amst.cli import app
from amst.config.run import RunSettings, TextFeatures
from amst.errors import AmstError
from amst.features.manifest import read_manifest
from amst.files import write_json
from amst.records import read_record, write_record
from amst.results.anonymous import Identities, without_folders
from amst.results.cells import collect
from amst.results.expected import expected_runs
from amst.results.names import CHECKOUT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ("jdoe", "doe-lab", "gpu017", "gpu117", "example.org", COMMIT[:12], "2025-01-01")
CONFIGURATION = """
# asked for by jdoe42
grid: {methods: [naive], seeds: [0, 1, 2]}
datasets:
  digits: {raw: /scratch/group of doe/digits}
execution: {stage: ~jdoe42/stage}
container: {image: /home/jdoe42/mine.sif}
"""


@pytest.fixture
def user(monkeypatch, tmp_path):
    """A user of a cluster, whose files are the test's."""
    for name, value in {
        "LOGNAME": "jdoe42",
        "USER": "jdoe42",
        "HOME": "/home/jdoe42",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "gitconfig").write_text(
        "[user]\nname = Jane van  Doe\nemail = jane@example.org\n"
        '[remote "origin"]\nurl = git@example.org:doelab/fork.git/\n'
    )


@pytest.fixture
def work(tmp_path, make, plan, monkeypatch, user, write_data, write_grid):
    """A working folder of finished runs that were made on two hosts, from a model of the user's."""
    work = tmp_path / "doe-lab"
    runs = make(*(plan.with_(root=work / "results/runs", seed=seed) for seed in range(3)))
    for number, run in enumerate(runs):
        record = read_record(run.path)
        settings = record.settings.model_dump(mode="json")
        settings["modalities"]["text"]["encoder"] = {
            "name": "roberta",
            "weights": "/home/jdoe42/models/roberta-base",
        }
        settings = RunSettings.model_validate(settings)
        where = {"host": f"gpu{number % 2}17.hpc.example.org", "slurm_job": "4711815"}
        made = record.environment.model_copy(update=where)
        changed = {"environment": made, "settings": settings, "settings_hash": settings.hash}
        write_record(run.path, record.model_copy(update=changed))
    write_grid(runs, work / "grid.json")
    features = work / "results/features/digits"
    write_data(features / "manifest.json", "")
    manifest = read_manifest(features / "manifest.json")
    text = TextFeatures(tokenizer="/home/jdoe42/models/roberta-base")
    manifest = manifest.model_copy(update={"classes": ("/r/a", "../b"), "settings": {"t": text}})
    write_json(features / "manifest.json", manifest.model_dump(mode="json"))
    rows = ({"id": f"test-{i:04d}", "label": f"{i % 10}", "group": f"{i % 6}"} for i in range(60))
    (features / "samples.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (work / "config.yaml").write_text((CHECKOUT / "config.yaml").read_text())
    (work / "more.yml").write_text(CONFIGURATION)
    monkeypatch.chdir(work)
    return work


def amst(*arguments):
    return CliRunner().invoke(app, [*arguments, "--grid", "grid.json"], catch_exceptions=False)


@pytest.fixture
def export(work, monkeypatch):
    """Write an anonymous bundle: the bytes of each file in it."""
    files = [Path("config.yaml"), Path("more.yml")]
    monkeypatch.setattr("amst.cli.results.files_of_settings", lambda *given: files)

    def export(*options):
        done = amst("export", "blind.tar.gz", "--anonymous", *options)
        with tarfile.open("blind.tar.gz") as archive:
            members = {entry.name: archive.extractfile(entry).read() for entry in archive}
        return done, members

    return export


def test_a_bundle_tells_neither_who_made_it_nor_where_nor_when(export):
    for name in ("naive/seed0", "naive/seed1", "naive/seed2"):
        Path("results/runs/digits/random", name, "weights.safetensors").write_bytes(b"weights")
    _, members = export("--weights")
    everything = "\n".join(members) + b"\n".join(members.values()).decode(errors="replace")
    for word in (*NAMES, "4711815", "group of doe", ".sif", "asked for"):
        assert word not in everything
    assert not {"blind/CITATION.cff", "blind/LICENSE"} & members.keys()
    assert "blind/runs/digits/random/naive/seed0/weights.safetensors" in members
    settings = yaml.safe_load(members["blind/settings/config.yaml"])
    assert settings["grid"]["methods"] == ["naive"]
    assert settings["datasets"]["digits"]["raw"] == "digits"
    assert settings["datasets"]["CREMAD"]["raw"] == "data/CREMAD"
    manifest = json.loads(members["blind/data/digits/manifest.json"])
    assert manifest["settings"]["t"]["tokenizer"] == "roberta-base"
    assert manifest["classes"] == ["/r/a", "../b"]


def test_which_runs_shared_a_host_is_still_seen(export):
    _, members = export()
    found = [
        json.loads(members[f"blind/runs/digits/random/naive/seed{seed}/run.json"])["environment"]
        for seed in range(3)
    ]
    assert [made["host"] for made in found] == ["host-1", "host-2", "host-1"]
    assert {made["device"] for made in found} == {"cpu"}


def test_a_bundle_is_checked_as_its_page_says(export, monkeypatch):
    export()
    with tarfile.open("blind.tar.gz") as archive:
        archive.extractall(filter="data")
    monkeypatch.chdir("blind")
    page = Path("README.md").read_text()
    assert "version 0.1.0.\n\nFor double-blind review" in page
    assert "a checkout of a version named above" in page
    sums, tables, differ, evaluate = page.split("```\n")[1].splitlines()
    subprocess.run(shlex.split(sums), check=True)
    done = CliRunner().invoke(app, shlex.split(tables)[1:], catch_exceptions=False)
    assert done.stderr == ""
    subprocess.run(shlex.split(differ), check=True)
    assert evaluate == "amst evaluate digits/random/naive/seed0 --results . --from-predictions"


def test_equal_results_give_equal_bytes_whoever_made_them_and_when(export):
    _, first = export()
    for path in Path("results/runs").rglob("run.json"):
        record = read_record(path)
        made = record.environment.model_copy(update={"commit": "f" * 40, "slurm_job": "1"})
        write_record(path, record.model_copy(update={"environment": made, "started": "now"}))
        os.utime(path, (0, 0))
    one = Path("blind.tar.gz").read_bytes()
    _, second = export()
    assert first == second
    assert Path("blind.tar.gz").read_bytes() == one


def test_of_a_damaged_run_no_folder_is_named(export):
    Path("results/runs/digits/random/naive/seed2/history.csv").unlink()
    done, members = export("--partial", "--results", str(Path("results").resolve()))
    assert f"{Path('results').resolve()}/runs" in done.stderr
    row = members["blind/tables/runs.csv"].decode().splitlines()[-1]
    assert row == "digits,random,naive,2,damaged" + 17 * ","


def test_names_of_the_checkout_are_searched_for_where_git_dir_names_another(
    work, monkeypatch, tmp_path
):
    for folder, address in ((work, "git@example.org:upstream/suite.git"), (tmp_path / "dots", "x")):
        subprocess.run(["git", "init", "-q", folder], check=True)
        subprocess.run(["git", "-C", folder, "remote", "add", "of", address], check=True)
    push = ["git", "-C", work, "remote", "set-url", "--push", "of", "git@example.org:mine/fork"]
    subprocess.run(push, check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "dots/.git"))
    kinds = known().kinds
    assert kinds["upstream/suite"] == "git's remote.of.url"
    assert kinds["mine/fork"] == "git's remote.of.pushurl"


def test_where_there_is_no_git_it_is_told(export, monkeypatch, tmp_path):
    said = "there is no git here"
    done, _ = export()
    assert said not in done.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    done, _ = export()
    assert said in done.stderr


def test_a_report_tells_neither_who_nor_where(work):
    page = work / "results/report-anonymous.html"
    (work / "results/report.html").write_text("with names")
    assert amst("report", "--anonymous").stdout.startswith("results/report-anonymous.html, from 3")
    text = page.read_text()
    for word in NAMES:
        assert word not in text
    assert "For double-blind review" in text
    assert "<td>host-1, host-2</td>" in text
    assert (work / "results/report.html").read_text() == "with names"
    amst("report")
    assert "double-blind" not in (work / "results/report.html").read_text()


def test_names_that_come_in_another_way_stop_the_bundle_and_the_report(export, work):
    path = work / "results/runs/digits/random/naive/seed0/run.json"
    record = read_record(path)
    reason = "code 12: as Jane\tvan Doe said"
    write_record(path, record.model_copy(update={"adopted": (reason,)}))
    with pytest.raises(AmstError, match=r"^jdoe42\.html is not anonymous: it holds 'jdoe42'"):
        amst("report", "--anonymous", "--out", "jdoe42.html")
    said = r"^report-anonymous\.html is not.* holds 'Jane\\tvan Doe' \(git's user\.name\), in '"
    with pytest.raises(AmstError, match=said):
        amst("report", "--anonymous")
    with pytest.raises(AmstError, match=r"blind/runs/.*/naive/seed0/run\.json is not anonymous"):
        export()
    assert not [path for path in work.rglob("*") if "blind" in path.name or "report" in path.name]


def written(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def picture(text):
    content, about = io.BytesIO(), PngImagePlugin.PngInfo()
    about.add_text("Author", text, zip=True)
    Image.new("L", (2, 2)).save(content, "PNG", pnginfo=about)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jdoe42.md", b"text"),
        ("a.csv", b"1,jdoe42_try\n"),
        ("a.html", b"<b>/h&#111;me/</b>"),
        ("a.tex", b"JDOE42"),
        ("a.json", b'"/data/x, /home/colleague/x"'),
        ("a.json", rb'"by\njdoe42"'),
        ("a.yaml", b"a: Jane\n  van Doe"),
        ("a.cff", b"url: https://example.org/DoeLab/fork"),
        ("a.txt", b"jane@example.org"),
        ("a.txt", b"on gpu017"),
        ("a.txt", b"x.hpc.example.org"),
        ("a.txt", COMMIT.encode()),
        ("a.txt", COMMIT[:12].encode()),
        ("a.pdf", b"%PDF /Author (jdoe42) stream\nabc\nendstream"),
        ("a.png", picture("by jdoe42")),
        ("a.npz", written(jdoe42=np.zeros(1))),
        ("a.npz", written(ids=np.array([["clip of jdoe42"]]))),
        ("a.safetensors", b'\x12\0\0\0\0\0\0\0{"made by":"jdoe42"}'),
    ],
)
def test_a_name_is_found_wherever_a_file_holds_one(work, name, content):
    with pytest.raises(AmstError, match="is not anonymous: it holds '"):
        known().refuse_in(name, content)


@pytest.mark.parametrize(
    ("name", "written"),
    [("İlker Şen", "by İlker Şen"), ("Müller", "by Mu\u0308ller"), ("Mu\u0308ller", "by MÜLLER")],
)
def test_a_name_is_found_in_any_case_and_form_of_unicode(monkeypatch, work, name, written):
    monkeypatch.setenv("GIT_AUTHOR_NAME", name)
    with pytest.raises(AmstError, match=r"it holds '.*' \(of git\)") as told:
        known().refuse_in("a.txt", written.encode())
    spared = shlex.split(str(told.value))[-1]
    Identities.of(collect(runs_of_the_grid(), ["naive"]), [spared]).refuse_in(
        "a.txt", written.encode()
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"jdoe421 doe /homes/a gpu0171 Jane van"),
        ("a.pdf", b"%PDF stream\n jdoe42 \nendstream"),
        ("a.safetensors", b"\x02\0\0\0\0\0\0\0{} jdoe42 "),
    ],
)
def test_what_only_looks_like_a_name_is_let_pass(work, name, content):
    known().refuse_in(name, content)


def known():
    return Identities.of(collect(runs_of_the_grid(), ["naive"]))


def runs_of_the_grid():
    planned = json.loads(Path("grid.json").read_text())
    return expected_runs(planned["runs"], {"naive": "naive"}, Path("results"))


@pytest.mark.parametrize("login", ["root", "ml"])
def test_a_name_that_ordinary_text_holds_is_told_and_searched_for_as_a_folder(
    work, monkeypatch, login
):
    for variable in ("LOGNAME", "USER"):
        monkeypatch.setenv(variable, login)
    monkeypatch.setenv("HOME", f"/srv/people/{login}")
    done = amst("report", "--anonymous")
    assert "note: not searched for, as ordinary text may hold it: " in done.stderr
    assert f"{login!r} (the login name)" in done.stderr
    known().refuse_in("a.txt", f"{login} of".encode())
    with pytest.raises(AmstError, match="the home folder"):
        known().refuse_in("a.txt", f"in /srv/people/{login}/x".encode())


def test_a_name_that_stands_in_the_results_by_chance_can_be_spared(work, monkeypatch):
    monkeypatch.setenv("LOGNAME", "naive")
    refused = amst_fails("report", "--anonymous")
    assert "holds 'naive' (the login name)" in refused
    assert refused.endswith("where it is but an ordinary word, with --ordinary naive")
    done = amst("report", "--anonymous", "--ordinary", "Naive")
    assert "'naive' (the login name)" in done.stderr
    assert Path("results/report-anonymous.html").is_file()
    assert amst_fails("report", "--anonymous", "--ordinary", "naive", "--ordinary", "native") == (
        "--ordinary: 'native' is not searched for. Leave it out, or mend its spelling"
    )
    assert amst_fails("export", "--ordinary", "naive").startswith("--ordinary is of --anonymous")


def amst_fails(*arguments):
    with pytest.raises(AmstError) as caught:
        amst(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/home/jane doe/models/roberta-base", "roberta-base"),
        ("~/models/roberta-base/", "roberta-base"),
        ("../../doe/AVE", "AVE"),
        ("data/AVE", "data/AVE"),
        ("FacebookAI/roberta-base", "FacebookAI/roberta-base"),
        ("$TMPDIR/shards", "$TMPDIR/shards"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("audio: no /scratch/doe/a.wav, 3 / 4", "audio: no a.wav, 3 / 4"),
        (["/a/b", {"c": "/d/e"}, 1, None], ["b", {"c": "e"}, 1, None]),
    ],
)
def test_of_a_path_outside_the_working_folder_the_last_part_is_kept(given, kept):
    assert without_folders(given) == kept
