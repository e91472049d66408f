"""Crop, resize, flip and normalise pictures: the training and the evaluation transform.

Where a crop lies is drawn for a whole epoch at once, one draw per sample and frame, so that it
depends on nothing but the run's random stream: not on batches, order, workers or device. How it is
cut out has equivalent ways, of which the fastest is taken: on a CPU per picture on uint8, or, of
small pictures, in one batch as two products with matrices of interpolation weights; on a GPU these
products in another form.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional

from amst.config.run import Augmentation
from amst.loading import buffers

# Mean and standard deviation of ImageNet's red, green and blue, of pictures in 0..1.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
TRIES = 10  # torchvision.transforms.RandomResizedCrop gives up after as many
# Below this side the call per picture costs a CPU more than its arithmetic.
SMALL_BELOW = 40
_PIXELS = torch.channels_last


@dataclass(frozen=True)
class Crops:
    """What is cut out of the frames of N samples.

    Attributes:
        boxes: (N, T, 4) int64: top, left, bottom, right in stored pixels, the last two excluded.
        flips: (N, T) bool, True where the frame is mirrored.
    """

    boxes: Tensor
    flips: Tensor

    def __getitem__(self, samples: Tensor) -> "Crops":
        return Crops(self.boxes[samples], self.flips[samples])

    def to(self, device: torch.device) -> "Crops":
        """The same crops on a device."""
        return Crops(self.boxes.to(device), self.flips.to(device))


def draw_crops(
    sizes: Tensor, frames: int, side: int, augmentation: Augmentation, generator: torch.Generator
) -> Crops:
    """Draw a crop for every frame of every sample, as RandomResizedCrop draws it.

    The box is drawn in pixels of the original picture and then mapped to the stored square, so
    that storing a square changes the resolution of a crop and not its shape. Its edges are rounded
    to whole stored pixels.

    Args:
        sizes: (N, 2) height and width of the original pictures.
        frames: T, frames per sample.
        side: S, side of the stored square.
        augmentation: range of area and aspect, and whether to flip.
        generator: the random stream of this modality and epoch.
    """
    shape = (len(sizes), frames)
    height, width = (sizes[:, axis].double()[:, None].expand(shape) for axis in (0, 1))
    box_height, box_width = _draw_shape(height, width, augmentation, generator)
    place = torch.rand((*shape, 2), generator=generator, dtype=torch.float64)
    central = box_height < 0
    fallback_height, fallback_width = _central_shape(height, width, augmentation.max_aspect)
    box_height = torch.where(central, fallback_height, box_height)
    box_width = torch.where(central, fallback_width, box_width)
    # randint(0, free + 1) in torchvision; half of the free space for the fallback.
    top, left = (
        torch.where(central, (free / 2).floor(), (place[..., axis] * (free + 1)).floor())
        for axis, free in enumerate((height - box_height, width - box_width))
    )
    coin = torch.rand(shape, generator=generator, dtype=torch.float64)
    edges = (top / height, left / width, (top + box_height) / height, (left + box_width) / width)
    boxes = (torch.stack(edges, dim=-1) * side).round().long()
    start = boxes[..., :2].clamp(max=side - 1)
    end = torch.maximum(boxes[..., 2:], start + 1)
    return Crops(torch.cat((start, end), dim=-1), (coin < 0.5) & augmentation.flip)


def _draw_shape(
    height: Tensor, width: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Height and width of the first of ten tries that fits into the picture, else -1."""
    draws = torch.rand((*height.shape, TRIES, 2), generator=generator, dtype=torch.float64)
    share = augmentation.min_area + (1 - augmentation.min_area) * draws[..., 0]
    aspect = torch.exp((2 * draws[..., 1] - 1) * math.log(augmentation.max_aspect))
    area = (height * width)[..., None] * share
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width[..., None])
    fits &= (heights > 0) & (heights <= height[..., None])
    first = fits.to(torch.uint8).argmax(dim=-1, keepdim=True)
    chosen = (values.gather(-1, first)[..., 0] for values in (heights, widths))
    box_height, box_width = (torch.where(fits.any(-1), values, -1.0) for values in chosen)
    return box_height, box_width


def _central_shape(height: Tensor, width: Tensor, max_aspect: float) -> tuple[Tensor, Tensor]:
    """The largest central box whose aspect is allowed."""
    tall, wide = width / height < 1 / max_aspect, width / height > max_aspect
    box_height = torch.where(tall, (width * max_aspect).round(), height)
    box_width = torch.where(wide, (height * max_aspect).round(), width)
    return box_height, box_width


def whole(samples: int, frames: int, side: int) -> Crops:
    """The evaluation transform's crops: the whole stored square, not mirrored."""
    boxes = torch.tensor([0, 0, side, side]).expand(samples, frames, 4)
    return Crops(boxes, torch.zeros(samples, frames, dtype=torch.bool))


def cut(
    pictures: Tensor,
    crops: Crops,
    side: int,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Cut, resize with antialiased bilinear interpolation, flip and normalise.

    Args:
        pictures: (B, T, S, S, 3) uint8.
        crops: boxes and flips of these pictures, on their device.
        side: side C of the result.
        precision: of ``cut_batched``.

    Returns:
        (B, 3, T, C, C) float32; a view of memory in the order (B, T), so that folding the frames
        into the batch copies nothing.
    """
    batch, frames, stored = pictures.shape[:3]
    flat = pictures.reshape(batch * frames, stored, stored, 3)
    boxes, flips = crops.boxes.reshape(-1, 4), crops.flips.reshape(-1)
    if pictures.is_cuda:
        result = cut_batched(flat, boxes, flips, side, precision)
    elif max(stored, side) < SMALL_BELOW:
        result = cut_small(flat, boxes, flips, side)
    else:
        result = cut_one_by_one(flat, boxes, flips, side)
    return result.view(batch, frames, 3, side, side).transpose(1, 2)


def cut_batched(
    pictures: Tensor,
    boxes: Tensor,
    flips: Tensor,
    side: int,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Like ``cut`` for (N, S, S, 3) uint8 to (N, 3, C, C): two products with weight matrices.

    Args:
        pictures: (N, S, S, 3) uint8.
        boxes: (N, 4).
        flips: (N,).
        side: C.
        precision: of the factors of the products; ``torch.half`` is off by less than half a grey
            level.
    """
    scale, shift = (values[:, None, None] for values in _normalisation(pictures.device))
    count, stored = pictures.shape[:2]
    # Methods may ask for batches inside of autocast; pictures keep their precision there too.
    with torch.autocast(pictures.device.type, enabled=False):
        upright = torch.zeros_like(flips)
        rows = interpolation_weights(boxes[:, 0], boxes[:, 2], upright, stored, side)
        rows = rows.to(precision)
        columns = interpolation_weights(boxes[:, 1], boxes[:, 3], flips, stored, side)
        columns = columns.to(precision)
        # Colours between rows and columns: both products then are plain ones, one per picture.
        lines = torch.empty((count, stored, 3, stored), dtype=precision, device=pictures.device)
        lines = lines.copy_(pictures.transpose(2, 3)).view(count, stored * 3, stored)
        narrow = torch.bmm(lines, columns.transpose(1, 2))
        del lines, columns  # large, and memory of a device is short
        result = torch.bmm(rows, narrow.view(count, stored, 3 * side))
        del rows, narrow
        planes = result.view(count, side, 3, side).transpose(1, 2)
        out = torch.empty((count, 3, side, side), device=pictures.device)
        return torch.addcmul(shift, planes, scale, out=out)


def bytes_to_cut(pictures: int, stored: int, side: int, precision: torch.dtype) -> int:
    """Memory that ``cut_batched`` takes at most, besides its input.

    Args:
        pictures: N.
        stored: S, side of the stored squares.
        side: C, side of the results.
        precision: of the factors.
    """
    weights, lines, narrow = side * stored, 3 * stored * stored, 3 * stored * side
    result, element = 3 * side * side, precision.itemsize
    return pictures * max(
        element * (2 * weights + lines + narrow),  # at its first product
        element * (weights + narrow + result),  # at its second
        (element + torch.float32.itemsize) * result,  # while the result is normalised
    )


def interpolation_weights(
    start: Tensor, end: Tensor, mirrored: Tensor, stored: int, side: int
) -> Tensor:
    """Weights of antialiased bilinear interpolation along one axis.

    A triangle of width two output pixels, or two input pixels where the crop is enlarged; pixels
    outside the crop count nothing, as if it had been cut out before.

    Args:
        start: (N,) first stored pixel of the crop.
        end: (N,) the pixel after its last.
        mirrored: (N,) bool, True where the result runs from the crop's end to its start.
        stored: S, pixels of the stored axis.
        side: C, pixels of the result.

    Returns:
        (N, C, S) float32, rows sum to 1.
    """
    scale = ((end - start) / side)[:, None]
    distance = (torch.arange(side, device=start.device) + 0.5) * scale
    centre = torch.where(mirrored[:, None], end[:, None] - distance, start[:, None] + distance)
    pixel = torch.arange(stored, device=start.device)
    inside = (pixel >= start[:, None]) & (pixel < end[:, None])
    weights = (pixel + 0.5) - centre[:, :, None]
    weights.abs_().div_(-scale[:, :, None].clamp(min=1)).add_(1).relu_()
    weights.mul_(inside[:, None, :])
    return weights.div_(weights.sum(dim=-1, keepdim=True))


def cut_small(pictures: Tensor, boxes: Tensor, flips: Tensor, side: int) -> Tensor:
    """Like ``cut_batched``, on a CPU: weights are looked up, and copies made where they are cheap.

    In memory the three colours of a line lie one after the other: a line is normalised in one go,
    and a first layer that wants the colours of a pixel side by side copies anyway.
    """
    count, stored = pictures.shape[:2]
    weights = _all_weights(stored, side)
    rows = weights[0].index_select(0, boxes[:, 0] * stored + boxes[:, 2] - 1)
    at = (flips * stored + boxes[:, 1]) * stored + boxes[:, 3] - 1
    columns = weights.flatten(0, 1).index_select(0, at)
    with torch.autocast(pictures.device.type, enabled=False):
        lines = pictures.transpose(2, 3).contiguous().float().view(count, stored * 3, stored)
        narrow = torch.bmm(lines, columns.transpose(1, 2)).view(count, stored, 3 * side)
        result = torch.bmm(rows, narrow)
    scale, shift = (values.repeat_interleave(side) for values in _normalisation(pictures.device))
    torch.addcmul(shift, result, scale, out=result)
    return result.view(count, side, 3, side).transpose(1, 2)


@cache
def _all_weights(stored: int, side: int) -> Tensor:
    """Weights of every crop along one axis, (2, S * S, C, S): mirrored or not; first, last pixel.

    Those of a crop that ends before it begins mean nothing.
    """
    pixels = torch.arange(stored)
    first, last = pixels.repeat_interleave(stored), pixels.repeat(stored)
    end = torch.maximum(first, last) + 1
    mirrored = torch.ones(stored * stored, dtype=torch.bool)
    each = (interpolation_weights(first, end, flip, stored, side) for flip in (~mirrored, mirrored))
    return torch.stack(tuple(each))


def cut_one_by_one(pictures: Tensor, boxes: Tensor, flips: Tensor, side: int) -> Tensor:
    """Like ``cut_batched``, by PyTorch's uint8 kernel per picture; rounds to whole grey levels.

    Pictures are dealt out to as many threads as arithmetic has: the kernel itself uses one.
    """
    pictures = pictures.contiguous()
    result = buffers.empty((len(pictures), side, side * 3))
    rows = result.unbind()
    where, mirrored = boxes.tolist(), flips.tolist()
    count = min(torch.get_num_threads(), len(pictures))
    shares = [range(first, len(pictures), count) for first in range(count)]
    if count == 1:
        _cut_some(shares[0], pictures, where, mirrored, rows)
    else:
        pool = _threads(count)
        jobs = [pool.submit(_cut_some, s, pictures, where, mirrored, rows) for s in shares]
        for job in jobs:
            job.result()
    return result.view(-1, side, side, 3).permute(0, 3, 1, 2)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    """Threads of this process that cut pictures, kept for all batches."""
    return ThreadPoolExecutor(count, "cut", initializer=_compute_alone)


# A process that is forked off has none of its parent's threads.
os.register_at_fork(after_in_child=_threads.cache_clear)


def _compute_alone() -> None:
    """Let this thread share its arithmetic with no others: else each had helpers of its own."""
    torch.get_num_threads()  # PyTorch sets a thread's number when it is first asked, and once
    threadpool_limits(1, user_api="openmp")


def _cut_some(
    some: range,
    pictures: Tensor,
    boxes: list[list[int]],
    mirrored: list[bool],
    rows: Sequence[Tensor],
) -> None:
    """Fill ``rows`` (C, 3 C) of ``some`` pictures (N, S, S, 3), which lie without gaps.

    Each operation, views too, lets go of Python's lock and has to get it back from other threads:
    few of them, by strides, are what makes threads pay.
    """
    side, stored = rows[0].shape[0], pictures.shape[1]
    scale, shift = (values.repeat(side) for values in _normalisation(pictures.device))
    first, picture, line = pictures.storage_offset(), stored * stored * 3, stored * 3
    for index in some:
        top, left, bottom, right = boxes[index]
        crop = pictures.as_strided(
            (1, 3, bottom - top, right - left),
            (picture, 1, line, 3),
            first + index * picture + top * line + left * 3,
        )
        # The kernel's fast path wants the colours of a pixel side by side, without gaps.
        crop = crop.flip(3) if mirrored[index] else crop.contiguous(memory_format=_PIXELS)
        resized = functional.interpolate(crop, (side, side), mode="bilinear", antialias=True)
        # It lies in memory as the crop does, colours side by side.
        lines = resized.as_strided((side, side * 3), (side * 3, 1))
        torch.addcmul(shift, lines.float(), scale, out=rows[index])


@cache
def _normalisation(device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and summand, (3,) each, that take grey levels 0..255 to normalised values."""
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    return (1 / (255 * deviation)).to(device), (-mean / deviation).to(device)
