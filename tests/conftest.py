"""Rules for all tests: in CI only the skips that allowed_skips.toml lists may happen."""

import fnmatch
import os
import re
import signal
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

# Asking whether there is a GPU must not begin CUDA, which processes could then not be forked with.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

# What is forked with several threads would wait for the parent's, which stay behind in a fork.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell starts what it sends to the background with interrupts ignored, and all that comes of it
# inherits that: tests that interrupt would wait for ever.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["pytester"]

PASSED = pytest.StashKey[bool]()
LARGE = 1_000_000  # bytes

ALLOWED = Path(__file__).with_name("allowed_skips.toml")


@cache
def allowed_skips() -> list[dict[str, str]]:
    """Entries with `test` (glob of the test's id) and `reason` (regular expression)."""
    return tomllib.loads(ALLOWED.read_text("utf-8")).get("skip", [])


def is_allowed(test: str, reason: str) -> bool:
    """Whether CI may skip a test for this reason."""
    return any(
        fnmatch.fnmatch(test, entry["test"]) and re.search(entry["reason"], reason)
        for entry in allowed_skips()
    )


def refuse_unlisted(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI, turn a skip that nobody has allowed into a failure."""
    if not report.skipped or os.environ.get("CI") != "true" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not is_allowed(report.nodeid, reason):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nCI may not skip this: {ALLOWED.name} does not list it"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files of the cluster, which mostly wait, among those that compute.

    Long ones that would come late are first: at the end the other workers would wait for them.
    Workers take whole files in the order of collection (`--dist loadfile --no-loadscope-reorder`).
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = [path for path in files if path.parent.name == "cluster"]
    computing = [path for path in files if path.parent.name != "cluster"]
    place = {
        path: (position + 0.5) / len(kind)
        for kind in (waiting, computing)
        for position, path in enumerate(kind)
    }
    place |= {path: -1.0 for path in files if path.stem in ("test_kill_points", "test_resume")}
    items[:] = [item for path in sorted(files, key=place.__getitem__) for item in files[path]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    refuse_unlisted(report)
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    refuse_unlisted(report)
    return report


@pytest.fixture
def reproducible(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The arithmetic of a run in full precision, and afterwards that of PyTorch again."""
    import torch

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.set_deterministic_debug_mode("warn")
    yield
    torch.set_deterministic_debug_mode("default")


@pytest.fixture
def tmp_path(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder of the test's own, which goes with the whole run's; large files go if it passes.

    pytest's own would go with its test: for five minutes after a file was deleted, ext4 passes over
    its inode, and with thousands of them to pass over, a new file takes a millisecond.
    """
    folder = tmp_path_factory.mktemp(re.sub(r"\W", "_", request.node.name)[:30])
    yield folder
    if request.node.stash.get(PASSED, False):
        for path in folder.rglob("*"):
            # what the test has started may still be ending, and delete its own
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and path.stat().st_size > LARGE:
                    path.unlink()
