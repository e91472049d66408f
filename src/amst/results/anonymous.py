"""For double-blind review: results that tell neither who made them, nor where or when.

What names a person, a machine or a checkout is replaced in the records and settings; then each file
that is to be passed on is searched for it, so that nothing of it comes in another way.
"""

import base64
import html
import io
import json
import os
import platform
import pwd
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path, PurePath
from typing import Any
from unicodedata import normalize

import numpy as np
import yaml
from PIL import Image

from amst.config.run import RunSettings
from amst.errors import AmstError
from amst.features.manifest import read_manifest
from amst.grid.reading import read_yaml
from amst.grid.variants import merge
from amst.provenance import environment_of_git
from amst.records import RunRecord
from amst.results.cells import Cell, Collection
from amst.results.names import CHECKOUT

LETTERS = 4
"""Names with fewer are not searched for: text holds them by chance."""
ORDINARY = (
    "root user users admin administrator guest student test tests home work data scratch local "
    "localhost host node compute login default ubuntu debian docker runner jovyan python model "
    "models train training results runs main head audio visual video text image multimodal unknown "
    "none anonymous holm shapley wilcoxon mcnemar bert roberta adam"
)
"""Names that ordinary text or that of the tables holds; they are not searched for either."""
NOT_PASSED_ON = ("CITATION.cff", "LICENSE")
"""Files that name their authors, who are the user's where the checkout is a fork."""
SETTINGS = "settings/config.yaml"
_FOLDERS = re.compile(r"(?<![\w./~$}-])(?:~[\w.-]*|\.\.)?(?:/[^\s/\"'<>,;:=()]+)+/?")
"""A path within a text that does not begin in the working folder."""
_PICTURE = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=]+)")
_GIT_SECONDS = 10


def without_identities(collection: Collection) -> Collection:
    """The same results without hosts' names, commits, SLURM jobs, times of day and folders.

    Hosts are numbered by the order of their names: which runs shared one is still seen. A setting
    that is a path keeps its last part, and the hash is of the settings as they then are. What is
    wrong with a run is left out, since it names files.
    """
    hosts = sorted({record.environment.host for record in collection.records})
    numbers = {host: f"host-{number}" for number, host in enumerate(hosts, 1)}
    return replace(collection, cells=tuple(_cell(cell, numbers) for cell in collection.cells))


def _cell(cell: Cell, hosts: Mapping[str, str]) -> Cell:
    records = {seed: _record(record, hosts) for seed, record in cell.records.items()}
    return replace(cell, records=records, runs=tuple(replace(run, why="") for run in cell.runs))


def _record(record: RunRecord, hosts: Mapping[str, str]) -> RunRecord:
    made = {"host": hosts[record.environment.host], "commit": "", "slurm_job": ""}
    settings = RunSettings.model_validate(without_folders(record.settings.model_dump(mode="json")))
    changes = {
        "environment": record.environment.model_copy(update=made),
        "settings": settings,
        "settings_hash": settings.hash,
        "started": "",
        "finished": "",
    }
    return record.model_copy(update=changes)


def anonymous_files(
    files: Mapping[str, Path | bytes], collection: Collection
) -> dict[str, Path | bytes]:
    """The files of a bundle besides its runs, as they may be passed on.

    The files of the configuration become one of its values, without comments or what images are
    built from; the grid has the hashes of the anonymous records.

    Args:
        files: path in the bundle -> file, or what is to be in it; files of the configuration in
            the order in which they are merged.
        collection: the anonymous records.

    Raises:
        AmstError: a manifest is not what it should be.
    """
    settings: dict[str, Any] = {}
    kept: dict[str, Path | bytes] = {}
    for name, file in files.items():
        if name == "settings/grid.json":
            assert isinstance(file, bytes)
            planned = json.loads(file)
            hashes = {each.settings.run_id: each.settings_hash for each in collection.records}
            kept[name] = _json({**planned, "runs": planned["runs"] | hashes})
        elif name.startswith("settings/"):
            assert isinstance(file, Path)
            settings = merge(settings, read_yaml(file))
        elif name.endswith("/manifest.json"):
            assert isinstance(file, Path)
            manifest = read_manifest(file).model_dump(mode="json")
            # not so classes and ids, which may look like paths
            kept[name] = _json(manifest | {"settings": without_folders(manifest["settings"])})
        elif name not in NOT_PASSED_ON:
            kept[name] = file
    settings.pop("container", None)
    if settings:
        text = yaml.safe_dump(
            without_folders(settings), sort_keys=False, allow_unicode=True, width=inf
        )
        kept[SETTINGS] = text.encode()
    return kept


def record_bytes(record: RunRecord) -> bytes:
    """A record as the file ``run.json``."""
    return _json(record.model_dump(mode="json"))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def without_folders(value: Any) -> Any:
    """Values in which paths that begin outside the working folder have only their last part."""
    if isinstance(value, Mapping):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~")):
        return PurePath(value).name  # may hold spaces
    return _FOLDERS.sub(lambda found: PurePath(found[0]).name, value)


@dataclass(frozen=True)
class Identities:
    """What tells who made results, and where.

    Attributes:
        kinds: name, address or folder -> what it is.
        spared: those of them that are not searched for because the user says so.
    """

    kinds: Mapping[str, str]
    spared: frozenset[str] = frozenset()

    @classmethod
    def of(cls, collection: Collection, spared: Iterable[str] = ()) -> "Identities":
        """Those of this user, this machine, this folder, and of the records.

        Args:
            collection: the records as they were made.
            spared: names that stand in the results as ordinary words.

        Raises:
            AmstError: a spared name is none of them.
        """
        found: dict[str, str] = {}
        for kind, name in (*_of_user(), *_of_git(), *_of_records(collection)):
            if plain := _plain(name):
                found.setdefault(plain, kind)
        for name in spared:
            if _plain(name) not in found:
                raise AmstError(
                    f"--ordinary: {name!r} is not searched for",
                    "Leave it out, or mend its spelling",
                )
        return cls(found, frozenset(map(_plain, spared)))

    @property
    def ordinary(self) -> list[str]:
        """The names that are not searched for, as ordinary text holds them."""
        return sorted(name for name in self.kinds if name in self.spared or _is_ordinary(name))

    def refuse_in(self, name: str, content: bytes) -> None:
        """Refuse a file that holds one of them, in its name or in its text, as a whole word.

        Raises:
            AmstError: with the name, what was found and where in the text.
        """
        wanted = sorted(set(self.kinds).difference(self.ordinary), key=len, reverse=True)
        if not wanted:
            return
        words = "|".join(
            r"\s+".join(map(re.escape, each.split())) + r"(?![^\W_])" * each[-1].isalnum()
            for each in wanted
        )
        # JSON writes a line's end as \n, and no word begins behind a letter
        text = re.sub(r"\\[nrt]", " ", f"{name}\n{_text_of(name, content)}")
        text = normalize("NFC", text)
        small = text.lower()
        found = re.search(rf"(?<![^\W_])(?:{words})", small)
        if found is None:
            return
        if len(text) != len(small):  # as of a letter that has no small one
            text = small
        word = text[found.start() : found.end()]
        around = text[max(0, found.start() - 20) : found.end() + 20]
        kind = self.kinds.get(_plain(word), "an identity")
        raise AmstError(
            f"{name} is not anonymous: it holds {word!r} ({kind}), in {around!r}",
            "Change what says so, as a name in the configuration, or leave it out, and call again; "
            f"where it is but an ordinary word, with --ordinary {shlex.quote(word)}",
        )


def _plain(name: str) -> str:
    return " ".join(normalize("NFC", name).lower().split())


def _is_ordinary(name: str) -> bool:
    return len(name) < LETTERS or name in ORDINARY.split()


def _of_user() -> Iterator[tuple[str, str]]:
    for variable in ("LOGNAME", "USER"):
        yield "the login name", os.environ.get(variable, "")
    with suppress(KeyError):  # an image may know no such user
        entry = pwd.getpwuid(os.getuid())
        yield "the login name", entry.pw_name
        yield "the user's name", entry.pw_gecos.partition(",")[0].strip()
    with suppress(RuntimeError):
        home = Path.home()
        for folder in {home, home.resolve()}:
            # the last one is that of everybody's: a colleague's folder tells as much
            yield from _folder("the home folder", folder)
            if len(folder.parts) > 2:
                yield "a home folder", f"{folder.parent}/"
    for folder in {Path.cwd(), Path(os.environ.get("PWD", "")).absolute(), CHECKOUT}:
        yield from _folder("the working folder", folder)


def _folder(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """A folder at the top of the file system, as `/root` or `/data`, tells nothing."""
    if len(folder.parts) > 2:
        yield kind, str(folder)


def _of_git() -> Iterator[tuple[str, str]]:
    for variable in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL"):
        yield "of git", os.environ.get(variable, "")
    for folder in (Path.cwd(), CHECKOUT):
        for key, value in _git_settings(folder):
            if key.startswith("remote."):
                # owner and name at the end of any address
                parts = re.split("[/:]", value.rstrip("/").removesuffix(".git"))
                yield f"git's {key}", "/".join(parts[-2:])
            else:
                yield f"git's {key}", value


def _git_settings(folder: Path) -> Iterator[tuple[str, str]]:
    pattern = r"^(user\.(name|email)|remote\..*\.(push)?url)$"
    # else git says nothing of a checkout that another user owns
    of_any_owner = ["-C", str(folder), "-c", "safe.directory=*"]
    command = ["git", *of_any_owner, "config", "--null", "--get-regexp", pattern]
    try:
        ended = subprocess.run(
            command,
            env=environment_of_git(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=_GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return
    for entry in ended.stdout.split("\0"):
        key, _, value = entry.partition("\n")
        if value:
            yield key, value


def _of_records(collection: Collection) -> Iterator[tuple[str, str]]:
    made = [record.environment for record in collection.records]
    for host in (platform.node(), *(environment.host for environment in made)):
        short, _, domain = host.partition(".")
        yield "a host", host
        yield "a host", short
        if "." in domain:
            yield "the domain of a host", domain
    for environment in made:
        commit = environment.commit.partition("+")[0]
        yield "a commit", commit
        yield "a commit", commit[:12]


def _text_of(name: str, content: bytes) -> str:
    """What a file says, and what its form says besides."""
    match PurePath(name).suffix:
        case ".npz":
            with np.load(io.BytesIO(content)) as arrays:
                texts = [arrays[each] for each in arrays.files]
                words = [
                    str(word) for each in texts if each.dtype.kind == "U" for word in each.flat
                ]
                return "\n".join([*arrays.files, *words])
        case ".png":
            return _said_of_picture(content)
        case ".pdf":
            outside = re.sub(rb"stream\r?\n.*?endstream", b"", content, flags=re.DOTALL)
            return outside.decode("latin-1")
        case ".safetensors":
            return content[8 : 8 + int.from_bytes(content[:8], "little")].decode(errors="replace")
        case ".html":
            page = content.decode(errors="replace")
            pictures = [_said_of_picture(base64.b64decode(each)) for each in _PICTURE.findall(page)]
            return "\n".join([html.unescape(_PICTURE.sub("", page)), *pictures])
        case _:
            return content.decode(errors="replace")


def _said_of_picture(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as picture:
        return str(picture.info)
