"""The published lists of the ``amst`` splits: where they are published, checked, and read.

The lists belong to the code published with AMST and are no part of this project. They say which
sample went to which part; labels in them are compared with the labels of the raw data.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from amst.datasets.rawfiles import lines_of, unreadable
from amst.errors import AmstError

SOURCE = (
    "https://raw.githubusercontent.com/CXianRen/AMST/71d414f16249641d2cd06c2a8b03d154dd606ea7"
    "/code/data"
)
"""Where the lists are published: one commit, so their bytes never change."""


@dataclass(frozen=True)
class ListFile:
    """One published list: the part it describes, its checksum and its number of rows."""

    part: str
    path: str
    sha256: str
    rows: int


@dataclass(frozen=True)
class Entry:
    """One row of a list: a sample id of ours, and its class as the list states it."""

    id: str
    label: str


_IEMOCAP = (
    ListFile(
        "train",
        "IEMOCAP/iemocap_train.txt",
        "7d72674aa2b79a86c9da353e0a5df3102418f21bf11cef4e2fd8263d346db208",
        5426,
    ),
    ListFile(
        "val",
        "IEMOCAP/iemocap_valid.txt",
        "4b19ca1874f01dc8396be1ddeeb794318a1655b991feddd1b78552b4edf09ecc",
        683,
    ),
    ListFile(
        "test",
        "IEMOCAP/iemocap_test.txt",
        "a2e7980358fb025823553e9ea6b7a0afadcc62533b7d724adf0f2ee7247b88fd",
        676,
    ),
)

LISTS: dict[str, tuple[ListFile, ...]] = {
    "CREMAD": (
        ListFile(
            "train",
            "CREMAD/80_train_cre.txt",
            "8ac4679a9fafe28c90418ae93dc2a4f26523bdbdbb4188138d06f755d62cb4c7",
            5962,
        ),
        ListFile(
            "val",
            "CREMAD/10_val_cre.txt",
            "c02d378973a3f977c52db9b6fbe4b4361ba57efe7dd2445d4039623db2f2f19e",
            742,
        ),
        ListFile(
            "test",
            "CREMAD/10_test_cre.txt",
            "029d12e8c220883d63f55a29b1ca6762d1bd4c9b96ae75d8a5eadd3bc8e1720e",
            742,
        ),
    ),
    "AVE": (
        ListFile(
            "train",
            "AVE/my_train_ave.txt",
            "5d2d84abcaf212c3bf87c9aa9cff4146fc4f87556ba85548bb6c6812b83fbfd4",
            3338,
        ),
        ListFile(
            "val",
            "AVE/my_val_ave.txt",
            "bc454e9e257ae40d099e24f290c63950593538474f3510b4ade0ddb7720972b1",
            402,
        ),
        ListFile(
            "test",
            "AVE/my_test_ave.txt",
            "32cbc89e08888862e6ee71d196b602b34168400f86a4478f7c7cd2dcec7feb12",
            402,
        ),
    ),
    "MVSA": (
        ListFile(
            "train",
            "MVSA/my_train_mvsa.txt",
            "4ce510ea63986175cc21fd82ff36ba6c4a1939efdbd9255bc10bf4ef0a11e8d9",
            3552,
        ),
        ListFile(
            "val",
            "MVSA/my_val_mvsa.txt",
            "3f9b955aae87cdc389b6650a5b2367fb60206d43465cac029b6d9b71f685b4e3",
            478,
        ),
        ListFile(
            "test",
            "MVSA/my_test_mvsa.txt",
            "75a6394c0b48da1b0df912962cf27c1851d12bec8ccfb9626b8655ce299d427d",
            481,
        ),
    ),
    "IEMOCAP": _IEMOCAP,
    "IEMOCAP3": _IEMOCAP,
}
"""Lists by dataset; the `amst` split of a dataset that is not here is derived by a rule."""


def read_lists(dataset: str, folder: Path) -> dict[str, list[Entry]]:
    """Rows of the published lists of ``dataset`` below ``folder``, by part and in their order.

    Raises:
        AmstError: a list is missing, is not the published one, or has an unreadable line.
    """
    return {file.part: _read(dataset, folder, file) for file in LISTS[dataset]}


def _read(dataset: str, folder: Path, file: ListFile) -> list[Entry]:
    path = folder / file.path
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise AmstError(
            f"there is no list {path} for the amst split of {dataset}",
            f"Fetch the lists (`amst fetch-lists {dataset}`), or set datasets.{dataset}.lists to "
            "a folder that holds them",
        ) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if _sha256(content) != file.sha256:
        raise AmstError(
            f"{path} is not the published list: its SHA-256 is {_sha256(content)}, not "
            f"{file.sha256}",
            "Delete it and fetch it again; line ends must not be converted",
        )
    lines = [line for line in lines_of(content.decode("utf-8")) if line.strip()]
    if len(lines) != file.rows:
        raise AmstError(f"{path} has {len(lines)} rows, not {file.rows}", "Fetch it again")
    return [parse_line(dataset, line, f"{path}:{number}") for number, line in enumerate(lines, 1)]


def parse_line(dataset: str, line: str, where: str = "the list") -> Entry:
    """The sample id and class that one line of a list states.

    Lines read ``<id>.flv <class>`` (CREMAD), ``<video>.mp4 <class with spaces>`` (AVE),
    ``<id>.jpg <class>`` (MVSA) and ``<utterance>, <class>, <start>, <end> ### <text>`` (IEMOCAP).

    Raises:
        AmstError: the line has another form.
    """
    if dataset in ("IEMOCAP", "IEMOCAP3"):
        fields = [field.strip() for field in line.split("###")[0].split(",")]
        if len(fields) == 4 and all(fields):
            return Entry(fields[0], fields[1])
    else:
        file, _, label = line.strip().partition(" ")
        name = PurePosixPath(file).stem
        if name and label.strip():
            label = label.strip()
            return Entry(f"{name}:{label}" if dataset == "AVE" else name, label)
    raise AmstError(f"{where} does not read as a row of a {dataset} list: {line.strip()!r}")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
