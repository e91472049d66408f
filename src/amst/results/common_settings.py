"""What the runs of a dataset have in common, and what sets each variant apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amst.config.run import RunSettings
from amst.records import RunRecord
from amst.results.cells import Cell, Collection

NAMING = ("dataset", "split", "variant", "seed", "method")
"""Settings that a page shows as headings."""
RECIPE = ("recipe.", "arithmetic.precision", "arithmetic.tf32")
"""How the keys of settings begin that say how a variant was trained, whatever its method."""
REPLACED = {"mslr": "recipe.learning_rate"}
"""Method -> the setting of the recipe that its own settings replace."""


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


def differing_recipes(collection: Collection) -> tuple[str, ...]:
    """A line for each dataset whose variants were not all trained alike: who, and in what.

    Datasets of which the same is true share a line.
    """
    found: dict[str, list[str]] = {}
    for block in collection.blocks:
        if text := "; ".join(_differences(collection, collection.block(*block))):
            found.setdefault(text, []).append(collection.title(*block))
    return tuple(f"Trained differently on {', '.join(on)}: {text}." for text, on in found.items())


def mixed_code(collection: Collection) -> tuple[str, ...]:
    """A line that names the cells whose seeds different code or packages trained; none without any.

    An adopted run counts as trained by all that it was declared valid under, too.
    """
    told = []
    for cell in collection.cells:
        made: list[tuple[set[str], list[str]]] = []  # what trained seeds alike, and those seeds
        for seed, record in cell.records.items():
            valid = _made_by(record)
            for shared, seeds in made:
                if shared & valid:
                    shared &= valid
                    seeds.append(str(seed))
                    break
            else:
                made.append((valid, [str(seed)]))
        if len(made) > 1:
            groups = "; ".join(", ".join(seeds) for _, seeds in made)
            where = collection.title(cell.dataset, cell.split)
            told.append(f"{collection.label(cell.variant)} on {where} (seeds {groups})")
    said = "Means over seeds that different code or packages trained"
    return (f"{said}: {', '.join(told)}.",) if told else ()


def _made_by(record: RunRecord) -> set[str]:
    """Digests of code and packages: those that trained a run, and those that it was adopted for."""
    own = record.environment.package_digest
    made = {record.environment.made_by}
    for reason in record.adopted:
        # code <digest>: <reason>; or code <digest>, packages <digest>: <reason>
        code, _, packages = reason.partition(":")[0].removeprefix("code ").partition(", packages ")
        made.add(f"{code}-{packages or own}")
    return made


def _differences(collection: Collection, cells: Sequence[Cell]) -> Iterator[str]:
    """``epochs 300 (ours), 100 (the others)`` for each setting of the recipe that differs."""
    recipes = {
        cell.variant: _recipe(record.settings) for cell in cells if (record := cell.any_record)
    }
    for key in sorted({key for recipe in recipes.values() for key in recipe}):
        users: dict[str, list[str]] = {}
        for variant, recipe in recipes.items():
            if key in recipe:
                users.setdefault(recipe[key], []).append(collection.label(variant))
        if len(users) > 1:
            yield f"{key.rpartition('.')[2].replace('_', ' ')} {_who(users)}"


def _recipe(settings: RunSettings) -> dict[str, str]:
    own = dotted(settings.model_dump(mode="json"))
    replaced = REPLACED.get(settings.method)
    return {k: value for k, value in own.items() if k.startswith(RECIPE) and k != replaced}


def _who(users: Mapping[str, Sequence[str]]) -> str:
    """Each value with the variants that have it, the most common one last."""
    most = max(users, key=lambda value: len(users[value]))
    texts = [f"{value} ({', '.join(users[value])})" for value in users if value != most]
    others = "the others" if len(users[most]) > 1 else users[most][0]
    return ", ".join([*texts, f"{most} ({others})"])


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
