"""The resolved settings of one run: a value with a stable hash, all that its numbers depend on."""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Kind = Literal["audio", "visual", "text"]


class KeyMistake(ValueError):  # noqa: N818
    """A mistake that a check of several keys has found in one of them.

    Args:
        key: the key, below the settings that are checked.
        message: what is wrong.
    """

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, values: Any) -> Any:
        """Refuse ``true`` where a number stands; pydantic would take it for 1."""
        for key, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(key)
            if field and _of_numbers(field.annotation):
                for one in _inside(value):
                    if isinstance(one, bool):
                        raise KeyMistake(key, f"expected a number, got {one!r}")
        return values


def _of_numbers(annotation: Any) -> bool:
    """Whether a type is a number, or a list or map of numbers."""
    inner = [one for one in get_args(annotation) if isinstance(one, type) or get_args(one)]
    if inner:
        return any(map(_of_numbers, inner)) and bool not in inner
    return annotation in (int, float)


def _inside(value: Any) -> list[Any]:
    """A value, or the values of a list or map."""
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else [value]


class MethodSettings(Settings):
    """Base of the ``Settings`` class that a file of ``amst.methods`` defines."""

    def misfit(self, modalities: Collection[str]) -> str:
        """What is wrong with them on a dataset, and what to do; empty where nothing is.

        Asked before anything runs, of every dataset and variant of the grid.

        Args:
            modalities: names of the dataset's.
        """
        return ""


class AloneSettings(MethodSettings):
    """The same for methods of one modality: their runs know of no other, in the hash neither."""

    modality: str = Field(description="the modality to train on")


class SkippingSettings(MethodSettings):
    """The same for methods whose modalities skip epochs (``amst.methods.skipping``)."""

    skip: dict[str, PositiveInt] = Field(
        {}, description="modality -> skip factor k: it trains every k-th epoch; 1 if not named"
    )
    skipped_encoder: Literal["off", "forward"] = Field(
        "off",
        description="a skipped encoder is not run at all (paper), or run forward in training mode "
        "so that its BatchNorm statistics move (released)",
    )


class AudioFeatures(Settings):
    """Kaldi log-mel filter bank of the first channel: (frames, mel_bins).

    Attributes:
        mel_bins: bands of the filter bank.
        dtype: of the stored numbers.
    """

    window: ClassVar[float] = 0.025
    """Length in seconds of what one frame is worked out from."""
    shift: ClassVar[float] = 0.010
    """Seconds from one frame to the next."""

    kind: Literal["audio"] = "audio"
    mel_bins: int = Field(128, ge=3)
    frames: PositiveInt = Field(1024, description="zero-padded or cut to this many 10 ms steps")
    dtype: Literal["float16", "float32"] = "float16"
    short_audio: Literal["reject", "fill"] = Field(
        "reject", description="a clip shorter than one window: rejected, or features of 0.01"
    )


class VisualFeatures(Settings):
    """RGB frames squeezed to a square: (frames, size, size, 3) uint8."""

    kind: Literal["visual"] = "visual"
    frames: PositiveInt = Field(3, description="T, frames that reach the encoder")
    per_second: PositiveInt = Field(1, description="k, frames kept per second of video")
    size: PositiveInt = Field(256, description="side of the stored square")


class TextFeatures(Settings):
    """Token ids and attention mask: (tokens,) each.

    Attributes:
        tokens: length that sentences are padded or cut to.
    """

    kind: Literal["text"] = "text"
    tokens: PositiveInt = 128
    tokenizer: str = Field("roberta-base", description="hub name, local folder, or 'digits'")


Features = Annotated[AudioFeatures | VisualFeatures | TextFeatures, Field(discriminator="kind")]


class _Encoder(Settings):
    """Base of the encoders."""

    kinds: ClassVar[tuple[Kind, ...]]
    """Kinds of modalities that this encoder takes."""


class ResNet18(_Encoder):
    """ResNet-18 from scratch (He et al., CVPR 2016), for audio and visual modalities.

    Attributes:
        name: chooses this encoder.
    """

    kinds = ("audio", "visual")
    name: Literal["resnet18"] = "resnet18"


class Roberta(_Encoder):
    """RoBERTa from pretrained weights (Liu et al., 2019), for text.

    Attributes:
        name: chooses this encoder.
    """

    kinds = ("text",)
    name: Literal["roberta"] = "roberta"
    weights: str = Field("roberta-base", description="local folder or hub name")
    trainable_layers: int = Field(5, ge=0, description="last transformer layers that train")
    frozen_mode: Literal["train", "eval"] = Field(
        "train", description="mode of the frozen layers in training: dropout on or off"
    )


class SmallCNN(_Encoder):
    """Convolution, BatchNorm, ReLU per width, each halving the picture: audio and visual.

    Attributes:
        name: chooses this encoder.
        widths: channels of each convolution, the first one first.
    """

    kinds = ("audio", "visual")
    name: Literal["small_cnn"] = "small_cnn"
    widths: tuple[PositiveInt, ...] = Field((8, 16, 32, 64), min_length=1)


class SmallTransformer(_Encoder):
    """A small transformer encoder trained from scratch, for text.

    Attributes:
        name: chooses this encoder.
        layers: transformer layers.
        heads: attention heads of a layer; they divide the width.
        width: length of a token inside.
        dropout: share of values that training drops.
    """

    kinds = ("text",)
    name: Literal["small_transformer"] = "small_transformer"
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    width: PositiveInt = 64
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.width % self.heads:
            fitting = [n for n in range(1, self.width + 1) if self.width % n == 0]
            near = min(fitting, key=lambda n: abs(n - self.heads))
            raise KeyMistake(
                "heads", f"{self.heads} does not divide the width {self.width}, {near} does"
            )
        return self


ENCODERS = (ResNet18, Roberta, SmallCNN, SmallTransformer)
Encoder = Annotated[ResNet18 | Roberta | SmallCNN | SmallTransformer, Field(discriminator="name")]


class Augmentation(Settings):
    """How training crops a picture: RandomResizedCrop of the original picture, then a flip.

    Defaults are those of Inception training (Szegedy et al., CVPR 2015) as torchvision has them.
    """

    min_area: float = Field(0.08, gt=0, le=1, description="smallest share of the picture's area")
    max_aspect: float = Field(4 / 3, ge=1, description="aspect between 1/max_aspect and this")
    flip: bool = Field(True, description="mirror half of the pictures")


class Modality(Settings):
    """What a run knows of one modality: features as stored, crop for training, encoder."""

    kind: Kind
    features: Features
    encoder: Encoder
    crop: PositiveInt | None = Field(
        None, description="side of the square the visual encoder sees; None for other kinds"
    )
    augmentation: Augmentation | None = Field(None, description="visual only")


class Recipe(Settings):
    """The training recipe common to all methods (SGD with a step schedule).

    Attributes:
        epochs: passes over the training part.
        batch_size: samples of one step.
        learning_rate: before the first decay.
        momentum: of SGD.
        weight_decay: of SGD.
        decay_factor: what a decay multiplies the learning rate by.
    """

    epochs: PositiveInt = 100
    batch_size: int = Field(64, gt=0, le=1_000_000)
    learning_rate: PositiveFloat = 1e-3
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-4, ge=0)
    decay_every: PositiveInt = Field(70, description="epochs between decays of the learning rate")
    decay_factor: PositiveFloat = 0.1


class Arithmetic(Settings):
    """How numbers are computed; part of the hash, since it changes their last digits.

    Attributes:
        precision: bf16 is autocast; on a GPU pictures are interpolated in half precision then.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    tf32: Literal["off", "conv", "all"] = Field("conv", description="TensorFloat-32 on a GPU")
    compile: bool = Field(
        False,
        description="compile the training pass of ResNet-18 on a GPU: needs a C compiler, and "
        "takes time when a run starts",
    )
    threads: int = Field(1, gt=0, le=1024, description="arithmetic threads on a CPU")


class RunSettings(Settings):
    """All that the numbers of one run depend on, resolved from config.yaml.

    Where the run finds its data and how it is executed (paths, device, residency) is not
    part of it.
    """

    dataset: str
    split: str
    variant: str
    seed: int = Field(ge=0)
    method: str
    method_settings: dict[str, Any]
    modalities: dict[str, Modality]
    embedding: PositiveInt = Field(512, description="D, the length of every embedding")
    recipe: Recipe
    arithmetic: Arithmetic

    @property
    def run_id(self) -> str:
        """Folder of the run below ``results/runs``."""
        return f"{self.dataset}/{self.split}/{self.variant}/seed{self.seed}"

    @property
    def hash(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the settings as canonical JSON."""
        return settings_hash(self.model_dump(mode="json"))


SEPARATORS = (",", ":")
"""Of the JSON that settings are hashed as; its keys are sorted."""


def settings_hash(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of ``value`` as canonical JSON."""
    return hash_of(json.dumps(value, sort_keys=True, separators=SEPARATORS))


def hash_of(text: str) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
