"""What the runs of a dataset have in common, and what sets each variant apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amst.results.cells import Cell

NAMING = ("dataset", "split", "variant", "seed", "method")
"""Settings that a page shows as headings."""


@dataclass(frozen=True)
class Common:
    """Settings of the cells of one split of one dataset, keys dotted.

    Attributes:
        shared: settings with the same value in every cell that has them.
        own: variant -> its settings that differ from another cell's.
    """

    shared: Mapping[str, str]
    own: Mapping[str, Mapping[str, str]]


def common_settings(cells: Sequence[Cell]) -> Common:
    """Split the settings of finished cells into shared ones and those of each variant.

    A variant of one modality has no settings of the others; that is no difference.
    """
    settings = {
        cell.variant: dotted(record.settings.model_dump(mode="json", exclude=set(NAMING)))
        for cell in cells
        if (record := cell.any_record)
    }
    values: dict[str, set[str]] = {}
    for of_variant in settings.values():
        for key, value in of_variant.items():
            values.setdefault(key, set()).add(value)
    # A method's own settings stand with the method, even if all methods happen to agree.
    shared = {
        key: next(iter(found))
        for key, found in sorted(values.items())
        if len(found) == 1 and not key.startswith("method_settings.")
    }
    own = {
        variant: {
            key.removeprefix("method_settings."): value
            for key, value in sorted(of_variant.items())
            if key not in shared
        }
        for variant, of_variant in settings.items()
    }
    return Common(shared, own)


def dotted(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Settings as text: nested maps as one with dotted keys; what is not set is left out."""
    found: dict[str, str] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            found |= dotted(inner, f"{prefix}{key}.")
        elif inner is not None:
            found[prefix + key] = _text(inner)
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
