import pytest

from amst.config.run import AudioFeatures, TextFeatures, VisualFeatures
from amst.datasets import digits
from amst.datasets.registry import load
from amst.features.samples import write_samples
from tests.datasets.conftest import tree_of

__all__ = ["digits_features", "digits_raw", "listed", "tree_of"]


@pytest.fixture(scope="session")
def digits_raw(tmp_path_factory):
    """The raw folder of a small embedded dataset; nobody writes into it."""
    raw = tmp_path_factory.mktemp("digits") / "raw"
    digits.make(raw, digits.DigitsSettings(samples=60, pools=6))
    return raw


@pytest.fixture(scope="session")
def digits_features():
    return {
        "audio": AudioFeatures(mel_bins=16, frames=48),
        "text": TextFeatures(tokens=24, tokenizer="digits"),
        "visual": VisualFeatures(frames=3, per_second=6, size=32),
    }


@pytest.fixture
def listed(tmp_path):
    """Lists the samples of a raw folder: the dataset and the path of its list."""

    def listed(name, raw):
        out = tmp_path / name / "samples.jsonl"
        write_samples(load(name), raw, out, out.with_name("rejected.jsonl"))
        return load(name), out

    return listed
