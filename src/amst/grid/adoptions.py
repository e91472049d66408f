"""Finished runs that a user declared valid under changed code or packages (`amst adopt`)."""

import json
from pathlib import Path

from amst.errors import AmstError, not_given
from amst.files import alone, write_json
from amst.provenance import with_packages
from amst.records import RUN_FILES
from amst.training.state import adopted_file, read_adopted, run_digest


class Adoptions:
    """What was adopted in a results folder, each for one state of code and packages.

    Such a state is what ``amst.provenance.with_packages`` gives. An adoption is of a run as it was
    then: another one, trained under the same name since, is none of it.

    Raises:
        AmstError: the file of adoptions cannot be read.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._of = self._written()
        self._new: dict[str, tuple[str, str]] = {}

    def _written(self) -> dict[str, tuple[str, str]]:
        """As the file has them now."""
        results = self._results
        try:
            return {
                run: (_whole(str(each["from"])), _whole(str(each["to"])))
                for run, each in read_adopted(results).items()
            }
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise AmstError(
                f"{adopted_file(results)} is damaged ({error!r})",
                "Bring it back, or delete it and adopt again; without it adopted runs are trained "
                "anew",
            ) from error

    def add(self, run: str, made: str, adopted_for: str) -> None:
        """Note that a run made by the state ``made`` is valid under ``adopted_for``."""
        self._of[run] = self._new[run] = made, adopted_for

    def save(self) -> None:
        """Add what was noted to the file of adoptions, which others may have written meanwhile."""
        with alone(self._results):
            self._of = self._written() | self._new
            values = {run: {"from": made, "to": to} for run, (made, to) in self._of.items()}
            write_json(adopted_file(self._results), values)

    def __contains__(self, run: str) -> bool:
        """Whether a run was ever adopted."""
        return run in self._of

    def made_by(self, run: str, settings: str, present: str, data: tuple[Path, Path]) -> str:
        """The state of code and packages that a run counts as made with.

        Args:
            run: id of the run.
            settings: hash of the settings that the grid has for it.
            present: the state that would train it now.
            data: manifest of its dataset and split file, there or not.

        Returns:
            The state that made it, where it was adopted for the present one and is still as it was
            then, with these settings and data; else ``present``.
        """
        made, adopted_for = self._of.get(run, ("", ""))
        if adopted_for == present and self._is_as_it_was(run, settings, made, data):
            return made
        return present

    def _is_as_it_was(self, run: str, settings: str, made: str, data: tuple[Path, Path]) -> bool:
        folder = self._results / "runs" / run
        if not all((folder / name).is_file() for name in RUN_FILES):
            return False
        path = folder / "run.json"
        try:
            record = json.loads(path.read_text("utf-8"))
            environment = record["environment"]
            by = environment["code_digest"], environment["package_digest"]
            if (record["settings_hash"], "-".join(by)) != (settings, made):
                return False
            if not all(file.is_file() for file in data):
                return True  # made again, they are what they were
            now = run_digest(settings, *by, *data)
            return bool(record["digest"] == now)
        except (OSError, ValueError, LookupError, TypeError) as error:
            if refused := not_given(path, error):
                raise refused from error  # not to be trained anew for that
            return False


def _whole(state: str) -> str:
    """A state as noted; earlier versions noted its code alone, the packages being those here."""
    return state if "-" in state else with_packages(state)
