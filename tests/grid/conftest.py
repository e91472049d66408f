"""A small valid configuration to be changed by a test."""

import copy
from typing import Any

import pytest

SMALL: dict[str, Any] = {
    "grid": {"datasets": ["digits"], "methods": ["naive", "unimodal_audio"], "seeds": [0, 1]},
    "datasets": {
        "digits": {
            "generate": {"samples": 100},
            "method_defaults": {"amst_*": {"skip": {"audio": 4}}},
            "recipe": {"epochs": 12},
        },
        "CREMAD": {"raw": "data/CREMAD", "split": ["amst", "group"]},
    },
    "methods": {
        "naive": {"method": "naive"},
        "unimodal_audio": {"method": "unimodal", "modality": "audio"},
        "unimodal_text": {"method": "unimodal", "modality": "text"},
        "amst": {"method": "amst_alternating"},
        "short": {"method": "naive", "recipe": {"epochs": 3}},
    },
}


@pytest.fixture
def values() -> dict[str, Any]:
    """Values that check_config accepts."""
    return copy.deepcopy(SMALL)
