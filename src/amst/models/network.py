"""The network: encoders, head and probes of all modalities, with their optimisers."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from amst.errors import AmstError
from amst.models.encoders import Encoder, blank, build_encoder
from amst.models.heads import HEADS, ByModality, Head, HeadName
from amst.models.initial import initialise
from amst.models.problem import Problem
from amst.models.sgd import SGD
from amst.models.streams import random_stream


@dataclass(frozen=True)
class Forward:
    """What one forward pass gives for the modalities that were run, in sorted order.

    Attributes:
        embeddings: modality -> e_m (B, D), with graph.
        logits: modality -> z_m (B, C).
        fused: z (B, C); None when no modality was run.
        probes: modality -> logits of the probe on the detached embedding (B, C).
        gradients: modality -> gradient of e_m (B, D) by losses of ``Network.backward_head``.
    """

    embeddings: dict[str, Tensor]
    logits: dict[str, Tensor]
    fused: Tensor | None
    probes: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def predictions(self, prefix: str = "", fused: str = "fused") -> dict[str, Tensor]:
        """Detached logits by prediction name: fused, ``modality/<m>`` and ``probe/<m>``."""
        named = {} if self.fused is None else {fused: self.fused}
        named |= {f"{prefix}modality/{name}": z for name, z in self.logits.items()}
        named |= {f"{prefix}probe/{name}": z for name, z in self.probes.items()}
        return {name: logits.detach() for name, logits in named.items()}


class Network(nn.Module):
    """Encoders, a head and probes, trained by SGD with a step schedule.

    Encoders, head and probes have optimisers of their own, one per modality where there is one
    part per modality. A parameter without gradient in a step is not touched by it at all.

    Args:
        problem: modalities, sizes, recipe and seed.
        head: which head joins the modalities.
        stream: sets the random streams of this network apart from those of another one of the
            same method; equal streams and seeds give equal initial weights in every method.
        probes: whether linear probes on the detached embeddings train along.
        own_width: leave the encoders the width that they have by themselves; one modality only.
    """

    def __init__(
        self,
        problem: Problem,
        head: HeadName,
        *,
        stream: str = "",
        probes: bool = True,
        own_width: bool = False,
    ) -> None:
        super().__init__()
        self.names = tuple(problem.modalities)
        self.shapes = dict(problem.shapes)
        self.seed, self.stream = problem.seed, stream
        self.decay_factor = problem.recipe.decay_factor
        self.batch_size = problem.recipe.batch_size
        self.encoders = ByModality(
            {
                name: build_encoder(
                    name,
                    modality,
                    problem.shapes[name],
                    None if own_width else problem.embedding,
                    vocabulary=problem.vocabulary,
                    seed=problem.seed,
                    stream=stream,
                )
                for name, modality in problem.modalities.items()
            }
        )
        width = self.encoder(self.names[0]).width
        with torch.random.fork_rng(devices=[]):
            self.head: Head = HEADS[head](self.names, width, problem.classes)
            self.probes = ByModality(
                {name: nn.Linear(width, problem.classes) for name in self.names if probes}
            )
        initialise(self.head, problem.seed, stream, "head")
        initialise(self.probes, problem.seed, stream, "probe")
        self.steps = 0
        recipe = problem.recipe
        self.optimisers = {
            f"encoder/{name}": SGD(encoder.parameters(), recipe)
            for name, encoder in self.encoders.items()
        }
        self.optimisers["head"] = SGD(self.head.parameters(), recipe)
        self.probe_optimisers = {
            name: SGD(probe.parameters(), recipe) for name, probe in self.probes.items()
        }

    def encoder(self, name: str) -> Encoder:
        """The encoder of modality ``name``."""
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder

    def check_trains_on_one(self) -> None:
        """Make sure that a batch of one sample can train the encoders.

        Raises:
            AmstError: a feature map of one is a single number, which has no variance: BatchNorm
                refuses it.
        """
        for name in self.names:
            if not any(isinstance(each, _BatchNorm) for each in self.encoder(name).modules()):
                continue
            shapes_only = torch.device("meta")
            encoder = deepcopy(self.encoder(name)).to(shapes_only).train()
            try:
                encoder(blank(1, self.shapes[name], shapes_only))
            except ValueError as error:
                raise AmstError(
                    f"the last batch of an epoch has one sample, and the encoder of {name!r} ends "
                    "in feature maps of one position: BatchNorm cannot train on a single number",
                    "Set another recipe.batch_size, a larger crop or fewer layers",
                ) from error

    def compile_training(self) -> None:
        """Compile the training pass of the encoders where that is worth its time."""
        for name in self.names:
            if self.encoder(name).compiles:
                self.encoder(name).compile_training(self.batch_size)

    def capture_training(self) -> None:
        """Record the training pass of encoders on a GPU where that is possible."""
        self.train()
        device = next(self.parameters()).device
        for name in self.names:
            encoder = self.encoder(name)
            if encoder.captures and any(each.requires_grad for each in encoder.parameters()):
                encoder.capture_training(blank(self.batch_size, self.shapes[name], device))

    @property
    def captured(self) -> bool:
        """Whether the training pass of an encoder is replayed."""
        return any(self.encoder(name).captured for name in self.names)

    # Forward

    def forward(
        self,
        inputs: Mapping[str, Any],
        names: Collection[str] | None = None,
        without_gradient: Collection[str] = (),
    ) -> Forward:
        """Run the encoders of ``names``, and head and probes on what they give.

        Args:
            inputs: modality -> input of a batch.
            names: modalities to run; all that ``inputs`` holds unless given.
            without_gradient: run these too, but without a graph: in training their BatchNorm
                statistics move and nothing else.
        """
        return self.finish(self.start(inputs, names, without_gradient))

    def start(
        self,
        inputs: Mapping[str, Any],
        names: Collection[str] | None = None,
        without_gradient: Collection[str] = (),
    ) -> dict[str, Tensor]:
        """The first half of ``forward``: what encoders give, which may still be computed.

        Two networks that are both started before one of them is finished may run at once.
        """
        wanted = set(inputs if names is None else names) | set(without_gradient)
        started: dict[str, Tensor] = {}
        names = [name for name in self.names if name in wanted]

        def waits(name: str) -> bool:
            return name in without_gradient or not self.encoder(name).captured

        # Those first that run beside what comes after them.
        for name in sorted(names, key=waits):
            with torch.set_grad_enabled(torch.is_grad_enabled() and name not in without_gradient):
                started[name] = self._start(name, inputs[name])
        self.steps += int(self.training)
        return {name: started[name] for name in names}

    def finish(self, started: Mapping[str, Tensor]) -> Forward:
        """The second half of ``forward``: head and probes on what ``start`` has given."""
        dtype = next(self.head.parameters()).dtype
        embeddings = {name: self.encoder(name).join(e).to(dtype) for name, e in started.items()}
        with self._full_precision(embeddings.values()):
            logits = {name: self.head.logits(name, e) for name, e in embeddings.items()}
            fused = self.head.fuse(logits) if logits else None
            probes = {
                name: self.probes[name](e.detach())
                for name, e in embeddings.items()
                if name in self.probes
            }
        return Forward(embeddings, logits, fused, probes)

    def logits(self, name: str, embedding: Tensor) -> Tensor:
        """z_m (B, C) of one modality with the head as it is now."""
        with self._full_precision([embedding]):
            return self.head.logits(name, embedding)

    def logits_in_turn(
        self, forward: Forward, names: Iterable[str]
    ) -> Iterator[tuple[str, Tensor]]:
        """Each modality of ``names`` and its z_m, with the head as it is when its turn comes.

        For training on one modality after the other: the embeddings stay those of ``forward``,
        while the caller updates the head in between. The first one meets the head of ``forward``.
        """
        for turn, name in enumerate(names):
            yield (
                name,
                self.logits(name, forward.embeddings[name]) if turn else forward.logits[name],
            )

    def _start(self, name: str, inputs: Any) -> Tensor:
        encoder = self.encoder(name)
        with self._own_dropout(name) if self.training and encoder.drops_out else nullcontext():
            return encoder.start(inputs)

    def _own_dropout(self, name: str) -> AbstractContextManager[None]:
        """Dropout knows only the global generator: set it for one encoder and step, then back."""
        device = next(self.parameters()).device
        return random_stream(device, self.seed, "dropout", self.stream, name, self.steps)

    @staticmethod
    def _full_precision(embeddings: Iterable[Tensor]) -> AbstractContextManager[Any]:
        """Classifiers are small, so they never run in the half precision of autocast."""
        for embedding in embeddings:
            return torch.autocast(embedding.device.type, enabled=False)
        return nullcontext()

    # Training

    def backward(self, loss: Tensor) -> None:
        """New gradients of encoders and head; None for those that ``loss`` does not reach."""
        self.forget_gradients()
        loss.backward()

    def backward_head(self, loss: Tensor, forward: Forward) -> None:
        """New gradients of the head alone: a ``step`` then updates nothing else.

        ``forward``, which ``loss`` is of, keeps the gradients of its embeddings, summed over such
        losses. ``update_encoders`` goes on from there.
        """
        self.forget_gradients()
        reached = {name: e for name, e in forward.embeddings.items() if e.requires_grad}
        parameters = [each for each in self.head.parameters() if each.requires_grad]
        found = torch.autograd.grad(loss, [*reached.values(), *parameters], allow_unused=True)
        for name, gradient in zip(reached, found, strict=False):
            if gradient is not None:
                before = forward.gradients.get(name)
                forward.gradients[name] = gradient if before is None else before + gradient
        for parameter, gradient in zip(parameters, found[len(reached) :], strict=True):
            parameter.grad = gradient

    def step(self) -> None:
        """Update encoders and head where there is a gradient.

        It is there until the encoder's next pass.
        """
        for optimiser in self.optimisers.values():
            optimiser.step()
        for name in self.names:
            self.encoder(name).forget_replay()

    def update(self, loss: Tensor) -> None:
        """Backward pass and step of encoders and head."""
        self.backward(loss)
        self.step()

    def update_probes(self, forward: Forward, labels: Tensor) -> None:
        """One step of the probes of the modalities that were run."""
        losses = [cross_entropy(logits, labels) for logits in forward.probes.values()]
        if not losses:
            return
        for name in forward.probes:
            self.probe_optimisers[name].zero_grad()
        torch.stack(losses).sum().backward()
        for name in forward.probes:
            self.probe_optimisers[name].step()
            # Else the next step would find it in a norm of all gradients, but not where it resumes.
            self.probe_optimisers[name].zero_grad()

    def forget_gradients(self) -> None:
        """No gradients of encoders and head any more: a ``step`` updates nothing."""
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()

    def decay(self) -> None:
        """Multiply every learning rate by the recipe's factor."""
        for optimiser in self._all_optimisers().values():
            optimiser.learning_rate *= self.decay_factor

    # State

    def training_state(self) -> dict[str, Any]:
        """Weights, optimisers and step counter."""
        return {
            "weights": self.state_dict(),
            "optimisers": {k: o.state_dict() for k, o in self._all_optimisers().items()},
            "steps": self.steps,
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue where ``training_state`` was taken."""
        # Not load_state_dict, for which modalities "a" and "a.b" are a module and one inside it.
        with torch.no_grad():
            for name, value in self.state_dict().items():
                value.copy_(state["weights"][name])
        for name, optimiser in self._all_optimisers().items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.steps = state["steps"]

    def _all_optimisers(self) -> dict[str, SGD]:
        return self.optimisers | {f"probe/{n}": o for n, o in self.probe_optimisers.items()}


def update_encoders(passes: Mapping[Network, Forward]) -> None:
    """Backward pass and step of the encoders, from the gradients that ``backward_head`` has left.

    One backward pass through all encoders of all networks: those that are captured run at once.

    Args:
        passes: network -> the forward pass that its losses were of.
    """
    for network in passes:
        network.forget_gradients()
    backward_encoders(passes.values())
    for network in passes:
        network.step()


def backward_encoders(passes: Iterable[Forward]) -> None:
    """Gradients of the weights of encoders, from those of their embeddings."""
    reached = [(each.embeddings[m], g) for each in passes for m, g in each.gradients.items()]
    if reached:
        torch.autograd.backward([e for e, _ in reached], [g for _, g in reached])
