"""A user's mistake gives one line on stderr, with what is wrong and what to do."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amst import cli
from amst.cli.runs import cell_of, run_settings
from amst.errors import AmstError
from amst.grid import Cell, Resolver, read_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("samples NOPE", "unknown name 'NOPE'. Valid names: AVE, CREMAD"),
        ("samples CREMAD", "the raw folder data/CREMAD of CREMAD is missing. See docs/datasets"),
        ("generate digits --raw /sys", "amst: /sys/audio: "),
        (
            "generate digits --raw config.yaml",
            "config.yaml/digits.json: Not a directory. A folder is wanted",
        ),
        ("samples digits --options -1", "dataset digits: expected a map of options, got -1"),
        ("fetch-lists CREMADD", "dataset: unknown name 'CREMADD'. Did you mean 'CREMAD'?"),
        ("extract digits 99 --out x", "digits has no shard 99. Its shards are 0 to 3"),
        ("train digits/random/naive/seed0", "Prepare the dataset: snakemake results/features"),
        ("train IEMOCAP/random/naive/seed0", "snakemake results/features/IEMOCAP3/"),
        ("train digits/random/nope/seed0", "method: unknown name 'nope'. Valid names:"),
        ("generate CREMAD", "CREMAD is not made by the suite"),
        ("retry digits/random/naive/seed0", "has not failed. See `amst status`"),
        ("retry", "no run is named. Name runs as `amst status` does, or give --all"),
        ("retry --all a/b/c/seed0", "--all and a/b/c/seed0 are both given. Give one of them"),
        ("retry --all", "no run below results/checkpoints has failed"),
        ("tables --grid nope.json", "nope.json is not a grid"),
        ('generate digits --settings {"sample":3}', "--settings.sample: unknown key. Did you mean"),
        ("train digits/random/naive/seed0 --settings {}", "--settings.dataset: missing"),
        ('extract digits 0 --out x --features {"audio":{}}', "--features.audio.kind: missing"),
        ('train digits/random/naive/seed0 --execution {"device":1}', "--execution.device: "),
        ("tables", "33 of 33 runs are not done"),
    ],
)
def test_a_mistake_is_told_in_one_line(command: str, said: str, tmp_path: Path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "amst", *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        "samples digits --out",
        "samples digits --rejected",
        "extract digits 0 --out",
        "manifest digits --out",
        "split digits random --out",
        "data-report digits",
        "train digits/random/naive/seed0 --split",
        "evaluate digits/random/naive/seed0 --out",
        "export-checkpoint digits/random/naive/seed0",
        "report --out",
        "tables --grid",
    ],
)
@pytest.mark.parametrize("folder", [".", ""])
def test_a_folder_is_refused_where_a_file_is_wanted(command, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(cli.app, [*command.split(), folder])
    assert done.exit_code == 2
    assert "is a directory" in done.output


def test_a_crash_of_a_library_says_where():
    """The log of the job is empty else: as of a decoder that a damaged film makes crash."""
    code = (
        "import ctypes, resource; from amst import cli; "
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
        "cli.app = lambda: ctypes.string_at(0); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGSEGV
    assert done.stderr.startswith("Fatal Python error: Segmentation fault")
    assert "in main" in done.stderr
    silent = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "", sys.executable, "-c", code])
    assert silent.returncode == -signal.SIGSEGV


NO_ROOM = OSError(errno.ENOSPC, "No space left on device", "shards/000.h5")
NO_ROOM_OF_HDF5 = OSError(
    errno.ENOSPC, "Can't close file (file write failed: time = now\n, errno = 28)"
)
NOT_YOURS = OSError(errno.EACCES, "Permission denied", "results")
RENAMED = OSError(errno.EISDIR, "Is a directory", ".out.7847f571", None, "out")


@pytest.fixture
def main(monkeypatch):
    """The command line where every command raises an error."""

    def call(error: Exception, debug: bool = False) -> None:
        def command() -> None:
            raise error

        monkeypatch.setattr(cli, "app", command)
        monkeypatch.setattr(cli, "_debug", debug)
        cli.main()

    return call


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (AmstError("the state is saved", "Call again", 75), 75, "the state is saved. Call again"),
        (NO_ROOM, 1, "shards/000.h5: No space left on device. Make room (`amst clean` says what"),
        (NO_ROOM_OF_HDF5, 1, "No space left on device. Make room (`amst clean` says what"),
        (RENAMED, 1, "out: Is a directory. A file is wanted here: name one"),
        (FileExistsError(errno.EEXIST, "", "out"), 1, "out: File exists. A folder is wanted here"),
        (OSError(errno.ENAMETOOLONG, "", "a"), 1, "a: File name too long. Choose a shorter name"),
        (OSError(errno.EMFILE, "", "a"), 1, "a: Too many open files. Raise `ulimit -n`, or cut"),
        (OSError(errno.ELOOP, "", "a"), 1, "a: Too many levels of symbolic links. Mend the links"),
        (
            OSError(errno.EIO, "", "a"),
            1,
            "a: Input/output error. Its file system failed: call",
        ),
        (OSError(errno.ESTALE, "", "a"), 1, "a: Stale file handle. Its file system failed: call"),
        (OSError(errno.ENOTCONN, "", "a"), 1, "a: Transport endpoint is not connected. Its file"),
        (OSError(errno.ESHUTDOWN, "", "a"), 1, "a: Cannot send after transport endpoint shutdown"),
        (FileNotFoundError(errno.ENOENT, "", "a"), 1, "a: No such file or directory. Something"),
        (OSError(errno.ENOTEMPTY, "", "a"), 1, "a: Directory not empty. Something else may work"),
        (OSError(errno.EBUSY, "", "a"), 1, "a: Device or resource busy. Something else may work"),
        (NOT_YOURS, 1, "results: Permission denied. Mend its permissions, or work in a folder of"),
        (OSError(errno.ENOMEM, "", "a"), 1, "a: Cannot allocate memory. Ask for more, let fewer"),
        (MemoryError(), 1, "there is no memory left on this machine (MemoryError). Ask for more"),
        (ModuleNotFoundError(name="h5py"), 1, "the package h5py is not installed here. This needs"),
    ],
)
def test_what_a_command_raises_is_told_with_its_exit_code(error, code, said, main, capsys):
    with pytest.raises(SystemExit) as ended:
        main(error)
    assert ended.value.code == code
    told = capsys.readouterr().err
    assert told.startswith(f"amst: {said}")
    assert told.count("\n") == 1
    with pytest.raises(type(error)):
        main(error, debug=True)


@pytest.mark.parametrize(
    "error", [OSError(errno.EBADF, "Bad file descriptor"), ModuleNotFoundError(name="amst.none")]
)
def test_what_is_no_user_s_mistake_has_its_traceback(error, main):
    with pytest.raises(type(error)):
        main(error)


def test_settings_of_another_run_are_refused():
    given = Resolver(read_config(ROOT / "config.yaml"))(Cell("digits", "random", "naive", 1))
    settings = given.model_dump_json()
    assert run_settings("digits/random/naive/seed1", settings) == given
    told = "--settings are those of digits/random/naive/seed1, not of digits/random/naive/seed0"
    with pytest.raises(AmstError, match=told):
        run_settings("digits/random/naive/seed0", settings)


@pytest.mark.parametrize("name", ["a/b/c/seed7", "results/runs/a/b/c/seed7/"])
def test_a_run_is_named_as_in_the_grid_or_by_its_folder(name):
    assert cell_of(name) == Cell("a", "b", "c", 7)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "a/b/c/seed", "a/b/c/seedx", "a/b/c/seed²", "a/b/c/d/seed1"]
)
def test_what_is_no_name_of_a_run_is_refused(name):
    with pytest.raises(AmstError, match="is not the name of a run"):
        cell_of(name)


def test_a_job_on_the_host_of_its_call_does_not_train_with_other_code(tmp_path: Path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "amst", "train", "digits/random/naive/seed0"],
        cwd=tmp_path,
        env=os.environ | {"AMST_CODE": '{"training naive": "0123456789abcdef"}'},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the code of training naive has changed since this call of Snakemake" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("configured", "folder"), [("", "results/staged/lists"), ("lists: my/lists, ", "my/lists")]
)
def test_lists_are_looked_for_where_the_workflow_has_them(configured, folder, tmp_path: Path):
    config = (ROOT / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "more.yaml").write_text(f"datasets: {{CREMAD: {{{configured}split: amst}}}}")
    features = tmp_path / "results/features/CREMAD"
    features.mkdir(parents=True)
    for name in ("samples.jsonl", "rejected.jsonl"):
        (features / name).touch()
    done = subprocess.run(
        [sys.executable, "-m", "amst", "split", "CREMAD", "amst", "--configfile", "more.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"there is no list {folder}/CREMAD/80_train_cre.txt" in done.stderr


def test_a_step_that_the_light_set_up_cannot_do_is_told_in_one_line(tmp_path: Path):
    shutil.copy(ROOT / "config.yaml", tmp_path)
    (tmp_path / "sklearn.py").write_text("raise ModuleNotFoundError(name='sklearn')\n")
    done = subprocess.run(
        [sys.executable, "-m", "amst", "generate", "digits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "amst: the package sklearn is not installed here. "
        "This needs more than the light set-up: `make environment`\n"
    )


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("", "is not installed here. This needs more than the light set-up"),
        ("/i/amst.sif", "is not in the image /i/amst.sif. Jobs need one that was built from"),
    ],
)
def test_a_python_without_any_package_is_told_in_one_line(image: str, said: str):
    done = subprocess.run(
        [sys.executable, "-S", "-m", "amst", "status"],
        env={"PYTHONPATH": str(ROOT / "src"), "APPTAINER_CONTAINER": image},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"amst: the package typer {said}" in done.stderr


def test_figures_are_drawn_whatever_backend_a_notebook_hands_on():
    code = "from amst import cli; cli.app = lambda: __import__('matplotlib.figure'); cli.main()"
    named = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **named}, check=True)
