"""Which settings the runs of a dataset share."""

from amst.records import read_record, write_record
from amst.results.cells import collect
from amst.results.common_settings import common_settings, differing_recipes, dotted, mixed_code


def cells(make, *plans):
    return collect(make(*plans), ()).cells


def test_shared_settings_are_told_once_and_a_methods_own_with_the_variant(make, plan):
    other = plan.with_(variant="mla", method="mla", method_settings={"fusion": "equal"})
    found = common_settings(cells(make, plan, other))
    assert found.shared["recipe.epochs"] == "30"
    assert found.own == {"naive": {}, "mla": {"fusion": "equal"}}


def test_a_variant_without_a_modality_differs_by_nothing(make, plan):
    one = plan.with_(variant="unimodal_audio", method="unimodal", modalities=("audio",))
    found = common_settings(cells(make, plan, one))
    assert found.own["unimodal_audio"] == {}
    assert found.shared["modalities.visual.crop"] == "32"


def test_what_is_off_or_zero_is_a_setting_and_what_is_not_set_is_none():
    values = {"a": {"off": False, "on": True}, "b": 0, "c": None, "d": [0.5, False]}
    assert dotted(values) == {"a.off": "false", "a.on": "true", "b": "0", "d": "0.5, false"}


def test_names_and_seeds_are_no_settings(make, plan):
    found = common_settings(cells(make, plan, plan.with_(seed=1)))
    assert not {"seed", "variant", "dataset", "split", "method"} & found.shared.keys()


def test_there_are_none_before_a_run_has_finished(make, plan):
    found = common_settings(collect(make(plan.with_(state="missing")), (), partial=True).cells)
    assert found.shared == found.own == {}


def test_variants_with_another_recipe_than_most_are_named_with_what_differs(make, plan):
    other = plan.with_(epochs=300, recipe={"batch_size": 32}, variant="ours")
    half = plan.with_(variant="half", precision="bf16", tf32="all")
    plans = [plan, plan.with_(variant="pmr"), other, half]
    assert differing_recipes(collect(make(*plans), [], {"ours": "Ours"})) == (
        "Trained differently on digits: precision bf16 (half), fp32 (the others); "
        "tf32 all (half), conv (the others); "
        "batch size 32 (Ours), 64 (the others); epochs 300 (Ours), 30 (the others).",
    )


def test_with_two_recipes_of_one_variant_each_both_are_named(make, plan):
    runs = make(plan, plan.with_(variant="ours", epochs=300))
    (note,) = differing_recipes(collect(runs, ["ours"]))
    assert note == "Trained differently on digits: epochs 30 (naive), 300 (ours)."


def test_datasets_with_the_same_difference_share_a_line_and_others_have_none(make, plan):
    ours = plan.with_(variant="ours", epochs=300)
    plans = [each.with_(dataset=name) for each in (plan, ours) for name in ("AVE", "CREMAD")]
    plans += [each.with_(dataset="MVSA", epochs=7) for each in (plan, ours)]
    (note,) = differing_recipes(collect(make(*plans), []))
    assert note == "Trained differently on AVE, CREMAD: epochs 300 (ours), 30 (naive)."


def test_a_rate_that_a_method_does_not_use_is_no_difference(make, plan):
    mslr = plan.with_(variant="mslr", method="mslr", recipe={"learning_rate": 9.0})
    assert differing_recipes(collect(make(plan, mslr), [])) == ()


def test_means_over_seeds_of_different_code_are_told_unless_it_was_adopted(make, plan):
    runs = make(*(plan.with_(seed=seed) for seed in range(3)), plan.with_(variant="pmr"))
    assert mixed_code(collect(runs, [])) == ()
    record = read_record(runs[1].path)
    present = record.environment.code_digest
    older = record.environment.model_copy(update={"code_digest": "older"})
    for adopted in ((), ("code another: a message was reworded",)):
        changed = record.model_copy(update={"environment": older, "adopted": adopted})
        write_record(runs[1].path, changed)
        assert mixed_code(collect(runs, [], {"naive": "Joint"})) == (
            "Means over seeds that different code or packages trained: Joint on digits "
            "(seeds 0, 2; 1).",
        )
    adopted = (*adopted, f"code {present}: a name was changed")
    write_record(runs[1].path, changed.model_copy(update={"adopted": adopted}))
    assert mixed_code(collect(runs, [])) == ()
    back = changed.model_copy(update={"environment": record.environment, "adopted": adopted[:1]})
    write_record(runs[1].path, back)
    assert mixed_code(collect(runs, [])) == (), "the change that it was adopted for was taken back"
    declared = read_record(runs[0].path).model_copy(update={"adopted": adopted[:1]})
    another = record.environment.model_copy(update={"code_digest": "another"})
    other = read_record(runs[2].path).model_copy(update={"environment": another})
    for run, changed in zip(runs, (declared, record, other), strict=False):
        write_record(run.path, changed)
    (said,) = mixed_code(collect(runs, []))
    assert "(seeds 0, 1; 2)" in said, "seed 0 is valid under both, seed 1 is not"


def test_means_over_seeds_of_different_packages_are_told_unless_they_were_adopted(make, plan):
    runs = make(*(plan.with_(seed=seed) for seed in range(2)))
    record = read_record(runs[1].path)
    own = record.environment
    older = own.model_copy(update={"package_digest": "older"})
    by_code = f"code {own.code_digest}"
    for adopted in ((), (f"{by_code}: a name was changed",), (f"{by_code}, packages x: a pin",)):
        changed = record.model_copy(update={"environment": older, "adopted": adopted})
        write_record(runs[1].path, changed)
        (said,) = mixed_code(collect(runs, []))
        assert "naive on digits (seeds 0; 1)" in said
    adopted = (f"{by_code}, packages {own.package_digest}: a pin that only tables need",)
    write_record(runs[1].path, changed.model_copy(update={"adopted": adopted}))
    assert mixed_code(collect(runs, [])) == ()
