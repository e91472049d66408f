import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from amst.training.operations import OperationCounter


class _Net(nn.Module):
    """A convolution, linear layers with and without bias, and attention by hand."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.query = nn.Linear(8, 8, bias=False)
        self.last = nn.Linear(8, 5)

    def forward(self, pictures):
        states = self.norm(self.convolution(pictures)).flatten(2).transpose(1, 2)
        scores = self.query(states) @ states.transpose(1, 2)
        return self.last((scores.softmax(-1) @ states).mean(1))


@pytest.mark.parametrize("backward", [False, True])
def test_counts_are_those_of_pytorchs_own_counter(backward):
    net, pictures = _Net(), torch.randn(2, 3, 16, 16)
    ours, theirs = OperationCounter(), FlopCounterMode(display=False)
    for counter in (ours, theirs):
        with counter, torch.set_grad_enabled(backward):
            output = net(pictures)
            if backward:
                torch.autograd.grad(output.sum(), list(net.parameters()))
    assert ours.total == theirs.get_total_flops() > 0


def test_a_grouped_convolution_costs_a_group_of_its_inputs_per_output():
    with OperationCounter() as counter:
        nn.Conv2d(8, 8, 3, groups=4)(torch.randn(1, 8, 5, 5))
    assert counter.total == 2 * (8 * 3 * 3) * (2 * 3 * 3)
