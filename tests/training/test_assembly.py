import os
import pickle
import subprocess
import sys
from contextlib import AbstractContextManager
from types import SimpleNamespace

import pytest
import torch

from amst import compiler
from amst.config.run import Arithmetic, Modality, SmallCNN, VisualFeatures
from amst.errors import AmstError, HostError
from amst.training import assembly
from amst.training.assembly import (
    assemble_training,
    choose_device,
    input_shape,
    prepare_compiler,
    set_arithmetic,
)
from amst.training.execution import Execution


def _after(arithmetic):
    """What the arithmetic sets, seen in a process of its own."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        set_arithmetic(arithmetic, seed=0)
        seen = {
            "threads": torch.get_num_threads(),
            "conv": torch.backends.cudnn.allow_tf32,
            "products": torch.backends.cuda.matmul.allow_tf32,
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "offline": os.environ["HF_HUB_OFFLINE"],
        }
        os.write(writer, pickle.dumps(seen))
        os._exit(0)
    os.wait()
    return pickle.loads(os.read(reader, 1 << 12))


@pytest.mark.parametrize(
    ("tf32", "conv", "products"),
    [("off", False, False), ("conv", True, False), ("all", True, True)],
)
def test_arithmetic_is_as_the_settings_say_and_reproducible(tf32, conv, products):
    assert _after(Arithmetic(tf32=tf32, threads=2)) == {
        "threads": 2,
        "conv": conv,
        "products": products,
        "deterministic": True,
        "offline": "1",
    }


def test_the_number_of_threads_is_not_that_of_the_job(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert _after(Arithmetic())["threads"] == 1


@pytest.mark.parametrize(("cc", "missing"), [("", "a C compiler"), ("icc", "CC names, icc")])
def test_compiling_needs_a_c_compiler(monkeypatch, tmp_path, cc, missing):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", cc)
    with pytest.raises(AmstError, match=f"needs .*{missing}, which is not here"):
        prepare_compiler()


_COMPILING = """
import os, signal, time
from pathlib import Path

from amst.compiler import start_workers

stopped = []
asks = signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP
for number in asks:
    signal.signal(number, lambda number, _frame: stopped.append(number))
start_workers()
from torch._inductor.async_compile import AsyncCompile

def below(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(pid) for pid in children]

pool = AsyncCompile.process_pool()
kernel = pool.submit(time.sleep, 2)
while not (workers := [each for pid in below(os.getpid()) for each in below(pid)]):
    time.sleep(0.1)
for number in asks:
    os.killpg(0, number)
kernel.result(timeout=60)
print(len(set(stopped)), len(workers) > 0)
"""


def test_a_kernel_is_compiled_whatever_asks_the_job_to_stop():
    environ = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    told = subprocess.run(
        [sys.executable, "-c", _COMPILING],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        start_new_session=True,  # a process group to send the signal to
        check=True,
    )
    assert told.stdout.split() == ["3", "True"]


def test_compiling_needs_the_header_of_python(monkeypatch, tmp_path):
    monkeypatch.setenv("CC", sys.executable)  # something that is there
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    assert compiler.missing() == f"Python's own header {tmp_path / 'Python.h'}"
    (tmp_path / "Python.h").touch()
    assert compiler.missing() == ""


def test_kernels_that_somebody_else_has_compiled_are_not_run(monkeypatch, tmp_path):
    """PyTorch keeps them in /tmp, under the user's name, unless it is told another folder."""
    monkeypatch.setattr(compiler, "missing", lambda: "")
    monkeypatch.setattr(compiler, "start_workers", lambda: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "own"))
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    prepare_compiler()
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    with pytest.raises(HostError, match=r"torchinductor_.*somebody else's\. Name a folder of yo"):
        prepare_compiler()
    monkeypatch.setattr(os, "getuid", lambda: user)
    prepare_compiler()


def test_a_gpu_that_is_asked_for_must_be_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(AmstError, match="no GPU is to be seen"):
        choose_device(Execution(device="cuda"))
    assert choose_device(Execution()).type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use the GPU that is here")
def test_a_gpu_that_cannot_be_used_is_not_passed_over(monkeypatch, tmp_path):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(assembly, "_GPU_FILES", f"{tmp_path}/nvidia[0-9]*".removeprefix("/"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for device in ("auto", "cuda"):
        with pytest.raises(HostError, match=r"nvidia0, and PyTorch cannot use it \(\w+"):
            choose_device(Execution(device=device))
    assert choose_device(Execution(device="cpu")).type == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device(Execution()).type == "cpu", "none is to be used"


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch can use the GPU that is here")
def test_a_gpu_of_another_maker_that_slurm_gave_is_not_passed_over(monkeypatch, tmp_path):
    (tmp_path / "kfd").touch()
    monkeypatch.setattr(assembly, "_GPU_FILES", f"{tmp_path}/nvidia[0-9]*".removeprefix("/"))
    monkeypatch.setattr(assembly, "_OTHER_GPU_FILE", tmp_path / "kfd")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURM_JOB_GPUS", raising=False)
    assert choose_device(Execution()).type == "cpu", "a laptop's own graphics"
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    with pytest.raises(HostError, match="kfd, and PyTorch cannot use it"):
        choose_device(Execution())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert choose_device(Execution()).type == "cpu", "none is to be used"


def test_a_gpu_that_this_pytorch_has_no_code_for_is_told_in_one_line(monkeypatch):
    """As the driver does, which counts it among the GPUs and refuses the first kernel."""

    def refused(*_size, device):
        raise RuntimeError(f"{device.upper()} error: no kernel image is available\nadvice")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch, "ones", refused)
    for device in ("auto", "cuda"):
        with pytest.raises(
            HostError, match=r"cannot use it \(CUDA error: no kernel image is"
        ) as no:
            choose_device(Execution(device=device))
        assert "advice" not in str(no.value)
    monkeypatch.setattr(torch, "ones", lambda *_size, device: None)
    assert choose_device(Execution()).type == "cuda"


def test_a_visual_modality_needs_a_crop():
    visual = Modality(kind="visual", features=VisualFeatures(), encoder=SmallCNN())
    with pytest.raises(AmstError, match="crop"):
        input_shape(visual)
    assert input_shape(visual.model_copy(update={"crop": 224})) == (3, 3, 224, 224)


@pytest.mark.parametrize(
    ("device", "wanted", "done"),
    [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_passes_are_captured_on_a_gpu_where_that_is_asked_for(monkeypatch, device, wanted, done):
    captured = []
    method = SimpleNamespace(capture_training=lambda: captured.append(precision.entered))
    precision = Entered()
    run = SimpleNamespace(device=torch.device(device), method=method, autocast=lambda: precision)
    monkeypatch.setattr(assembly, "assemble", lambda *_: run)
    settings = SimpleNamespace(arithmetic=Arithmetic())
    assemble_training(settings, None, None, Execution(capture=wanted))
    assert captured == [True] * done


def test_variables_by_which_libraries_compute_otherwise_are_told(monkeypatch, capsys):
    run = SimpleNamespace(device=torch.device("cpu"))
    monkeypatch.setattr(assembly, "assemble", lambda *_: run)
    for name in assembly._ARITHMETIC:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as a run sets it
    assemble_training(None, None, None, Execution())
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assemble_training(None, None, None, Execution())
    told = capsys.readouterr().err.splitlines()
    names = [line.partition(" is set in the environment")[0] for line in told]
    assert names == ["CUBLAS_WORKSPACE_CONFIG=:0:0", "NVIDIA_TF32_OVERRIDE=0"]


def test_in_half_precision_too_a_weight_is_the_present_one_in_every_pass():
    settings = SimpleNamespace(arithmetic=Arithmetic(precision="bf16"))
    loader = SimpleNamespace(device=torch.device("cpu"))
    run = assembly.Assembly(settings, None, None, {}, None, loader, "host")
    layer, inputs = torch.nn.Linear(3, 2, bias=False), torch.ones(1, 3)
    with run.autocast():
        assert layer(inputs).dtype == torch.bfloat16
        torch.nn.init.zeros_(layer.weight)
        assert not layer(inputs).any()


class Entered(AbstractContextManager):
    entered = False

    def __enter__(self):
        self.entered = True

    def __exit__(self, *_):
        self.entered = False
