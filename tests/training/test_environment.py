import subprocess

import torch

from amst.training import environment
from amst.training.environment import commit, device_name, environment_of, model_of, trained_on
from amst.training.execution import Execution


def _checkout(folder):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=folder,
            check=True,
            capture_output=True,
        )

    git("init")
    (folder / "module.py").write_text("x = 1\n")
    git("add", "module.py")
    git("commit", "-m", "first")


def test_the_commit_says_whether_the_checkout_was_edited(tmp_path, monkeypatch):
    _checkout(tmp_path)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "module.py"))
    clean = commit()
    assert len(clean) == 40
    (tmp_path / "untracked.txt").write_text("no part of the code")
    assert commit() == clean
    (tmp_path / "module.py").write_text("x = 2\n")
    assert commit() == f"{clean}+changes"


def test_without_a_checkout_the_commit_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "module.py"))
    assert commit() == ""


def test_the_environment_names_job_container_and_packages(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    execution = Execution(container_digest="abc", packages=("torch", "no-such-package"))
    found = environment_of(execution, ["model A", "model B", "model A"])
    assert found.slurm_job == "17"
    assert found.container_digest == "abc"
    assert list(found.packages) == ["torch"]
    assert found.device == "model A, model B"
    assert device_name(torch.device("cpu"))


def test_a_device_is_named_with_all_that_makes_its_hours_others(monkeypatch):
    card = "NVIDIA H200 (96 GB)"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: card)
    gpu = torch.device("cuda")
    alone = trained_on(gpu, False, 1)
    assert alone == trained_on(gpu, False, 0) == card
    packed = trained_on(gpu, True, 4)
    assert packed == f"{card} (captured) (4 runs at once)"
    assert model_of(packed) == model_of(alone) == card
    assert trained_on(torch.device("cpu"), False, 4) == device_name(torch.device("cpu"))
