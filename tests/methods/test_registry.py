import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amst import methods
from amst.config import methods as from_files
from amst.errors import AmstError

SKIPPING: dict[str, Any] = {"skip": {}, "skipped_encoder": "off"}
PUBLISHED: dict[str, dict[str, Any]] = {
    "amst_alternating": SKIPPING,
    "amst_full": SKIPPING | {"second_branch": "paper"},
    "amst_joint": SKIPPING,
    "mla": {"fusion": "entropy", "entropy_of": "logits", "weights": {}, "head_projection": False},
    "mslr": {
        "rates": "fixed",
        "history": 5,
        "audio_rate": 1e-3,
        "visual_rate": 1e-2,
        "text_rate": 1e-3,
        "head_rate": 1e-3,
        "learning_rates": {},
    },
    "naive": {"head": "late_sum"},
    "ogm_ge": {"alpha": 0.1, "noise": True, "modulate": "conv", "start": 0, "end": 50},
    "pmr": {
        "alpha": 1.0,
        "momentum": 0.2,
        "factor": 0.1,
        "prototypes_from": "train",
        "prototype_transform": "evaluation",
        "start": 0,
        "end": 70,
        "entropy": False,
        "gamma": 0.1,
        "entropy_epochs": 10,
    },
    "unimodal": {"modality": "sound", "form": "paper"},
}
"""Published methods with the defaults of docs/methods, before any of a dataset."""
PAGES = Path(__file__).parents[2] / "docs" / "methods"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_names_what_is_in_the_code(name: str):
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert all(f"`{setting}`" in page for setting in PUBLISHED[name])
    said = re.search(rf"^Code: `src/amst/methods/{name}\.py`(.*)$", page, re.MULTILINE)[1]
    code = Path(methods.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    for named in re.findall(r" in `(\w+)`", said):
        assert re.search(rf"^ *(def|class) {named}\b", code, re.MULTILINE), named


def test_all_published_methods_are_there_among_any_others() -> None:
    assert set(methods.names()) >= set(PUBLISHED)
    assert methods.names() == sorted(methods.names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_not_set_is_as_published(name: str) -> None:
    given = {"modality": "sound"} if name == "unimodal" else {}
    assert methods.load(name).Settings.model_validate(given).model_dump() == PUBLISHED[name]


def test_what_methods_share_is_no_method() -> None:
    assert not {"__init__", "base", "skipping"} & set(methods.names())


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(AmstError, match=r"'magic' is not known\. Known methods: .*amst_alt"):
        methods.load("magic")


@pytest.fixture
def load_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], type]:
    """Function (name, code) -> the method of a file with that code."""

    def load(name: str, code: str) -> type:
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(code)
        monkeypatch.setattr(from_files, "FOLDER", folder)
        monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
        return methods.load(name)

    return load


OWN_SETTINGS = """
from amst.config.run import MethodSettings
from amst.methods.naive import Naive

class Settings(MethodSettings):
    head: str = "concat"
    boost: float = 1.0
"""


def test_a_method_that_derives_from_another_must_say_that_its_settings_are_its_own(
    load_file: Callable[[str, str], type],
) -> None:
    with pytest.raises(AmstError, match=r"silent\.py: class Silent does not use the Settings of"):
        load_file("silent", f"{OWN_SETTINGS}\nclass Silent(Naive):\n    pass\n")
    made = load_file("says", f"{OWN_SETTINGS}\nclass Says(Naive):\n    Settings = Settings\n")
    assert set(made.Settings.model_fields) == {"head", "boost"}


def test_other_brackets_than_those_of_a_method_hold_no_settings(
    load_file: Callable[[str, str], type],
) -> None:
    code = (
        "from typing import Generic, TypeVar\nfrom amst.methods.base import Method\n"
        f"T = TypeVar('T')\n{OWN_SETTINGS}\n"
        "class Mixin(Generic[T]):\n    pass\n"
        "class Mixed(Method[Settings], Mixin[int]):\n    pass\n"
    )
    assert set(load_file("mixed", code).Settings.model_fields) == {"head", "boost"}


def test_names_need_no_torch_and_one_method_loads_no_other() -> None:
    code = (
        "import sys; from amst import methods; methods.names(); assert 'torch' not in sys.modules;"
        "methods.load('naive'); assert 'amst.methods.pmr' not in sys.modules;"
        "assert 'transformers' not in sys.modules; assert 'torchvision' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(methods.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", methods.names())
def test_every_setting_says_what_it_is_for(name: str) -> None:
    fields = methods.load(name).Settings.model_fields
    assert all(field.description for field in fields.values())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_file_fits_on_two_screens(name: str) -> None:
    file = sys.modules[methods.load(name).__module__].__file__
    assert file is not None
    assert len(Path(file).read_text("utf-8").splitlines()) <= 170
