from collections.abc import Callable
from math import tanh
from typing import Any

import pytest
import torch
from torch import Tensor

from amst.config.run import Recipe, SmallCNN
from amst.methods.ogm_ge import coefficients

Make = Callable[..., Any]
Gradients = Callable[..., dict[str, Tensor]]

KINDS = {"sound": "audio", "view": "visual", "words": "text"}
HELD_BACK = "sound"  # in the test of the noise


def of_label(*probabilities: float) -> Tensor:
    """Logits (B, 2) that give label 0 these probabilities."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p, 1 - p], dim=1).log()


def test_only_the_modality_with_the_largest_share_is_held_back() -> None:
    logits = {"a": of_label(0.5, 0.3), "b": of_label(0.9, 0.7), "c": of_label(0.2, 0.2)}
    k = coefficients(logits, torch.tensor([0, 0]), alpha=0.8)
    # s = 0.8, 1.6, 0.4, so r_b = 1.6 / 1.2.
    assert k.tolist() == pytest.approx([1, 1 - tanh(0.8 * 1.6 / 1.2), 1])


def test_certainty_without_rest_gives_finite_coefficients() -> None:
    sure, wrong = torch.tensor([[200.0, 0.0]]), torch.tensor([[0.0, 200.0]])
    labels = torch.tensor([0])
    assert coefficients({"a": sure, "b": wrong}, labels, 0.8).tolist() == [0, 1]
    assert coefficients({"a": wrong, "b": wrong}, labels, 0.8).isfinite().all()


def test_strength_zero_holds_nothing_back_even_where_the_rest_is_unlikely() -> None:
    sure, wrong = torch.tensor([[200.0, 0.0]] * 8), torch.tensor([[0.0, 200.0]] * 8)
    labels = torch.zeros(8, dtype=torch.long)
    assert coefficients({"a": sure, "b": wrong}, labels, 0.0).tolist() == [1, 1]


@pytest.fixture
def gradients(method_of: Make, problem_of: Make, batch_of: Make) -> Gradients:
    """Function (method, epoch, widths, settings) -> what the first step takes as gradients."""

    def of(
        name: str, epoch: int = 0, widths: tuple[int, ...] = (4, 6), **settings: Any
    ) -> dict[str, Tensor]:
        problem = problem_of(KINDS)
        if widths != (4, 6):
            wide = {
                m: modality.model_copy(update={"encoder": SmallCNN(widths=widths)})
                for m, modality in problem.modalities.items()
                if modality.kind != "text"
            }
            problem = problem_of(KINDS, modalities={**problem.modalities, **wide})
        method = method_of(name, problem, **settings)
        method.train_step(batch_of(problem), epoch)
        return {
            n: p.grad.clone()
            for n, p in method.networks[""].named_parameters()
            if p.grad is not None
        }

    return of


def scale(one: dict[str, Tensor], other: dict[str, Tensor], name: str) -> float:
    """The factor between two gradients that are multiples of each other."""
    factor = ((one[name] * other[name]).sum() / one[name].square().sum()).item()
    torch.testing.assert_close(other[name], factor * one[name])
    return factor


def test_convolutions_of_the_dominant_encoder_are_scaled_and_nothing_else(
    gradients: Gradients,
) -> None:
    plain, modulated = gradients("naive"), gradients("ogm_ge", alpha=0.8, noise=False)
    factors = {name: scale(plain, modulated, name) for name in plain if plain[name].any()}
    held_back = {name.split(".")[1] for name, factor in factors.items() if factor < 0.999}
    assert len(held_back) == 1
    for name, factor in factors.items():
        convolution = name.startswith("encoders") and plain[name].dim() == 4
        concerned = convolution and name.split(".")[1] in held_back
        assert (factor < 0.999) == concerned, name


def test_all_reaches_every_weight_of_the_encoder(
    gradients: Gradients,
) -> None:
    plain = gradients("naive")
    modulated = gradients("ogm_ge", alpha=0.8, noise=False, modulate="all")
    factors = {name: scale(plain, modulated, name) for name in plain if plain[name].any()}
    held_back = {name.split(".")[1] for name, factor in factors.items() if factor < 0.999}
    assert len(held_back) == 1
    for name, factor in factors.items():
        concerned = name.startswith("encoders") and name.split(".")[1] in held_back
        assert (factor < 0.999) == concerned, name


def test_noise_reaches_a_transformer_only_if_all_is_modulated(
    gradients: Gradients,
) -> None:
    quiet = gradients("ogm_ge", noise=False)
    for modulate in ("conv", "all"):
        noisy = gradients("ogm_ge", modulate=modulate)
        name = "encoders.words.layers.0.merge.weight"
        assert noisy[name].equal(quiet[name]) == (modulate == "conv")


@pytest.mark.parametrize("name", ["sound", "view"])
def test_noise_has_the_spread_of_the_unscaled_gradient(name: str, gradients: Gradients) -> None:
    wide = {"widths": (64, 128), "alpha": 20.0}
    plain = gradients("naive", widths=(64, 128))
    quiet, noisy = gradients("ogm_ge", noise=False, **wide), gradients("ogm_ge", **wide)
    noise = {n: value - quiet[n] for n, value in noisy.items()}
    weight = f"encoders.{name}.layers.3.weight"  # 128 x 64 x 3 x 3 numbers
    # One of the two modalities is held back to nothing, so noise that is scaled along shows.
    k = scale(plain, quiet, weight)
    assert k < 1e-4 if name == HELD_BACK else k == pytest.approx(1)
    spread, count = plain[weight].std().item(), plain[weight].numel()
    assert noise[weight].std().item() == pytest.approx(spread, rel=4 / (2 * count) ** 0.5)
    assert abs(noise[weight].mean().item()) < 4 * spread / count**0.5
    # Normal: 68.3 % within one standard deviation.
    within = (noise[weight].abs() < spread).double().mean().item()
    assert within == pytest.approx(0.6827, abs=4 * (0.6827 * 0.3173 / count) ** 0.5)
    # Never on anything but convolutions.
    assert all(n.any() == (plain[key].dim() == 4) for key, n in noise.items())


def test_noise_differs_between_steps_and_modalities(method_of: Make, problem_of: Make) -> None:
    method = method_of("ogm_ge", problem_of(KINDS))
    g = [torch.randn(50, 50)]
    first, other = method._noise("sound", g)[0], method._noise("view", g)[0]
    method.steps += 1
    later = method._noise("sound", g)[0]
    assert not first.allclose(other)
    assert not first.allclose(later)


@pytest.mark.parametrize("noise", [True, False])
def test_each_step_adds_noise_of_its_own(
    noise: bool, method_of: Make, problem_of: Make, batch_of: Make
) -> None:
    kinds = {"sound": "audio", "view": "visual"}
    problem = problem_of(kinds, recipe=Recipe(learning_rate=1e-12))  # the weights stay
    method, batch = method_of("ogm_ge", problem, noise=noise), batch_of(problem)
    taken = []
    for _ in range(2):
        method.train_step(batch, 0)
        taken.append(method.network.get_parameter("encoders.view.layers.0.weight").grad.clone())
    assert taken[0].allclose(taken[1]) == (not noise)
    assert method.steps == 2


@pytest.mark.parametrize(("epoch", "acts"), [(2, False), (3, True), (5, True), (6, False)])
def test_acts_from_its_first_to_its_last_epoch(
    gradients: Gradients, epoch: int, acts: bool
) -> None:
    plain = gradients("naive")
    modulated = gradients("ogm_ge", epoch=epoch, start=3, end=5)
    assert any(not plain[name].equal(modulated[name]) for name in plain) == acts


@pytest.mark.parametrize("name", ["ogm_ge", "pmr"])
def test_with_one_modality_there_is_nothing_to_balance(
    name: str,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    epoch_of: Make,
) -> None:
    problem = problem_of({"view": "visual"})
    balanced, naive = method_of(name, problem), method_of("naive", problem)
    for seed in range(3):
        batch = batch_of(problem, seed=seed)
        balanced.begin_epoch(seed, epoch_of([batch]))
        balanced.train_step(batch, seed)
        naive.train_step(batch, seed)
    theirs = naive.weights()
    assert all(value.equal(theirs[key]) for key, value in balanced.weights().items())
