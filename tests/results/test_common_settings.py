"""Which settings the runs of a dataset share."""

from amst.results.cells import collect
from amst.results.common_settings import common_settings


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


def test_names_and_seeds_are_no_settings(make, plan):
    found = common_settings(cells(make, plan, plan.with_(seed=1)))
    assert not {"seed", "variant", "dataset", "split", "method"} & found.shared.keys()


def test_there_are_none_before_a_run_has_finished(make, plan):
    found = common_settings(collect(make(plan.with_(state="missing")), (), partial=True).cells)
    assert found.shared == found.own == {}
