from functools import partial

import pytest
from PIL import Image

from amst.bench.extraction import extract, make_clips, make_dialogue, measure_memory, plain
from amst.features.shards import Shard


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("bench") / "raw", 2, 1.5)


def test_extraction_and_yardstick_do_the_same_clips(clips):
    assert extract(clips) == plain(clips) == 2
    with Shard(clips.with_name("raw-shards") / "000.h5") as shard:
        assert [tuple(size) for size in shard.array("visual/size")] == [(360, 480)] * 2
        assert list(shard.array("visual/decoded")) == [45, 45]
    written = sorted(path.suffix for path in clips.with_name("raw-plain").iterdir())
    assert written == [".jpg"] * 4 + [".npy"] * 2
    with Image.open(next(clips.with_name("raw-plain").glob("*.jpg"))) as picture:
        assert picture.size == (480, 360)
    assert [plain(clips, share=(place, 2)) for place in (0, 1)] == [1, 1]


def test_a_dialogue_is_cut_into_its_utterances_and_stays_small(tmp_path):
    raw = make_dialogue(tmp_path / "raw", minutes=0.5)
    assert measure_memory(partial(extract, dataset="IEMOCAP"), raw) < 1000
    with Shard(tmp_path / "raw-shards/000.h5") as shard:
        assert len(shard) == 5
        assert list(shard.array("visual/decoded")) == [165] * 5
