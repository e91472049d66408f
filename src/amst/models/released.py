"""Names of weights in checkpoints of the code released with the AMST paper.

One table serves both directions: ``released_names`` maps our names to theirs, and a reader turns
the mapping round. Source: github.com/CXianRen/AMST, commit 71d414f.
"""

from collections.abc import Iterable, Mapping

from amst.config.run import Kind
from amst.errors import AmstError

LETTERS: dict[Kind, str] = {"audio": "a", "visual": "v", "text": "t"}
BRANCHES = {"alternating.": "A.", "joint.": "J.", "": ""}


def released_names(
    weights: Iterable[str], kinds: Mapping[str, Kind], *, unimodal: bool = False
) -> dict[str, str]:
    """Our name of each weight -> its name in a released checkpoint.

    Args:
        weights: names as ``Method.weights`` gives them.
        kinds: modality -> kind; the released code knows one modality of each kind.
        unimodal: the checkpoint holds a model of a single modality, which has names of its own.

    Raises:
        AmstError: two modalities are of one kind, or a weight belongs to an encoder that the
            released code does not have.
    """
    if len(set(kinds.values())) < len(kinds):
        raise AmstError(
            f"modalities {', '.join(kinds)} are not all of different kinds",
            "The released checkpoints hold at most one modality of a kind",
        )
    prefixes = _unimodal_prefixes(kinds) if unimodal else _prefixes(kinds)
    return {name: _renamed(name, prefixes) for name in weights}


def _prefixes(kinds: Mapping[str, Kind]) -> dict[str, str]:
    parts = {"head.classifier.": "fusion.fc.", "head.bias": "fusion.bias"}
    for name, kind in kinds.items():
        letter = LETTERS[kind]
        parts |= {
            f"encoders.{name}.backbone.": f"encoders.{letter}.basic_resnet18.",
            f"encoders.{name}.projection.": f"encoders.{letter}.out_conv.",
            f"encoders.{name}.model.": f"encoders.{letter}.model.",
            f"probes.{name}.": f"helpers.{letter}.",
            f"head.classifiers.{name}.": f"fusion.out_layers.{letter}.",
        }
    return {
        ours_branch + ours: their_branch + theirs
        for ours_branch, their_branch in BRANCHES.items()
        for ours, theirs in parts.items()
    }


def _unimodal_prefixes(kinds: Mapping[str, Kind]) -> dict[str, str]:
    (name,) = kinds
    return {
        f"encoders.{name}.backbone.": "net.basic_resnet18.",
        f"encoders.{name}.model.": "text_encoder.model.",
        f"head.classifiers.{name}.": "fc.",
    }


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise AmstError(
        f"weight {name!r} has no counterpart in the released code",
        "Its models consist of ResNet-18 and RoBERTa encoders, a head and probes",
    )
