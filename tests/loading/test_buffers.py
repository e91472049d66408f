import threading

import pytest
import torch

from amst.loading import buffers

SHAPE = (128, 1 << 12)


@pytest.fixture(autouse=True)
def nothing_free():
    del buffers._free[:]
    yield
    del buffers._free[:]


def test_memory_is_lent_again_when_no_tensor_uses_it():
    first = buffers.empty(SHAPE)
    assert first.shape == SHAPE
    assert first.dtype == torch.float32
    assert first.data_ptr() % 64 == 0
    address = first.data_ptr()
    view = first.view(-1)[5:].unsqueeze(0)
    del first
    second = buffers.empty(SHAPE)
    assert second.data_ptr() != address, "a view uses it still"
    del view
    third = buffers.empty((SHAPE[0] // 2, SHAPE[1]))
    assert third.data_ptr() == address
    third.fill_(1)
    second.fill_(2)
    assert (third == 1).all()


def test_a_graph_keeps_what_it_needs():
    tensor = buffers.empty(SHAPE).fill_(2)
    weight = torch.ones((), requires_grad=True)
    loss = (tensor * weight).sum()
    del tensor
    buffers.empty(SHAPE).fill_(0)
    loss.backward()
    assert weight.grad == 2 * SHAPE[0] * SHAPE[1]


def test_what_is_too_small_is_let_go_and_the_smallest_that_fits_is_taken():
    kept = [buffers.empty((n << 18,)) for n in (4, 1, 2)]
    address = kept[2].data_ptr()
    del kept
    two = buffers.empty(((1 << 18) + 1,))
    assert two.data_ptr() == address
    buffers.empty((8 << 18,))
    assert [memory.nbytes >> 20 for memory in buffers._free] == [8]


def test_threads_never_share_memory():
    wrong = []

    def work(number):
        for _ in range(200):
            mine = buffers.empty((1 << 18,)).fill_(number)
            if mine.ne(number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(buffers._free) <= 2 * len(threads), "one in hand, one on its way"
