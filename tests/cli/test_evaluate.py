"""`amst evaluate`, `import-checkpoint` and `export-checkpoint` as a user calls them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy.special import softmax
from typer.testing import CliRunner

from amst.cli import app
from amst.cli.checkpoints import Findings, _show
from amst.config.run import RunSettings
from amst.errors import AmstError
from amst.metrics import metrics_of
from amst.records import Metrics, read_record
from amst.runs import open_run
from amst.training.assembly import assemble
from amst.training.execution import Execution
from tests.datasets import rawtrees
from tests.documented import against_the_page, code_in
from tests.released import models

SOURCE = Path(__file__).parents[2] / "src"
CLASSES = 6
SMALL = {"name": "small_cnn", "widths": [4, 8]}
CONFIG = {
    "grid": {"datasets": ["CREMAD"], "methods": ["naive", "mla"], "seeds": [0]},
    "methods": {"naive": {"method": "naive"}, "mla": {"method": "mla"}},
    "datasets": {
        "CREMAD": {
            "raw": "raw",
            "max_lost": 1,
            "shards": 2,
            "recipe": {"epochs": 2, "batch_size": 8},
            "modalities": {
                "audio": {"features": {"mel_bins": 16, "frames": 32}},
                "visual": {"features": {"frames": 2, "size": 32}, "crop": 32},
            },
        }
    },
}
SMALL_ENCODERS = {
    "datasets": {
        "CREMAD": {
            "embedding": 8,
            "modalities": {"audio": {"encoder": SMALL}, "visual": {"encoder": SMALL}},
        }
    }
}
NAIVE, MLA = "CREMAD/random/naive/seed0", "CREMAD/random/mla/seed0"
KINDS = "modality", "probe", "linear"
SPLIT = ("--split", "results/features/CREMAD/splits/random.json")


@pytest.fixture(scope="module", autouse=True)
def _arithmetic():
    """Put back what a run changes for its process."""
    threads, mode = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


def amst(*arguments, refused=""):
    """What a command prints; with ``refused`` it must fail, and that be in its error."""
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if refused:
        assert isinstance(result.exception, AmstError), result.output
        assert refused in str(result.exception)
    elif result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with miniature CREMA-D through all steps, and two finished runs."""
    folder = tmp_path_factory.mktemp("suite")
    rawtrees.build("CREMAD", folder / "raw", per_class=5)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL_ENCODERS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        features = Path("results/features/CREMAD")
        amst("samples", "CREMAD", "--out", features / "samples.jsonl")
        for shard in range(2):
            amst("extract", "CREMAD", shard, "--out", features / f"shards/00{shard}.h5")
        amst("manifest", "CREMAD", "--out", features / "manifest.json")
        amst("split", "CREMAD", "random", "--out", features / "splits/random.json")
        amst("train", NAIVE)
        amst("train", MLA, "--configfile", "small.yaml")
    yield folder
    shutil.rmtree(folder)  # two gigabytes in the end


@pytest.fixture
def here(prepared, monkeypatch):
    """That folder, entered; what tests add to it has names of its own."""
    monkeypatch.chdir(prepared)
    return prepared


def record_of(run):
    return json.loads(Path(f"results/runs/{run}/run.json").read_text())


# Imported checkpoints


def loaded_test_part(settings):
    """Inputs and labels of the test part, by released letter."""
    features = Path("results/features/CREMAD")
    assembly = assemble(
        RunSettings.model_validate(settings),
        features / "manifest.json",
        features / "splits/random.json",
        Execution(device="cpu"),
    )
    (batch,) = assembly.loader.in_order(assembly.part("test"))
    return {name[0]: batch.inputs[name] for name in sorted(batch.inputs)}, batch.labels.numpy()


def imported_and_evaluated(name):
    """Import NAME.pth and evaluate it on the test part: the findings and what import.json says."""
    amst("import-checkpoint", f"{name}.pth", "--dataset", "CREMAD", "--out", f"taken/{name}")
    found = json.loads(amst("evaluate", f"taken/{name}", *SPLIT, "--out", f"{name}.npz", "--json"))
    return found, json.loads(Path(f"taken/{name}/import.json").read_text())


def assert_predicted(model, name, found, told):
    """The stored logits and the metrics are those of the released model."""
    inputs, labels = loaded_test_part(told["settings"])
    only = told["settings"]["method_settings"].get("modality", "")[:1]
    with torch.no_grad():
        expected = model({only: inputs[only]} if only else inputs).numpy()
    with np.load(f"{name}.npz") as arrays:
        assert np.array_equal(arrays["test/labels"], labels)
        np.testing.assert_allclose(arrays["test/logits/fused"], expected, rtol=1e-4, atol=1e-4)
    assert found["samples"] == len(labels)
    metrics = metrics_of(expected, labels, told["classes"]).model_dump()
    assert found["metrics"]["fused"]["accuracy"] == metrics["accuracy"]
    assert found["metrics"]["fused"]["cross_entropy"] == pytest.approx(metrics["cross_entropy"])


@pytest.mark.parametrize("method", models.PREFIXES)
def test_an_imported_checkpoint_predicts_what_the_released_model_does(here, method):
    model = models.model_of(method, "av", CLASSES)
    models.save(here / f"{method}.pth", model, method)
    found, told = imported_and_evaluated(method)
    assert told["settings"]["method"] == method
    assert_predicted(model, method, found, told)
    with np.load(f"{method}.npz") as arrays:
        assert np.array_equal(arrays["test/subset/audio+visual"], arrays["test/logits/fused"]), (
            "all modalities are the whole"
        )
    assert found["subset_accuracy"].keys() == {"audio", "visual", "audio+visual"}
    assert found["shapley"].keys() == {"audio", "visual"}
    assert {"modality/audio", "probe/visual"} <= found["metrics"].keys()


@pytest.mark.parametrize("modality", ["audio", "visual"])
def test_an_imported_single_modality_predicts_what_the_released_model_does(here, modality):
    model = models.alone(modality, CLASSES)
    models.save_alone(here / f"only-{modality}.pth", model, modality)
    found, told = imported_and_evaluated(f"only-{modality}")
    assert_predicted(model, f"only-{modality}", found, told)
    assert found["metrics"].keys() == {"fused", f"modality/{modality}"}


@pytest.fixture(scope="module")
def naive(prepared):
    """A released checkpoint of naive training."""
    model = models.model_of("naive", "av", CLASSES)
    return models.save(prepared / "naive_lsum.pth", model, "naive")


def test_weights_of_an_import_can_be_given_by_option(here, naive):
    said = amst("import-checkpoint", naive)
    folder = "results/imported/CREMAD/amst/naive/seed0"
    assert f"{folder}: naive on CREMAD, epoch 83" in said
    assert "val 72.0 %, test 71.1 %" in said
    by_name = amst("evaluate", folder, *SPLIT, "--json")
    by_option = amst("evaluate", "--weights", folder, *SPLIT, "--json")
    assert by_name == by_option


def test_an_import_that_broke_off_is_told(here, naive):
    folder = Path("taken/half")
    amst("import-checkpoint", naive, "--out", folder)
    (folder / "weights.safetensors").write_bytes(b"of another import")
    again = "an import broke off, or it was changed. Import naive_lsum.pth again"
    for given in ([folder], ["--weights", folder], [NAIVE, "--weights", folder]):
        amst("evaluate", *given, *SPLIT, refused=again)
    (folder / "weights.safetensors").unlink()
    amst("evaluate", folder, *SPLIT, refused=again)
    amst("export-checkpoint", folder, "half.pth", refused=again)
    assert not Path("half.pth").exists()
    amst("evaluate", folder, "--weights", f"results/runs/{NAIVE}/weights.safetensors", *SPLIT)


def test_a_single_modality_is_evaluated_alone(here):
    models.save_alone(here / "audio.pth", models.alone("audio", CLASSES), "audio")
    amst("import-checkpoint", "audio.pth", "--method", "unimodal", "--out", "taken/audio")
    shown = amst("evaluate", "taken/audio", *SPLIT)
    assert "modality/audio" in shown
    assert "visual" not in shown


def test_refusals_leave_nothing(here, naive):
    out = ("--out", "taken/refused")
    amst("import-checkpoint", naive, "--dataset", "AVE", *out, refused="of dataset CREMAD")
    amst("import-checkpoint", naive, "--method", "pmr", *out, refused="of method naive")
    amst("import-checkpoint", "none.pth", *out, refused="there is no file none.pth")
    assert not (here / "taken/refused").exists()


# Runs


def test_a_run_is_evaluated_to_the_figures_of_its_record(here):
    found = json.loads(amst("evaluate", NAIVE, "--json", "--device", "cpu"))
    record = record_of(NAIVE)
    assert found["subset_accuracy"] == record["subset_accuracy"]
    assert found["shapley"] == record["shapley"]
    noted = {
        row["prediction"]: row["metrics"]
        for row in record["results"]
        if row["part"] == "test" and not row["prediction"].startswith("linear/")
    }
    assert found["metrics"] == noted
    assert "differences" not in found


def test_a_run_that_is_named_by_its_folder_is_that_run(here):
    before = Path(f"results/runs/{NAIVE}/run.json").read_bytes()
    assert amst("train", f"results/runs/{NAIVE}/").startswith(f"{NAIVE}: test accuracy ")
    assert not Path("results/runs/results").exists()
    assert not Path("results/checkpoints/results").exists()
    assert Path(f"results/runs/{NAIVE}/run.json").read_bytes() == before


def test_training_ends_with_the_test_accuracy_of_the_main_prediction(here, monkeypatch):
    record = read_record(f"results/runs/{NAIVE}/run.json")
    shares = {("fused", "test"): 0.25, ("fused", "val"): 0.75}
    rows = tuple(
        row.model_copy(
            update={
                "metrics": row.metrics.model_copy(
                    update={"accuracy": shares.get((row.prediction, row.part), 0.5)}
                )
            }
        )
        for row in record.results
    )
    trained = record.model_copy(update={"results": rows})
    monkeypatch.setattr("amst.training.run.train", lambda *given: trained)
    assert amst("train", NAIVE) == f"{NAIVE}: test accuracy 25.0 % (fused)\n"


def test_a_run_that_is_trained_by_hand_is_kept_for_a_call_that_has_yet_to_start_it(
    here, monkeypatch
):
    """Else Snakemake, which had not found its files, would delete them and train it again."""
    executions = []

    def train(*given):
        executions.append(given[-1])
        return read_record(f"results/runs/{NAIVE}/run.json")

    monkeypatch.setattr("amst.training.run.train", train)
    amst("train", NAIVE)
    lock = Path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    amst("train", NAIVE)
    lock.unlink()
    assert [each.keep for each in executions] == [False, True]


def test_the_text_names_every_prediction_subset_and_contribution(here):
    shown = amst("evaluate", NAIVE, "--part", "val")
    for words in (
        f"{NAIVE}, val, ", "fused ", "modality/visual", "probe/audio", "macro-F1", "mAP",
        "calibration error", "confidence", "from audio+visual: accuracy", "contribution of audio:",
    ):  # fmt: skip
        assert words in shown


def test_a_run_goes_out_as_a_released_checkpoint_and_comes_back(here):
    amst("export-checkpoint", NAIVE, "run.pth")
    content = torch.load("run.pth", weights_only=False)
    model = models.model_of("naive", "av", CLASSES)
    model.load_state_dict(content["model"])
    assert (content["args"].prefix, content["args"].fusion_method) == ("Naive", "lsum")
    main = {row["part"]: row for row in record_of(NAIVE)["results"] if row["prediction"] == "fused"}
    assert content["epoch"] == main["test"]["best_epoch"]
    assert content["best_val_acc"] == main["val"]["metrics"]["accuracy"]
    assert content["best_test_acc"] == main["test"]["metrics"]["accuracy"]
    amst("import-checkpoint", "run.pth", "--out", "taken/run")
    before = json.loads(amst("evaluate", NAIVE, "--json"))
    after = json.loads(amst("evaluate", "taken/run", *SPLIT, "--json"))
    assert {**before, "name": ""} == {**after, "name": ""}


def test_what_the_released_code_does_not_know_is_not_exported(here):
    amst("export-checkpoint", MLA, "mla.pth", refused="no checkpoints of method 'mla'")
    pmr = "CREMAD/random/pmr/seed0"
    amst("export-checkpoint", pmr, "x.pth", refused=f"there is no results/runs/{pmr}/run.json")
    assert not Path("mla.pth").exists()


def test_weights_are_evaluated_before_their_run_has_finished(here):
    weights = f"results/runs/{NAIVE}/weights.safetensors"
    found = json.loads(
        amst("evaluate", "CREMAD/random/naive/seed5", "--weights", weights, "--json")
    )
    assert found["subset_accuracy"] == record_of(NAIVE)["subset_accuracy"]


def test_other_weights_must_fit_the_run(here):
    weights = f"results/runs/{NAIVE}/weights.safetensors"
    amst("evaluate", MLA, "--weights", weights, refused="do not fit the method")
    amst("evaluate", "--weights", weights, refused="does not say which run it is of")
    amst("evaluate", "CREMAD/random/pmr/seed0", refused="or give other weights by --weights")
    amst("evaluate", refused="nothing to evaluate")


@pytest.mark.parametrize("option", [(), ("--from-predictions",)])
def test_a_run_that_is_not_there_is_told_with_the_nearest_name(here, option, tmp_path):
    mistyped = "CREMAD/random/nave/seed0"
    for name in (mistyped, f"results/runs/{mistyped}/"):
        told = f"there is no results/runs/{mistyped}/run.json. Did you mean {NAIVE}?"
        amst("evaluate", name, *option, refused=told)
    amst("evaluate", tmp_path, *option, refused=f"there is no {tmp_path}/run.json. Name a run as")
    planned = ("--configfile", "more.yaml")
    Path("more.yaml").write_text("grid: {seeds: [0, 9]}")
    seed9 = "CREMAD/random/naive/seed9"
    amst("evaluate", seed9, *option, *planned, refused=f"{seed9}/run.json. The run has not finish")


def told(*arguments):
    """What a command says on standard error."""
    result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
    assert result.exception is None, result.output
    return result.stderr


def test_data_that_are_not_the_runs_own_are_told(here):
    features = Path("results/features/CREMAD")
    own = json.loads((features / "splits/random.json").read_text())
    assert told(NAIVE) == ""
    test, train = own["parts"]["test"], own["parts"]["train"]
    Path("leak.json").write_text(json.dumps({**own, "parts": {**own["parts"], "test": train}}))
    assert told(NAIVE, "--split", "leak.json") == (
        f"{NAIVE} was trained on other shards or another split than {features}/manifest.json and "
        f"leak.json: it was trained on {len(train)} of {len(train)} samples of part test\n"
    )
    other = features / "other.json"
    other.write_text((features / "manifest.json").read_text() + "\n")
    said = told(NAIVE, "--manifest", other)
    assert f"it was trained on 0 of {len(test)} samples of part test" in said


def test_a_run_of_another_folder_is_evaluated_on_the_data_of_that_folder(
    here, tmp_path, monkeypatch
):
    shutil.copytree("results", tmp_path / "mine/results")
    monkeypatch.chdir(tmp_path)
    run = f"mine/results/runs/{NAIVE}"
    assert told(run) == ""
    split = Path("mine/results/features/CREMAD/splits/random.json")
    split.write_text(split.read_text() + "\n")
    said = told(run)
    assert f"/manifest.json and {split}: its samples may be training samples\n" in said
    Path("mine/results/features").rename("features")
    amst("evaluate", run, refused="results/features/CREMAD/manifest.json")


def test_another_manifest_and_another_split_are_those_that_are_read(here):
    for option in ("--manifest", "--split"):
        amst("evaluate", NAIVE, option, "of-another.json", refused="of-another.json")


# From Python, and what the files hold


def test_what_the_page_says_of_files_is_what_they_hold(here):
    lacking, unused = against_the_page(here / "results/runs" / NAIVE)
    assert lacking == set()
    lacking, more = against_the_page(here / "results/runs" / MLA)
    assert lacking == set()
    of_amst_full = {"alternating", "joint", *(f"joint/{kind}/<m>" for kind in KINDS)}
    assert unused & more == of_amst_full | {"weights", "method:<name>"}


def test_the_code_of_the_page_on_files_gives_the_accuracy_of_the_record(here):
    names = {}
    exec(code_in("files.md").replace("digits/random/mla/seed0", MLA), names)
    (row,) = (
        row
        for row in names["record"]["results"]
        if (row["selected_by"], row["prediction"], row["part"]) == ("entropy", "entropy", "test")
    )
    assert names["accuracy"] == row["metrics"]["accuracy"]
    assert set(names["answers"]) <= set(names["record"]["classes"])


def test_the_code_of_the_page_on_python_does_what_it_says(here, capsys):
    names, record = {}, read_record(f"results/runs/{MLA}/run.json")
    before = load_file(f"results/runs/{MLA}/weights.safetensors")
    code = code_in("python.md").replace("digits/random/amst_full/seed0", MLA)
    exec(code.replace("MyClips", "CREMAD"), names)
    (told,) = capsys.readouterr().err.splitlines()
    assert "another split than results/features/CREMAD/manifest.json and new.json" in told
    shares = pd.read_csv("new.csv", index_col=0)
    expected = softmax(names["found"].predictions.logits[record.main], axis=1)
    np.testing.assert_allclose(shares.loc[list(names["test"].ids)], expected, atol=1e-6)
    assert dict(names["found"].metrics).items() <= {
        row.prediction: row.metrics for row in record.results
        if row.part == "test" and row.selected_by == record.main
    }.items()  # fmt: skip
    embeddings, test = names["embeddings"], names["test"]
    assert {name: each.shape for name, each in embeddings.items()} == {
        ("", "audio"): (len(test), 8),
        ("", "visual"): (len(test), 8),
    }
    head = names["run"].method.network.head.classifier
    after = load_file("tuned.safetensors")
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(head.weight, after["head.classifier.weight"])
    assert not np.array_equal(
        names["tuned"].predictions.logits["equal"],
        np.load(f"results/runs/{MLA}/predictions.npz")["val/logits/equal"],
    )


def test_a_run_opened_on_other_data_says_so_and_one_that_is_not_there_is_told(here, capsys):
    split = here / SPLIT[1]
    parts = json.loads(split.read_text())["parts"]
    again = {**json.loads(split.read_text()), "seed": 99}
    Path("again.json").write_text(json.dumps(again))
    opened = open_run(f"results/runs/{NAIVE}", split="again.json", device="cpu")
    assert not any(network.training for network in opened.method.networks.values())
    val, test = len(parts["val"]), len(parts["test"])
    said = f"trained on 0 of {val} samples of part val and 0 of {test} samples of part test"
    assert said in capsys.readouterr().err
    with pytest.raises(AmstError, match=f"there is no .*/naive/seed5/run.json. .* {NAIVE}"):
        open_run("CREMAD/random/naive/seed5")
    for device in ("gpu", torch.device("cpu")):
        with pytest.raises(AmstError, match=r"is no device .* Valid names: auto, cpu, cuda"):
            open_run(NAIVE, device=device)


# What a reader is shown


def all_metrics(share):
    return Metrics(
        accuracy=share,
        macro_f1=share + 0.01,
        mean_average_precision=share + 0.02,
        cross_entropy=share + 0.03,
        confidence_correct=share + 0.04,
        calibration_error=share + 0.05,
        per_class_accuracy={},
    )


def test_each_metric_stands_behind_its_name_the_main_prediction_first(capsys):
    named = {
        "entropy": all_metrics(0.1),
        "equal": all_metrics(0.5),
        "modality/audio": all_metrics(0.2),
    }
    subsets, worth = {"audio": 0.25, "audio+visual": 0.5}, {"visual": 0.375, "audio": -0.125}
    _show(Findings("mine", "test", 40, "equal", named, subsets, worth, ("a line",)))
    first, *rows = capsys.readouterr().out.splitlines()
    assert first == "mine, test, 40 samples"
    assert [" ".join(row.split()) for row in rows] == [
        "equal accuracy 50.0 % macro-F1 51.0 % mAP 52.0 % cross-entropy 0.530 confidence 54.0 % "
        "calibration error 55.0 %",
        "entropy accuracy 10.0 % macro-F1 11.0 % mAP 12.0 % cross-entropy 0.130 confidence 14.0 % "
        "calibration error 15.0 %",
        "modality/audio accuracy 20.0 % macro-F1 21.0 % mAP 22.0 % cross-entropy 0.230 "
        "confidence 24.0 % calibration error 25.0 %",
        "from audio: accuracy 25.0 %",
        "from audio+visual: accuracy 50.0 %",
        "contribution of audio: -12.5 points (Shapley)",
        "contribution of visual: +37.5 points (Shapley)",
        "differs from run.json:",
        "a line",
    ]
    _show(Findings("mine", "test", 40, "equal", named, {}, {}, ()))
    assert capsys.readouterr().out.splitlines()[-1] == "  equal to run.json"


# Stored predictions


@pytest.mark.parametrize("part", ["val", "test"])
def test_stored_predictions_give_the_record_again(here, part):
    found = json.loads(amst("evaluate", MLA, "--from-predictions", "--part", part, "--json"))
    record = record_of(MLA)
    assert found["differences"] == []
    for row in record["results"]:
        if row["part"] == part and row["selected_by"] == record["main"]:
            assert found["metrics"][row["prediction"]] == row["metrics"]
        elif row["part"] == part:
            own = row["selected_by"] == row["prediction"]
            whose = "its own epoch" if own else f"epoch of {row['selected_by']}"
            assert found["metrics"][f"{row['prediction']} ({whose})"] == row["metrics"]
    assert len(found["metrics"]) == sum(row["part"] == part for row in record["results"])
    if part == "test":
        assert found["subset_accuracy"] == record["subset_accuracy"]
        assert found["shapley"] == pytest.approx(record["shapley"])
    else:
        assert found["subset_accuracy"] == found["shapley"] == {}, "of the test part only"
    assert "equal to run.json" in amst("evaluate", MLA, "--from-predictions", "--part", part)


@pytest.fixture
def changed(here):
    """A copy of a run's folder and a way to change its record."""
    copy = Path("results/runs/CREMAD/random/naive/seed7")
    shutil.copytree(f"results/runs/{NAIVE}", copy)

    def change(edit):
        record = json.loads((copy / "run.json").read_text())
        edit(record)
        (copy / "run.json").write_text(json.dumps(record))
        return "CREMAD/random/naive/seed7"

    yield change
    shutil.rmtree(copy)


def test_differences_from_the_record_are_told(changed):
    def edit(record):
        row = next(row for row in record["results"] if row["part"] == "test")
        row["metrics"]["macro_f1"] += 1e-6
        record["subset_accuracy"]["audio"] += 0.125
        record["shapley"]["visual"] -= 0.5
        record["results"][0]["samples"] += 1
        record["classes"][0] = "Fury"

    shown = CliRunner().invoke(app, ["evaluate", changed(edit), "--from-predictions"])
    assert isinstance(shown.exception, AmstError)
    assert "values of CREMAD/random/naive/seed7 are not those" in str(shown.exception)
    assert "macro_f1" in shown.stdout
    assert "accuracy from audio" in shown.stdout
    assert "contribution of visual" in shown.stdout
    assert re.search(r"samples \d+ in run\.json, \d+ from the predictions", shown.stdout)
    assert "classes ['Fury', 'Disgust'" in shown.stdout


def test_predictions_of_another_run_are_told(changed, here):
    run = changed(lambda record: None)
    other = Path(f"results/runs/{MLA}/predictions.npz")
    shutil.copy(other, f"results/runs/{run}/predictions.npz")
    amst("evaluate", run, "--from-predictions", refused="does not belong to its record")
    Path(f"results/runs/{run}/predictions.npz").write_bytes(b"PK torn")
    amst("evaluate", run, "--from-predictions", refused="cannot be read")


def test_options_that_need_the_model_do_not_go_with_stored_predictions(here):
    for option in (("--part", "train"), ("--out", "x.npz"), ("--weights", "w.safetensors")):
        amst("evaluate", MLA, "--from-predictions", *option, refused="reads the stored")
    amst("evaluate", "--from-predictions", refused="nothing to evaluate")


def test_recomputing_needs_no_torch(here):
    program = (
        "import sys; sys.modules['torch'] = None; from amst.cli import main; "
        f"sys.argv = ['amst', 'evaluate', '{MLA}', '--from-predictions']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "equal to run.json" in done.stdout
