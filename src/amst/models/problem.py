"""What a model is built for: modalities, sizes and the training recipe."""

from collections.abc import Mapping
from dataclasses import dataclass

from amst.config.run import Modality, Recipe


@dataclass(frozen=True)
class Problem:
    """All that a method may know; no file, no device and no dataset name among it.

    Attributes:
        modalities: name -> kind and encoder, sorted by name.
        shapes: name -> input shape of one sample: audio (1, frames, mel bins),
            visual (3, T, height, width), text (tokens,).
        vocabulary: number of token ids, for a text encoder that is trained from scratch.
        classes: C, the number of classes.
        embedding: D, the length of every embedding.
        recipe: optimiser settings common to all methods.
        seed: the run's seed; every random stream derives from it.
    """

    modalities: Mapping[str, Modality]
    shapes: Mapping[str, tuple[int, ...]]
    vocabulary: int | None
    classes: int
    embedding: int
    recipe: Recipe
    seed: int

    def __post_init__(self) -> None:
        """Fix the order of the modalities: always by name."""
        object.__setattr__(self, "modalities", dict(sorted(self.modalities.items())))
