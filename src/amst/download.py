"""One file over the network: tried again, continued where it stopped, and checked."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

from amst.errors import AmstError
from amst.files import reading, sha256_of

_CHUNK = 1 << 20


class _UnreachedError(Exception):
    """An error of the network or the server; those of the disk are of the same types."""

    def __init__(self, why: Exception) -> None:
        self.why = why


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:  # the last of an address that is none
        raise _UnreachedError(error) from error


def _chunk(answer: HTTPResponse) -> bytes:
    with _network():
        return answer.read(_CHUNK)


def _by_proxy(address: str) -> str:
    """Which proxy the environment names for an address, without its password; empty for none."""
    try:
        asked = urlsplit(address)
    except ValueError:  # as of an odd bracket
        return ""
    proxy = urllib.request.getproxies().get(asked.scheme, "")
    if not proxy or urllib.request.proxy_bypass(asked.netloc):
        return ""
    return f" by the proxy {proxy.rpartition('//')[2].rpartition('@')[2]}"


@dataclass(frozen=True)
class Download:
    """A file to be fetched.

    Attributes:
        address: where it is published.
        path: where it is written to as it comes. With a checksum, what is there is its begin.
        sha256: of the whole file, hexadecimal; None where it is not known.
        remedy: what a user does where the address cannot be reached.
    """

    address: str
    path: Path
    sha256: str | None
    remedy: str

    def fetch(self, attempts: int, pause: float, may_lack: bool = False) -> bool:
        """Fetch it and check it.

        Args:
            attempts: tries before giving up on an error of the network or the server.
            pause: seconds before the second try; doubled for each further one.
            may_lack: whether it is no error that the source has no such file.

        Returns:
            Whether the source has it.

        Raises:
            AmstError: the source cannot be reached, refuses, or sends other bytes than expected,
                which are then deleted.
            OSError: the disk does not take what comes.
        """
        whose, at, _ = self.address.partition("://")[2].partition("/")[0].rpartition("@")
        if at:  # urllib would ask for a host of that name, and say so with the password
            raise AmstError(
                f"{self.address.replace(whose + at, '')}: a name or a password in an address is "
                "not used",
                f"Give one without, or bring the file to {self.path.parent} by other means",
            )
        for attempt in range(1, attempts + 1):
            try:
                self._continue()
                break
            except _UnreachedError as unreached:
                error = unreached.why
                code = error.code if isinstance(error, urllib.error.HTTPError) else 0
                if code == 404 and may_lack:
                    return False
                if 400 <= code < 500 or isinstance(error, ValueError) or attempt == attempts:
                    told = f"cannot fetch {self.address}{_by_proxy(self.address)}: {error}"
                    raise AmstError(told, self.remedy) from error
                time.sleep(pause * 2 ** (attempt - 1))
        self._check()
        return True

    def _continue(self) -> None:
        """Fetch what is still missing; all of it where the rest could be of another version."""
        begin = self.path.stat().st_size if self.sha256 and self.path.is_file() else 0
        try:
            with _network():
                request = urllib.request.Request(self.address)
                if begin:
                    request.add_header("Range", f"bytes={begin}-")
                answer = urllib.request.urlopen(request, timeout=60)
        except _UnreachedError as unreached:
            # nothing follows what is there, whatever that is
            if isinstance(unreached.why, urllib.error.HTTPError) and unreached.why.code == 416:
                return
            raise
        mode = "ab" if answer.status == 206 else "wb"
        with answer, reading(self.path), self.path.open(mode) as file:
            length = int(answer.headers.get("Content-Length") or 0)
            came = 0
            while chunk := _chunk(answer):
                file.write(chunk)
                came += len(chunk)
        if came < length:
            told = f"the connection ended after {came} of {length} bytes"
            raise _UnreachedError(OSError(told))

    def _check(self) -> None:
        digest = sha256_of(self.path)
        if self.sha256 not in (None, digest):
            self.path.unlink()
            raise AmstError(
                f"{self.address} is not the expected file (its SHA-256 is {digest}, not "
                f"{self.sha256})",
                "Fetch it again; a proxy may have sent a page of its own",
            )
