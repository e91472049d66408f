from pathlib import Path

import pytest
import yaml

from amst import grid
from amst.released import arguments, exchange


@pytest.fixture(scope="session")
def roberta(tmp_path_factory):
    """A folder with a RoBERTa of one layer, as wide as the real one."""
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("roberta")
    config = RobertaConfig(
        vocab_size=50, hidden_size=768, num_hidden_layers=1, num_attention_heads=12,
        intermediate_size=8, max_position_embeddings=24, type_vocab_size=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def config(roberta):
    """The shipped configuration, with that RoBERTa."""
    values = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text())
    for name in ("IEMOCAP3", "MVSA"):
        modalities = values["datasets"][name].setdefault("modalities", {})
        modalities.setdefault("text", {})["encoder"] = {"name": "roberta", "weights": roberta}
    return grid.check_config(values)


@pytest.fixture
def resolve(config):
    """Settings of a released command line under that configuration."""

    def resolve(args):
        dataset = args["dataset"]
        return arguments.settings_of(
            args,
            grid.modalities_of(config, dataset),
            grid.embedding_of(config, dataset),
            config.arithmetic,
        )

    return resolve


@pytest.fixture
def take_over(resolve, tmp_path):
    """Imports a file: what import.json says, and the folder."""

    def take_over(path, **expected):
        return exchange.import_checkpoint(path, resolve, None, tmp_path / "imported", **expected)

    return take_over
