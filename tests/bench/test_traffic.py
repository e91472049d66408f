import torch
from torch.nn import functional

from amst.bench.traffic import TrafficCounter


def moved(work) -> int:
    with TrafficCounter() as counter:
        work()
    return counter.moved


def test_operators_read_their_arguments_and_write_their_results():
    a, b = torch.ones(10, 20), torch.ones(20, 5)
    assert moved(lambda: a @ b) == 4 * (200 + 100 + 50)
    assert moved(lambda: a.add_(1)) == 4 * (200 + 200)
    assert moved(lambda: torch.cat([a, a])) == 4 * (400 + 400)
    assert moved(lambda: a.half()) == 4 * 200 + 2 * 200


def test_views_and_memory_that_is_only_taken_move_nothing():
    a = torch.ones(10, 20)
    assert moved(lambda: a.t()[3:].reshape(-1, 5)[0]) == 4 * 2 * 170, "a copy, and a view of it"
    assert moved(lambda: a.view(20, 10).t()[0]) == 0
    assert moved(lambda: torch.empty(100)) == 0


def test_what_is_updated_in_place_by_lists_counts_twice():
    weights, gradients = [torch.ones(7), torch.ones(3)], [torch.ones(7), torch.ones(3)]
    assert moved(lambda: torch._foreach_add_(weights, gradients)) == 4 * (2 * 10 + 10)


def test_backward_passes_count_and_operations_are_counted_as_before():
    a, b = torch.ones(8, 4, requires_grad=True), torch.ones(4, 2)
    with TrafficCounter() as counter:
        functional.relu(a @ b).sum().backward()
    assert counter.total == 2 * (2 * 8 * 4 * 2)
    assert counter.moved > 4 * (32 + 8 + 16)
