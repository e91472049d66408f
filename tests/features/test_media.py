"""Raw files are read whole, or it is said why not."""

import errno
import io
import os
import signal
import threading
from pathlib import Path

import pytest

from amst.config.run import VisualFeatures
from amst.errors import HostError
from amst.features.audio import read_sound
from amst.features.media import UnreadableError, opened
from amst.features.recording import Cut, read_recording
from tests.datasets.rawmedia import write_video, write_wav


def read(path: Path) -> object:
    if path.suffix == ".wav":
        return read_sound(path)
    return read_recording(path, [Cut()], VisualFeatures(frames=2, size=8), audio=True)


@pytest.fixture
def interrupted(monkeypatch):
    """Ctrl-C while a file is read, some times in a row, at the read of a number."""
    readv = os.readv

    def at(number: int, times: int = 1) -> None:
        reads = [0]

        def counted(file: int, buffers: list) -> int:
            reads[0] += 1
            for _ in range(times if reads[0] == number else 0):
                signal.raise_signal(signal.SIGINT)
            return readv(file, buffers)

        monkeypatch.setattr(os, "readv", counted)

    return at


@pytest.mark.parametrize("number", [3, 5])
@pytest.mark.parametrize("name", ["a.wav", "a.avi"])
def test_ctrl_c_while_a_decoder_reads_is_not_lost(name, number, tmp_path, interrupted, capfd):
    """Decoders would drop it and go on: what is stored would be cut short, without a word."""
    path = tmp_path / name
    if name == "a.wav":
        write_wav(path, seconds=4.0)
    else:
        write_video(path, seconds=2.0)
    interrupted(number)
    with pytest.raises(KeyboardInterrupt):
        read(path)
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_a_read_that_hangs(tmp_path, interrupted):
    (tmp_path / "a.txt").write_text("x")
    interrupted(1, times=2)
    with (
        pytest.raises(KeyboardInterrupt),
        opened(tmp_path / "a.txt") as file,
        pytest.raises(KeyboardInterrupt),
    ):
        file.read()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ESTALE, HostError), (errno.EACCES, UnreadableError)]
)
def test_a_file_that_is_not_opened_is_lost_only_where_that_is_its_own_fault(
    number, kind, tmp_path, monkeypatch
):
    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(io, "FileIO", refuse)
    with pytest.raises(kind, match=os.strerror(number)), opened(tmp_path / "a.txt"):
        pass


@pytest.mark.parametrize(("number", "kind"), [(2, HostError), (4, HostError), (0, UnreadableError)])
@pytest.mark.parametrize("name", ["a.wav", "a.avi"])
def test_a_place_that_the_storage_does_not_give_is_no_damage(
    name, number, kind, tmp_path, monkeypatch
):
    """On NFS a handle may be found stale where a decoder asks for the end of the file."""
    write = write_wav if name == "a.wav" else write_video
    write(tmp_path / name, seconds=1.0)
    if number == 0:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:20])
    calls = [0]

    class Away(io.FileIO):
        def seek(self, *place):
            calls[0] += 1
            if calls[0] == number:
                raise OSError(errno.ESTALE, "Stale file handle")
            return super().seek(*place)

    monkeypatch.setattr(io, "FileIO", Away)
    with pytest.raises(kind):
        read(tmp_path / name)


def test_files_are_read_in_other_threads_too(tmp_path):
    """Only the main thread may ask for signals, and only that one gets them."""
    (tmp_path / "a.txt").write_text("x")
    found = []

    def read() -> None:
        with opened(tmp_path / "a.txt") as file:
            found.append(file.read())

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found == [b"x"]
