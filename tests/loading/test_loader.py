import dataclasses
import os
import subprocess
import sys
import threading
import time
from collections import deque

import pytest
import torch

from amst.config.run import Augmentation
from amst.loading import augment, buffers
from amst.loading import loader as module
from amst.loading.batch import TextTokens
from amst.loading.dataset import FeatureStore
from amst.loading.loader import EpochBatches, Loader, ahead, spare_core


@pytest.fixture
def store(stored):
    return FeatureStore(stored.manifest)


@pytest.fixture
def train(store, stored, modalities):
    return store.part(stored.split, "train", modalities)


@pytest.fixture
def loader(modalities):
    return Loader(modalities, seed=0, batch_size=4, device=torch.device("cpu"))


def _numbers(batches):
    """Which samples the batches hold: their sounds say it."""
    return [batch.inputs["audio"][:, 0, 0, 0].int().tolist() for batch in batches]


def _pictures(batches):
    """Position in the part -> picture of the sample there."""
    return {
        position: picture
        for batch in batches
        for position, picture in zip(batch.positions.tolist(), batch.inputs["visual"], strict=True)
    }


def _same(first, second):
    if isinstance(first, TextTokens):
        return torch.equal(first.ids, second.ids) and torch.equal(first.mask, second.mask)
    return torch.equal(first, second)


def _assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert one.inputs.keys() == other.inputs.keys()
        assert all(_same(one.inputs[name], other.inputs[name]) for name in one.inputs)


def test_an_epoch_holds_every_sample_once_and_its_last_batch_is_smaller(loader, train):
    batches = list(loader.training(train, 0, train.inputs))
    assert [batch.size for batch in batches] == [4, 4, 3]
    assert loader.batches_of(train) == 3
    numbers = [number for batch in _numbers(batches) for number in batch]
    assert sorted(numbers) == sorted((3, 0, 8, 7, 5, 4, 12, 11, 10, 9, 2))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [n % 2 for n in numbers]


def test_batches_tell_where_their_samples_stand_in_the_part(loader, train):
    (whole,) = _numbers(loader.in_order(train))
    source = EpochBatches(loader, train, train, 1)
    for batches in (
        list(loader.training(train, 1, train.inputs, start=1)),
        list(source.shuffled("prototypes")),
        list(source.validation()),
    ):
        for batch, numbers in zip(batches, _numbers(batches), strict=True):
            assert [whole[position] for position in batch.positions] == numbers
    assert source.samples == len(whole) == 11


def test_inputs_have_the_shapes_and_types_that_encoders_expect(loader, train):
    inputs = next(loader.training(train, 0, train.inputs)).inputs
    assert inputs["audio"].shape == (4, 1, 6, 4)
    assert inputs["audio"].dtype == torch.float32
    assert inputs["visual"].shape == (4, 3, 2, 12, 12)
    assert inputs["text"].ids.shape == (4, 5)
    assert inputs["text"].ids.dtype == torch.int64
    assert inputs["text"].mask.dtype == torch.bool


def test_batches_in_lent_memory_are_those_in_memory_of_their_own(loader, train, monkeypatch):
    def batches():
        for epoch in range(2):
            yield from loader.training(train, epoch, train.inputs)
            yield from loader.in_order(train)

    monkeypatch.setattr(augment, "SMALL_BELOW", 0)  # small pictures are cut in another way
    own = list(batches())
    monkeypatch.setattr(buffers, "_LARGE", 0)
    held, addresses = deque(maxlen=2), set()
    for number, batch in enumerate(batches()):
        held.append((number, batch))
        for earlier, kept in held:
            _assert_same([kept], [own[earlier]])
        addresses |= {batch.inputs[name].data_ptr() for name in ("audio", "visual")}
    assert len(addresses) < 2 * len(own), "some memory has come back"


@pytest.mark.parametrize("start", [0, 1, 2, 3])
def test_an_epoch_started_anywhere_has_the_batches_of_the_whole_one(loader, train, start):
    whole = list(loader.training(train, 1, train.inputs))
    _assert_same(list(loader.training(train, 1, train.inputs, start)), whole[start:])


def test_epochs_and_seeds_have_orders_of_their_own(loader, train):
    def first(seed, epoch):
        return list(dataclasses.replace(loader, seed=seed).training(train, epoch, train.inputs))

    assert _numbers(first(0, 0)) == _numbers(first(0, 0))
    assert _numbers(first(0, 0)) != _numbers(first(0, 1))
    assert _numbers(first(0, 0)) != _numbers(first(1, 0))


def test_a_sample_is_cropped_in_another_way_in_every_epoch_and_for_every_seed(loader, train):
    def own(seed, epoch):
        source = EpochBatches(dataclasses.replace(loader, seed=seed), train, train, epoch)
        return source.shuffled("prototypes", augmented=True)

    def training(seed, epoch):
        return dataclasses.replace(loader, seed=seed).training(train, epoch, train.inputs)

    for drawn in (training, own):
        first = _pictures(drawn(0, 0))
        assert len(first) == 11
        for others in (drawn(0, 1), drawn(1, 0)):
            same = [at for at, picture in _pictures(others).items() if picture.equal(first[at])]
            assert len(same) < 11 / 2


def test_crops_are_drawn_as_the_modality_says(loader, train, modalities):
    plain = Augmentation(min_area=1, max_aspect=1, flip=False)
    visual = modalities["visual"].model_copy(update={"augmentation": plain})
    unchanged = dataclasses.replace(loader, modalities={**modalities, "visual": visual})
    square = dataclasses.replace(train, sizes={"visual": torch.full((11, 2), 64)})
    whole = _pictures(loader.in_order(square))
    drawn = _pictures(unchanged.training(square, 0, square.inputs))
    assert all(picture.equal(whole[at]) for at, picture in drawn.items())
    by_default = _pictures(loader.training(square, 0, square.inputs))
    assert not all(picture.equal(whole[at]) for at, picture in by_default.items())


def test_a_sample_is_cropped_alike_whatever_batch_it_comes_in(loader, train):
    def by_sample(batch_size):
        batches = dataclasses.replace(loader, batch_size=batch_size).training(
            train, 3, train.inputs
        )
        return {
            number: picture
            for batch in batches
            for number, picture in zip(
                batch.inputs["audio"][:, 0, 0, 0].int().tolist(),
                batch.inputs["visual"],
                strict=True,
            )
        }

    small, large = by_sample(2), by_sample(11)
    assert all(torch.allclose(small[number], large[number], atol=1e-4) for number in large)


def test_leaving_a_modality_out_changes_nothing_for_the_others(loader, train):
    whole = list(loader.training(train, 0, train.inputs))
    less = list(loader.training(train, 0, {"visual"}))
    assert all(set(batch.inputs) == {"visual"} for batch in less)
    for one, other in zip(whole, less, strict=True):
        assert torch.equal(one.inputs["visual"], other.inputs["visual"])


class _Untouchable:
    def take(self, positions):
        raise AssertionError("an inactive modality was read")


def test_an_inactive_modality_is_neither_read_nor_augmented(loader, train):
    without = dataclasses.replace(
        train, inputs={**train.inputs, "visual": _Untouchable()}, sizes={}
    )
    batches = list(loader.training(without, 0, {"audio"}))
    assert all(set(batch.inputs) == {"audio"} for batch in batches)


def test_an_epoch_without_any_active_modality_still_has_its_labels(loader, train):
    batches = list(loader.training(train, 0, frozenset()))
    assert [batch.size for batch in batches] == [4, 4, 3]
    assert not any(batch.inputs for batch in batches)


def test_resident_and_mapped_parts_give_the_same_batches(loader, train, store, stored, modalities):
    mapped = store.part(stored.split, "train", modalities, mapped=True)
    _assert_same(
        list(loader.training(train, 2, modalities)), list(loader.training(mapped, 2, modalities))
    )


def test_evaluation_goes_in_order_and_shows_the_whole_picture(loader, train):
    (batch,) = loader.in_order(train)
    assert _numbers([batch]) == [[3, 0, 8, 7, 5, 4, 12, 11, 10, 9, 2]]
    (again,) = loader.in_order(train)
    _assert_same([batch], [again])


def test_of_a_part_of_several_batches_only_the_first_are_shown_if_asked(loader, train, monkeypatch):
    monkeypatch.setattr(module, "EVALUATION_BATCH", 4)
    source = EpochBatches(loader, train, train, epoch=0)
    assert _numbers(source.validation()) == [[3, 0, 8, 7], [5, 4, 12, 11], [10, 9, 2]]
    assert source.validation_batches() == 3
    assert _numbers(source.validation(1)) == [[3, 0, 8, 7]]
    assert _numbers(source.validation(2)) == [[3, 0, 8, 7], [5, 4, 12, 11]]


def test_a_method_sees_unaugmented_batches_in_the_order_of_its_own_stream(
    loader, train, store, stored, modalities
):
    val = store.part(stored.split, "val", modalities)
    source = EpochBatches(loader, train, val, epoch=1)
    shuffled = list(source.shuffled("prototypes"))
    assert len(source) == len(shuffled) == 3
    assert _numbers(shuffled) != _numbers(loader.training(train, 1, train.inputs))
    assert _numbers(shuffled) == _numbers(source.shuffled("prototypes"))
    assert _numbers(shuffled) != _numbers(
        EpochBatches(loader, train, val, 2).shuffled("prototypes")
    )
    assert _numbers(source.validation()) == [[1, 6]]
    assert source.validation_batches() == 1
    assert _numbers(source.shuffled("prototypes", count=2)) == _numbers(shuffled[:2])
    assert _numbers(source.validation(1)) == [[1, 6]]
    (whole,) = loader.in_order(train)
    plain = dict(zip(_numbers([whole])[0], whole.inputs["visual"], strict=True))
    for batch, numbers in zip(shuffled, _numbers(shuffled), strict=True):
        for number, picture in zip(numbers, batch.inputs["visual"], strict=True):
            assert torch.allclose(picture, plain[number], atol=1e-4)


def test_a_method_may_see_batches_augmented_by_draws_of_its_own_stream(
    loader, train, store, stored, modalities
):
    source = EpochBatches(loader, train, store.part(stored.split, "val", modalities), epoch=1)
    augmented = list(source.shuffled("prototypes", augmented=True))
    _assert_same(augmented, list(source.shuffled("prototypes", augmented=True)))
    assert _numbers(augmented) == _numbers(source.shuffled("prototypes"))

    def pictures(batches):
        return {
            number: picture
            for batch in batches
            for number, picture in zip(*_numbers([batch]), batch.inputs["visual"], strict=True)
        }

    drawn = pictures(augmented)
    for others in (loader.training(train, 1, modalities), source.shuffled("prototypes")):
        same = [n for n, picture in pictures(others).items() if picture.equal(drawn[n])]
        assert len(same) < len(drawn) / 2


def test_batches_made_ahead_come_in_order():
    assert list(ahead(iter(range(7)))) == list(range(7))


def test_no_more_than_two_batches_wait_to_be_taken():
    made = []

    def counted():
        for number in range(100):
            made.append(number)
            yield number

    batches = ahead(counted())
    assert [next(batches) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.3)
    assert len(made) <= 3 + 2 + 1, "two wait, and one more is in the thread's hands"
    batches.close()


@pytest.mark.parametrize("mapped", [True, False])
def test_only_features_on_disk_are_made_ahead_without_a_core_to_spare(
    mapped, loader, store, stored, modalities, monkeypatch
):
    part = store.part(stored.split, "train", modalities, mapped)
    kind = type(part.inputs["audio"])
    made, take = set(), kind.take

    def noted(self, positions):
        made.add(threading.current_thread() is threading.main_thread())
        return take(self, positions)

    monkeypatch.setattr(kind, "take", noted)
    monkeypatch.setattr(module, "spare_core", lambda: False)
    list(loader.training(part, 0, part.inputs))
    assert made == {not mapped}


def test_an_error_while_making_batches_ahead_reaches_the_one_who_wants_them():
    def broken():
        yield 1
        raise OSError("disk gone")

    batches = ahead(broken())
    assert next(batches) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(batches)


def test_leaving_before_the_end_ends_the_thread_too():
    before = threading.active_count()
    batches = ahead(iter(range(100)))
    next(batches)
    batches.close()
    assert threading.active_count() == before


UNCAUGHT = """
import sys, torch
from amst.loading.loader import ahead

def products():
    matrix = torch.ones(1500, 1500)
    for _ in range(1000):
        yield matrix @ matrix

batches = ahead(products())
next(batches)
sys.stderr.write("the step fails\\n")
raise RuntimeError
"""


def test_an_error_of_the_step_ends_the_process_while_a_batch_is_made():
    """Cut off in an operation of PyTorch's, the thread would take the exit status with it."""
    done = subprocess.run(
        [sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "the step fails" in done.stderr


def test_features_in_memory_are_made_ahead_where_a_core_is_left(loader, train, monkeypatch):
    made, take = [], type(train.inputs["audio"]).take

    def noted(self, positions):
        made.append(threading.current_thread())
        return take(self, positions)

    monkeypatch.setattr(type(train.inputs["audio"]), "take", noted)

    def threads():
        made.clear()
        list(loader.training(train, 0, train.inputs))
        return set(made)

    every, before = os.sched_getaffinity(0), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert spare_core() == (len(every) > 1)
        assert (threading.main_thread() in threads()) == (len(every) == 1)
        os.sched_setaffinity(0, {min(every)})
        assert not spare_core()
        assert threads() == {threading.main_thread()}
    finally:
        os.sched_setaffinity(0, every)
        torch.set_num_threads(before)
