"""Modalities that skip epochs: what the three forms of AMST share. Not a method by itself.

Source: AMST (github.com/CXianRen/AMST).
"""

from collections.abc import Sequence
from typing import TypeVar

from amst.config.run import SkippingSettings
from amst.methods.base import Batch, Forward, Method, Network, Problem, check_names

S = TypeVar("S", bound=SkippingSettings)


class SkippingMethod(Method[S]):
    """Modality m trains in an epoch only if epoch mod k_m = 0."""

    def __init__(self, settings: S, problem: Problem) -> None:
        super().__init__(settings, problem)
        check_names("skip", settings.skip, problem)

    def active_modalities(self, epoch: int) -> frozenset[str]:
        """Those that train; all of them if skipped encoders are run."""
        if self.settings.skipped_encoder == "forward":
            return frozenset(self.modalities)
        return self.trained_modalities(epoch)

    def trained_modalities(self, epoch: int) -> frozenset[str]:
        """Those with epoch mod k_m = 0, also where the skipped ones are run forward.

        k_m is ``skip[m]``, and 1 for a modality that ``skip`` does not name.
        """
        skip = self.settings.skip
        return frozenset(name for name in self.modalities if epoch % skip.get(name, 1) == 0)

    def forward(self, networks: Sequence[Network], batch: Batch, epoch: int) -> list[Forward]:
        """One forward pass each: of those that train, without a graph of those only run."""
        trained = self.trained_modalities(epoch)
        skipped = self.active_modalities(epoch) - trained
        started = [network.start(batch.inputs, trained, skipped) for network in networks]
        return [network.finish(each) for network, each in zip(networks, started, strict=True)]
