from PIL import Image

from amst.bench.squeeze import measure_squeeze


def test_a_larger_square_is_closer_to_the_original():
    small, large = measure_squeeze((480, 360), (256, 512), crops=10).errors
    assert 0 < large.whole < small.whole < 3
    assert 0 < large.crops < small.crops < 8


def test_pictures_without_detail_lose_nothing():
    flat = Image.new("RGB", (30, 20), (10, 100, 200))
    (error,) = measure_squeeze((480, 360), (256,), 3, [flat]).errors
    assert (error.whole, error.crops) == (0, 0)
