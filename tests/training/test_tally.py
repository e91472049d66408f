import pytest
import torch
from torch.nn.functional import cross_entropy

from amst.training.tally import Tally


def _batch(size, names, seed=0):
    random = torch.Generator().manual_seed(seed)
    logits = {name: torch.randn(size, 3, generator=random) for name in names}
    return logits, torch.randint(3, (size,), generator=random)


def test_sums_over_uneven_batches_are_those_of_all_samples():
    (a, a_labels), (b, b_labels) = _batch(5, "xy", 1), _batch(2, "xy", 2)
    tally = Tally()
    tally.add(a, a_labels, torch.tensor(1.0))
    tally.add(b, b_labels, torch.tensor(8.0))
    labels = torch.cat((a_labels, b_labels))
    assert tally.samples == 7
    assert tally.loss() == pytest.approx((5 * 1 + 2 * 8) / 7)
    for name in "xy":
        logits = torch.cat((a[name], b[name]))
        assert tally.accuracies()[name] == (logits.argmax(1) == labels).double().mean()
        assert tally.cross_entropies()[name] == pytest.approx(cross_entropy(logits, labels).item())


def test_predictions_that_only_some_batches_have_count_those():
    (a, a_labels), (b, b_labels) = _batch(4, "xy", 1), _batch(4, "x", 2)
    tally = Tally()
    tally.add(a, a_labels)
    tally.add(b, b_labels)
    assert tally.accuracies()["y"] == (a["y"].argmax(1) == a_labels).double().mean()
    assert list(tally.accuracies()) == ["x", "y"]


def test_a_batch_without_predictions_still_has_a_loss():
    tally = Tally()
    tally.add({}, torch.tensor([0, 1]), torch.tensor(0.5))
    assert tally.loss() == 0.5
    assert tally.accuracies() == {}


def test_a_tally_goes_on_from_its_state_with_the_same_bits():
    batches = [_batch(size, "xy", size) for size in (3, 5, 7)]
    whole, first = Tally(), Tally()
    for logits, labels in batches:
        whole.add(logits, labels, torch.tensor(0.1))
    first.add(*batches[0], torch.tensor(0.1))
    second = Tally.from_state(first.state(), torch.device("cpu"))
    for logits, labels in batches[1:]:
        second.add(logits, labels, torch.tensor(0.1))
    assert second.loss() == whole.loss()
    assert second.accuracies() == whole.accuracies()
    assert second.cross_entropies() == whole.cross_entropies()


def test_adding_reads_nothing_back_to_the_host():
    class NoReading(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func is not torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    tally, (logits, labels) = Tally(), _batch(4, "xy")
    with NoReading():
        tally.add(logits, labels, torch.tensor(1.0))
