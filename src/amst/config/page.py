"""The page docs/configuration.md, written from the models: python -m amst.config.page."""

import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from amst.config import execution, run, settings

HEAD = """# Configuration

`config.yaml` holds everything that can be set; files given by `--configfile` are merged over it
(maps merge, lists replace). A wrong key, type, name or range stops Snakemake and `amst` at once
with one line that names the file, the key's path and the nearest valid name, or all of them.

Look at a file of settings that comes from somebody else by `amst plan --configfile FILE` first,
which takes it for settings only: Snakemake, also with `-n`, runs the Python that stands in a file
which says `__use_yte__`.

This page is written from the models in `src/amst/config` by `python -m amst.config.page`; a test
compares it. The settings of the methods stand on their own pages, [docs/methods](methods).
"""
EXAMPLE = """datasets:
  CREMAD:
    method_defaults:
      ogm_ge: {alpha: 0.8} # OGM-GE and its variants, on CREMA-D only
      amst_*: {skip: {audio: 3}} # the three forms of AMST
methods:
  pmr_strong: {method: pmr, alpha: 2.0} # an entry of its own, on every dataset
  naive_slow: {method: naive, recipe: {learning_rate: 5.0e-4}}
  pmr_alpha: {method: pmr, sweep: {alpha: [0.5, 1.0, 2.0]}} # pmr_alpha-alpha-0.5, ...
  mla_rate: {method: mla, sweep: {recipe: {learning_rate: [0.001, 0.01]}}}
"""
"""The examples of the page, merged over config.yaml."""
HOW = f"""
## How to change one value

```yaml
{EXAMPLE}```

- **A setting of one method on one dataset**: `method_defaults` of the dataset, below the method's
  name (the file in `src/amst/methods`, not the entry). It reaches every entry of that method. A
  pattern sets what the methods it matches have; the method's own name wins over a pattern, the
  entry's own value over both. Maps merge.
- **A setting of one entry on every dataset**: in the entry itself.
- **The recipe**: `recipe` of the dataset for all methods; `recipe` of an entry for that entry on
  every dataset, which wins.
- **Several values of one entry**: `sweep` makes a variant of each value, and of each combination
  where it has several keys: settings of the method, and below `recipe` keys of the recipe. A swept
  value wins over the entry's own. The table `validation` is there to choose by
  ([docs/results.md](results.md)). `amst plan` names variants whose settings come to the same on a
  dataset, as of a value that another entry has by default; both are trained. `mslr` does not use
  its recipe's `learning_rate` and would train the same numbers again: sweep its rates.
- **The recipe of one entry on one dataset**: an entry of its own, in a file for `--configfile`
  whose `grid` names this dataset only.
"""
SECTIONS: dict[str, type[BaseModel]] = {
    "Top level": settings.Config,
    "grid: what runs": settings.Grid,
    "recipe: the training recipe": run.Recipe,
    "arithmetic: how numbers are computed": run.Arithmetic,
    "execution: how runs are executed": execution.ExecutionSettings,
    "tables: what the tables show": settings.TableSettings,
    "container: the image": settings.ContainerSettings,
    "datasets.NAME: one dataset": settings.DatasetSettings,
    "datasets.NAME.resources: one training job": settings.Resources,
    "datasets.NAME.modalities.NAME: one modality": settings.ModalityOverrides,
    "features of an audio modality": run.AudioFeatures,
    "features of a visual modality": run.VisualFeatures,
    "features of a text modality": run.TextFeatures,
    "augmentation of a visual modality": run.Augmentation,
    "encoder: resnet18": run.ResNet18,
    "encoder: roberta": run.Roberta,
    "encoder: small_cnn": run.SmallCNN,
    "encoder: small_transformer": run.SmallTransformer,
}


def page() -> str:
    """The page as Markdown."""
    return HEAD + HOW + "".join(_section(title, model) for title, model in SECTIONS.items())


def _section(title: str, model: type[BaseModel]) -> str:
    described = _attributes(model)
    rows = [
        f"| `{name}` | {_type(field.annotation)}{_range(field.metadata)} | {_default(field)} | "
        f"{field.description or described.get(name, '')} |"
        for name, field in model.model_fields.items()
        if name != "kind"
    ]
    intro = (model.__doc__ or "").split("\n\n")[0].replace("``", "`").replace("\n", " ").strip()
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []
    return "\n".join(["", f"## {title}", "", " ".join(intro.split()), "", *table, ""])


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """Descriptions in the Attributes section of a model's docstring."""
    _, _, section = (model.__doc__ or "").partition("Attributes:")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        head, colon, rest = line.strip().partition(": ")
        if colon and head.isidentifier():
            name = head
            found[name] = rest
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return {name: text.replace("``", "`") for name, text in found.items()}


def _type(annotation: Any) -> str:
    """A type as a reader of YAML knows it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0]) + _range(arguments[1:])
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(a) for a in arguments if a is not type(None)))
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "map"
    return {"int": "integer", "str": "text", "float": "number", "bool": "yes or no"}.get(
        getattr(annotation, "__name__", ""), "map"
    )


def _range(constraints: Iterable[Any]) -> str:
    """What limits a value, as a reader writes it: ' ≥ 0, < 1'."""
    found = [
        f"{sign} {getattr(each, name)}"
        for each in constraints
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤"))
        if getattr(each, name, None) is not None
    ]
    longer = [f"at least {n} of them" for each in constraints if (n := _fewest(each))]
    return "".join([" " + ", ".join(found) if found else "", *(f", {text}" for text in longer)])


def _fewest(constraint: Any) -> int:
    return getattr(constraint, "min_length", None) or 0


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        return "see below"
    if value is None:
        return "unset"
    return f"`{list(value) if isinstance(value, tuple) else value}`" if value != "" else "empty"


if __name__ == "__main__":
    Path("docs/configuration.md").write_text(page(), encoding="utf-8")
