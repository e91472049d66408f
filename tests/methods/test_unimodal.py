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
    with pytest.raises(ValueError, match="the method has no modality 'sound'"):
        method.predict(batch_of(problem_of(KINDS)), ["sound"])
    with pytest.raises(ValueError, match="no modality is present"):
        method.predict(batch_of(problem_of({"sound": "audio"})))


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
def test_the_released_form_has_the_encoders_own_width(
    form: str, width: int, method_of: Make, problem_of: Make
) -> None:
    encoder = SmallCNN(widths=(4, 40))
    view = Modality(kind="visual", features=VisualFeatures(), encoder=encoder)
    problem = problem_of({"view": "visual"}, modalities={"view": view})
    method = method_of("unimodal", problem, modality="view", form=form)
    assert method.network.head.classifiers["view"].in_features == width


@pytest.mark.parametrize("modality", KINDS)
def test_the_released_form_has_pytorchs_initial_classifier_for_text_only(
    modality: str, method_of: Make, problem_of: Make
) -> None:
    def classifier(form: str) -> nn.Linear:
        method = method_of("unimodal", problem_of(KINDS), modality=modality, form=form)
        found = method.network.head.classifiers[modality]
        assert isinstance(found, nn.Linear)
        return found

    paper, released = classifier("paper"), classifier("released")
    text = KINDS[modality] == "text"
    assert released.weight.equal(paper.weight) == (not text)
    # The default draws weight and bias alike, uniformly within one over the root of the width.
    assert bool(released.bias.any()) == text
    assert not text or released.weight.abs().max() <= 6**-0.5
    torch.manual_seed(5)
    assert classifier("released").weight.equal(released.weight), "from a stream of its own"
