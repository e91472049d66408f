"""What can be seen before anything runs: dry runs, the paper's grid, missing data, the linter."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
import yaml

from amst.training.execution import Execution
from tests.end_to_end.suite import ROOT, SMALL, Suite, planned

METHODS = 11
PUBLISHED = f"docker://example/amst@sha256:{64 * 'a'}"
PAPER_RUNS = 310  # six datasets x eleven methods x five seeds, less four single modalities


@pytest.fixture
def fresh(tmp_path) -> Suite:
    """A checkout in which nothing ran, with the configuration as it is shipped."""
    return Suite.new(tmp_path, {})


def test_the_default_grid_is_planned_without_data(fresh: Suite):
    done = fresh.snakemake("-n")
    counts = planned(done.stdout)
    assert counts["train"] == METHODS * 3
    assert counts["generate"] == counts["samples"] == counts["split"] == counts["manifest"] == 1


def test_the_papers_grid_is_planned_without_data(fresh: Suite):
    fresh.config = fresh.checkout / "workflow/configs/paper.yaml"
    counts = planned(fresh.snakemake("-n").stdout)
    assert counts["train"] == PAPER_RUNS
    assert counts["samples"] == counts["manifest"] == 5, "IEMOCAP uses what IEMOCAP3 has"
    assert counts["extract"] == 5 * 16


def test_a_config_yaml_of_the_working_folder_counts_for_snakemake_as_for_amst(fresh: Suite):
    text = (fresh.checkout / "config.yaml").read_text()
    assert "seeds: [0, 1, 2]" in text
    (fresh.work / "config.yaml").write_text(text.replace("seeds: [0, 1, 2]", "seeds: [0]"))
    assert planned(fresh.snakemake("-n").stdout)["train"] == METHODS
    assert f"of {METHODS} runs" in fresh.amst("status").stdout


def test_another_working_folder_takes_the_features_and_has_runs_of_its_own(suite: Suite):
    first, suite.work = suite.work, suite.work.with_name("second")
    (suite.work / "results").mkdir(parents=True)
    for name in ("features", "raw"):
        (suite.work / "results" / name).symlink_to(first / "results" / name)
    counts = planned(suite.snakemake("-n").stdout)
    assert counts["train"] == len(SMALL["grid"]["methods"])
    assert not {"generate", "samples", "extract", "split", "manifest"} & set(counts)


def test_a_workflow_elsewhere_takes_this_one_as_a_module(fresh: Suite):
    (fresh.work / "config.yaml").symlink_to(fresh.checkout / "config.yaml")
    outer = fresh.work / "outer.smk"
    outer.write_text(
        'configfile: "config.yaml"\n'
        f'module amst:\n    snakefile: "{fresh.checkout}/Snakefile"\n    config: config\n'
        "use rule * from amst\n"
        'rule mine:\n    input: "results/tables/main.csv"\n    output: "mine"\n'
        '    shell: "cp {input} {output}"\n'
        'rule where:\n    output: "where"\n    shell: "echo $PYTHONPATH > {output}"\n'
    )
    inner = str(fresh.checkout / "Snakefile")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(outer) if word == inner else word for word in fresh.command(*words)]
        at, env = fresh.work, fresh.environment()
        return subprocess.run(command, cwd=at, env=env, capture_output=True, text=True, check=False)

    done = call("-n", "mine")
    counts = planned(done.stdout)
    assert counts["train"] == METHODS * 3, done.stderr
    assert counts["mine"] == 1
    assert call("--cores", "1", "where").returncode == 0
    assert (fresh.work / "where").read_text().strip() == str(fresh.checkout / "src")


def test_clips_made_by_hand_with_other_settings_stop_a_call(fresh: Suite):
    few = {"samples": 60, "pools": 12}
    (fresh.work / "config.yaml").symlink_to(fresh.checkout / "config.yaml")
    fresh.configure({"datasets": {"digits": {"generate": few}}})
    fresh.amst("generate", "digits", "--settings", json.dumps(few))
    target = "results/raw/digits/digits.json"
    assert "does not see it" not in fresh.snakemake("-n", target).stderr
    fresh.configure({"datasets": {"digits": {"generate": {**few, "samples": 90}}}})
    said = f"{target} was made with other settings than datasets.digits.generate"
    assert said in fresh.snakemake("-n", target).stderr
    done = fresh.snakemake(target, "--cores", "1", check=False)
    assert done.returncode != 0
    assert said in done.stderr
    fresh.file(target).unlink()
    fresh.snakemake(target, "--cores", "1")
    assert json.loads(fresh.file(target).read_text())["settings"]["samples"] == 90


def test_a_method_is_added_as_its_page_says(fresh: Suite):
    page = (ROOT / "docs/add-a-method.md").read_text()
    (code, _), (entries,), commands = (
        re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        for language in ("python", "yaml", "bash")
    )
    file = re.search(r"Save it as `(.*?)`", page)[1]
    (fresh.checkout / file).write_text(code)
    values = yaml.safe_load(entries)
    fresh.configure(values)
    (tried,) = (shlex.split(each)[1] for each in commands if each.startswith("snakemake "))
    targets = {tried.replace("/helped/", f"/{entry}/") for entry in values["methods"]}
    assert tried in targets
    assert planned(fresh.snakemake("-n", *targets).stdout)["train"] == len(targets) == 2


def test_missing_raw_data_stop_a_call_before_the_first_job(fresh: Suite):
    fresh.config = fresh.checkout / "workflow/configs/paper.yaml"
    done = fresh.snakemake("--cores", "2", check=False)
    assert done.returncode != 0
    text = done.stdout + done.stderr
    for name in ("CREMAD", "AVE", "MVSA", "IEMOCAP3", "URFUNNY"):
        assert f"datasets.{name}.raw" in text, "names the setting"
        assert f"docs/datasets/{name.rstrip('3')}.md" in text, "names the page"
    assert "Finished jobid" not in text
    assert not fresh.file("results").exists()


def test_checkout_and_working_folder_may_have_odd_characters_in_their_paths(tmp_path):
    few = {"datasets": {"digits": {"generate": {"samples": 60, "pools": 12}}}}
    suite = Suite.new(tmp_path / "a {folder} of o'b", few)
    suite.snakemake("results/raw/digits/digits.json", "--cores", "1")
    assert suite.file("results/raw/digits/digits.json").is_file()


def test_packages_of_pythonpath_that_jobs_do_not_get_end_a_call(fresh: Suite, tmp_path):
    """Through real commands: what waits has read PYTHONPATH before."""
    metadata = tmp_path / "modules" / "numpy-1.20.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.20.0\n")
    paths = f"{fresh.checkout / 'src'}:{tmp_path / 'modules'}"

    def said(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *words, *fresh.command()[1:]],
            cwd=fresh.work,
            env={**fresh.environment(), "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )

    line = f"(numpy 1.20.0 in place of {version('numpy')}), and all that is done would count"
    done = said("results/grid.json", "--cores", "1")
    assert done.returncode == 1
    assert line in done.stderr.splitlines()[-1]
    assert not fresh.file("results").exists()
    looked = said("-n", "results/grid.json")
    assert looked.returncode == 0
    assert line in looked.stderr
    shutil.rmtree(metadata.parent)
    assert "PYTHONPATH" not in said("-n", "results/grid.json").stderr


def test_a_python_that_cannot_start_jobs_is_refused_in_one_line(fresh: Suite, tmp_path):
    (tmp_path / "an env").symlink_to(sys.prefix)
    call = [str(tmp_path / "an env/bin/python"), "-m", "snakemake", "results/grid.json"]
    call += ["--cores", "1", *fresh.command()[1:]]
    done = subprocess.run(
        call, cwd=fresh.work, env=fresh.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    said = f"amst: {call[0]}, the Python of this call, has white space in its path"
    assert done.stderr.splitlines()[-1].startswith(said), done.stderr


def test_the_slurm_profile_is_planned_without_slurm_and_apptainer(fresh: Suite):
    profile = str(fresh.checkout / "profiles/slurm")
    assert planned(fresh.snakemake("-n", "--profile", profile).stdout)["train"] == METHODS * 3


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"recipe": {"epoch": 3}}, "recipe.epoch: unknown key. Did you mean 'epochs'?"),
        # config.yaml has it, too
        ({"arithmetic": {"tf32": "con"}}, "arithmetic.tf32: unknown name 'con'. Valid names: off"),
    ],
)
def test_a_wrong_key_stops_with_one_line_before_the_graph_is_built(
    fresh: Suite, values: dict[str, Any], told: str
):
    fresh.configure(values)
    done = fresh.snakemake("-n", check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"amst: small.yaml: {told}"), done.stderr
    assert "Traceback" not in done.stderr
    assert "Building DAG" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--config", "grid={'seed': [0]}"], "--config: grid.seed: unknown key. Did"),
        (["--replace-workflow-config"], "small.yaml: grid.datasets: missing. Add this key"),
    ],
)
def test_a_wrong_key_is_told_with_the_option_that_brought_it(
    fresh: Suite, options: list[str], told: str
):
    fresh.configure({"grid": {"seeds": [0], "methods": ["naive"]}})
    done = fresh.snakemake("-n", *options, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"amst: {told}"), done.stderr


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("digits/random/naiv/seed0", "method: unknown name 'naiv'. Did you mean 'naive'?"),
        ("digits/official/naive/seed0", "split: unknown name 'official'"),
        ("CREMAD/amst/unimodal_text/seed0", "unimodal_text does not apply to CREMAD"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(fresh: Suite, run: str, said: str):
    target = f"results/runs/{run}/run.json"
    done = fresh.snakemake("-n", target, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].startswith(f"amst: {target}: "), done.stderr
    assert said in done.stderr.splitlines()[-1]


def test_a_seed_with_a_zero_before_it_is_no_run(fresh: Suite):
    done = fresh.snakemake("-n", "results/runs/digits/random/naive/seed00/run.json", check=False)
    said = done.stdout + done.stderr
    assert "No rule to produce results/runs/digits/random/naive/seed00/" in said


def told(fresh: Suite, code: str, *arguments: str) -> Any:
    """A value of the workflow, as a call of Snakemake sees it that only plans.

    Args:
        fresh: the suite.
        code: gives it the name `told`.
        arguments: of the call.
    """
    with (fresh.checkout / "Snakefile").open("a") as file:
        file.write(f'\n\n{code}\nprint("told: " + json.dumps(told), file=sys.stderr)\n')
    said = fresh.snakemake("results/grid.json", "-n", *arguments).stderr
    return json.loads(re.search("^told: (.*)$", said, re.MULTILINE)[1])


def test_a_folder_of_somebody_else_ends_a_call_in_one_line(fresh: Suite):
    """Through a stand-in: root may write everywhere."""
    calls = fresh.checkout / "src/amst/cluster/calls.py"
    calls.write_text(f"{calls.read_text()}\n\ndef why_closed(folder):\n    return 'closed'\n")
    for words in (("results/grid.json",), ("-n",)):
        done = fresh.snakemake(*words, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == "amst: closed"
    assert "closed" not in fresh.snakemake("--list-rules").stderr


def test_jobs_are_told_how_runs_are_executed(fresh: Suite, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AMST_RUNS_PER_GPU", "2")
    resources = {"gpu": 1, "threads": 1}
    fresh.configure(
        {
            "execution": {"device": "cpu", "deadline": 60},
            "grid": {"datasets": ["digits", "AVE"]},
            "datasets": {
                "AVE": {"raw": "raw", "resources": resources},
                "digits": {"resources": {"threads": 2}},
            },
        }
    )
    code = 'told = {name: os.environ[name] for name in ("AMST_EXECUTION", "AMST_WITHOUT_GPU")}'
    code += '\ntold["own"] = shell("echo $PYTHONNOUSERSITE", read=True)'
    code += '\ntold["first"] = shell("python -c \'import sys; print(sys.path[0])\'", read=True)'
    found = told(fresh, code, "--cores", "6", "--resources", "gpu=2")
    assert found["own"] == "1\n", "what lies in a home folder takes no package's place"
    assert found["first"] == f"{fresh.checkout}/src\n", "nor does a statistics.py that lies here"
    assert found["AMST_WITHOUT_GPU"] == "digits"
    how = Execution.model_validate_json(found["AMST_EXECUTION"])
    assert (how.device, how.deadline) == ("cpu", 60)
    assert how.keep, "Snakemake may delete a run's files before it has seen that it is done"
    assert how.runs_on_node == 3, "of digits, by cores; two of AVE, by GPUs"
    assert how.runs_on_gpu == 2


def test_a_job_that_ended_asks_for_more_as_long_as_that_may_help(fresh: Suite):
    run = "digits/random/naive/seed1"
    code = """
from types import SimpleNamespace
from amst.cluster.site import Site
from amst.files import write_text

w = SimpleNamespace(dataset="digits", split="random", variant="naive", seed="1")
note = f"results/checkpoints/{cell_of(w).run}/kills"
told = {"prepared": [growing(100)(w, attempt) for attempt in range(1, 7)], "trained": []}
for kills_of_run in ("0", "1", "2", "9"):
    write_text(note, kills_of_run)
    told["trained"] += [[memory(w, attempt) for attempt in (1, 2, 9)]]
asked = workflow.get_rule("train").resources
told["asked"] = [asked[name].evaluate(w).value for name in ("_cores", "gpu", "runtime")]
for request in ("gpus", "gres"):
    SITE = Site(gpu_request=request, gpu_model="a100")
    told[request] = {name: of(w) for name, of in of_site().items()}
"""
    resources = {"mem_mb": 1000, "threads": 3, "gpu": 2, "runtime": 7}
    fresh.configure({"datasets": {"digits": {"resources": resources}}})
    found = told(fresh, code)
    assert fresh.file(f"results/checkpoints/{run}/kills").exists()
    assert found["asked"] == [3, 2, 7]
    assert found["gpus"] == {"slurm_partition": "gpu", "gpu_model": "a100", "gres": ""}
    assert found["gres"] == {"slurm_partition": "gpu", "gpu_model": "", "gres": "gpu:a100:2"}
    assert found["prepared"] == [100, 200, 400, 800, 800, 800]
    assert found["trained"] == [
        [1000, 1000, 1000],  # time limits have ended it
        [1000, 2000, 2000],
        [1000, 3000, 3000],
        [1000, 3000, 3000],
    ]


def test_containers_see_every_folder_that_the_configuration_names(fresh: Suite, tmp_path):
    folders = {name: tmp_path / name for name in ("raw", "lists", "words", "weights", "disk")}
    for folder in folders.values():
        folder.mkdir()
    text = {
        "features": {"tokenizer": str(folders["words"])},
        "encoder": {"name": "roberta", "weights": str(folders["weights"])},
    }
    datasets = {
        "MVSA": {"raw": str(folders["raw"]), "modalities": {"text": text}},
        "CREMAD": {"lists": str(folders["lists"])},
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("NODE_DISK", str(folders["disk"]))
        values = {"grid": {"datasets": ["MVSA"]}, "datasets": datasets}
        values |= {"execution": {"stage": "$NODE_DISK"}, "container": {"image": PUBLISHED}}
        fresh.configure(values)
        code = "bind_roots()\nIN_CONTAINER = True\ntold = missing_image(), os.environ"
        missing, bound = told(fresh, f'{code}["APPTAINER_BIND"]')
    assert {f"{folder}:{folder}" for folder in folders.values()} <= set(bound.split(","))
    assert f"{fresh.checkout}:{fresh.checkout}:ro" in bound.split(",")
    assert missing is None, "a published image is no file"


def test_the_linter_finds_nothing(fresh: Suite):
    done = fresh.snakemake("--lint", check=False)
    assert "Congratulations" in done.stdout + done.stderr, done.stdout + done.stderr


def test_every_rule_says_what_it_does_needs_and_logs():
    rules = re.compile(r"^(?:rule|checkpoint) (\w+):\n((?:(?: .*)?\n)+)", re.MULTILINE)
    found = {}
    for path in sorted((ROOT / "workflow").rglob("*.smk")):
        found |= dict(rules.findall(path.read_text()))
    assert len(found) >= 10
    for name, body in found.items():
        for directive in ("output", "log", "benchmark", "resources", "message"):
            assert f"\n    {directive}:" in f"\n{body}", f"{name} has no {directive}"


def test_no_torch_is_loaded_to_plan_or_to_look(fresh: Suite):
    (fresh.checkout / "src/torch.py").write_text("raise ImportError('torch was imported')\n")
    (fresh.checkout / "src/pandas.py").write_text("raise ImportError('pandas was imported')\n")
    (fresh.work / "config.yaml").write_text((fresh.checkout / "config.yaml").read_text())
    for command in (["--help"], ["status"], ["train", "--help"]):
        assert fresh.amst(*command).returncode == 0


def test_a_call_without_torch_stops_before_the_first_job(fresh: Suite):
    grid = fresh.checkout / "workflow/grid.smk"
    grid.write_text(grid.read_text() + "\n\ndef find_spec(name):\n    return None\n")
    done = fresh.snakemake("--cores", "1", check=False)
    assert done.returncode != 0
    assert "Set everything up by `make environment`" in done.stdout + done.stderr
    assert not fresh.file("results").exists()


def test_status_shows_what_is_there(here: Suite):
    text = here.amst("status", "--configfile", str(here.config)).stdout
    assert "2 done, 0 running, 0 failed, 0 missing of 2 runs" in text


def test_the_command_line_tells_a_mistake_in_one_line(here: Suite):
    done = here.amst("train", "digits/random/naive", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("amst: 'digits/random/naive' is not the name of a run")
    assert len(done.stderr.splitlines()) == 1


def test_snakemakes_report_holds_tables_and_figures(suite: Suite):
    done = subprocess.run(
        suite.command("--report", "report.html"),
        cwd=suite.work,
        env=suite.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    page = suite.file("report.html").read_text()
    for wanted in ("main.html", "unimodal.html", "curves-digits.png"):
        assert wanted in page
    assert "features/digits/report.html" not in page, "its pictures are of the data"
    assert "1 dataset(s)\\n(digits), 2 method entries\\n(naive, amst_alternating)" in page
