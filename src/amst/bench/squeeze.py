"""What storing a picture as a square costs: its error against the original, for several sides."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, resized_crop

from amst.bench.media import photographs
from amst.config.run import Augmentation
from amst.features.frames import squeeze
from amst.loading.augment import draw_crops

CROP = 224
"""Side of what the encoder sees."""


@dataclass(frozen=True)
class SqueezeError:
    """Mean absolute difference in grey levels of 0..255, of what the encoder sees.

    Attributes:
        side: S, side of the stored square.
        whole: of the evaluation transform, the whole picture.
        crops: of the training transform's random crops.
    """

    side: int
    whole: float
    crops: float


@dataclass(frozen=True)
class SqueezeErrors:
    """The errors of several sides, of the same pictures and crops."""

    errors: tuple[SqueezeError, ...]

    def lines(self) -> list[str]:
        """A row for each side."""
        return [
            f"mean absolute difference at {CROP} x {CROP}, in grey levels of 255",
            "   S   whole picture   random crops",
            *(f"{e.side:4d}   {e.whole:13.2f}   {e.crops:12.2f}" for e in self.errors),
        ]


def measure_squeeze(
    size: tuple[int, int], sides: Sequence[int], crops: int, pictures: Sequence[Image.Image] = ()
) -> SqueezeErrors:
    """Compare what is made of the stored square with what is made of the original.

    Args:
        size: width and height of the original pictures.
        sides: sides of the stored square.
        crops: random crops per picture; the same ones for every side.
        pictures: the originals; photographs that scikit-learn ships unless given.
    """
    originals = [picture.resize(size) for picture in pictures] or photographs(size)
    errors = []
    for side in sides:
        pairs = [
            (pil_to_tensor(original), torch.tensor(squeeze(original, side)).permute(2, 0, 1))
            for original in originals
        ]
        everything = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        whole = fmean([_error(*pair, everything) for pair in pairs])
        cut = [_error(*pair, _boxes(size, crops, seed)) for seed, pair in enumerate(pairs)]
        errors.append(SqueezeError(side, whole, fmean(cut)))
    return SqueezeErrors(tuple(errors))


def _boxes(size: tuple[int, int], crops: int, seed: int) -> Tensor:
    """Crops of the training transform: (crops, 4), top, left, bottom, right as shares of 1.

    They are drawn on a fine grid, so that the sides of both pictures round them alike.
    """
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor([[size[1], size[0]]]).expand(crops, 2)
    fine = 1 << 20
    return draw_crops(sizes, 1, fine, Augmentation(), generator).boxes[:, 0].double() / fine


def _error(original: Tensor, stored: Tensor, boxes: Tensor) -> float:
    """Mean absolute difference of the crops of both pictures, (3, H, W) and (3, S, S) uint8."""
    differences = [
        (_cut(original, box).float() - _cut(stored, box).float()).abs().mean().item()
        for box in boxes
    ]
    return fmean(differences)


def _cut(picture: Tensor, box: Tensor) -> Tensor:
    height, width = picture.shape[1:]
    edges = (box * torch.tensor([height, width, height, width])).round().long().tolist()
    top, left, bottom, right = edges
    bottom, right = max(bottom, top + 1), max(right, left + 1)
    return resized_crop(
        picture, top, left, bottom - top, right - left, [CROP, CROP], antialias=True
    )
