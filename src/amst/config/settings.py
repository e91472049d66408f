"""Everything that config.yaml may say, as models with defaults; imports no torch.

Two layers: what exists (maps of definitions: ``datasets``, ``methods``) and what runs (lists under
``grid``). ``amst.grid`` resolves one run's settings from them.
"""

import re
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from pydantic_core import PydanticCustomError

from amst.config.execution import ExecutionSettings
from amst.config.run import Arithmetic, Augmentation, Encoder, KeyMistake, Recipe, Settings

TableMetric = Literal["accuracy", "macro_f1", "mean_average_precision"]


class Grid(Settings):
    """What runs: every listed dataset x method x seed.

    Attributes:
        datasets: names under `datasets:`.
        methods: names under `methods:`; of a sweep also single variants (`pmr_alpha-alpha-0.5`).
        seeds: of initial weights, order and augmentation; a run for each.
    """

    datasets: tuple[str, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field(min_length=1)
    seeds: tuple[NonNegativeInt, ...] = Field(min_length=1)


class ModalityOverrides(Settings):
    """What a dataset sets for one modality; the rest has the defaults of its kind.

    Attributes:
        features: how the features of its kind are stored, below.
        encoder: `name` of one of the encoders below, and its settings; unset it is `resnet18` for
            audio and visual, `roberta` for text.
        crop: side of the picture the visual encoder sees.
        augmentation: how training crops a picture.
    """

    features: dict[str, Any] = Field(default_factory=dict)
    encoder: Encoder | None = None
    crop: PositiveInt = 224
    augmentation: Augmentation = Augmentation()


class Resources(Settings):
    """What one training job asks for; a profile's ``set-resources`` wins."""

    gpu: NonNegativeInt = Field(1, description="GPUs of a training job")
    threads: PositiveInt = Field(4, description="CPU cores of a training job")
    mem_mb: PositiveInt = Field(16000, description="memory of a training job, first attempt")
    runtime: PositiveInt = Field(240, description="minutes of a training job, at each attempt")


class DatasetSettings(Settings):
    """One entry under ``datasets:``.

    Attributes:
        raw: raw root, relative to the working directory or absolute.
        shares: another entry whose raw root, shards and splits this one uses, of the same rows with
            more modalities; what is set for those is set there.
        shards: into how many files the features are cut; one extraction job each.
        split: name or names of the splits to train on.
        split_seed: seed of seeded splits, and of a `val` cut from train; never the run's.
        lists: local folder with the lists of the ``amst`` split, for nodes without network.
        max_lost: share of samples, of all the dataset has, that may be unusable or not there; above
            it everything stops before training. 1 accepts any part of a dataset.
        generate: settings of the generator, for a dataset that the suite makes itself (see its
            page).
        options: what the reader of this dataset offers (see its page).
        method_defaults: method -> its settings that differ for this dataset, in all its variants; a
            variant's own win. `*` in a name stands for any letters: `amst_*`.
        modalities: modality name -> what differs from the defaults of its kind.
        recipe: keys of `recipe:` that differ for this dataset; a method's own win.
        resources: what one training job asks for.
    """

    raw: str = ""
    shares: str = ""
    shards: int = Field(16, gt=0, le=1000)
    split: str | tuple[str, ...] = "random"
    split_seed: NonNegativeInt = 0
    lists: str = ""
    max_lost: float = Field(0.005, ge=0, le=1)
    generate: dict[str, Any] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    modalities: dict[str, ModalityOverrides] = Field(default_factory=dict)
    embedding: PositiveInt | None = Field(None, description="D; 768 with text, 512 without")
    recipe: dict[str, Any] = Field(default_factory=dict)
    method_defaults: dict[str, Any] = Field(default_factory=dict)
    resources: Resources = Resources()

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, always as a tuple."""
        return (self.split,) if isinstance(self.split, str) else self.split


class TableSettings(Settings):
    """What tables, figures and the report show.

    Attributes:
        metric: of the tables ``main`` and ``validation``: of every variant's main prediction, on
            the test and on the validation part. With another one than accuracy nothing is bold in
            ``main``: significance, intervals and ranks are of accuracies.
        names: variant or dataset -> what a reader is shown for it: `{CREMAD: CREMA-D}`. Files,
            CSV and messages keep its own name.
    """

    metric: TableMetric = "accuracy"
    names: dict[str, str] = Field(default_factory=dict)

    @field_validator("names")
    @classmethod
    def _are_one_line(cls, names: dict[str, str]) -> dict[str, str]:
        for name, shown in names.items():
            if shown.splitlines() != [shown] or shown.isspace():
                raise KeyMistake(name, f"expected one line of text, got {shown!r}")
        return names


class ContainerSettings(Settings):
    """The image that jobs run in with ``--sdm apptainer``."""

    image: str = Field(
        "",
        description="a file or a published image, `<address>@sha256:<digest>`; empty: built here",
    )
    build_args: str = Field("", description="options for 'apptainer build'")

    @field_validator("image")
    @classmethod
    def _has_digest(cls, image: str) -> str:
        # What a tag means changes: two runs of one grid could be made in two images.
        published = re.match(r"(docker|oras|library|shub|https?)://", image)
        if published and not re.search(r"@sha256:[0-9a-f]{64}$", image):
            raise PydanticCustomError(
                "digest", "a published image needs its digest: <address>@sha256:<64 digits>"
            )
        return image


class Config(Settings):
    """The whole of config.yaml.

    Attributes:
        methods: variant name -> ``method``, its settings, and optionally ``recipe`` and ``sweep``
            (a variant of each value of a list, or of each combination where it goes over several
            keys, of the method's settings and below ``recipe`` of the recipe's; choose by the table
            ``validation``).
        grid: what runs.
        recipe: how every method is trained.
        arithmetic: how numbers are computed.
        execution: how runs are executed.
        tables: what the tables show.
        container: the image of the jobs.
        datasets: dataset name -> its settings.
    """

    grid: Grid
    recipe: Recipe = Recipe()
    arithmetic: Arithmetic = Arithmetic()
    execution: ExecutionSettings = ExecutionSettings()
    tables: TableSettings = TableSettings()
    container: ContainerSettings = ContainerSettings()
    datasets: dict[str, DatasetSettings]
    methods: dict[str, dict[str, Any]]
