from collections.abc import Callable, Sequence
from typing import Any

import pytest

from amst.config.run import Recipe
from amst.errors import AmstError

Make = Callable[..., Any]

KINDS = {"sound": "audio", "view": "visual", "words": "text", "wide": "visual"}


def rates(method: Any) -> dict[str, float]:
    return {name: method.encoder_sgd(name).learning_rate for name in method.modalities}


def validate(method: Any, accuracies: Sequence[float]) -> list[float]:
    """The first modality's rate after each epoch that ends with these accuracies."""
    name, after = method.modalities[0], []
    for accuracy in accuracies:
        method.end_epoch()
        method.end_validation({f"modality/{m}": accuracy for m in method.modalities})
        after.append(rates(method)[name])
    return after


def test_an_encoder_has_the_rate_of_its_kind_or_its_own(method_of: Make, problem_of: Make) -> None:
    method = method_of("mslr", problem_of(KINDS), learning_rates={"wide": 0.5}, head_rate=0.25)
    assert rates(method) == {"sound": 1e-3, "view": 1e-2, "words": 1e-3, "wide": 0.5}
    assert method.network.optimisers["head"].learning_rate == 0.25
    assert {sgd.learning_rate for sgd in method.network.probe_optimisers.values()} == {0.25}


def test_a_rate_for_an_unknown_modality_is_refused(method_of: Make, problem_of: Make) -> None:
    with pytest.raises(AmstError, match=r"'smell'.*has: sound, view, wide, words"):
        method_of("mslr", problem_of(KINDS), learning_rates={"smell": 0.1})


def test_fixed_rates_stay(method_of: Make, problem_of: Make) -> None:
    method = method_of("mslr", problem_of(KINDS), history=1)
    assert validate(method, [0.1, 0.5, 0.9]) == [1e-3] * 3


def test_dynamic_rates_follow_accuracy_over_its_recent_mean(
    method_of: Make, problem_of: Make
) -> None:
    method = method_of("mslr", problem_of(KINDS), rates="dynamic", history=2)
    second = 1e-3 * 0.6 / ((0.4 + 0.6) / 2)  # epoch 2: the newest of the two remembered
    fourth = second * 0.3 / ((0.9 + 0.3) / 2)
    expected = [1e-3, 1e-3, second, second, fourth]
    assert validate(method, [0.2, 0.4, 0.6, 0.9, 0.3]) == pytest.approx(expected)


def test_rates_are_recorded_where_they_follow_anything(method_of: Make, problem_of: Make) -> None:
    method = method_of("mslr", problem_of(KINDS), rates="dynamic", history=2)
    validate(method, [0.2, 0.4, 0.6])
    assert method.scalars() == {f"learning_rate/{m}": rate for m, rate in rates(method).items()}
    assert method.scalars()["learning_rate/sound"] == pytest.approx(1.2e-3)
    assert method_of("mslr", problem_of(KINDS)).scalars() == {}


def test_the_step_schedule_applies_on_top(method_of: Make, problem_of: Make) -> None:
    problem = problem_of(KINDS, recipe=Recipe(decay_every=2, decay_factor=0.1))
    method = method_of("mslr", problem, rates="dynamic", history=2)
    assert validate(method, [0.5, 0.5, 1.0]) == pytest.approx([1e-3, 1e-4, 1e-4 / 0.75])


def test_no_accuracy_at_all_leaves_the_rate_alone(method_of: Make, problem_of: Make) -> None:
    method = method_of("mslr", problem_of(KINDS), rates="dynamic", history=1)
    assert validate(method, [0.0, 0.0]) == [1e-3, 1e-3]
