"""The file in which the workflow writes down what runs: ``results/grid.json``."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from amst.config.settings import TableMetric
from amst.grid.runs import FORMAT

Name = Annotated[str, Field(pattern=r"^[^/]+/[^/]+/[^/]+/seed[0-9]+$")]
"""Of a run."""


class PlannedVariant(BaseModel):
    """A variant of the grid."""

    model_config = ConfigDict(extra="allow")

    name: str
    method: str


class PlannedGrid(BaseModel):
    """What ``grid.as_dict`` gives."""

    model_config = ConfigDict(extra="allow")

    format: int = FORMAT
    metric: TableMetric
    names: dict[str, str]
    variants: list[PlannedVariant]
    datasets: list[str]
    features: dict[str, str]
    runs: dict[Name, str]
    left_out: list[str]

    @model_validator(mode="after")
    def _runs_are_of_variants(self) -> Self:
        variants = {variant.name for variant in self.variants}
        for run in self.runs:
            if (variant := run.split("/")[2]) not in variants:
                raise ValueError(f"{run}: variants has no {variant}")
        return self
