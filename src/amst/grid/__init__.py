"""From config.yaml to the grid: reading and checking it, variants, the settings of every run."""

from amst.config.settings import Config
from amst.grid.reading import check_config, read_config
from amst.grid.runs import (
    Cell,
    Resolver,
    as_dict,
    cells,
    embedding_of,
    features_of,
    features_owner,
    left_out,
    modalities_of,
    models_of,
    raw_root,
    tokenizers_of,
    trained_alike,
)
from amst.grid.variants import Variant, all_variants, grid_variants

__all__ = [
    "Cell",
    "Config",
    "Resolver",
    "Variant",
    "all_variants",
    "as_dict",
    "cells",
    "check_config",
    "embedding_of",
    "features_of",
    "features_owner",
    "grid_variants",
    "left_out",
    "modalities_of",
    "models_of",
    "raw_root",
    "read_config",
    "tokenizers_of",
    "trained_alike",
]
