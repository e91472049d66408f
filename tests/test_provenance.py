"""A digest changes with what can change a result, and with nothing else."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from amst import provenance, sources
from amst.datasets import registry
from amst.provenance import closure, code_digest, commit, installed_packages, package_digest

ROOT = Path(__file__).parents[1]
METHODS = [path.stem for path in (ROOT / "src/amst/methods").glob("[a-z]*.py")]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of four modules in place of the real one; returns a digest of its module a."""
    folder = tmp_path / "amst"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Package."""\n')
    (folder / "a.py").write_text("from amst.b import f\n\n\ndef g():\n    return f()\n")
    (folder / "b.py").write_text("def f():\n    import amst.c\n\n    return amst.c.X\n")
    (folder / "c.py").write_text("X = 1\n")
    (folder / "d.py").write_text("import amst.a\n")
    monkeypatch.setattr(provenance, "SOURCE", tmp_path)

    def digest():
        forget()
        return code_digest("amst.a")

    yield folder, digest
    forget()


def forget():
    """Forget what the sources said."""
    for cached in (code_digest, closure, provenance._sources, provenance._facts):
        cached.cache_clear()
    for cached in (provenance._imports, provenance._module_digest):
        cached.cache_clear()


def test_the_closure_follows_imports_within_functions_too(package):
    _, digest = package
    digest()
    assert closure("amst.a") == {"amst", "amst.a", "amst.b", "amst.c"}


@pytest.mark.parametrize(
    "block",
    [
        "if f:\n    pass\nelse:\n    {}",
        "try:\n    pass\nexcept ValueError:\n    {}",
        "try:\n    pass\nfinally:\n    {}",
        "for _ in f:\n    pass\nelse:\n    {}",
        "match f:\n    case 1:\n        {}",
        "with f:\n    {}",
        "class A:\n    async def f(self):\n        {}",
    ],
)
@pytest.mark.parametrize("words", ["import amst.c", "from amst import c", "from amst.c import X"])
def test_imports_count_wherever_they_stand(package, block, words):
    folder, digest = package
    (folder / "b.py").write_text(block.format(words))
    before = digest()
    assert "amst.c" in closure("amst.a")
    (folder / "c.py").write_text("X = 2\n")
    assert digest() != before


def test_comments_docstrings_and_layout_do_not_count(package):
    folder, digest = package
    (folder / "b.py").write_text("try:\n    class A:\n        X = 1\nfinally:\n    pass\n")
    before = digest()
    (folder / "b.py").write_text(
        '"""Text."""\ntry:\n    # a comment\n    class A:\n        """More."""\n\n'
        '        X    =    1\n        """of X"""\nfinally:\n    pass\n'
    )
    assert digest() == before


@pytest.fixture
def remembering(tmp_path, monkeypatch):
    """Makes readers that remember in one folder; they may write there."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return lambda: sources.Sources(tmp_path / "__pycache__")


def module(folder: Path, text: str) -> Path:
    (folder / "module.py").write_text(text)
    return folder / "module.py"


def parses_nothing(monkeypatch):
    monkeypatch.setattr(sources.ast, "parse", lambda *_: pytest.fail("parsed again"))


def test_what_a_source_says_is_remembered_until_the_source_changes(
    remembering, tmp_path, monkeypatch
):
    first, path = remembering(), module(tmp_path, "import amst.a\nX = 1\n")
    said = first.read(path)
    assert said.imports == ["amst.a"]
    first.keep()
    changed = remembering().read(module(tmp_path, "import amst.b\nX = 1\n"))
    assert changed.imports == ["amst.b"]
    assert changed.code != said.code
    module(tmp_path, "import amst.a\nX = 1\n")
    parses_nothing(monkeypatch)
    assert remembering().read(path) == said


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"imports": []}}', "\xff"])
def test_what_is_remembered_may_be_damaged(remembering, tmp_path, text):
    first, path = remembering(), module(tmp_path, "X = 1\n")
    said = first.read(path)
    first.keep()
    (remembered,) = (tmp_path / "__pycache__").iterdir()
    remembered.write_bytes(text.encode("latin-1"))
    assert remembering().read(path) == said


def test_where_nothing_can_be_remembered_nothing_is(remembering, tmp_path):
    (tmp_path / "__pycache__").touch()
    reader = remembering()
    assert reader.read(module(tmp_path, "X = 1\n")).imports == []
    reader.keep()


def test_of_very_many_sources_the_latest_are_remembered(remembering, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_MOST", 2)
    reader = remembering()
    for number in range(3):
        reader.read(module(tmp_path, f"X = {number}\n"))
    reader.keep()
    again = remembering()
    with pytest.MonkeyPatch.context() as patched:
        parses_nothing(patched)
        for number in (1, 2):
            again.read(module(tmp_path, f"X = {number}\n"))
    assert again.read(module(tmp_path, "X = 0\n")).imports == []


@pytest.mark.parametrize("module", ["a", "b", "c"])
def test_code_of_any_imported_module_counts(package, module):
    folder, digest = package
    before = digest()
    path = folder / f"{module}.py"
    path.write_text(path.read_text() + "Y = 2\n")
    assert digest() != before


def other_pythons() -> list[str]:
    """Other versions of Python on this machine that the suite runs with, one program of each."""
    found = {}
    here = [*os.environ["PATH"].split(":"), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    asked = "import sys; print(*sys.version_info[:2])"
    for minor in {11, 12, 13, 14} - {sys.version_info.minor}:
        for folder in here:
            if not (program := shutil.which(f"python3.{minor}", path=folder)):
                continue
            said = subprocess.run([program, "-c", asked], capture_output=True, text=True)
            if said.stdout.split() == ["3", str(minor)]:
                found[minor] = program
    return list(found.values())


def test_every_version_of_python_says_the_same_of_the_code(tmp_path):
    """A login node with another version than the image's must not call every run changed."""
    others = other_pythons()
    if not others:
        pytest.skip("no other version of Python on this machine")
    asked = (
        "import sys; from pathlib import Path; from amst import provenance, sources; "
        # what another version has remembered would be taken over
        "own = sources.Sources(Path(sys.argv[1], 'nowhere')); provenance._sources = lambda: own; "
        "print(*map(provenance.training_digest, sys.argv[2:]))"
    )
    for program in others:
        said = subprocess.run(
            [program, "-Bc", asked, str(tmp_path), *METHODS],
            env={**os.environ, "PYTHONPATH": str(provenance.SOURCE)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.split() == [provenance.training_digest(name) for name in METHODS]


def test_fields_that_not_every_version_of_python_has_count_only_with_something_in_them():
    tree = ast.parse("def f(x): return f'{x:>{x}}'")
    (function,) = tree.body
    (format_spec,) = (n.format_spec for n in ast.walk(tree) if getattr(n, "format_spec", None))
    own = [name for name in function._fields if name != "type_params"]
    function._fields = (*own, "type_params")
    function.type_params = []
    without = sources._text(tree)
    del function.type_params
    assert sources._text(tree) == without
    format_spec.values.append(ast.Constant(""))
    assert sources._text(tree) == without, "as 3.12 does"
    function.type_params = [ast.Name("T", ast.Load())]
    assert sources._text(tree) != without


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{**a}", "{None: a}"),
        ("def f(*, a): 1", "def f(*, a=None): 1"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'y'", "x = y"),
        ("x = 'y'", "x = b'y'"),
        ("x = ...", "x = Ellipsis"),
        ("x = f'{y}'", "x = f'{y!r}'"),
        ("x = f'{y}'", "x = f'{y} '"),
        ("return", "return None"),
        ("del x", "x"),
        ("from a import b", "from .a import b"),
    ],
)
def test_codes_that_look_alike_are_not_the_same(one: str, other: str):
    assert sources._text(ast.parse(one)) != sources._text(ast.parse(other))


def test_code_of_other_modules_does_not_count(package):
    folder, digest = package
    before = digest()
    (folder / "d.py").write_text("import amst.a\nY = 2\n")
    assert digest() == before


def test_a_template_beside_a_module_counts(package):
    folder, digest = package
    before = digest()
    (folder / "b.html").write_text("<p>")
    assert digest() != before


def test_a_change_in_one_method_changes_no_other_methods_training():
    naive = closure("amst.training.run", "amst.methods.naive")
    assert not {name for name in naive if name.startswith("amst.methods.") and "pmr" in name}
    assert "amst.datasets.digits" not in naive
    assert "amst.datasets.registry" not in naive
    assert "amst.grid" not in naive


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package in place of the real one; adds a line to a module of it."""
    shutil.copytree(provenance.SOURCE / "amst", tmp_path / "amst")
    monkeypatch.setattr(provenance, "SOURCE", tmp_path)
    forget()

    def add_line(module):
        path = tmp_path / f"{module.replace('.', '/')}.py"
        path.write_text(path.read_text() + "\nADDED = 1\n")
        forget()

    yield add_line
    forget()


def step(rule: str, dataset: str = "AVE") -> str:
    """Digest of the code that a rule of prepare.smk names."""
    text = (ROOT / "workflow/rules/prepare.smk").read_text()
    (found,) = re.finditer(rf"^(?:rule|checkpoint) {rule}:.*?made_by\((.*?)\),$", text, re.M | re.S)
    modules = re.findall(r'"([\w.]+)"', found[1])
    if "registry.module" in found[1]:
        modules.append(registry.module(dataset))
    return code_digest(*modules)


def trainings() -> list[str]:
    return [provenance.training_digest(method) for method in METHODS]


@pytest.mark.parametrize(
    ("module", "rule"),
    [
        ("amst.datasets.lists", "split"),
        ("amst.datasets.stratified", "split"),
        ("amst.datasets.splits", "split"),
        ("amst.datasets.rawfiles", "samples"),
        ("amst.features.samples", "samples"),
        ("amst.features.fingerprint", "extract"),
        ("amst.features.shard_writer", "extract"),
        ("amst.features.fingerprint", "manifest"),
        ("amst.features.verification", "manifest"),
    ],
)
def test_code_that_makes_a_file_counts_for_its_step_and_for_no_training(copied, module, rule):
    """Training depends on the file, and where that stays the same it is not to be repeated."""
    trained, made = trainings(), step(rule)
    copied(module)
    assert step(rule) != made
    assert trainings() == trained


@pytest.mark.parametrize("module", ["datasets.splitfile", "features.manifest", "features.shards"])
def test_code_that_reads_what_is_trained_on_counts_for_every_training(copied, module):
    trained = trainings()
    copied(f"amst.{module}")
    assert not set(trainings()) & set(trained)


def test_how_the_embedded_dataset_is_made_counts_for_no_other_datasets_shards(copied):
    made, extracted = step("generate", "digits"), step("extract")
    copied("amst.datasets.digits")
    assert step("generate", "digits") != made
    assert step("extract") == extracted
    made = step("generate", "digits")
    copied("amst.datasets.sentences")
    assert step("generate", "digits") != made
    assert step("extract") != extracted, "its tokenizer knows these sentences"


@pytest.fixture
def forgetful(monkeypatch):
    """Puts another function in place of the look-up of packages, with nothing remembered."""

    def forget():
        installed_packages.cache_clear()
        package_digest.cache_clear()

    def use(find):
        monkeypatch.setattr(provenance.Distribution, "discover", lambda name, path: find(name))
        forget()

    yield use
    monkeypatch.undo()
    forget()


class Package:
    """An installed package as importlib.metadata finds it."""

    def __init__(self, metadata: str | None, version: str = "") -> None:
        self.metadata, self.version = metadata, version

    def read_text(self, name: str) -> str | None:
        assert name == "METADATA"
        return self.metadata


@pytest.mark.parametrize("written", ["{0}/modules", "{0}/x/../modules", "modules", "../modules"])
def test_packages_of_pythonpath_are_found_however_it_is_written(tmp_path, written):
    metadata = tmp_path / "modules" / "numpy-1.20.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Version: 1.20.0\n")
    working = tmp_path if written == "modules" else tmp_path / "x"
    working.mkdir(exist_ok=True)
    said = _shadowed(working, written.format(tmp_path))
    assert said == f"numpy 1.20.0 in place of {version('numpy')}\n"


def test_packages_that_jobs_have_too_are_none_of_pythonpath(tmp_path):
    """Also where they are not as pinned, and PYTHONPATH names their folder."""
    assert _shadowed(tmp_path, sysconfig.get_path("purelib"), pin="numpy==0.1") == ""


def _shadowed(folder, path, pin=""):
    """What a process that starts in a folder, with this PYTHONPATH, finds other than jobs do."""
    pin = pin or f"numpy=={version('numpy')}"
    code = (
        "from pathlib import Path; from amst import provenance\n"
        f"provenance.REQUIREMENTS = Path('pins'); Path('pins').write_text('{pin} ')\n"
        "for line in provenance.shadowed_packages(): print(line)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{provenance.SOURCE}{os.pathsep}{path}"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_packages_that_are_not_installed_count_as_pinned(forgetful):
    pins = provenance.pinned_packages()
    forgetful(lambda name: [Package(f"Name: x\nVersion: {pins[name]}\n")])
    pinned = package_digest()
    forgetful(lambda name: [])
    assert package_digest() == pinned
    assert dict(installed_packages()) == pins
    forgetful(lambda name: [Package("Metadata-Version: 2.1\nVersion: 0\n\nVersion: 1")])
    assert package_digest() != pinned
    assert set(dict(installed_packages()).values()) == {"0"}
    forgetful(lambda name: [Package(None, "2")])
    assert set(dict(installed_packages()).values()) == {"2"}, "one of an older kind"


def test_the_set_up_installed_what_is_pinned():
    assert dict(installed_packages()) == provenance.pinned_packages()


def _checkout(folder):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
            cwd=folder,
            check=True,
            capture_output=True,
        )

    git("init")
    (folder / "src").mkdir()
    (folder / "module.py").write_text("x = 1\n")
    git("add", "module.py")
    git("commit", "-m", "first")


def test_the_commit_says_whether_the_checkout_was_edited(tmp_path, monkeypatch):
    _checkout(tmp_path)
    monkeypatch.setattr(provenance, "SOURCE", tmp_path / "src")
    clean = commit()
    assert len(clean) == 40
    (tmp_path / "untracked.txt").write_text("no part of the code")
    assert commit() == clean
    method = tmp_path / "src/method.py"
    method.write_text("")
    assert commit() == f"{clean}+changes", "a method of one's own"
    method.unlink()
    assert commit() == clean
    (tmp_path / "module.py").write_text("x = 2\n")
    assert commit() == f"{clean}+changes"
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert commit() == f"{clean}+changes", "of somebody else's checkout, too"


def test_the_commit_is_that_of_the_checkout_whatever_repository_is_named(tmp_path, monkeypatch):
    """As a hook of git does, or a manager of dotfiles."""
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        _checkout(tmp_path / name)
    monkeypatch.setattr(provenance, "SOURCE", tmp_path / "own" / "src")
    own = commit()
    (tmp_path / "other" / "module.py").unlink()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert commit() == own


def test_without_a_checkout_the_commit_is_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "SOURCE", tmp_path)
    assert commit() == ""
