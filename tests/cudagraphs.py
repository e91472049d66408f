"""A stand-in for CUDA graphs and streams, which computes on the processor.

As on a GPU, a replay computes when another stream waits for it; before, its embeddings are not
numbers. Embeddings and gradients lie in the same memory at every replay, which a replay writes to
from its beginning. That real replays train to the same bits is among the tests of encoders and of
all methods, where there is a GPU.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function


class Stream:
    """Work that nobody has waited for yet."""

    def __init__(self, *_device: Any) -> None:
        self.work: list[Callable[[], None]] = []

    def wait_stream(self, other: "Stream") -> None:
        """What comes now in this stream needs what the other one has."""
        if other is not self:
            for each in other.work:
                each()
            other.work.clear()


@contextmanager
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Graphs and streams of ``torch.cuda`` are stand-ins; gives the sizes of replayed batches."""
    sizes: list[int] = []
    streams = [Stream()]

    @contextmanager
    def within(stream: Stream) -> Iterator[None]:
        streams.append(stream)
        try:
            yield
        finally:
            streams.pop()

    def record(encoder: nn.Module, sample: tuple[Tensor]) -> nn.Module:
        plain, weights = encoder.forward, list(encoder.parameters())
        embedding = plain(*sample).detach().clone()  # warms up, which moves statistics
        trained = [weight for weight in weights if weight.requires_grad]
        gradients = {weight: torch.empty_like(weight) for weight in trained}
        graph: list[Tensor] = []

        class Replay(Function):
            @staticmethod
            def forward(_ctx: Any, inputs: Tensor, *_weights: Tensor) -> Tensor:
                sizes.append(len(inputs))
                graph.clear()
                for static in (embedding, *gradients.values()):
                    static.fill_(math.nan)

                def compute() -> None:
                    with torch.enable_grad():
                        graph.append(plain(inputs))
                    embedding.copy_(graph[0].detach())

                streams[-1].work.append(compute)
                return embedding.detach()

            @staticmethod
            def backward(_ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
                for weight, found in zip(
                    trained, torch.autograd.grad(graph, trained, outer), strict=True
                ):
                    gradients[weight].copy_(found)
                kept = (gradients.get(weight) for weight in weights)
                return None, *(each if each is None else each.detach() for each in kept)

        encoder.forward = lambda inputs: Replay.apply(inputs, *weights)
        return encoder

    stand_ins: dict[str, Callable[..., Any]] = {
        "make_graphed_callables": record,
        "Stream": Stream,
        "current_stream": lambda: streams[-1],
        "stream": within,
    }
    for name, function in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, function)
    try:
        yield sizes
    finally:
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(True)
