"""CI may skip only what allowed_skips.toml lists."""

from pathlib import Path

import pytest

from tests.conftest import allowed_skips, is_allowed


@pytest.mark.parametrize(
    ("test", "reason", "allowed"),
    [
        ("tests/cluster/test_slurm.py::test_a", "SLURM is not installed", False),
        ("tests/cluster/test_slurm.py::test_a", "it cannot be installed here: not root", True),
        ("tests/methods/test_pmr.py::test_b", "it cannot be installed here: not root", False),
        ("tests/methods/test_pmr.py::test_b", "too slow", False),
    ],
)
def test_a_skip_is_allowed_by_test_and_reason(test: str, reason: str, allowed: bool):
    assert is_allowed(test, reason) is allowed


def test_every_entry_says_which_tests_and_why():
    assert all(
        set(entry) == {"test", "reason"} and all(entry.values()) for entry in allowed_skips()
    )


def test_an_unlisted_skip_fails_in_ci_and_nowhere_else(pytester: pytest.Pytester, monkeypatch):
    hook = Path(__file__).parents[1] / "conftest.py"
    (pytester.path / "conftest.py").write_text(hook.read_text())
    (pytester.path / "allowed_skips.toml").write_text('[[skip]]\ntest = "*"\nreason = "no GPU"\n')
    pytester.makepyfile(
        "import pytest\n"
        "def test_listed(): pytest.skip('no GPU')\n"
        "def test_unlisted(): pytest.skip('too slow')\n"
    )
    monkeypatch.delenv("CI", raising=False)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(skipped=2)
    monkeypatch.setenv("CI", "true")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    done.assert_outcomes(skipped=1, failed=1)
    done.stdout.fnmatch_lines(["*CI may not skip this*"])
