"""Benchmarks: each prints its ratio or its time from one run on this machine."""

from typing import Any, ClassVar, Protocol


class Report(Protocol):
    """What a benchmark has found: a dataclass that can say it to a reader."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def lines(self) -> list[str]:
        """A line for each figure, with its unit."""
