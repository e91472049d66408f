import torch

from amst.training.environment import device_name, environment_of, model_of, trained_on
from amst.training.execution import Execution


def test_the_environment_names_job_container_and_packages(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    execution = Execution(
        commit="f00", container_digest="abc", packages=("torch", "no-such-package")
    )
    found = environment_of(execution, ["model A", "model B", "model A"])
    assert found.slurm_job == "17"
    assert (found.commit, found.container_digest) == ("f00", "abc")
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
