"""What a training method is: one training step, and predictions.

A method owns its networks, the backward passes and the optimisers; the training loop owns order,
time and autocast. A method knows no file, no device name and no dataset name. Modalities are
visited in sorted order, epochs count from 0.

Names of predictions: ``fused`` for the fused logits, ``modality/<m>`` for the head's logits of one
modality, ``probe/<m>`` for its probe. A name of another fused prediction has no ``/``.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin

import torch
from torch import Tensor, nn

from amst.config.run import MethodSettings
from amst.errors import AmstError
from amst.loading.batch import Batch
from amst.models.heads import HeadName
from amst.models.network import Forward, Network, update_encoders
from amst.models.problem import Problem
from amst.models.replays import check_replays
from amst.models.sgd import SGD

__all__ = [
    "Batch",
    "BatchSource",
    "Forward",
    "Method",
    "Network",
    "Problem",
    "StepResult",
    "check_names",
    "update_encoders",
]


class BatchSource(Protocol):
    """The batches of one epoch, for a method that looks at data outside its training steps."""

    def __len__(self) -> int:
        """Number of training batches of this epoch."""

    @property
    def samples(self) -> int:
        """Number of training samples: a batch's positions are below it."""

    def shuffled(
        self, stream: str, *, augmented: bool = False, count: int | None = None
    ) -> Iterator[Batch]:
        """The training batches, in an order of the random stream ``stream``.

        Under the evaluation transform; with ``augmented`` as for training, but drawn anew. Only the
        first ``count``, if given: more may be loaded than are taken.
        """

    def validation_batches(self) -> int:
        """Number of batches of the validation part, whose size is not the recipe's."""

    def validation(self, count: int | None = None) -> Iterator[Batch]:
        """The batches of the validation part, in order; only the first ``count``, if given."""


@dataclass(frozen=True)
class StepResult:
    """What a training step reports; detached tensors on the device.

    Attributes:
        loss: the loss that was trained on, 0-d; the sum where there are several, 0 for none.
        logits: predictions by name from the one forward pass of the batch, before any update.
            Modalities that were not run are missing.
    """

    loss: Tensor
    logits: Mapping[str, Tensor]


S = TypeVar("S", bound=MethodSettings)


class Method(ABC, Generic[S]):
    """Base of all methods: ``class Naive(Method[Settings])``.

    Attributes:
        Settings: the class of the method's settings, taken from the brackets.
        fused_predictions: predictions that select an epoch each, by validation accuracy.
        main_prediction: the one whose weights are kept and which the main table shows.
        captures: whether training passes may be recorded with ``execution.capture``; not where one
            goes backward more than once.
        settings: validated settings.
        problem: what the method is built for.
        modalities: names, sorted.
        networks: network by branch name; a method with a single one has the name "".
        added: modules of the method's own by name, each with its optimiser.
        finished_epochs: how many training epochs have ended.

    Raises:
        AmstError: the settings do not fit the modalities (``MethodSettings.misfit``).
    """

    Settings: ClassVar[type[MethodSettings]]
    fused_predictions: tuple[str, ...] = ("fused",)
    main_prediction: str = "fused"
    captures: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        """Take the settings class from the class's own brackets after ``Method``."""
        super().__init_subclass__(**options)
        for base in vars(cls).get("__orig_bases__", ()):
            if issubclass(get_origin(base) or object, Method):
                cls.Settings = get_args(base)[0]

    def __init__(self, settings: S, problem: Problem) -> None:
        if wrong := settings.misfit(problem.modalities):
            raise AmstError(wrong)
        self.settings = settings
        self.problem = problem
        self.modalities = tuple(problem.modalities)
        self.networks: dict[str, Network] = {}
        self.added: dict[str, tuple[nn.Module, SGD]] = {}
        self.finished_epochs = 0

    def build(self, head: HeadName, branch: str = "", **options: Any) -> Network:
        """A network for the method's problem, kept in ``networks``; options as of ``Network``."""
        self.networks[branch] = Network(self.problem, head, **options)
        return self.networks[branch]

    def add(self, name: str, module: nn.Module, learning_rate: float | None = None) -> SGD:
        """Take in a module of the method's own; gives its optimiser, by the recipe.

        It is moved, switched to training and back, saved, counted and put on the step schedule as
        networks are. Its gradients and steps remain with the method.

        Args:
            name: stands before the names of its weights.
            module: on the CPU.
            learning_rate: the recipe's unless given.

        Raises:
            ValueError: the name is taken.
        """
        if name in {"encoders", "head", "probes", *self.networks, *self.added}:
            raise ValueError(f"a module cannot be added as {name!r}: that name is taken")
        optimiser = SGD(module.parameters(), self.problem.recipe)
        if learning_rate is not None:
            optimiser.learning_rate = learning_rate
        self.added[name] = module, optimiser
        return optimiser

    # What a method defines

    @abstractmethod
    def train_step(self, batch: Batch, epoch: int) -> StepResult:
        """Train on one batch. Never waits for the device."""

    def predict(self, batch: Batch, modalities: Collection[str] | None = None) -> dict[str, Tensor]:
        """Logits (B, C) by prediction name.

        The caller sets ``eval`` mode and turns gradients off.

        Args:
            batch: holds at least one modality.
            modalities: use only these; all that the batch holds unless given.

        Raises:
            ValueError: as ``present``.
        """
        (network,) = self.networks.values()
        return network(batch.inputs, self.present(batch, modalities)).predictions()

    def active_modalities(self, epoch: int) -> frozenset[str]:
        """Modalities that the training batches of ``epoch`` must hold.

        Asked once ``begin_epoch`` is done; it may decide. When resuming within the epoch, too, so
        what was decided is state.
        """
        return frozenset(self.modalities)

    def trained_modalities(self, epoch: int) -> frozenset[str]:
        """Modalities whose encoders ``epoch`` updates.

        Fewer than the active ones where a skipped encoder is run forward.
        """
        return self.active_modalities(epoch)

    def begin_epoch(self, epoch: int, batches: BatchSource) -> None:
        """Called before the first training batch of an epoch; not when resuming within one.

        In evaluation mode, in which the network of an earlier epoch and one that was just loaded
        are alike. Who changes the mode need not change it back.
        """

    def scalars(self) -> Mapping[str, float]:
        """Numbers of its own that the history keeps of the epoch, by name.

        Asked after the last training batch, before ``end_epoch``: what the epoch was trained with.
        May wait for the device. Numbers that are not in the state are lost when a run goes on.
        """
        return {}

    def see_losses(self, train: float, validation: Mapping[str, float]) -> None:
        """Called before ``end_validation`` with the losses of the epoch.

        Args:
            train: mean over the samples of the loss that was trained on.
            validation: prediction name -> mean cross-entropy on the validation part.
        """

    def end_validation(self, accuracies: Mapping[str, float]) -> None:
        """Called after each validation with its accuracy (0 to 1) by prediction name."""

    # What all methods share

    def present(self, batch: Batch, modalities: Collection[str] | None) -> list[str]:
        """Modalities of ``batch``, restricted to ``modalities`` if given, in sorted order.

        Raises:
            ValueError: that is none, or ``modalities`` names one that the method has not.
        """
        if unknown := sorted({*(modalities or ())}.difference(self.modalities)):
            raise ValueError(f"the method has no modality {', '.join(map(repr, unknown))}")
        names = [
            name
            for name in self.modalities
            if name in batch.inputs and (modalities is None or name in modalities)
        ]
        if not names:
            raise ValueError("nothing to predict from: no modality is present")
        return names

    def end_epoch(self) -> None:
        """The step schedule, for all modules. Called after an epoch's training and validation.

        Weights that it changes are those of the next epoch: the validated ones were kept before.
        """
        self.finished_epochs += 1
        if self.finished_epochs % self.problem.recipe.decay_every == 0:
            for network in self.networks.values():
                network.decay()
            for _, optimiser in self.added.values():
                optimiser.learning_rate *= self.problem.recipe.decay_factor

    def train(self) -> None:
        """Training mode: dropout on, BatchNorm by the batch."""
        for module in self._modules():
            module.train()

    def eval(self) -> None:
        """Evaluation mode: dropout off, BatchNorm by its running statistics."""
        for module in self._modules():
            module.eval()

    def to(self, device: torch.device | str) -> None:
        """Move all modules. Called once, before anything else."""
        for module in self._modules():
            module.to(device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(next(iter(self.networks.values())).parameters()).device

    def capture_training(self) -> None:
        """Record the training passes of all networks, on a GPU and where the method allows it.

        Raises:
            AmstError: a recorded pass computes something else than the pass itself.
        """
        if self.captures:
            for network in self.networks.values():
                network.capture_training()
            check_replays(self.networks.values())

    @property
    def captured(self) -> bool:
        """Whether training passes are replayed."""
        return any(network.captured for network in self.networks.values())

    def parameter_count(self) -> int:
        """Number of weights, frozen ones included."""
        return sum(p.numel() for module in self._modules() for p in module.parameters())

    def _modules(self) -> list[nn.Module]:
        return [*self.networks.values(), *(module for module, _ in self.added.values())]

    def state_dict(self) -> dict[str, Any]:
        """All that has state, for a checkpoint; plain containers and tensors.

        A method with state of its own adds it: ``super().state_dict() | {...}``.
        """
        return {
            "networks": {k: network.training_state() for k, network in self.networks.items()},
            "added": {
                name: {"weights": module.state_dict(), "optimiser": optimiser.state_dict()}
                for name, (module, optimiser) in self.added.items()
            },
            "finished_epochs": self.finished_epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        for branch, network in self.networks.items():
            network.load_training_state(state["networks"][branch])
        for name, (module, optimiser) in self.added.items():
            module.load_state_dict(state["added"][name]["weights"])
            optimiser.load_state_dict(state["added"][name]["optimiser"])
        self.finished_epochs = state["finished_epochs"]

    def weights(self) -> dict[str, Tensor]:
        """Weights that ``predict`` needs, by flat name."""
        modules: dict[str, nn.Module] = {k: module for k, (module, _) in self.added.items()}
        modules = {**self.networks, **modules}
        return {
            f"{prefix}.{name}" if prefix else name: value
            for prefix, module in modules.items()
            for name, value in module.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take over what ``weights`` returned.

        Raises:
            AmstError: names or shapes are not those of this method.
        """
        own = self.weights()
        wrong = sorted(own.keys() ^ weights.keys()) + [
            name
            for name in sorted(own.keys() & weights.keys())
            if own[name].shape != weights[name].shape
        ]
        if wrong:
            raise AmstError(
                f"{len(wrong)} weights do not fit the method, {wrong[0]!r} among them",
                "Load weights of the same method, dataset and encoders",
            )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(weights[name])


def check_names(setting: str, given: Collection[str], problem: Problem) -> None:
    """Refuse a setting that names a modality which the dataset does not have.

    Raises:
        AmstError: tells the unknown and the known names.
    """
    unknown = sorted(set(given) - set(problem.modalities))
    if unknown:
        raise AmstError(
            f"setting {setting!r} names the unknown modality {', '.join(map(repr, unknown))}",
            f"The dataset has: {', '.join(problem.modalities)}",
        )
