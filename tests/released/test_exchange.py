"""Released checkpoints become folders and come back bit by bit."""

import errno
import hashlib
import json
import os
import resource
from pathlib import Path

import pytest
import torch

from amst.errors import AmstError, HostError
from amst.loading.batch import Batch, TextTokens
from amst.released import exchange
from amst.released.exchange import export_import, read_import
from amst.released.files import read_file
from amst.training.assembly import build_method
from amst.training.checkpoint import load_weights
from tests.released import models

CLASSES = {"CREMAD": 6, "IEMOCAP3": 5, "MVSA": 3}


def assert_same(first, second):
    assert first.model.keys() == second.model.keys()
    for name, value in first.model.items():
        other = second.model[name]
        assert value.dtype == other.dtype, name
        assert torch.equal(value, other), name
    assert (first.args, first.epoch) == (second.args, second.epoch)
    assert first.best_val_acc == second.best_val_acc
    assert first.best_test_acc == second.best_test_acc


@pytest.mark.parametrize("method", models.PREFIXES)
def test_every_method_makes_the_round_trip(tmp_path, take_over, method):
    model = models.model_of(method, "av", CLASSES["CREMAD"])
    path = models.save(tmp_path / "best_model.pth", model, method)
    imported, folder = take_over(path, dataset="CREMAD", method=method)
    assert imported == read_import(folder)
    assert imported.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (imported.epoch, imported.best_val_acc, imported.best_test_acc) == (83, 0.7203, 0.7112)
    assert imported.settings.method == method
    export_import(folder, tmp_path / "back.pth")
    assert_same(read_file(path), read_file(tmp_path / "back.pth"))


def test_text_and_three_modalities_make_the_round_trip(tmp_path, take_over, roberta):
    model = models.model_of("amst_full", "atv", CLASSES["IEMOCAP3"], roberta)
    path = models.save(
        tmp_path / "a.pth", model, "amst_full", "IEMOCAP3", a_skip_factor=4, t_skip_factor=10
    )
    imported, folder = take_over(path)
    assert imported.settings.embedding == 768
    export_import(folder, tmp_path / "back.pth")
    assert_same(read_file(path), read_file(tmp_path / "back.pth"))


def made_up(modalities):
    """A batch of two samples for our method, and the same inputs by released letter."""
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    ids = torch.tensor([[0, 7, 8, 9, 2], [0, 5, 2, 1, 1]])
    inputs = {
        "audio": torch.randn(2, 1, 32, 32),
        "text": TextTokens(ids, mask.bool()),
        "visual": torch.randn(2, 3, 2, 32, 32),
    }
    theirs = {**inputs, "text": (ids, mask)}
    return (
        Batch(
            torch.zeros(2, dtype=torch.long),
            {name: inputs[name] for name in modalities},
            torch.arange(2),
        ),
        {name[0]: theirs[name] for name in modalities},
    )


def predicted(imported, folder, batch):
    """Fused logits of the imported weights."""
    method = build_method(imported.settings, len(imported.classes), vocabulary=None)
    method.load_weights(load_weights(folder / "weights.safetensors"))
    method.eval()
    with torch.no_grad():
        return method.predict(batch)["fused"]


@pytest.mark.parametrize("method", ["naive", "amst_full"])
def test_a_model_with_text_predicts_what_the_released_one_does(
    tmp_path, take_over, roberta, method
):
    model = models.model_of(method, "atv", CLASSES["IEMOCAP3"], roberta)
    path = models.save(tmp_path / "a.pth", model, method, "IEMOCAP3", t_skip_factor=10)
    batch, theirs = made_up(["audio", "text", "visual"])
    with torch.no_grad():
        expected = model(theirs)
    torch.testing.assert_close(predicted(*take_over(path), batch), expected, rtol=1e-4, atol=1e-4)


def test_text_alone_predicts_what_the_released_model_does(tmp_path, take_over, roberta):
    model = models.alone("text", CLASSES["MVSA"], roberta)
    path = models.save_alone(tmp_path / "a.pth", model, "text", "MVSA")
    batch, theirs = made_up(["text"])
    with torch.no_grad():
        expected = model(theirs)
    torch.testing.assert_close(predicted(*take_over(path), batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dataset", "modality"),
    [("CREMAD", "audio"), ("CREMAD", "visual"), ("MVSA", "visual"), ("MVSA", "text")],
)
def test_single_modalities_make_the_round_trip(tmp_path, take_over, roberta, dataset, modality):
    """With text in the dataset too the released ResNet of one modality is 512 wide."""
    model = models.alone(modality, CLASSES[dataset], roberta)
    path = models.save_alone(tmp_path / "a.pth", model, modality, dataset)
    imported, folder = take_over(path, dataset=dataset, method="unimodal")
    assert imported.settings.variant == f"unimodal_{modality}"
    assert imported.best_test_acc is None
    export_import(folder, tmp_path / "back.pth")
    assert "best_acc" in torch.load(tmp_path / "back.pth", weights_only=False)
    assert_same(read_file(path), read_file(tmp_path / "back.pth"))


@pytest.fixture(scope="module")
def naive():
    return models.model_of("naive", "av", CLASSES["CREMAD"])


def test_checkpoints_of_other_datasets_and_methods_are_refused(tmp_path, take_over, naive):
    path = models.save(tmp_path / "a.pth", naive, "naive")
    with pytest.raises(AmstError, match="of dataset CREMAD, not of AVE"):
        take_over(path, dataset="AVE")
    with pytest.raises(AmstError, match="of method naive, not of amst_full"):
        take_over(path, method="amst_full")
    models.save(path, naive, "naive", dataset="SSW60")
    with pytest.raises(AmstError, match="unknown dataset 'SSW60'"):
        take_over(path)
    models.save(path, naive, "naive", prefix="MLA")
    with pytest.raises(AmstError, match="no known method: its prefix is 'MLA'"):
        take_over(path)
    assert not (tmp_path / "imported").exists()


def test_a_checkpoint_that_calls_itself_another_is_refused(tmp_path, take_over, naive):
    path = models.save(tmp_path / "a.pth", naive, "naive", dataset="IEMOCAP")
    with pytest.raises(AmstError, match="tells 6 classes apart, IEMOCAP has 5"):
        take_over(path)
    models.save(path, naive, "ogm_ge", prefix="AMST-JOINT", fusion_method="concat", t_skip_factor=0)
    with pytest.raises(AmstError, match=r"lacks tensors for amst_joint.*'fusion\.bias'"):
        take_over(path)


@pytest.mark.parametrize(
    ("name", "tensor", "reason"),
    [
        ("encoders.a.basic_resnet18.bn1.running_var", None, "lacks"),
        ("helpers.t.bias", torch.zeros(6), "has superfluous"),
        ("helpers.a.weight", torch.zeros(6, 300), "has misshapen"),
        ("fusion.out_layers.v.bias", torch.zeros(6).half(), "has misshapen"),
        ("fusion.out_layers.v.bias", torch.zeros(6).to_sparse(), "has misshapen"),
        ("fusion.out_layers.v.bias", torch.empty(6, device="meta"), "has misshapen"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path, take_over, naive, name, tensor, reason):
    state = naive.state_dict() | {name: tensor}
    if tensor is None:
        del state[name]
    path = models.save(tmp_path / "a.pth", naive, "naive", state=state)
    with pytest.raises(AmstError, match=f"{reason} tensors for naive on CREMAD: 1, '{name}' among"):
        take_over(path)


def _full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_import_that_breaks_off_is_none(tmp_path, take_over, naive, monkeypatch):
    path = models.save(tmp_path / "a.pth", naive, "naive")
    monkeypatch.setattr(exchange, "save_file", _full)
    with pytest.raises(OSError, match="No space left"):
        take_over(path)
    assert not list(tmp_path.rglob("import.json"))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_disk_that_takes_no_more_is_told_in_one_line(tmp_path, take_over, naive):
    path = models.save(tmp_path / "a.pth", naive, "naive")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(HostError, match=r"weights\S+ cannot be written \(.*File too large"):
            take_over(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def two_files(tmp_path, naive):
    """Released files of one run with different weights."""
    state = naive.state_dict()
    other = state | {"fusion.out_layers.v.bias": torch.arange(6.0)}
    return [
        models.save(tmp_path / f"{name}.pth", naive, "naive", state=each)
        for name, each in (("first", state), ("second", other))
    ]


@pytest.mark.parametrize("step", ["save_file", "write_json"])
def test_an_import_stays_where_the_next_one_finds_no_room(
    step, take_over, two_files, monkeypatch, tmp_path
):
    before, folder = take_over(two_files[0])
    monkeypatch.setattr(exchange, step, _full)
    with pytest.raises(OSError, match="No space left"):
        take_over(two_files[1])
    assert read_import(folder) == before
    export_import(folder, tmp_path / "back.pth")
    assert_same(read_file(two_files[0]), read_file(tmp_path / "back.pth"))
    assert len(list(folder.iterdir())) == 2


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("earlier", "renamed"),
    [("today's", 0), ("none", 1), ("today's", 1), ("of an earlier version", 1)],
)
def test_weights_and_note_of_different_imports_are_told(
    earlier, renamed, take_over, two_files, monkeypatch, tmp_path
):
    """Killed before each of the two files has its name."""
    if earlier != "none":
        _, folder = take_over(two_files[0])
    if earlier == "of an earlier version":
        note = json.loads((folder / "import.json").read_text())
        del note["weights_sha256"]
        (folder / "import.json").write_text(json.dumps(note))
        export_import(folder, tmp_path / "back.pth")
    replace, left = Path.replace, iter(range(renamed))

    def killed(self, target):
        if next(left, None) is None:
            raise Killed
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Killed):
        take_over(two_files[1])
    monkeypatch.setattr(Path, "replace", replace)
    folder = tmp_path / "imported/CREMAD/amst/naive/seed0"
    if renamed:
        told = "weights.safetensors is not what import.json beside .* Import second.pth again"
        with pytest.raises(AmstError, match=told):
            export_import(folder, tmp_path / "back.pth")
    elif earlier != "none":
        export_import(folder, tmp_path / "back.pth")
        assert_same(read_file(two_files[0]), read_file(tmp_path / "back.pth"))
    else:
        assert not (folder / "import.json").exists()
    take_over(two_files[1])
    export_import(folder, tmp_path / "back.pth")
    assert_same(read_file(two_files[1]), read_file(tmp_path / "back.pth"))


def test_what_a_killed_import_left_goes_with_the_next_one(take_over, two_files):
    _, folder = take_over(two_files[0])
    (folder / ".weights.safetensors.0123abcd.safetensors").touch()
    (folder / ".weights.safetensors.mine").touch()
    take_over(two_files[1])
    names = {path.name for path in folder.iterdir()}
    assert names == {"import.json", "weights.safetensors", ".weights.safetensors.mine"}


def test_the_folder_of_a_run_is_no_place_for_an_import(tmp_path, resolve, naive):
    path = models.save(tmp_path / "a.pth", naive, "naive")
    run = tmp_path / "runs"
    run.mkdir()
    for name in ("run.json", "weights.safetensors"):
        (run / name).write_text("mine")
    with pytest.raises(AmstError, match=f"{run} holds a run of your own. Give another folder"):
        exchange.import_checkpoint(path, resolve, run, tmp_path)
    assert (run / "weights.safetensors").read_text() == "mine"


def test_a_name_that_is_no_text_is_told_as_far_as_it_is(tmp_path, take_over, naive):
    path = models.save(tmp_path / os.fsdecode(b"\xe9.pth"), naive, "naive")
    assert take_over(path)[0].file == "\ufffd.pth"


@pytest.mark.parametrize("extra", [torch.zeros(2), float("nan"), "\udcff"])
def test_command_lines_with_more_than_plain_values_are_refused(extra, tmp_path, take_over, naive):
    path = models.save(tmp_path / "a.pth", naive, "naive", extra=extra)
    with pytest.raises(AmstError, match="more than plain values"):
        take_over(path)


def test_an_import_of_another_format_is_refused(tmp_path, take_over, naive):
    _, folder = take_over(models.save(tmp_path / "a.pth", naive, "naive"))
    note = folder / "import.json"
    note.write_text(note.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(AmstError, match="format 2, this version reads 1"):
        read_import(folder)


@pytest.mark.parametrize("content", ["", "{}", None])
def test_a_damaged_import_is_named(content, tmp_path):
    if content is not None:
        (tmp_path / "import.json").write_text(content)
    with pytest.raises(AmstError, match=r"import\.json .*\. Import the"):
        read_import(tmp_path)
