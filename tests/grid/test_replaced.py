"""A call says which finished runs it deletes, and why."""

from pathlib import Path

from amst.files import write_json
from amst.grid.replaced import replaced

NOW = "settings", "code-packages"


def finished(results: Path, run: str, settings: str, code: str, packages: str) -> None:
    environment = {"code_digest": code, "package_digest": packages}
    record = {"settings_hash": settings, "environment": environment}
    write_json(results / "runs" / run / "run.json", record)


def test_finished_runs_are_counted_by_what_has_changed(tmp_path: Path):
    runs = [f"digits/random/naive/seed{seed}" for seed in range(5)]
    finished(tmp_path, runs[0], "settings", "code", "packages")  # planned for its data
    finished(tmp_path, runs[1], "settings", "before", "packages")
    finished(tmp_path, runs[2], "others", "before", "packages")
    finished(tmp_path, runs[3], "settings", "before", "packages")
    (tmp_path / "runs" / runs[4]).mkdir()  # has not finished
    assert replaced(tmp_path, [(run, *NOW) for run in runs]) == (
        "3 finished runs are deleted and trained anew (digits/random/naive/seed1, ...): 2 code "
        "changed, 1 settings changed. To have them as before, end this call; `amst plan` says "
        "more; `amst adopt` can keep runs of changed code or packages"
    )


def test_runs_of_other_settings_cannot_be_adopted(tmp_path: Path):
    run = "digits/random/naive/seed0"
    finished(tmp_path, run, "settings", "before", "before")
    said = replaced(tmp_path, [(run, *NOW)])
    assert "(digits/random/naive/seed0): 1 packages changed. To have it as before" in said
    assert "adopt" in said
    finished(tmp_path, run, "others", "before", "before")
    assert "adopt" not in replaced(tmp_path, [(run, *NOW)])
    (tmp_path / "runs" / run / "run.json").write_text("{")
    assert replaced(tmp_path, [(run, *NOW)]) == ""
