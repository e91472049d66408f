"""Whether recorded passes compute what the passes themselves do, asked before a run rests on it."""

from collections.abc import Collection

import torch
from torch import Tensor

from amst.errors import AmstError
from amst.models.capture import OFF, uncached_autocast
from amst.models.encoders import Encoder, blank
from amst.models.network import Network


def check_replays(networks: Collection[Network]) -> None:
    """Replay all recorded passes at once, as steps do, and hold them to the bits of plain passes.

    Twice, with other inputs each time: what a replay has left must not show in the next one.
    Embeddings, gradients and statistics are compared; afterwards all is as it was.

    Raises:
        AmstError: a recorded pass computes something else.
    """
    names: dict[Encoder, str] = {}
    batches: dict[Encoder, Tensor] = {}
    for network in networks:
        device = next(network.parameters()).device
        for name in network.names:
            if network.encoder(name).captured:
                batch = blank(network.batch_size, network.shapes[name], device)
                names[network.encoder(name)] = name
                batches[network.encoder(name)] = batch
    for seed in range(2 if batches else 0):
        for batch in batches.values():
            batch.normal_(generator=torch.Generator(batch.device).manual_seed(seed))
        replayed = _pass(batches, at_once=True)
        for encoder, batch in batches.items():  # one by one, in the memory that one of them takes
            plain = _pass({encoder: batch}, at_once=False)[encoder]
            if not all(map(torch.equal, plain, replayed[encoder])):
                raise AmstError(
                    f"the recorded pass of the encoder of {names[encoder]!r} computes other "
                    "numbers than the pass itself",
                    OFF,
                )


def _pass(batches: dict[Encoder, Tensor], *, at_once: bool) -> dict[Encoder, list[Tensor]]:
    """Embeddings, gradients and statistics by encoder of one training pass, which leaves no trace.

    Args:
        batches: a batch by encoder.
        at_once: start all before one is joined, which replays them.
    """
    before = {each: [buffer.clone() for buffer in each.buffers()] for each in batches}
    if at_once:
        started = {each: each.start(batch) for each, batch in batches.items()}
        embeddings = {each: each.join(embedding) for each, embedding in started.items()}
    else:
        embeddings = {}
        for each, batch in batches.items():
            with uncached_autocast(batch.device.type):
                embeddings[each] = each(batch)
    outputs = list(embeddings.values())
    torch.autograd.backward(outputs, [output.detach().clone() for output in outputs])
    found: dict[Encoder, list[Tensor]] = {}
    for each, embedding in embeddings.items():
        gradients = [weight.grad for weight in each.parameters() if weight.grad is not None]
        kept = [embedding.detach(), *gradients, *each.buffers()]
        found[each] = [value.clone() for value in kept]
        each.zero_grad()
        each.forget_replay()
        with torch.no_grad():
            for buffer, value in zip(each.buffers(), before[each], strict=True):
                buffer.copy_(value)
    return found
