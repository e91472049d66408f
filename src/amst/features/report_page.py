"""The data report as one HTML page that holds its pictures and needs no network."""

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from amst.config.run import AudioFeatures, VisualFeatures
from amst.datasets.base import Dataset
from amst.features.manifest import Manifest

_SHOWN_PICTURES = 24
_SHOWN_SOUNDS = 6
_PICTURE_HEIGHT = 112
_WIDEST = 8
"""Pictures wider than so many times their height are shown narrower, so as not to fill the page."""

_LEFT_OUT = (
    '<p class="quiet">They are of the data, which many licences forbid to pass on: this page, made '
    "to be sent, leaves them out; the data report itself has them.</p>"
)


class Features(Protocol):
    """Where the page finds the samples it shows."""

    manifest: Manifest
    ids: list[str]

    def examples(self, count: int) -> list[int]:
        """Numbers of samples to look at."""

    def label(self, sample: int) -> str:
        """Class name of a sample."""

    def row(self, name: str, sample: int) -> NDArray[Any]:
        """One sample's row of a column."""


@dataclass(frozen=True)
class _Figure:
    """A picture in the page: its bytes as a data address, and the words below it."""

    source: str
    caption: str


def render(dataset: Dataset, report: Mapping[str, Any], features: Features) -> str:
    """The page.

    Args:
        dataset: the dataset.
        report: the fields of ``amst.features.report.DataReport``.
        features: where samples to be shown are taken from.
    """
    template = Path(__file__).with_suffix(".html.j2")
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(
        report=report, dataset=dataset, manifest=features.manifest, figures=_figures(features)
    )


def without_pictures(page: str) -> str:
    """The page as it may be passed on where the data may not: without strips and spectrograms."""
    return re.sub(r'<div class="sheet">.*?</div>', _LEFT_OUT, page, flags=re.DOTALL)


def _figures(features: Features) -> dict[str, list[_Figure]]:
    """Modality -> pictures to look at: strips of frames, spectrograms."""
    figures: dict[str, list[_Figure]] = {}
    for name, settings in sorted(features.manifest.settings.items()):
        if isinstance(settings, VisualFeatures):
            chosen = features.examples(_SHOWN_PICTURES)
            figures[name] = [_frames(features, name, sample) for sample in chosen]
        elif isinstance(settings, AudioFeatures):
            chosen = features.examples(_SHOWN_SOUNDS)
            with mpl.rc_context():
                mpl.rcdefaults()  # a user's own may want LaTeX, which nodes lack
                figures[name] = [_spectrogram(features, name, sample) for sample in chosen]
    return figures


def _frames(features: Features, name: str, sample: int) -> _Figure:
    """The stored frames side by side, in the shape of the original picture."""
    frames = features.row(f"{name}/features", sample)
    height, width = features.row(f"{name}/size", sample)
    side = max(1, round(_PICTURE_HEIGHT * min(width / height, _WIDEST)))
    strip = Image.new("RGB", (side * len(frames), _PICTURE_HEIGHT))
    for place, frame in enumerate(frames):
        shown = Image.fromarray(np.asarray(frame)).resize((side, _PICTURE_HEIGHT))
        strip.paste(shown, (place * side, 0))
    return _Figure(_png(strip), _caption(features, sample))


def _spectrogram(features: Features, name: str, sample: int) -> _Figure:
    """The stored filter bank without its padding: time to the right, frequency upwards."""
    bank = np.asarray(features.row(f"{name}/features", sample), dtype=np.float32)
    seconds = float(features.row(f"{name}/seconds", sample))
    bank = bank[: max(1, round(seconds / AudioFeatures.shift))]
    figure = Figure(figsize=(3.6, 2.2), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    extent = (0.0, len(bank) * AudioFeatures.shift, 0.0, float(bank.shape[1]))
    axes.imshow(bank.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    axes.set_xlabel("seconds")
    axes.set_ylabel("mel bin")
    encoded = io.BytesIO()
    # Without the name and version of the library, so that equal data give an equal page.
    figure.savefig(encoded, format="png", metadata={"Software": None})
    return _Figure(_address(encoded.getvalue()), _caption(features, sample))


def _caption(features: Features, sample: int) -> str:
    return f"{features.label(sample)}: {features.ids[sample]}"


def _png(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return _address(encoded.getvalue())


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
