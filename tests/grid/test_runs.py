"""What runs, and with which settings."""

import shutil
import subprocess
import sys

import pytest

from amst.config import methods as from_files
from amst.config.run import Augmentation, RunSettings
from amst.errors import AmstError
from amst.grid import (
    Cell,
    Resolver,
    as_dict,
    cells,
    check_config,
    left_out,
    modalities_of,
    models_of,
    raw_root,
    tokenizers_of,
    trained_alike,
)


def settings(values, variant="naive", dataset="digits", split="random", seed=0):
    """Resolved settings of one run."""
    return Resolver(check_config(values))(Cell(dataset, split, variant, seed))


def test_the_grid_crosses_datasets_splits_methods_and_seeds(values):
    values["grid"]["datasets"] = ["digits", "CREMAD"]
    assert [cell.run for cell in cells(check_config(values))] == [
        f"{dataset}/{split}/{variant}/seed{seed}"
        for dataset, split in (("digits", "random"), ("CREMAD", "amst"), ("CREMAD", "group"))
        for variant in ("naive", "unimodal_audio")
        for seed in (0, 1)
    ]


def test_methods_stand_in_the_order_of_the_grid(values):
    values["grid"]["methods"] = ["unimodal_audio", "naive"]
    names = [cell.variant for cell in cells(check_config(values))]
    assert names == ["unimodal_audio"] * 2 + ["naive"] * 2


def test_a_modality_that_a_dataset_lacks_is_left_out_and_said_so(values):
    values["grid"] |= {"datasets": ["CREMAD"], "methods": ["unimodal_text", "naive"]}
    config = check_config(values)
    assert {cell.variant for cell in cells(config)} == {"naive"}
    assert left_out(config) == ["unimodal_text does not apply to CREMAD, which has no text"]
    with pytest.raises(AmstError, match="unimodal_text does not apply to CREMAD"):
        Resolver(config)(Cell("CREMAD", "amst", "unimodal_text", 0))


@pytest.mark.parametrize("default", ["visual", "smell"])
def test_a_method_may_have_a_default_of_its_one_modality(values, default, tmp_path, monkeypatch):
    shutil.copytree(from_files.FOLDER, tmp_path / "methods")
    monkeypatch.setattr(from_files, "FOLDER", tmp_path / "methods")
    method = f"only_{default}"
    text = f'class Settings(AloneSettings):\n    modality: str = "{default}"\n'
    (tmp_path / "methods" / f"{method}.py").write_text(text)
    values["methods"]["mine"] = {"method": method}
    values["grid"] |= {"datasets": ["digits", "IEMOCAP3", "MVSA"], "methods": ["mine"]}
    values["datasets"] |= {"IEMOCAP3": {"raw": "x"}, "MVSA": {"raw": "y"}}
    if default == "smell":
        with pytest.raises(AmstError, match=r"methods.mine.modality: unknown name 'smell'"):
            check_config(values)
        return
    values["methods"]["heard"] = {"method": method, "modality": "audio"}
    values["grid"]["methods"] = ["mine", "heard"]
    config = check_config(values)
    assert left_out(config) == ["heard does not apply to MVSA, which has no audio"]
    assert [*settings(values, "mine").modalities] == ["visual"]


def test_a_sweep_makes_an_entry_of_each_value(values):
    values["methods"]["sweep"] = {
        "method": "amst_alternating",
        "sweep": {"skip": [{"audio": 2}, {"audio": 5, "text": 3}], "skipped_encoder": ["off"]},
    }
    values["grid"]["methods"] = ["sweep"]
    names = list(dict.fromkeys(cell.variant for cell in cells(check_config(values))))
    assert names == [
        "sweep-skip-audio2-skipped_encoder-off",
        "sweep-skip-audio5-text3-skipped_encoder-off",
    ]
    assert settings(values, names[1]).method_settings["skip"] == {"audio": 5, "text": 3}
    values["methods"]["sweep"]["sweep"]["skip"][1] = {"text": 3, "audio": 5}
    assert cells(check_config(values))[-1].variant == names[1], "whatever its keys' order"


def test_variants_that_come_to_the_same_are_told_by_dataset(values):
    """An entry of its own may have the value that another has by default, here or everywhere."""
    values["methods"] |= {
        "same": {"method": "naive"},
        "pmr": {"method": "pmr"},
        "pmr_alpha": {"method": "pmr", "sweep": {"alpha": [0.5, 1.0]}},
    }
    values["grid"] = {"datasets": ["digits", "CREMAD"], "methods": ["naive", "same"], "seeds": [0]}
    assert trained_alike(check_config(values)) == [
        "naive, same have the same settings on digits, CREMAD: each is trained"
    ]
    values["grid"]["methods"] = ["naive", "pmr", "pmr_alpha"]
    assert trained_alike(check_config(values)) == [
        "pmr, pmr_alpha-alpha-1.0 have the same settings on digits, CREMAD: each is trained"
    ]
    values["datasets"]["digits"]["method_defaults"] = {"pmr": {"alpha": 0.5}}
    assert trained_alike(check_config(values)) == [
        "pmr, pmr_alpha-alpha-0.5 have the same settings on digits: each is trained",
        "pmr, pmr_alpha-alpha-1.0 have the same settings on CREMAD: each is trained",
    ]


def test_a_sweep_goes_over_the_recipe_too(values):
    values["methods"]["rate"] = {
        "method": "pmr",
        "recipe": {"learning_rate": 0.3, "momentum": 0.5},
        "sweep": {"recipe": {"learning_rate": [0.02, 1e-5]}, "alpha": [0.5, 2.0]},
    }
    values["grid"] |= {"datasets": ["digits"], "methods": ["rate"], "seeds": [0]}
    names = [cell.variant for cell in cells(check_config(values))]
    assert names == [
        f"rate-alpha-{alpha}-learning_rate-{rate}"
        for alpha in (0.5, 2.0)
        for rate in ("0.02", "1e_05")
    ]
    last = settings(values, names[-1])
    assert (last.recipe.learning_rate, last.recipe.momentum) == (1e-5, 0.5)
    assert last.recipe.decay_every == settings(values, "naive").recipe.decay_every
    assert last.method_settings["alpha"] == 2.0
    assert len({settings(values, name).hash for name in names}) == 4


def test_the_grid_may_name_one_variant_of_a_sweep(values):
    values["methods"]["alphas"] = {"method": "pmr", "sweep": {"alpha": [0.5, 2.0]}}
    values["grid"] |= {"methods": ["alphas-alpha-2.0", "naive"], "seeds": [0]}
    found = cells(check_config(values))
    assert list(dict.fromkeys(cell.variant for cell in found)) == ["alphas-alpha-2.0", "naive"]
    values["grid"]["methods"] = ["alphas-alpha-2.0", "alphas"]
    with pytest.raises(AmstError, match=r"grid\.methods: 'alphas-alpha-2\.0' stands twice"):
        check_config(values)


def test_a_swept_text_is_spelled_as_part_of_a_folder_s_name(values, tmp_path, monkeypatch):
    shutil.copytree(from_files.FOLDER, tmp_path / "methods")
    monkeypatch.setattr(from_files, "FOLDER", tmp_path / "methods")
    text = 'class Settings(MethodSettings):\n    words: str = ""\n'
    (tmp_path / "methods/spoken.py").write_text(text)
    values["methods"]["mine"] = {"method": "spoken", "sweep": {"words": ["../a b", "1.5e-3"]}}
    values["grid"] |= {"methods": ["mine"], "seeds": [0]}
    variants = [cell.variant for cell in cells(check_config(values))]
    assert variants == ["mine-words-.._a_b", "mine-words-1.5e_3"]
    assert settings(values, variants[0]).method_settings["words"] == "../a b"


def test_a_swept_value_wins_over_the_entrys_own(values):
    values["methods"]["strong"] = {"method": "pmr", "alpha": 3.0, "sweep": {"alpha": [0.5, 2.0]}}
    for alpha in (0.5, 2.0):
        assert settings(values, f"strong-alpha-{alpha}").method_settings["alpha"] == alpha


def test_a_variants_own_value_wins_over_the_datasets_and_that_over_the_methods(values):
    assert settings(values, "amst").method_settings["skip"] == {"audio": 4}
    values["methods"]["amst"]["skip"] = {"text": 3}
    assert settings(values, "amst").method_settings["skip"] == {"audio": 4, "text": 3}, "maps merge"
    values["methods"]["amst"]["skip"] = {"audio": 2}
    assert settings(values, "amst").method_settings["skip"] == {"audio": 2}
    assert settings(values, "amst", "CREMAD", "amst").method_settings["skip"] == {"audio": 2}
    del values["methods"]["amst"]["skip"]
    assert settings(values, "amst", "CREMAD", "amst").method_settings["skip"] == {}


def test_defaults_of_a_dataset_reach_the_method_they_stand_below_only(values):
    values["methods"] |= {"ogm": {"method": "ogm_ge", "noise": False}, "pmr": {"method": "pmr"}}
    values["datasets"]["digits"]["method_defaults"] = {"ogm_ge": {"alpha": 0.8}}
    assert settings(values, "ogm").method_settings["alpha"] == 0.8, "all variants of the method"
    assert settings(values, "pmr").method_settings["alpha"] == 1.0


def test_a_method_s_own_name_wins_over_a_pattern_wherever_it_stands(values):
    values["methods"]["joint"] = {"method": "amst_joint"}
    values["datasets"]["digits"]["method_defaults"] = {
        "amst_joint": {"skip": {"audio": 3}},
        "amst_*": {"skip": {"audio": 4, "text": 2}},
    }
    assert settings(values, "amst").method_settings["skip"] == {"audio": 4, "text": 2}
    assert settings(values, "joint").method_settings["skip"] == {"audio": 3, "text": 2}


def test_recipes_layer_in_the_same_order(values):
    assert settings(values, "naive", "CREMAD", "amst").recipe.epochs == 100
    assert settings(values).recipe.epochs == 12
    assert settings(values, "short").recipe.epochs == 3


def test_the_embedding_is_768_with_text_and_512_without_unless_it_is_set(values):
    assert settings(values).embedding == 768
    assert settings(values, dataset="CREMAD", split="amst").embedding == 512
    values["datasets"]["digits"]["embedding"] = 64
    assert settings(values).embedding == 64


def test_the_arithmetic_of_the_configuration_reaches_every_run(values):
    values["arithmetic"] = {"precision": "bf16", "threads": 3}
    found = settings(values).arithmetic
    assert (found.precision, found.threads, found.tf32) == ("bf16", 3, "conv")


def test_equal_settings_have_equal_hashes_and_any_change_another(values):
    first = settings(values).hash
    assert settings(values).hash == first
    assert settings(values, seed=1).hash != first
    values["datasets"]["digits"]["recipe"]["learning_rate"] = 0.5
    assert settings(values).hash != first


def test_what_is_set_for_one_modality_leaves_the_runs_of_another_alone_as_they_are(values):
    def hashes():
        variants = ("naive", "unimodal_audio", "unimodal_text")
        return [settings(values, variant).hash for variant in variants]

    joint, audio, text = hashes()
    values["datasets"]["digits"]["modalities"] = {
        "text": {"encoder": {"name": "roberta", "weights": "roberta-large"}}
    }
    assert hashes()[1] == audio
    assert hashes()[0] != joint
    assert hashes()[2] != text
    resolve = Resolver(check_config(values))
    assert resolve.pretrained("digits", "unimodal_audio") == ()
    assert resolve.pretrained("digits", "naive") == ("roberta-large",)


def test_how_pictures_are_cropped_reaches_the_runs_of_visual_modalities_only(values):
    visual = {"crop": 96, "augmentation": {"min_area": 0.5, "flip": False}}
    values["datasets"]["digits"]["modalities"] = {"visual": visual}
    found = settings(values).modalities
    assert found["visual"].crop == 96
    assert found["visual"].augmentation == Augmentation(min_area=0.5, flip=False)
    assert {(found[name].crop, found[name].augmentation) for name in ("audio", "text")} == {
        (None, None)
    }


def test_models_in_folders_and_the_tokenizer_of_the_suite_are_not_fetched(
    values, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for tokenizer, weights, wanted in (
        ("digits", "roberta-base", ((), ["roberta-base"])),
        ("somebody/words", "mine", (("somebody/words",), ["somebody/words"])),
        ("/data/words", "./not-here-yet", ((), [])),
    ):
        values["datasets"]["digits"]["modalities"] = {
            "text": {
                "features": {"tokenizer": tokenizer},
                "encoder": {"name": "roberta", "weights": weights},
            }
        }
        config = check_config(values)
        assert (tokenizers_of(config, "digits"), models_of(config, ["digits"])) == wanted


def test_how_a_run_is_executed_is_no_part_of_its_settings(values):
    first = settings(values).hash
    values["execution"] = {"device": "cpu", "deadline": 60}
    values["datasets"]["digits"]["resources"] = {"threads": 9}
    values["datasets"]["digits"]["shards"] = 3
    assert settings(values).hash == first


def test_a_dataset_can_share_the_shards_of_another(values):
    values["datasets"] |= {"IEMOCAP3": {"raw": "x"}, "IEMOCAP": {"shares": "IEMOCAP3"}}
    values["datasets"]["IEMOCAP3"]["modalities"] = {
        "audio": {"features": {"mel_bins": 24}, "encoder": {"name": "small_cnn"}}
    }
    config = check_config(values)
    assert str(raw_root(config, "IEMOCAP")) == "x"
    audio = modalities_of(config, "IEMOCAP")["audio"]
    assert audio.features.mel_bins == 24, "as it was stored"
    assert audio.encoder.name == "resnet18", "which it chooses itself"


def test_the_grid_as_plain_values_names_runs_and_methods(values):
    plain = as_dict(check_config(values))
    assert plain["variants"] == [
        {"name": "naive", "method": "naive"},
        {"name": "unimodal_audio", "method": "unimodal"},
    ], "in the order of the grid"
    assert next(iter(plain["runs"])) == "digits/random/naive/seed0"


def test_the_grid_as_plain_values_names_the_owners_of_features(values):
    values["datasets"] |= {"IEMOCAP3": {"raw": "x"}, "IEMOCAP": {"shares": "IEMOCAP3"}}
    values["grid"] |= {"datasets": ["IEMOCAP", "digits"], "methods": ["naive"]}
    shown = {"IEMOCAP3": "IEMOCAP with text"}
    values["tables"] = {"metric": "macro_f1", "names": {**shown, "CREMAD": "none of the grid"}}
    plain = as_dict(check_config(values))
    assert plain["datasets"] == ["IEMOCAP", "digits"]
    assert plain["features"] == {"IEMOCAP": "IEMOCAP3", "digits": "digits"}
    assert plain["names"] == shown
    assert plain["metric"] == "macro_f1"


@pytest.mark.parametrize("begin", ["", "./"])
def test_a_run_is_known_by_each_of_its_files(begin):
    cell = Cell("digits", "group-fold2", "naive", 12)
    assert Cell.of_file(f"{begin}results/runs/{cell.run}/history.csv") == cell
    assert Cell.of_file(f"{begin}results/features/{cell.run}/history.csv") is None
    with_a_log = f"{begin}logs/results/runs/{cell.run}/run.json"
    assert Cell.of_file(with_a_log) is None


def test_names_for_readers_are_in_the_grid_as_far_as_it_has_them_and_in_no_run(values):
    values["grid"]["datasets"] = ["digits", "CREMAD"]
    values["grid"]["methods"].append("unimodal_text")
    before = as_dict(check_config(values))
    shown = {"naive": "Joint", "unimodal_text": "Text alone", "CREMAD": "CREMA-D"}
    values["tables"] = {"names": {**shown, "amst": "not in the grid"}}
    after = as_dict(check_config(values))
    assert after["names"] == shown
    assert after["runs"] == before["runs"]
    assert after["left_out"] == ["Text alone does not apply to CREMA-D, which has no text"]


def test_the_grid_has_the_hash_of_every_run_s_settings(values):
    values["grid"] |= {"datasets": ["digits", "CREMAD"], "seeds": [0, 5]}
    values["datasets"]["CREMAD"]["split"] = ["random", "group"]  # one that digits has, too
    config = check_config(values)
    resolve = Resolver(config)
    assert as_dict(config)["runs"] == {cell.run: resolve(cell).hash for cell in cells(config)}


def test_a_run_s_settings_as_text_are_its_settings_in_whatever_form(values):
    config = check_config(values)
    resolve, cell = Resolver(config), Cell("digits", "random", "naive", 3)
    hashed = resolve.hash(cell)
    text = resolve.text(cell)
    assert '"seed": 3' in text
    assert RunSettings.model_validate_json(text) == resolve(cell)
    assert resolve.hash(cell) == hashed == resolve(cell).hash


def test_reading_a_configuration_loads_neither_torch_nor_pandas():
    code = (
        "import sys; from pathlib import Path; from amst import grid;"
        "grid.cells(grid.read_config(Path('config.yaml')));"
        "print(sorted({'torch', 'pandas', 'sklearn', 'av', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
