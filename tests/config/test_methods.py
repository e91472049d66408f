"""Settings of methods are known without importing torch."""

import subprocess
import sys

import pytest

from amst import methods
from amst.config import methods as from_files
from amst.config.run import Modality, Roberta, TextFeatures
from amst.errors import AmstError


@pytest.mark.parametrize("name", from_files.method_names())
def test_settings_read_from_the_file_are_those_of_the_imported_class(name):
    read = from_files.settings_class(name)
    imported = methods.load(name).Settings
    assert read.model_json_schema() == imported.model_json_schema()


def test_reading_settings_imports_no_torch():
    code = (
        "import sys; from amst.config.methods import method_names, settings_class;"
        "[settings_class(name) for name in method_names()]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_class_that_needs_more_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(from_files, "FOLDER", tmp_path)
    (tmp_path / "odd.py").write_text("class Settings(MethodSettings):\n    x: int = torch.int8\n")
    with pytest.raises(AmstError, match="class Settings needs the name 'torch'"):
        from_files.settings_class("odd")
    (tmp_path / "none.py").write_text("x = 1\n")
    with pytest.raises(AmstError, match="defines no class Settings"):
        from_files.settings_class("none")
    (tmp_path / "bare.py").write_text("class Settings(MethodSettings):\n    x = 1\n")
    with pytest.raises(AmstError, match=r"bare.py: class Settings: A non-annotated .*\. See"):
        from_files.settings_class("bare")
    assert from_files.method_names() == ("bare", "odd")


def test_a_file_that_is_no_python_is_told_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(from_files, "FOLDER", tmp_path)
    (tmp_path / "torn.py").write_text("class Settings(MethodSettings):\n    x: int = (1\n")
    with pytest.raises(AmstError) as caught:
        from_files.settings_class("torn")
    assert str(caught.value) == f"{tmp_path}/torn.py, line 2: '(' was never closed. Mend the file"


def test_a_method_of_one_modality_is_refused_where_the_dataset_lacks_it(tmp_path, monkeypatch):
    monkeypatch.setattr(from_files, "FOLDER", tmp_path)
    (tmp_path / "heard.py").write_text(
        'class Settings(AloneSettings):\n    modality: str = "ear"\n'
    )
    modality = Modality(kind="text", features=TextFeatures(), encoder=Roberta())
    with pytest.raises(AmstError, match=r"heard trains on 'ear', which the .* It has: eye, text"):
        from_files.trained_modalities(
            "heard", {"modality": "ear"}, {"eye": modality, "text": modality}
        )
    trained = from_files.trained_modalities("heard", {"modality": "eye"}, {"eye": modality})
    assert trained == {"eye": modality}
