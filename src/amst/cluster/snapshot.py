"""What a job must find as it was when its call of Snakemake began: configuration and code.

A job reads both when it starts, which may be days later, while Snakemake notes for it what its call
knew. Environment variables say it to the jobs.
"""

import hashlib
import json
import os
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from amst.errors import AmstError
from amst.files import write_text

FOLDER = Path(".snakemake")
_CONFIG, _CODE = "AMST_CONFIG", "AMST_CODE"


def keep_configuration(config: dict[str, Any], alone: bool, folder: Path = FOLDER) -> None:
    """Write down the configuration of this call for its jobs, before the first of them.

    Args:
        config: the configuration.
        alone: whether no other call lives in the working folder: then those of earlier ones go,
            which have no jobs any more.
        folder: Snakemake's own.
    """
    text = json.dumps(config, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = (folder / f"amst-config-{digest}.json").absolute()
    write_text(path, text)
    os.environ[_CONFIG] = str(path)
    for other in path.parent.glob("amst-config-*.json") if alone else ():
        if other != path:
            other.unlink(missing_ok=True)


def take_configuration(config: dict[str, Any]) -> None:
    """In a job, put what its call has written down in place of what was read from the files.

    Raises:
        AmstError: it cannot be read.
    """
    if _CONFIG not in os.environ:  # a call that has written none has no jobs of this kind
        return
    path = Path(os.environ[_CONFIG])
    try:
        kept = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise AmstError(
            f"{path}, the configuration of this call, cannot be read: {error}",
            "Its jobs do not run with another one: call Snakemake again",
        ) from None
    config.clear()
    config.update(kept)


class CodeOfCall:
    """Digests of the code of steps, as the call that a job belongs to knew them.

    Args:
        is_job: whether this process runs a job of a call; else it is the call itself.
        environ: where a call tells its jobs.
    """

    def __init__(self, is_job: bool, environ: MutableMapping[str, str] = os.environ) -> None:
        self._is_job, self._environ = is_job, environ
        self._digests: dict[str, str] = json.loads(environ.get(_CODE, "{}")) if is_job else {}

    def same(self, step: str, digest: Callable[[], str]) -> str:
        """The digest of a step's code.

        Raises:
            AmstError: in a job, it is another than when the call began.
        """
        found = digest()
        if self._digests.setdefault(step, found) != found:
            raise AmstError(
                f"the code of {step} has changed since this call of Snakemake began",
                "Its jobs do not run with other code: call it again",
            )
        if not self._is_job:
            self._environ[_CODE] = json.dumps(self._digests)
        return found
