"""Small datasets that the benchmarks of loading and training measure on."""

from pathlib import Path

import pytest
import yaml

from amst.bench.prepared import Prepared, prepare
from amst.config.settings import Config
from amst.grid import read_config

ROOT = Path(__file__).parents[2]
SMALL_CNN = {"name": "small_cnn", "widths": [8, 16]}
SMALL = {
    "datasets": {
        "CREMAD": {
            "modalities": {
                "audio": {"features": {"mel_bins": 32, "frames": 64}, "encoder": SMALL_CNN},
                "visual": {"crop": 32, "features": {"size": 48}, "encoder": SMALL_CNN},
            }
        },
        "digits": {"recipe": {"epochs": 2}},
    }
}


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return read_config(ROOT / "config.yaml", path)


@pytest.fixture(scope="session")
def clips(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(config, "CREMAD", 12, tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="session")
def digits(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(config, "digits", 160, tmp_path_factory.mktemp("digits"))
