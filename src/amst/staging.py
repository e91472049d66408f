"""Fetching models and published lists into a folder that nodes read without a network."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amst.datasets.lists import LISTS, SOURCE
from amst.download import Download
from amst.errors import AmstError
from amst.files import alone, reading, replacing, sha256_of, write_json
from amst.pretrained import LOCK, STAGED, model_folder

HUB = "https://huggingface.co"
"""Where models are published: ``<hub>/<repository>/resolve/<revision>/<file>``."""

FORMAT = 1
REQUIRED = ("config.json", "model.safetensors")
OPTIONAL = ("merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json")
"""Files of a model that is not pinned: those of RoBERTa, some of which a model may lack."""

_MODEL_REMEDY = (
    "Call again where there is a network: what came is kept; then bring the folder "
    f"{STAGED} to the nodes that have none"
)


@dataclass(frozen=True)
class Model:
    """A model on the hub.

    Attributes:
        repository: its name there.
        revision: the commit, so that its bytes never change; a branch if none is pinned.
        sha256: file -> SHA-256, where known.
    """

    repository: str
    revision: str = "main"
    sha256: Mapping[str, str] = field(default_factory=dict)


PINNED = {
    "roberta-base": Model(
        "FacebookAI/roberta-base",
        "e2da8e2f811d1448a5b465c236feacd80ffbac7b",
        {
            "config.json": "ef0185e2aae6e06c5f105a285006952c340e20c7dbf43c86ec82601b13fc45e9",
            "merges.txt": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            "model.safetensors": "5bde1d28afb363d0103324efeb5afc8b2b397fe5e04beabb9b1ef355255ade81",
            "tokenizer.json": "847bbeab6174d66a88898f729d52fa8d355fafe1bea101cf960dd404581df70e",
            "tokenizer_config.json": (
                "994f46754c5bf4014f1aa92d34b1374319c3a6b3f702105cd5b742beaecd18ce"
            ),
            "vocab.json": "9e7f63c2d15d666b52e21d250d2e513b87c9b713cfa6987a82ed89e5e6e50655",
        },
    )
}
"""Models whose bytes are known. The checksums of RoBERTa are those that several published
experiments on this revision state alike; they were not compared with the hub itself."""


def fetch_model(
    name: str, staged: Path = STAGED, source: str = HUB, attempts: int = 4, pause: float = 2.0
) -> Path:
    """Fetch tokenizer and weights of a model; a call that was interrupted is continued.

    A file appears under its name when it is whole and has the SHA-256 that is pinned here or, for
    another model, was recorded in ``staged.json`` when it was first fetched.

    Args:
        name: of the model: pinned, or that of a repository on the hub.
        staged: folder of everything that is fetched.
        source: base address of the hub.
        attempts: tries per file before giving up on a network error.
        pause: seconds before the second try; doubled for each further one.

    Returns:
        The model's folder.

    Raises:
        AmstError: the source cannot be reached, lacks a file, or sends other bytes than expected.
    """
    model = PINNED.get(name, Model(name))
    folder = model_folder(name, staged)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):  # two would write into one file
        _fetch_into(folder, model, source, attempts, pause)
    return folder


def _fetch_into(folder: Path, model: Model, source: str, attempts: int, pause: float) -> None:
    known = model.sha256 or recorded(folder)
    files = {}
    for file in sorted(known or (*REQUIRED, *OPTIONAL)):
        path = folder / file
        if not (path.is_file() and sha256_of(path) == known.get(file)):
            address = f"{source.rstrip('/')}/{model.repository}/resolve/{model.revision}/{file}"
            part = path.with_name(f".{file}.part")  # what came waits there for the next call
            download = Download(address, part, known.get(file), _MODEL_REMEDY)
            if not download.fetch(attempts, pause, file in OPTIONAL and file not in known):
                continue
            part.replace(path)
        files[file] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
    lock = {
        "format": FORMAT,
        "repository": model.repository,
        "revision": model.revision,
        "files": files,
    }
    if _read(folder) != lock:
        write_json(folder / LOCK, lock)


def recorded(folder: Path) -> dict[str, str]:
    """File -> SHA-256 as it was first fetched; empty when nothing was."""
    return _digests(_read(folder))


def _digests(lock: dict[str, Any]) -> dict[str, str]:
    return {file: str(facts["sha256"]) for file, facts in lock.get("files", {}).items()}


def damaged(folder: Path, sha256: Callable[[Path], str] = sha256_of) -> list[str]:
    """Files of a fetched model that are missing or are not what was fetched.

    Args:
        folder: of the model.
        sha256: gives the SHA-256 of a file.
    """
    return [
        file
        for file, digest in sorted(recorded(folder).items())
        if not (folder / file).is_file() or sha256(folder / file) != digest
    ]


def _read(folder: Path) -> dict[str, Any]:
    try:
        with reading(folder / LOCK):
            value: dict[str, Any] = json.loads((folder / LOCK).read_text("utf-8"))
        _digests(value)
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        remedy = "Delete the folder and fetch the model again"
        raise AmstError(f"{folder / LOCK} is damaged ({error!r})", remedy) from error
    return value


def fetch_lists(
    dataset: str, out: Path, source: str = SOURCE, attempts: int = 4, pause: float = 2.0
) -> list[Path]:
    """Fetch the lists of ``dataset`` into ``out``, keeping their paths; nothing is left half done.

    A list that is there with the published bytes is not fetched again. Any number of calls may
    fetch the same lists at a time, as the jobs of the workflow do.

    Args:
        dataset: name of the dataset.
        out: folder of all datasets' lists.
        source: base address.
        attempts: tries per file before giving up on a network error.
        pause: seconds before the second try; doubled for each further one.

    Returns:
        Paths of the dataset's lists; none where the split is derived by a rule.

    Raises:
        AmstError: the source cannot be reached or sends other bytes than the published ones.
    """
    remedy = (
        "On a node without network, fetch the lists on another one and set "
        f"datasets.{dataset}.lists to their folder"
    )
    paths = []
    for file in LISTS.get(dataset, ()):
        path = out / file.path
        if not (path.is_file() and sha256_of(path) == file.sha256):
            address = f"{source.rstrip('/')}/{file.path}"
            with replacing(path) as temporary:
                Download(address, temporary, file.sha256, remedy).fetch(attempts, pause)
        paths.append(path)
    return paths
