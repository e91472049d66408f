import os
import subprocess
import sys
from pathlib import Path

import pytest

from amst import methods
from amst.errors import AmstError

PUBLISHED = {
    "amst_alternating",
    "amst_full",
    "amst_joint",
    "mla",
    "mslr",
    "naive",
    "ogm_ge",
    "pmr",
    "unimodal",
}


def test_all_published_methods_are_there_among_any_others() -> None:
    assert set(methods.names()) >= PUBLISHED
    assert methods.names() == sorted(methods.names())


def test_what_methods_share_is_no_method() -> None:
    assert not {"__init__", "base", "skipping"} & set(methods.names())


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(AmstError, match=r"'magic' is not known\. Known methods: amst_alt"):
        methods.load("magic")


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


@pytest.mark.parametrize("name", methods.names())
def test_a_file_fits_on_two_screens(name: str) -> None:
    file = sys.modules[methods.load(name).__module__].__file__
    assert file is not None
    assert len(Path(file).read_text("utf-8").splitlines()) <= 170
