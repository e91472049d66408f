import pytest
import torch

from amst.models.rows import Rows


def test_spreads_of_many_tensors_are_taken_at_once() -> None:
    tensors = [
        torch.randn(64, 30, 7, 7).contiguous(memory_format=torch.channels_last),
        1000 + torch.randn(Rows.WIDTH),
        1e-6 * torch.randn(Rows.WIDTH + 1),
        torch.tensor([3.0]),
        torch.zeros(5),
    ]
    rows = Rows(tensors)
    spreads = rows.deviations(tensors)
    for tensor, spread in zip(tensors[:3], spreads, strict=False):
        assert spread.item() == pytest.approx(tensor.double().std().item(), rel=1e-5)
    assert spreads[3:].tolist() == [0, 0]
    pieces = rows.pieces(torch.arange(rows.shape[0] * rows.shape[1]).view(rows.shape))
    assert [piece.stride() for piece in pieces] == [tensor.stride() for tensor in tensors]
    everything = torch.cat([piece.flatten() for piece in pieces])
    assert len(everything.unique()) == len(everything), "no two share a number"
    owners = everything // Rows.WIDTH
    counts = torch.tensor(rows.counts)
    assert rows.owner[owners].equal(torch.arange(len(tensors)).repeat_interleave(counts))
