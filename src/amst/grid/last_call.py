"""What the last call of Snakemake has written down of its grid."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from amst.config.settings import Config
from amst.errors import not_given
from amst.grid.runs import as_dict


@dataclass(frozen=True)
class LastCall:
    """What ran in the last call of Snakemake, which may have had another configuration.

    Attributes:
        runs: run -> hash of its settings.
        features: datasets with shards.
    """

    runs: dict[str, str] = field(default_factory=dict)
    features: frozenset[str] = frozenset()

    @classmethod
    def of(cls, results: Path) -> "LastCall":
        """As it has written it down; nothing where there is no such file, or it does not say it.

        Raises:
            HostError: the disk does not give the file: what its runs need is not to go then.
        """
        path = results / "grid.json"
        try:
            found = json.loads(path.read_text("utf-8"))
            return cls(dict(found["runs"]), frozenset(found["features"].values()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            if refused := not_given(path, error):
                raise refused from error
            return cls()

    def differs(self, config: Config) -> bool:
        """Whether it had runs, or settings of runs, that the configuration has not."""
        return not self.runs.items() <= as_dict(config)["runs"].items()
