"""Initial weights: one random stream per parameter, named after it."""

import torch
from torch import nn

from amst.errors import AmstError
from amst.randomness import stream_seed

_KNOWN = (nn.Linear, nn.Conv2d, nn.Embedding, nn.BatchNorm2d, nn.LayerNorm)


def initialise(module: nn.Module, seed: int, *stream: str) -> None:
    """Draw the initial weights of ``module`` in place.

    Linear layers: Xavier normal, zero bias. Convolutions: Kaiming normal (fan-out, ReLU).
    BatchNorm and LayerNorm: weight 1, bias 0. Token and position tables: normal, 0.02. A bias
    that belongs to none of these layers: 0. Every weight has a stream of its own, so that a part
    that is added changes no other part.

    Args:
        module: on the CPU, in any floating-point type.
        seed: the run's seed.
        stream: names of the part, for example ``("encoder", "audio")``.

    Raises:
        AmstError: it has other layers with parameters, or parameters of its own but a bias.
    """
    _refuse_unknown(module)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.Embedding):
            generator = torch.Generator().manual_seed(stream_seed(seed, "weights", *stream, name))
            _draw(part, generator)
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.ones_(part.weight)


def _refuse_unknown(module: nn.Module) -> None:
    for part in module.modules():
        own = [name for name, _ in part.named_parameters(recurse=False) if name != "bias"]
        if own and not isinstance(part, _KNOWN):
            raise AmstError(
                f"initialise does not know how {own[0]!r} of a {type(part).__name__} starts",
                "Make the module within random_stream, with PyTorch's initial weights, instead: "
                "docs/add-a-method.md",
            )


def _draw(part: nn.Linear | nn.Conv2d | nn.Embedding, generator: torch.Generator) -> None:
    if isinstance(part, nn.Embedding):
        nn.init.normal_(part.weight, std=0.02, generator=generator)
        return
    if isinstance(part, nn.Linear):
        nn.init.xavier_normal_(part.weight, generator=generator)
    else:
        nn.init.kaiming_normal_(
            part.weight, mode="fan_out", nonlinearity="relu", generator=generator
        )
