"""The training pass of an encoder as CUDA graphs: one launch forward and one backward."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.graph import set_warn_on_accumulate_grad_stream_mismatch

from amst.errors import AmstError

OFF = "Set execution.capture: false; then `amst retry`"


class CapturedPass:
    """Stands for an encoder's ``forward`` and replays its training pass where that is the same.

    Kernels are those of the pass that was recorded, and so are the bits of what they compute. What
    is saved is the time between them, which the host takes to launch each; and passes of several
    encoders run at once, each on a stream of its own. All else runs as without:

    - passes in evaluation mode or without gradient, or where other parts of the encoder train;
    - batches of another shape, such as the last of an epoch;
    - a pass while an earlier one may still go backward, whose memory a replay would overwrite;
    - calls that were not announced by ``expect``, whose results nobody would join.

    Hooks of modules inside the encoder are not called by a replay; what hooks of the encoder itself
    get may still be computed.

    Args:
        encoder: on a GPU, in training mode, without hooks. Recording leaves weights and statistics
            as they are.
        sample: (B, ...) a batch to record with; its numbers do not matter.
    """

    def __init__(self, encoder: nn.Module, sample: Tensor) -> None:
        self._encoder, self._plain = encoder, encoder.forward
        self._weights = tuple(encoder.parameters())
        self._recorded: tuple[Any, ...] = self._circumstances(sample)
        self._stream = torch.cuda.Stream(sample.device)
        self._expected = False
        self._running: Tensor | None = None
        self._latest: weakref.ref[Any] | None = None
        # Whether the gradients of the last replay may still be wanted.
        self.gradients_wanted = False
        # Gradients come from the stream of a replay, while weights were first used in recording it;
        # autograd lets one wait for the other, and would warn of it.
        set_warn_on_accumulate_grad_stream_mismatch(False)
        before = [buffer.clone() for buffer in encoder.buffers()]
        with uncached_autocast("cuda"):
            torch.cuda.make_graphed_callables(encoder, (sample,))
        with torch.no_grad():  # warming up for it has moved them
            for buffer, value in zip(encoder.buffers(), before, strict=True):
                buffer.copy_(value)
        self._replay = encoder.forward

    def expect(self) -> None:
        """The next pass will be joined.

        Raises:
            AmstError: the last one has not been: its embeddings would be overwritten.
        """
        if self._running is not None:
            raise AmstError(
                "this method starts an encoder twice before it finishes the first pass, which "
                "execution.capture cannot do",
                OFF,
            )
        self._expected = True

    def __call__(self, inputs: Tensor) -> Tensor:
        """Embeddings (B, D); those of a pass that was expected may be used when joined."""
        expected, self._expected = self._expected, False
        if not (expected and self._fits(inputs)):
            if self._running is not None:
                torch.cuda.current_stream().wait_stream(self._stream)
            return self._plain(inputs)
        if self.gradients_wanted:
            self._keep_gradients()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._running = self._replay(inputs)
        return self._running

    def _keep_gradients(self) -> None:
        """A replay writes, forward too, into the memory of the gradients that the last one gave."""
        for weight in self._weights:
            if weight.grad is not None:
                weight.grad = weight.grad.clone()
        self.gradients_wanted = False

    def _fits(self, inputs: Tensor) -> bool:
        """Whether the recorded pass does for this one."""
        latest = self._latest() if self._latest else None
        return (
            torch.is_grad_enabled()
            and (latest is None or latest.passed)
            and self._circumstances(inputs) == self._recorded
        )

    def _circumstances(self, inputs: Tensor) -> tuple[Any, ...]:
        """What must be as it was: shape and types, and what gradients are wanted for."""
        return (
            inputs.shape,
            inputs.dtype,
            inputs.requires_grad,
            _half(),
            [module.training for module in self._encoder.modules()],
            [weight.requires_grad for weight in self._weights],
        )

    def join(self, embedding: Tensor) -> Tensor:
        """The same embeddings, for the stream of the caller and in memory of their own.

        Raises:
            AmstError: they are others than the pass gave, which a hook has changed.
        """
        running, self._running = self._running, None
        if running is None:
            return embedding
        if embedding is not running:
            raise AmstError(
                "a hook of an encoder gives other embeddings, which execution.capture cannot do",
                OFF,
            )
        torch.cuda.current_stream().wait_stream(self._stream)
        own: Tensor = _Copy.apply(embedding, self)
        # As long as this node is there and was not passed, someone may go backward through it.
        self._latest = weakref.ref(own.grad_fn)
        return own


def uncached_autocast(device_type: str) -> torch.autocast:
    """Autocast as it is, but that does not keep the weights it has converted.

    Recording needs it so; compiled for it, a function need not be compiled anew without recording.
    """
    half, enabled = torch.get_autocast_dtype(device_type), torch.is_autocast_enabled(device_type)
    return torch.autocast(device_type, half, enabled, cache_enabled=False)


def _half() -> torch.dtype | None:
    """What autocast computes in here; None without it."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None


class _Copy(Function):
    """A copy through which gradients go once: a second replay would work on overwritten memory."""

    @staticmethod
    def forward(ctx: Any, embedding: Tensor, replayed: CapturedPass) -> Tensor:
        ctx.passed, ctx.replayed = False, replayed
        return embedding.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        if ctx.passed:
            raise AmstError(
                "this method goes backward twice through one pass of an encoder, which "
                "execution.capture cannot do",
                OFF,
            )
        ctx.passed = True
        ctx.replayed.gradients_wanted = True
        return gradients[0], None
