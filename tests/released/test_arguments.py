"""Released command lines and our settings."""

import pytest

from amst.config.methods import settings_class
from amst.config.run import RunSettings
from amst.errors import AmstError
from amst.released.arguments import FORMS, arguments_of, method_of

COMMON = {"dataset": "CREMAD", "batch_size": 32, "epochs": 9, "random_seed": 4, "with_tf32": False}


def line(method, **changes):
    form = FORMS[method]
    return COMMON | {"prefix": form.prefix, "fusion_method": next(iter(form.fusions))} | changes


def test_recipe_and_seed_are_the_command_lines(resolve):
    settings = resolve(line("naive", learning_rate=0.02, lr_decay_step=3, lr_decay_ratio=0.5))
    recipe = settings.recipe
    assert (recipe.batch_size, recipe.epochs, recipe.learning_rate) == (32, 9, 0.02)
    assert (recipe.decay_every, recipe.decay_factor) == (3, 0.5)
    assert settings.run_id == "CREMAD/amst/naive/seed4"
    assert settings.arithmetic.tf32 == "conv"
    assert resolve(line("naive", with_tf32=True)).arithmetic.tf32 == "all"


def test_arguments_that_a_file_lacks_have_the_released_defaults(resolve):
    settings = resolve({"dataset": "CREMAD", "prefix": "PMR", "fusion_method": "lsum"})
    assert settings.method_settings["momentum"] == 0.2
    assert settings.recipe.epochs == 100


@pytest.mark.parametrize(
    ("method", "given", "expected"),
    [
        ("naive", {"fusion_method": "concat"}, {"head": "concat"}),
        ("ogm_ge", {"alpha": 0.8, "modulation_ends": 9}, {"alpha": 0.8, "end": 9, "noise": True}),
        ("pmr", {"alpha": 3.0, "momentum_coef": 0.0, "factor": 1.0},
         {"alpha": 3.0, "momentum": 0.0, "factor": 1.0, "prototypes_from": "train",
          "prototype_transform": "augmented"}),
        ("pmr", {"dataset": "AVE"}, {"prototypes_from": "validation"}),
        ("mslr", {"strategy": "dynamic", "visual_lr": 0.5, "fusion_lr": 0.25},
         {"rates": "fixed", "visual_rate": 0.5, "head_rate": 0.25, "text_rate": 2e-5}),
        ("amst_alternating", {"a_skip_factor": 5}, {"skipped_encoder": "forward"}),
        ("amst_full", {"a_skip_factor": 5, "t_skip_factor": 0},
         {"skip": {"audio": 5, "visual": 1}, "second_branch": "released"}),
    ],
)  # fmt: skip
def test_settings_of_a_method_are_the_command_lines(resolve, method, given, expected):
    found = resolve(line(method, **given))
    assert found.method == method
    assert {key: found.method_settings[key] for key in expected} == expected


@pytest.mark.parametrize("method", FORMS)
def test_the_configuration_has_an_entry_for_every_released_form(method, config):
    settings = settings_class(method)
    released = settings.model_validate(FORMS[method].fixed)
    entry = f"{method}_released" if released != settings() else method
    given = dict(config.methods[entry])
    assert given.pop("method") == method
    assert settings.model_validate(given) == released


@pytest.mark.parametrize("method", FORMS)
def test_a_run_is_told_by_its_prefix(method):
    assert method_of({"prefix": FORMS[method].prefix}) == method


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({"prefix": "MLA"}, "prefix is 'MLA'"),
        (line("ogm_ge", fusion_method="concat"), "joins modalities by 'concat'"),
        (line("naive", fusion_method="msum"), "joins modalities by 'msum'"),
        (line("amst_joint", a_skip_factor=0), "skip.audio"),
        (line("amst_full", dataset="MVSA", t_skip_factor=0), "skip.text"),
        (line("naive", epochs="many"), "epochs"),
        (line("naive", random_seed=-1), "seed"),
        ({"dataset": "CREMAD", "modality": "text"}, "modality 'text', which CREMAD has not"),
        ({"dataset": "CREMAD", "modality": "audio", "optimizer": "adam"}, "trained with 'adam'"),
    ],
)  # fmt: skip
def test_runs_without_a_counterpart_are_refused(resolve, args, reason):
    with pytest.raises(AmstError, match=reason):
        resolve(args | {"dataset": args.get("dataset", "CREMAD")})


LINES = [
    *(line(method) for method in FORMS),
    line("naive", fusion_method="concat", with_tf32=True),
    line("amst_joint", dataset="IEMOCAP3", a_skip_factor=4, v_skip_factor=1, t_skip_factor=10),
    {"dataset": "IEMOCAP3", "modality": "text", "epochs": 7, "random_seed": 2},
]


@pytest.mark.parametrize("args", LINES)
def test_settings_give_the_command_line_back(resolve, args):
    settings = resolve(args)
    found = arguments_of(settings)
    assert {key: found[key] for key in args} == args
    assert resolve(found) == settings


def changed(settings: RunSettings, **values) -> RunSettings:
    return settings.model_copy(update=values)


def test_rates_of_single_modalities_are_exported(resolve):
    settings = resolve(line("mslr"))
    own = settings.method_settings | {"learning_rates": {"audio": 0.125}}
    assert arguments_of(changed(settings, method_settings=own))["audio_lr"] == 0.125


def test_a_modality_that_no_skip_factor_is_given_for_trains_in_every_epoch(resolve):
    settings = resolve(line("amst_joint"))
    own = settings.method_settings | {"skip": {"audio": 4}}
    found = arguments_of(changed(settings, method_settings=own))
    assert (found["a_skip_factor"], found["v_skip_factor"]) == (4, 1)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"method": "mla"}, "no checkpoints of method 'mla'"),
        ({"dataset": "digits"}, "does not know the dataset 'digits'"),
        ({"embedding": 64}, "length 512, not 64"),
    ],
)
def test_runs_that_the_released_code_lacks_are_not_exported(resolve, values, reason):
    with pytest.raises(AmstError, match=reason):
        arguments_of(changed(resolve(line("naive")), **values))
