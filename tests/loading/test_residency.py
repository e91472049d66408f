import pytest
import torch

from amst.errors import AmstError
from amst.loading.residency import available_memory, choose_residency

CPU = torch.device("cpu")


def test_what_fits_into_memory_is_kept_there():
    assert choose_residency("auto", 1000, CPU) == "host"


def test_what_does_not_fit_stays_on_disk():
    assert choose_residency("auto", available_memory(), CPU) == "stream"


def test_a_residency_can_be_forced():
    assert choose_residency("stream", 1000, CPU) == "stream"
    assert choose_residency("host", 10**15, CPU) == "host"


def test_a_cpu_has_no_memory_of_its_own():
    with pytest.raises(AmstError, match="needs a GPU"):
        choose_residency("device", 1000, CPU)
