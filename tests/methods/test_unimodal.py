from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from amst.config.run import Modality, SmallCNN, VisualFeatures
from amst.errors import AmstError

Make = Callable[..., Any]
KINDS = {"sound": "audio", "view": "visual", "words": "text"}


@pytest.mark.parametrize("modality", KINDS)
def test_only_its_modality_is_needed_and_predicted(
    modality: str, method_of: Make, problem_of: Make, batch_of: Make
) -> None:
    method = method_of("unimodal", problem_of(KINDS), modality=modality)
    assert method.modalities == (modality,)
    assert method.active_modalities(0) == {modality}
    named = method.predict(batch_of(problem_of(KINDS)))
    assert set(named) == {"fused", f"modality/{modality}"}
    assert named["fused"].equal(named[f"modality/{modality}"])


def test_an_unknown_modality_is_refused(method_of: Make, problem_of: Make) -> None:
    with pytest.raises(AmstError, match=r"'smell'.*has: sound, view, words"):
        method_of("unimodal", problem_of(KINDS), modality="smell")


def test_nothing_can_be_predicted_from_other_modalities(
    method_of: Make, problem_of: Make, batch_of: Make
) -> None:
    method = method_of("unimodal", problem_of(KINDS), modality="view")
    with pytest.raises(ValueError, match="no modality is present"):
        method.predict(batch_of(problem_of(KINDS)), ["sound"])


def test_trains_as_naive_does_on_a_single_modality(
    method_of: Make, problem_of: Make, batch_of: Make
) -> None:
    unimodal = method_of("unimodal", problem_of(KINDS), modality="view")
    naive = method_of("naive", problem_of({"view": "visual"}))
    for seed in range(3):
        batch = batch_of(problem_of(KINDS), seed=seed)
        unimodal.train_step(batch, seed)
        naive.train_step(batch, seed)
    theirs = naive.weights()
    assert all(value.equal(theirs[name]) for name, value in unimodal.weights().items())


@pytest.mark.parametrize(("form", "width"), [("paper", 6), ("released", 40)])
def test_the_released_form_has_the_encoders_own_width_and_another_classifier(
    form: str, width: int, method_of: Make, problem_of: Make
) -> None:
    encoder = SmallCNN(widths=(4, 40))
    view = Modality(kind="visual", features=VisualFeatures(), encoder=encoder)
    problem = problem_of({"view": "visual"}, modalities={"view": view})
    method = method_of("unimodal", problem, modality="view", form=form)
    classifier = method.network.head.classifiers["view"]
    assert isinstance(classifier, nn.Linear)
    assert classifier.in_features == width
    # PyTorch's default draws the bias too, uniformly within one over the root of the width.
    assert bool(classifier.bias.any()) == (form == "released")
    if form == "released":
        assert classifier.weight.abs().max() <= 40**-0.5
    again = method_of("unimodal", problem, modality="view", form=form)
    torch.manual_seed(5)
    assert again.network.head.classifiers["view"].weight.equal(classifier.weight)
