"""What a training costs: seconds per phase, and floating-point operations of the encoders."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from amst.loading.batch import Batch, TextTokens
from amst.methods.base import Method
from amst.training.operations import OperationCounter

_SAMPLES = 2  # of a batch, to count the operations of one


class Stopwatch:
    """Seconds spent per phase; one phase runs at a time.

    Attributes:
        seconds: phase -> seconds so far.
        phase: the one that runs; empty for none.
    """

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self.seconds = dict.fromkeys(("train", "validate", "load"), 0.0) | dict(seconds or {})
        self.phase = ""
        self._since = time.perf_counter()

    def switch(self, phase: str) -> None:
        """End the running phase and begin another; '' is not measured."""
        now = time.perf_counter()
        if self.phase:
            self.seconds[self.phase] += now - self._since
        self.phase, self._since = phase, now


class EncoderUse:
    """Counts the samples that each encoder runs forward and backward in training.

    Attributes:
        counting: whether runs count now; off in validation.
        forward: 'branch/modality' -> samples run forward.
        backward: the same for backward passes, each one of several through one pass forward.
    """

    def __init__(self, method: Method[Any], state: Mapping[str, Mapping[str, int]] | None) -> None:
        self.counting = False
        self.forward: dict[str, int] = dict(state["forward"]) if state else {}
        self.backward: dict[str, int] = dict(state["backward"]) if state else {}
        for key, _, encoder in _encoders(method):
            encoder.register_forward_hook(self._counter(key))

    def state(self) -> dict[str, dict[str, int]]:
        """Counts so far, for a checkpoint."""
        return {"forward": dict(self.forward), "backward": dict(self.backward)}

    def _counter(self, key: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def count(_encoder: nn.Module, _inputs: Any, embedding: Tensor) -> None:
            if not self.counting:
                return
            samples = embedding.shape[0]
            self.forward[key] = self.forward.get(key, 0) + samples

            def went_backward(_gradients: Any) -> None:
                self.backward[key] = self.backward.get(key, 0) + samples

            if embedding.grad_fn is not None:
                # Of the node: a hook of the tensor is called for its own gradient, too, which
                # ``backward_head`` asks for without going on through the encoder.
                embedding.grad_fn.register_prehook(went_backward)

        return count

    def operations(
        self, method: Method[Any], batch: Batch
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Floating-point operations of the whole training, forward and backward, by modality.

        Counted on a few samples with the encoders in evaluation mode, which moves no statistics,
        draws nothing and leaves gradients alone.

        Args:
            method: the trained method.
            batch: holds all its modalities.
        """
        self.counting = False
        method.eval()
        forward = dict.fromkeys(method.modalities, 0.0)
        backward = dict.fromkeys(method.modalities, 0.0)
        for key, name, encoder in _encoders(method):
            once, with_gradient = _operations(encoder, _first(batch.inputs[name]))
            forward[name] += once * self.forward.get(key, 0)
            backward[name] += (with_gradient - once) * self.backward.get(key, 0)
        return forward, backward


def _encoders(method: Method[Any]) -> list[tuple[str, str, nn.Module]]:
    """(key, modality, encoder) of all branches."""
    return [
        (f"{branch}/{name}", name, network.encoder(name))
        for branch, network in method.networks.items()
        for name in network.names
    ]


def _first(inputs: Tensor | TextTokens) -> Tensor | TextTokens:
    if isinstance(inputs, TextTokens):
        return TextTokens(inputs.ids[:_SAMPLES], inputs.mask[:_SAMPLES])
    return inputs[:_SAMPLES]


def _operations(encoder: nn.Module, inputs: Tensor | TextTokens) -> tuple[float, float]:
    """Operations per sample: forward alone, and forward with backward."""
    wanted = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    with OperationCounter() as forward, torch.no_grad():
        samples = encoder(inputs).shape[0]
    with OperationCounter() as both, torch.enable_grad():
        embedding = encoder(inputs)
        if wanted:
            torch.autograd.grad(embedding.sum(), wanted, allow_unused=True)
    return forward.total / samples, both.total / samples
