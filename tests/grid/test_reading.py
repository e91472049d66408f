"""A wrong configuration gives one line: the key's path, what is wrong, the nearest valid name."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from amst.config import methods as from_files
from amst.errors import AmstError
from amst.grid import check_config, read_config
from amst.grid.variants import merge

ROOT = Path(__file__).parents[2]


def put(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """``values`` with ``value`` at the dotted ``path``."""
    *folders, last = path.split(".")
    inner = values
    for folder in folders:
        inner = inner.setdefault(folder, {})
    inner[last] = value
    return values


def test_the_shipped_configurations_are_valid():
    config = read_config(ROOT / "config.yaml")
    assert config.grid.datasets == ("digits",)
    paper = read_config(ROOT / "config.yaml", ROOT / "workflow/configs/paper.yaml")
    assert len(paper.grid.datasets) == 6
    assert paper.grid.methods == config.grid.methods


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("grid.sedes", [0], "grid.sedes: unknown key. Did you mean 'seeds'?"),
        ("container.image", "docker://example/amst:1", "container.image: a published image needs"),
        (
            "container.image",
            f"docker://a/b@sha256:{'a' * 65}",
            "container.image: a published image",
        ),
        ("container.image", "https://example/amst.sif", "container.image: a published image needs"),
        ("recipes", {}, "recipes: unknown key. Did you mean 'recipe'?"),
        ("recipe.epoch", 3, "recipe.epoch: unknown key. Did you mean 'epochs'?"),
        ("recipe.epochs", 0, "recipe.epochs: must be greater than 0, got 0"),
        ("recipe.epochs", "many", "recipe.epochs: expected a whole number, got 'many'"),
        ("execution.device", "gpu", "device: unknown name 'gpu'. Valid names: auto, cpu, cuda"),
        ("grid.seeds", [], "grid.seeds: expected at least one value, got []"),
        ("grid.seeds", [-1], "grid.seeds.0: must be greater than or equal to 0, got -1"),
        ("grid.seeds", [0, 0], "grid.seeds: 0 stands twice"),
        ("grid.datasets", ["digit"], "grid.datasets: unknown name 'digit'. Did you mean 'digits'?"),
        ("grid.methods", ["navie"], "grid.methods: unknown name 'navie'. Did you mean 'naive'?"),
        ("datasets.CREMADD", {"raw": "x"}, "unknown name 'CREMADD'. Did you mean 'CREMAD'?"),
        ("datasets.CREMAD.raw", "", "datasets.CREMAD.raw: missing. Set it to the folder"),
        ("datasets.CREMAD.split", "groups", "datasets.CREMAD.split: unknown name 'groups'"),
        ("datasets.CREMAD.shard", 3, "datasets.CREMAD.shard: unknown key. Did you mean 'shards'?"),
        ("datasets.CREMAD.modalities", {"vision": {}}, "unknown name 'vision'. Did you mean 'vis"),
        (
            "datasets.CREMAD.modalities",
            {"audio": {"features": {"mel_bin": 3}}},
            "datasets.CREMAD.modalities.audio.features.mel_bin: unknown key. Did you mean 'mel_b",
        ),
        (
            "datasets.digits.modalities",
            {"audio": {"encoder": {"name": "small_cnn", "width": [3]}}},
            "datasets.digits.modalities.audio.encoder.width: unknown key. Did you mean 'widths'?",
        ),
        (
            "datasets.digits.modalities.text.features.tokenizer",
            "~/models/roberta",
            "text.features.tokenizer: there is no folder '~/models/roberta', and no model of the",
        ),
        (
            "datasets.digits.modalities.text.encoder",
            {"name": "roberta", "weights": "a$(touch PWNED)b"},  # it is a word of a command
            "digits.modalities.text.encoder.weights: there is no folder 'a$(touch PWNED)b'",
        ),
        (
            "datasets.digits.modalities.text.features.tokenizer",
            "models/../../x",  # it is a folder below results/staged
            "text.features.tokenizer: there is no folder 'models/../../x', and no model of the",
        ),
        (
            "datasets.digits.method_defaults",
            {"amst_fll": {}},
            "method_defaults.amst_fll: unknown method 'amst_fll'. Did you mean 'amst_full'?",
        ),
        ("datasets.digits.method_defaults", {"amts_*": {}}, "amts_*: unknown method 'amts_*'. Did"),
        (
            "datasets.digits.method_defaults",
            {"alpha": 0.8},
            "datasets.digits.method_defaults.alpha: a setting of ogm_ge, pmr, not a method. "
            "Write it below the method that is meant: ogm_ge: {alpha: ...}",
        ),
        (
            "datasets.digits.method_defaults",
            {"ogm_ge": 0.8},
            "datasets.digits.method_defaults.ogm_ge: expected a map of settings, got 0.8",
        ),
        (
            "datasets.digits.method_defaults",
            {"amst_*": {"skipp": {}}},
            "datasets.digits.method_defaults.amst_*.skipp: unknown key. Did you mean 'skip'?",
        ),
        (
            "datasets.digits.method_defaults",
            {"amst_*": {"skip": {"audoi": 5}}},
            "method_defaults.amst_*.skip: unknown name 'audoi'. Did you mean 'audio'?",
        ),
        (
            "datasets.digits.method_defaults",
            {"amst_*": {"skip": {"audio": 0}}},
            "datasets.digits.method_defaults.amst_*.skip.audio: must be greater than 0, got 0",
        ),
        (
            "datasets.CREMAD.method_defaults",  # which the grid does not have
            {"amst_*": {"skip": {"audio": 0}}},
            "datasets.CREMAD.method_defaults.amst_*.skip.audio: must be greater than 0, got 0",
        ),
        (
            "methods.short.sweep",
            {"learning_rate": [0.1]},
            "methods.short.sweep.learning_rate: belongs to the recipe, not to method naive. "
            "Write sweep: {recipe: {learning_rate: [...]}}",
        ),
        (
            "methods.short.sweep",
            {"recipes": {"learning_rate": [0.1]}},
            "methods.short.sweep.recipes: unknown key. Did you mean 'recipe'?",
        ),
        (
            "methods.short.sweep",
            {"recipe": {"learning_rte": [0.1]}},
            "methods.short.sweep.recipe.learning_rte: unknown key. Did you mean 'learning_rate'?",
        ),
        (
            "methods.short.sweep",
            {"recipe": {"learning_rate": [0.1, -1]}},
            "methods.short.sweep.recipe.learning_rate: must be greater than 0, got -1",
        ),
        (
            "methods.short.sweep",
            {"recipe": {"learning_rate": 0.1}},
            "methods.short.sweep.recipe.learning_rate: expected a list of values, got 0.1",
        ),
        (
            "methods.short.sweep",
            {"recipe": {"epochs": [3, 4, 3]}},
            "methods.short.sweep.recipe.epochs: 3 stands twice. Remove one of them",
        ),
        (
            "methods.short.sweep",
            {"recipe": ["epochs"]},
            "methods.short.sweep.recipe: expected a map of settings, got ['epochs']",
        ),
        (
            "datasets.digits.generate",
            {"sampels": 3},
            "datasets.digits.generate.sampels: unknown key. Did you mean 'samples'?",
        ),
        (
            "methods.naive",
            {"method": "amst_joint", "skip": {"audoi": 2}},
            "methods.naive.skip on digits: unknown name 'audoi'. Did you mean 'audio'?",
        ),
        ("methods.a/b", {"method": "naive"}, "methods.a/b: 'a/b' cannot be a folder's name"),
        (
            "methods.p",
            {"method": "pmr", "sweep": {"alpha": [1, 2.0, 1.0]}},
            "methods.p.sweep.alpha: 1 stands twice. Remove one of them",
        ),
        ("datasets.digits.recipe", {"batch": 3}, "datasets.digits.recipe.batch: unknown key"),
        ("methods.naive.method", "naiv", "methods.naive.method: unknown name 'naiv'. Did you mean"),
        ("methods.amst.skp", 3, "methods.amst.skp: unknown key. Did you mean 'skip'?"),
        ("methods.amst.skip", {"audio": 0}, "methods.amst.skip.audio: must be greater"),
        (
            "methods.short.recipe",
            {"epochs": "x"},
            "methods.short.recipe.epochs: expected a whole number",
        ),
        ("methods.short.sweep", {"head": "concat"}, "methods.short.sweep.head: expected a list"),
        (
            "tables.names",
            {"naiv": "Joint"},
            "tables.names: unknown name 'naiv'. Did you mean 'naive'?",
        ),
        ("tables.names", {"CREMAD": 3}, "tables.names.CREMAD: expected text, got 3"),
        ("tables.names", {"naive": ""}, "tables.names.naive: expected one line of text, got ''"),
        ("tables.names", {"short": "a\nb"}, r"tables.names.short: expected one line of text, got"),
        (
            "tables.names",
            {"naive": "Audio", "unimodal_audio": "Audio"},
            "tables.names: naive and unimodal_audio are both shown as 'Audio'. Name one of them",
        ),
        (
            "tables.names",
            {"unimodal_audio": "naive"},
            "tables.names: naive and unimodal_audio are both shown as 'naive'",
        ),
        ("methods.empty", {}, "methods.empty.method: missing. Valid names: amst_alternating"),
        ("methods.short.sweep", {"head": []}, "methods.short.sweep.head: expected a list of val"),
        (
            "datasets.CREMAD.generate",
            {"samples": 100},
            "datasets.CREMAD.generate: only the embedded dataset is made: unknown name 'CREMAD'",
        ),
        ("datasets.CREMAD.options", {"x": 1}, "datasets.CREMAD.options: dataset CREMAD has no opt"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path_and_the_nearest_name(values, path, value, message):
    with pytest.raises(AmstError) as caught:
        check_config(put(values, path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("grid.methods", [], "grid.methods: expected at least one value"),
        ("grid.datasets", [], "grid.datasets: expected at least one value"),
        ("grid.seeds", 0, "grid.seeds: expected a list, got 0"),
        ("grid.seeds", [True], "grid.seeds: expected a number, got True"),
        ("grid.seeds", [0.5], "grid.seeds.0: expected a whole number, got 0.5"),
        (
            "arithmetic.tf32",
            False,
            'arithmetic.tf32: the bare word off is false to YAML. Write it in quotes: "off"',
        ),
        ("arithmetic.precision", False, "arithmetic.precision: unknown name False. Valid names: "),
        (
            "methods.p",
            {"method": "amst_full", "sweep": {"skipped_encoder": [False, "forward"]}},
            "methods.p.sweep.skipped_encoder: the bare word off is false to YAML. Write it in",
        ),
        ("grid.methods", ["naive", "naive"], "grid.methods: 'naive' stands twice. Remove one"),
        ("grid.datasets", ["digits"] * 2, "grid.datasets: 'digits' stands twice. Remove one"),
        ("grid", 3, "grid: expected a map of settings, got 3"),
        (
            "grid",
            {"datasets": ["digits"], "methods": ["naive"], "sedes": [0]},
            "grid.sedes: unknown key. Did you mean 'seeds'?",
        ),
        ("recipe.epochs", True, "recipe.epochs: expected a number, got True"),
        ("recipe.learning_rate", float("inf"), "recipe.learning_rate: expected a finite number"),
        ("recipe.learning_rate", float("nan"), "recipe.learning_rate: expected a finite number"),
        ("datasets.CREMAD.split", [], "datasets.CREMAD.split: expected at least one value. Valid"),
        ("datasets.CREMAD.split", ["amst", "amst"], "datasets.CREMAD.split: 'amst' stands twice"),
        ("datasets.CREMAD.shares", "CREMAD", "CREMAD cannot share with itself. Remove it"),
        ("datasets.CREMAD.shares", "digit", "datasets.CREMAD.shares: unknown name 'digit'. Did"),
        ("tables.metric", "accurcy", "tables.metric: unknown name 'accurcy'. Valid names: accu"),
        ("methods.typo", {"metod": "pmr"}, "methods.typo.metod: unknown key. Did you mean 'method"),
        (
            "methods.picture",
            {"method": "unimodal", "modality": "visul"},
            "methods.picture.modality: unknown name 'visul'. Did you mean 'visual'?",
        ),
        (
            "methods.picture",
            {"method": "unimodal", "modality": True},
            "methods.picture.modality: expected a name, got True. Valid names: audio, text, visual",
        ),
        (
            "methods.picture",
            {"method": "unimodal", "sweep": {"modality": ["audio", 1]}},
            "methods.picture.sweep.modality: expected a name, got 1. Valid names: audio, text, vis",
        ),
        (
            "datasets.digits.method_defaults",
            {"pmr": {1: 2}},
            "datasets.digits.method_defaults.pmr.1: unknown key. Valid names: alpha,",
        ),
        (
            "methods.p",
            {"method": "pmr", "sweep": {"facto": [1]}},
            "methods.p.sweep.facto: unknown key. Did you mean 'factor'?",
        ),
        (
            "methods.p",
            {"method": "pmr", "sweep": {"factor": ["x"]}},
            "methods.p.sweep.factor: expected a number, got 'x'",
        ),
        ("datasets.digits.generate.samples", 3, "generate.samples: must be greater than or equal"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(values, path, value, message):
    with pytest.raises(AmstError) as caught:
        check_config(put(values, path, value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("modality", "settings", "message"),
    [
        ("text", {"encoder": {"name": "small_cnn"}}, "encoder.name: small_cnn takes no text. Val"),
        ("visual", {"encoder": {"name": "roberta"}}, "roberta takes no visual. Valid names: resn"),
        ("visual", {"encoder": {"name": "smal_cnn"}}, "encoder.name: unknown name 'smal_cnn'. Did"),
        ("visual", {"encoder": {"widths": [3]}}, "encoder.name: missing. Add this key"),
        (
            "text",
            {"encoder": {"name": "small_transformer", "heads": 5, "width": 32}},
            "encoder.heads: 5 does not divide the width 32, 4 does",
        ),
        (
            "text",
            {"encoder": {"name": "small_transformer", "layers": 0}},
            "encoder.layers: must be greater than 0, got 0",
        ),
        ("visual", {"crop": 40, "features": {"size": 32}}, "crop: 40 is larger than the stored"),
        ("audio", {"crop": 40}, "crop: only a visual modality has it. Remove this key"),
        ("audio", {"augmentation": {"flip": False}}, "augmentation: only a visual modality has"),
    ],
)
def test_a_modality_gets_only_what_fits_its_kind(values, modality, settings, message):
    with pytest.raises(AmstError) as caught:
        check_config(put(values, f"datasets.digits.modalities.{modality}", settings))
    assert str(caught.value).startswith(f"datasets.digits.modalities.{modality}.")
    assert message in str(caught.value)


def test_a_picture_may_be_cropped_to_its_whole(values):
    visual = {"crop": 32, "features": {"size": 32}}
    check_config(put(values, "datasets.digits.modalities.visual", visual))


def test_two_datasets_of_the_grid_are_not_shown_as_one(values):
    values["tables"] = {"names": {"digits": "Data", "CREMAD": "Data"}}
    check_config(values)
    values["grid"]["datasets"] = ["digits", "CREMAD"]
    with pytest.raises(AmstError, match="digits and CREMAD are both shown as 'Data'"):
        check_config(values)


@pytest.mark.parametrize(
    ("sweep", "first", "second"),
    [
        ({"recipe": {"epochs": [2, "2.0"]}}, "epochs-2", "epochs-2.0"),
        ({"alpha": [0.5, 0.001, "1e-3"]}, "alpha-0.001", "alpha-1e_3"),
    ],
)
def test_a_sweep_trains_nothing_twice(values, sweep, first, second):
    """YAML calls 1e-3 text, which is then read as the number."""
    values["methods"]["weak"] = {"method": "pmr", "sweep": sweep}
    values["grid"]["methods"] = ["weak"]
    with pytest.raises(AmstError) as caught:
        check_config(values)
    assert str(caught.value) == (
        f"methods.weak.sweep: weak-{first} and weak-{second} have the same settings. "
        "Remove one of the two values"
    )


def test_swept_values_that_a_dataset_makes_alike_are_left(values):
    """On a dataset with other settings they differ, and a grid may name one of the two only."""
    values["datasets"]["digits"]["method_defaults"] = {"amst_*": {"skip": {"audio": 4}}}
    sweep = {"skip": [{"audio": 4, "text": 5}, {"text": 5}]}
    values["methods"]["often"] = {"method": "amst_full", "sweep": sweep}
    values["grid"] |= {"datasets": ["digits"], "methods": ["often"]}
    check_config(values)


def test_a_sweep_makes_no_second_variant_of_a_name(values):
    values["methods"] |= {
        "strong-alpha-1.0": {"method": "pmr"},
        "strong": {"method": "pmr", "sweep": {"alpha": [1.0]}},
    }
    with pytest.raises(AmstError, match=r"methods.strong: a second variant named 'strong-alpha-"):
        check_config(values)


@pytest.mark.parametrize("name", [".", "..", ".hidden"])
def test_an_entry_is_not_called_as_the_folder_above_or_as_what_is_hidden(values, name):
    values["methods"][name] = {"method": "naive"}
    with pytest.raises(AmstError) as caught:
        check_config(values)
    assert str(caught.value) == (
        f"methods.{name}: {name!r} cannot be a folder's name. "
        "Use letters, digits and . _ + - only, the first of them no ."
    )


def test_a_variant_s_name_fits_into_names_of_files(values):
    values["methods"]["a" * 150] = {"method": "naive"}
    check_config(values)
    values["methods"]["a" * 140] = {"method": "pmr", "sweep": {"alpha": [1.0, 22.0]}}
    with pytest.raises(AmstError) as caught:
        check_config(values)
    assert f"'{'a' * 140}-alpha-22.0' is too long for a folder's name. It" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        ({"fusion": "weights"}, "audio, text, visual"),
        ({"weights": {"audio": 1.0}}, "text, visual"),
        ({"sweep": {"fusion": ["equal", "weights"]}}, "audio, text, visual"),
    ],
)
def test_weights_of_mla_that_a_dataset_of_the_grid_lacks_are_told_before_it_is_extracted(
    values, settings, lacking
):
    values["methods"]["weighted"] = {"method": "mla", **settings}
    check_config(values)  # the grid does not have it
    values["grid"]["methods"].append("weighted")
    with pytest.raises(AmstError) as caught:
        check_config(values)
    assert str(caught.value) == (
        f"methods.weighted on digits: weights of mla lack {lacking}. Give every modality a weight"
    )
    weights = {"audio": 1.0, "text": 1.0, "visual": 1.0}
    values["datasets"]["digits"]["method_defaults"]["mla"] = {"weights": weights}
    check_config(values)


@pytest.mark.parametrize(
    ("own", "key"),
    [
        ({"raw": "data"}, "raw"),
        ({"shards": 2}, "shards"),
        ({"split_seed": 0}, "split_seed"),
        ({"lists": "lists"}, "lists"),
        ({"max_lost": 1}, "max_lost"),
        ({"options": {}}, "options"),
        ({"modalities": {"audio": {"features": {"frames": 2}}}}, "modalities.audio.features"),
    ],
)
def test_what_a_dataset_has_from_another_one_is_set_there(values, own, key):
    values["datasets"]["IEMOCAP3"] = {"raw": "data", "split": "amst"}
    values["datasets"]["IEMOCAP"] = {"shares": "IEMOCAP3", **own}
    with pytest.raises(AmstError) as caught:
        check_config(values)
    assert str(caught.value) == (
        f"datasets.IEMOCAP.{key}: of no effect, since IEMOCAP shares the data of IEMOCAP3. "
        "Set it below datasets.IEMOCAP3, or remove it"
    )
    visual = {"encoder": {"name": "small_cnn", "widths": [4]}, "crop": 24}
    values["datasets"]["IEMOCAP"] = {"shares": "IEMOCAP3", "modalities": {"visual": visual}}
    check_config(values)


def test_shards_are_shared_by_who_has_some(values):
    values["datasets"] |= {
        "IEMOCAP3": {"raw": "data"},
        "IEMOCAP": {"shares": "IEMOCAP3"},
    }
    check_config(values)
    values["datasets"] |= {
        "IEMOCAP3": {"shares": "IEMOCAP"},
        "IEMOCAP": {"raw": "data"},
    }
    with pytest.raises(AmstError, match="IEMOCAP lacks modalities of IEMOCAP3"):
        check_config(values)
    values["datasets"]["IEMOCAP"] = {"shares": "IEMOCAP3"}
    with pytest.raises(AmstError, match="has no shards of its own, it shares too"):
        check_config(values)
    values["datasets"] |= {"IEMOCAP3": {"raw": "data"}, "IEMOCAP": {"shares": "digits"}}
    with pytest.raises(AmstError) as caught:
        check_config(values)
    assert "the rows of IEMOCAP are not those of digits, which it would be" in str(caught.value)


@pytest.mark.parametrize("own", [{}, {"level": 2}], ids=["of the dataset", "of the entry"])
def test_a_validator_that_needs_what_is_not_read_is_told_with_its_file(
    values, own, tmp_path, monkeypatch
):
    values["datasets"]["digits"]["method_defaults"] = {"careless": {"level": 2}}
    shutil.copytree(from_files.FOLDER, tmp_path / "methods")
    monkeypatch.setattr(from_files, "FOLDER", tmp_path / "methods")
    (tmp_path / "methods/careless.py").write_text(
        "class Settings(MethodSettings):\n"
        "    level: int = 1\n"
        "    @field_validator('level')\n"
        "    def _is_small(cls, level):\n"
        "        return min(level, HIGHEST) if level > 1 else level\n"
    )
    values["methods"]["careless"] = {"method": "careless", **own}
    with pytest.raises(AmstError) as caught:
        check_config(values)
    assert str(caught.value).startswith(
        f"{tmp_path}/methods/careless.py: class Settings needs the name 'HIGHEST'. It may use only"
    )


def test_a_default_that_its_own_bounds_refuse_is_told_with_its_key(values, tmp_path, monkeypatch):
    shutil.copytree(from_files.FOLDER, tmp_path / "methods")
    monkeypatch.setattr(from_files, "FOLDER", tmp_path / "methods")
    own = "class Settings(MethodSettings):\n    level: PositiveInt = -1\n"
    (tmp_path / "methods/bounded.py").write_text(own)
    values["methods"]["bounded"] = {"method": "bounded"}
    values["grid"]["methods"] = ["bounded"]
    with pytest.raises(AmstError, match=r"methods\.bounded on digits\.level: must be greater"):
        check_config(values)


def test_a_key_that_stands_twice_is_told_with_its_line(tmp_path):
    (tmp_path / "config.yaml").write_text("recipe:\n  epochs: 1\n  epochs: 2\n")
    with pytest.raises(AmstError, match=r"line 3: not YAML \(the key 'epochs' stands twice\)"):
        read_config(tmp_path / "config.yaml")


def test_the_file_that_holds_the_wrong_key_is_named(tmp_path):
    over = tmp_path / "over.yaml"
    over.write_text("recipe: {epoch: 3}\n")
    with pytest.raises(AmstError, match=r"over\.yaml: recipe\.epoch: unknown key"):
        read_config(ROOT / "config.yaml", over)
    over.write_text("methods: {naive_concat: {head: cat}}\n")
    with pytest.raises(AmstError, match=r"over\.yaml: methods\.naive_concat\.head: unknown name"):
        read_config(ROOT / "config.yaml", over)
    over.write_text("datasets: {CREMA-D: {raw: data}}\n")
    with pytest.raises(AmstError, match=r"over\.yaml: datasets: unknown name 'CREMA-D'\. Did"):
        read_config(ROOT / "config.yaml", over)
    config = tmp_path / "config.yaml"
    config.write_text((ROOT / "config.yaml").read_text().replace("tf32: conv", "tf32: con"))
    over.write_text("arithmetic: {threads: 1}\n")
    with pytest.raises(AmstError, match=r"config\.yaml: arithmetic\.tf32: unknown name 'con'"):
        read_config(config, over)


def test_a_missing_part_is_named(values):
    del values["grid"]
    with pytest.raises(AmstError, match=r"^grid: missing"):
        check_config(values)


def test_broken_yaml_is_told_with_its_line(tmp_path):
    (tmp_path / "config.yaml").write_text("grid:\n  seeds: [1\nmethods: {}\n")
    with pytest.raises(AmstError, match=r"config.yaml, line 3: not YAML"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# \N{LATIN SMALL LETTER E WITH ACUTE}".encode("latin-1"), "1: not UTF-8 text. Save it"),
        ("grid: {}".encode("utf-16"), "1: not UTF-8 text. Save it as UTF-8"),
        (b"grid:\n  seeds: [0]\n# \x07", r"3: not YAML (it holds the character '\x07'). Remove"),
        (b"grid:\n  seeds: [2024-13-45]", "2: not YAML ('2024-13-45' is no timestamp; text needs"),
        (b"a: !!bool maybe", "1: not YAML ('maybe' is no bool; text needs quotes)"),
        (b"\n? [a, b]\n: 1", "2: not YAML (a list or a map stands where a key should)"),
        (b"{{name}: 1}", "1: not YAML (a list or a map stands where a key should)"),
    ],
)
def test_what_yaml_cannot_read_is_told_with_its_line(content, said, tmp_path):
    (tmp_path / "over.yaml").write_bytes(content)
    with pytest.raises(AmstError) as caught:
        read_config(tmp_path / "over.yaml")
    assert str(caught.value).startswith(f"{tmp_path}/over.yaml, line {said}")


def test_brackets_without_end_are_told(tmp_path):
    (tmp_path / "over.yaml").write_text("grid: " + 2000 * "[")
    with pytest.raises(AmstError, match=r"over\.yaml: too many brackets within one another"):
        read_config(tmp_path / "over.yaml")


@pytest.mark.parametrize("path", ["", "config.yaml/more.yaml"])
def test_a_folder_is_no_file_of_settings(path, tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(AmstError, match=r"there is no file .*Mend its path"):
        read_config(tmp_path / path)


@pytest.mark.parametrize("text", ["", "- grid\n", "grid\n"])
def test_a_file_that_is_no_map_is_told(tmp_path, text):
    (tmp_path / "over.yaml").write_text(text)
    with pytest.raises(AmstError, match=r"over\.yaml: expected a map of settings"):
        read_config(ROOT / "config.yaml", tmp_path / "over.yaml")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(AmstError, match=r"there is no file .*nothing\.yaml\. Mend its path"):
        read_config(tmp_path / "nothing.yaml")


def test_no_other_file_stands_for_config_yaml(tmp_path, monkeypatch):
    """Files of --configfile are merged over it, so naming one is no remedy."""
    monkeypatch.chdir(tmp_path)
    over = Path("over.yaml")
    over.write_text("grid: {seeds: [0]}")
    with pytest.raises(AmstError) as refused:
        read_config(Path("config.yaml"), over)
    assert str(refused.value) == "there is no file config.yaml. Call from a folder that has it"


def test_maps_merge_and_lists_replace():
    base = {"grid": {"seeds": [0, 1], "datasets": ["a"]}, "x": 1}
    over = {"grid": {"seeds": [5]}, "y": {"z": 2}}
    assert merge(base, over) == {
        "grid": {"seeds": [5], "datasets": ["a"]},
        "x": 1,
        "y": {"z": 2},
    }
