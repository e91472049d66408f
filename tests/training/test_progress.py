import os
import pty
from contextlib import suppress

from amst.training.progress import BarProgress, progress
from amst.training.recorder import CostRow, EpochRow


def _row(epoch, accuracy):
    return EpochRow(epoch, ("audio",), 0.5, {}, {"fused": 1.0}, {"fused": accuracy})


def _cost(epoch):
    return CostRow(epoch, 1.0, 0.25, 0.25, 0, 0, 0.0)


def test_a_log_file_gets_a_line_per_epoch(capsys):
    with progress("digits/random/naive/seed0", 3, "fused") as shown:
        for epoch, accuracy in enumerate((0.2, 0.6, 0.4)):
            shown.batch(epoch, 1, 10)
            shown.finished(_row(epoch, accuracy), _cost(epoch))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[2] == (
        "digits/random/naive/seed0: epoch 3/3  loss 0.5000  validation 40.0%  "
        "best 60.0% (epoch 2)  1.5 s"
    )


def _everything(leader):
    """What was written to a terminal that is closed by now; its end is an error."""
    text = b""
    with suppress(OSError):
        while part := os.read(leader, 1 << 12):
            text += part
    return text.decode()


def test_a_terminal_gets_a_bar_with_loss_accuracy_and_remaining_time(monkeypatch):
    leader, follower = pty.openpty()
    terminal = os.fdopen(follower, "w")
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with progress("run", 2, "fused") as shown:
        assert isinstance(shown, BarProgress)
        shown.finished(_row(0, 0.6), _cost(0))
        shown.batch(1, 5, 10)
        shown.say("something else")
    terminal.close()
    text = _everything(leader)
    assert "epoch 2/2" in text
    assert "loss 0.5000" in text
    assert "validation 60.0%" in text
    assert "run: something else" in text
    assert ":" in text.rpartition("epoch 2/2")[2]  # the remaining time
