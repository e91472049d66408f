"""What stored features depend on, as a hash: of shards, of manifests, and of the configuration."""

from collections.abc import Mapping

from amst.config.run import Features, settings_hash
from amst.datasets.base import Dataset


def features_hash(dataset: Dataset, features: Mapping[str, Features]) -> str:
    """Hash of all that features depend on: the dataset's facts and the settings per modality."""
    settings = {name: value.model_dump(mode="json") for name, value in features.items()}
    return settings_hash({"dataset": dataset.fingerprint(), "features": settings})
