import pytest
import torch

from amst.errors import AmstError
from amst.loading.memory import available_memory
from amst.loading.residency import choose_residency

CPU = torch.device("cpu")


def test_what_fits_into_memory_is_kept_there():
    assert choose_residency("auto", 1000, CPU) == "host"


def test_what_does_not_fit_stays_on_disk():
    assert choose_residency("auto", available_memory(), CPU) == "stream"


def test_runs_that_start_together_share_the_memory_that_all_see_free():
    size = available_memory() // 5
    assert choose_residency("auto", size, CPU) == "host"
    assert choose_residency("auto", size, CPU, on_node=4) == "stream"


def test_packed_runs_read_one_copy_in_the_page_cache():
    assert choose_residency("auto", 1000, CPU, on_node=2, on_gpu=1) == "stream"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_device_takes_packed_runs_only_if_all_of_them_fit():
    device = torch.device("cuda")
    size = torch.cuda.mem_get_info(device)[0] // 5
    assert choose_residency("auto", size, device, on_gpu=1) == "device"
    assert choose_residency("auto", size, device, on_gpu=4) == "stream"


@pytest.mark.parametrize(
    ("size", "on_gpu", "chosen"),
    [
        (500, 0, "device"),
        (501, 0, "host"),
        (500, 1, "device"),
        (501, 1, "stream"),
        (125, 4, "device"),
        (126, 4, "stream"),
    ],
)
def test_half_of_what_a_device_has_free_is_shared_by_its_runs(size, on_gpu, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert choose_residency("auto", size, torch.device("cuda"), on_gpu=on_gpu) == chosen


def test_a_residency_can_be_forced():
    assert choose_residency("stream", 1000, CPU) == "stream"
    assert choose_residency("host", 10**15, CPU) == "host"


def test_a_cpu_has_no_memory_of_its_own():
    with pytest.raises(AmstError, match="needs a GPU"):
        choose_residency("device", 1000, CPU)
