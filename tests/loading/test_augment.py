import os
import signal
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import hflip, normalize, resize, resized_crop

from amst.config.run import Augmentation
from amst.loading import augment
from amst.loading.augment import (
    DEVIATION,
    MEAN,
    Crops,
    cut,
    cut_batched,
    cut_one_by_one,
    cut_small,
    draw_crops,
    interpolation_weights,
    whole,
)

GREY_LEVEL = 1 / 255
WAYS = (cut_batched, cut_small, cut_one_by_one)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pictures(count: int, side: int) -> torch.Tensor:
    """Smooth pictures with some noise, (N, S, S, 3) uint8."""
    random = np.random.default_rng(side)
    small = torch.from_numpy(random.uniform(0, 255, (count, 3, side // 4, side // 4)))
    smooth = resize(small, [side, side], antialias=True)
    noisy = smooth + torch.from_numpy(random.normal(0, 8, smooth.shape))
    return noisy.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _grey(normalised: torch.Tensor) -> torch.Tensor:
    """Normalised pictures (..., 3, C, C) back to 0..1."""
    shape = (3, 1, 1)
    return normalised * torch.tensor(DEVIATION).view(shape) + torch.tensor(MEAN).view(shape)


def _boxes_of_torchvision(size: tuple[int, int], area: float, aspect: float, n: int) -> np.ndarray:
    picture = torch.empty(3, *size)
    torch.manual_seed(0)
    return np.array(
        [RandomResizedCrop.get_params(picture, [area, 1], [1 / aspect, aspect]) for _ in range(n)]
    )


@pytest.mark.parametrize(
    ("height", "width", "area", "aspect"),
    [
        (360, 480, 0.08, 4 / 3),
        (100, 100, 0.5, 1.1),
        (40, 300, 0.08, 4 / 3),  # so wide that ten tries often fail: the central box
        (300, 40, 0.2, 4 / 3),
    ],
)
def test_boxes_are_distributed_as_torchvision_draws_them(height, width, area, aspect):
    n, side = 4000, 1_000_000  # a square so fine that mapping to it rounds nothing
    augmentation = Augmentation(min_area=area, max_aspect=aspect)
    sizes = torch.tensor([[height, width]]).expand(n, 2)
    boxes = draw_crops(sizes, 1, side, augmentation, _generator()).boxes[:, 0].double() / side
    boxes = (boxes * torch.tensor([height, width, height, width])).round().numpy()
    top, left, bottom, right = boxes.T
    theirs = _boxes_of_torchvision((height, width), area, aspect, n)
    ours = np.stack([top, left, bottom - top, right - left], axis=1)
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.001
    shares = [(each[:, 2] * each[:, 3]).mean() / (height * width) for each in (ours, theirs)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)
    assert (top >= 0).all()
    assert (bottom <= height).all()
    assert (right <= width).all()


def test_half_of_the_frames_are_flipped_and_none_if_switched_off():
    sizes = torch.tensor([[32, 32]]).expand(3000, 2)
    assert draw_crops(sizes, 3, 32, Augmentation(), _generator()).flips.float().mean() == (
        pytest.approx(0.5, abs=0.03)
    )
    assert not draw_crops(sizes, 3, 32, Augmentation(flip=False), _generator()).flips.any()


def test_every_frame_has_a_crop_of_its_own():
    crops = draw_crops(torch.tensor([[240, 320]]), 3, 256, Augmentation(), _generator())
    assert len({tuple(box) for box in crops.boxes[0].tolist()}) == 3


def test_a_box_covers_the_same_share_of_the_stored_square_as_of_the_original():
    sizes = torch.tensor([[200, 800], [256, 256]])
    boxes = draw_crops(sizes, 1, 256, Augmentation(min_area=1, max_aspect=1), _generator()).boxes
    # The wide picture cannot be used whole at aspect 1: its central square is a quarter of it.
    assert boxes[0, 0].tolist() == [0, 96, 256, 160]
    assert boxes[1, 0].tolist() == [0, 0, 256, 256]


def test_edges_are_rounded_to_the_nearest_stored_pixel():
    sizes = torch.tensor([[100, 46], [46, 100]])
    boxes = draw_crops(sizes, 1, 10, Augmentation(min_area=1, max_aspect=1), _generator()).boxes
    # The central square goes from 27 to 73 of 100: 2.7 to 7.3 stored pixels of 10.
    assert boxes[:, 0].tolist() == [[3, 0, 7, 10], [0, 3, 10, 7]]


def test_boxes_hold_at_least_one_pixel_even_of_tiny_squares():
    sizes = torch.tensor([[1000, 1000]]).expand(500, 2)
    boxes = draw_crops(sizes, 1, 4, Augmentation(min_area=0.001), _generator()).boxes
    assert (boxes[..., 2:] > boxes[..., :2]).all()
    assert boxes.min() >= 0
    assert boxes.max() <= 4


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("stored", "side"), [(32, 28), (64, 56), (96, 40)])
def test_evaluation_is_torchvisions_antialiased_resize(way, stored, side):
    pictures = _pictures(5, stored)
    boxes, flips = whole(5, 1, stored).boxes[:, 0], torch.zeros(5, dtype=torch.bool)
    ours = _grey(way(pictures, boxes, flips, side))
    theirs = resize(pictures.permute(0, 3, 1, 2), [side, side], antialias=True) / 255
    assert (ours - theirs).abs().mean() < GREY_LEVEL
    assert (ours - theirs).abs().max() < 2 * GREY_LEVEL


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("stored", "side"), [(32, 28), (64, 30), (64, 100)])
def test_a_training_crop_is_torchvisions_resized_crop(way, stored, side):
    pictures = _pictures(40, stored)
    sizes = torch.full((40, 2), stored)
    crops = draw_crops(sizes, 1, stored, Augmentation(), _generator(1))
    ours = _grey(way(pictures, crops.boxes[:, 0], crops.flips[:, 0], side))
    for picture, (top, left, bottom, right), flip, mine in zip(
        pictures, crops.boxes[:, 0].tolist(), crops.flips[:, 0], ours, strict=True
    ):
        theirs = resized_crop(
            picture.permute(2, 0, 1), top, left, bottom - top, right - left, [side, side]
        )
        theirs = (hflip(theirs) if flip else theirs) / 255
        assert (mine - theirs).abs().mean() < GREY_LEVEL
        assert (mine - theirs).abs().max() < 2 * GREY_LEVEL


def test_threads_share_the_pictures_and_change_nothing():
    pictures, sizes = _pictures(5, 64), torch.tensor([[60, 80]]).expand(5, 2)
    crops = draw_crops(sizes, 1, 64, Augmentation(), _generator())
    given = (pictures, crops.boxes[:, 0], crops.flips[:, 0], 24)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = cut_one_by_one(*given)
        torch.set_num_threads(3)
        assert torch.equal(cut_one_by_one(*given), alone)
        assert augment._threads(3).submit(torch.get_num_threads).result() == 1, "no helpers"
        assert torch.get_num_threads() == 3, "as before elsewhere"
        assert _in_child(lambda: torch.equal(cut_one_by_one(*given), alone)), "after a fork, too"
    finally:
        torch.set_num_threads(before)


def _in_child(check: Callable[[], bool]) -> bool:
    """What a process says that is forked off; one that hangs is killed after a minute."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (64, 1), (1, 64)])
@pytest.mark.parametrize("mirrored", [True, False])
def test_crops_of_one_line_are_cut_alike_in_both_ways(shape: tuple[int, int], mirrored: bool):
    """Where the order of a picture's axes in memory says least."""
    pictures, (height, width) = _pictures(2, 64), shape
    given = (pictures, torch.tensor([[0, 0, height, width]] * 2), torch.tensor([mirrored] * 2), 20)
    rounding = GREY_LEVEL / min(DEVIATION)
    assert torch.allclose(cut_one_by_one(*given), cut_batched(*given), atol=rounding)
    assert torch.allclose(cut_small(*given), cut_batched(*given), atol=1e-5)


def test_pictures_are_normalised_with_the_figures_of_imagenet():
    pictures = _pictures(1, 28)
    ours = cut_batched(pictures, whole(1, 1, 28).boxes[0], torch.tensor([False]), 28)
    mean, deviation = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    theirs = normalize(pictures.permute(0, 3, 1, 2) / 255, mean, deviation)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_white_and_black_have_these_values_in_red_green_and_blue(way):
    pictures = torch.zeros(2, 28, 28, 3, dtype=torch.uint8)
    pictures[0] = 255
    result = way(pictures, whole(2, 1, 28).boxes[:, 0], torch.tensor([False, True]), 20)
    # (1 - mean) / deviation and -mean / deviation.
    for picture, colours in zip(
        result, [(2.248908, 2.428571, 2.64), (-2.117904, -2.035714, -1.804444)], strict=True
    ):
        for plane, value in zip(picture, colours, strict=True):
            assert torch.allclose(plane, torch.full((20, 20), value), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stored", [32, 64])
def test_cut_keeps_samples_and_frames_apart(stored):
    pictures = _pictures(6, stored).view(2, 3, stored, stored, 3)
    crops = draw_crops(torch.full((2, 2), stored), 3, stored, Augmentation(), _generator())
    result = cut(pictures, crops, 20)
    assert result.shape == (2, 3, 3, 20, 20)
    for sample in range(2):
        for frame in range(3):
            alone = Crops(
                crops.boxes[sample : sample + 1, frame : frame + 1],
                crops.flips[sample : sample + 1, frame : frame + 1],
            )
            single = cut(pictures[sample : sample + 1, frame : frame + 1], alone, 20)
            assert torch.allclose(result[sample, :, frame], single[0, :, 0], atol=1e-4)


def test_folding_the_frames_of_a_cut_into_the_batch_copies_nothing():
    for stored in (32, 64):
        pictures = _pictures(6, stored).view(2, 3, stored, stored, 3)
        result = cut(pictures, whole(2, 3, stored), 20)
        assert result.transpose(1, 2).flatten(0, 1).data_ptr() == result.data_ptr()


def test_autocast_leaves_pictures_in_full_precision():
    pictures = _pictures(1, 32).view(1, 1, 32, 32, 3)
    plain = cut(pictures, whole(1, 1, 32), 28)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cut(pictures, whole(1, 1, 32), 28), plain)


def test_half_precision_is_off_by_less_than_half_a_grey_level():
    pictures = _pictures(40, 64)
    crops = draw_crops(torch.full((40, 2), 64), 1, 64, Augmentation(), _generator(1))
    given = (pictures, crops.boxes[:, 0], crops.flips[:, 0], 56)
    full, half = cut_batched(*given), cut_batched(*given, torch.half)
    assert half.dtype == full.dtype
    assert 0 < (_grey(half) - _grey(full)).abs().max() < GREY_LEVEL / 2


def test_interpolation_weights_sum_to_one_and_stay_inside_the_crop():
    start, end = torch.tensor([3, 0]), torch.tensor([9, 16])
    mirrored = torch.tensor([True, False])
    weights = interpolation_weights(start, end, mirrored, 16, 5)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 5))
    assert not weights[0, :, :3].any()
    assert not weights[0, :, 9:].any()
    assert torch.allclose(
        weights[:1].flip(1), interpolation_weights(start[:1], end[:1], ~mirrored[:1], 16, 5)
    )
