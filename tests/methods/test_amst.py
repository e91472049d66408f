"""The three forms of AMST: who trains when, and on which loss."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from amst import methods
from amst.config.run import Recipe
from amst.errors import AmstError
from amst.loading.batch import Batch
from amst.methods.base import Method
from amst.methods.skipping import SkippingMethod

Make = Callable[..., Any]

NAMES = ["amst_alternating", "amst_joint", "amst_full"]
KINDS = {"sound": "audio", "view": "visual", "words": "text"}
PICTURES = {"one": "visual", "two": "visual", "three": "visual"}

each_form = pytest.mark.parametrize("name", NAMES)


@given(st.integers(0, 200), st.dictionaries(st.sampled_from("abc"), st.integers(1, 12)))
def test_a_modality_trains_in_every_kth_epoch(epoch: int, skip: dict[str, int]) -> None:
    method: Any = SimpleNamespace(modalities="abc", settings=SimpleNamespace(skip=skip))
    trained = SkippingMethod.trained_modalities(method, epoch)
    assert trained == {m for m in "abc" if m not in skip or epoch in range(0, 999, skip[m])}


@each_form
@pytest.mark.parametrize("factor", [0, -1])
def test_a_skip_factor_of_zero_or_less_is_refused(name: str, factor: int) -> None:
    with pytest.raises(ValidationError):
        methods.load(name).Settings.model_validate({"skip": {"sound": factor}})


@each_form
def test_a_skip_factor_for_an_unknown_modality_is_refused(
    name: str, method_of: Make, problem_of: Make
) -> None:
    with pytest.raises(AmstError, match=r"'smell'.*has: sound, view, words"):
        method_of(name, problem_of(KINDS), skip={"smell": 2})


@each_form
def test_only_modalities_that_are_run_must_be_loaded(
    name: str, method_of: Make, problem_of: Make
) -> None:
    off = method_of(name, problem_of(KINDS), skip={"sound": 2, "words": 3})
    assert [sorted(off.active_modalities(epoch)) for epoch in range(4)] == [
        ["sound", "view", "words"],
        ["view"],
        ["sound", "view"],
        ["view", "words"],
    ]
    settings = {"skip": {"sound": 2}, "skipped_encoder": "forward"}
    forward = method_of(name, problem_of(KINDS), **settings)
    assert forward.active_modalities(1) == {"sound", "view", "words"}


def count_calls(method: Method[Any]) -> Counter[str]:
    """Counts forward passes of encoders from now on, by modality."""
    calls: Counter[str] = Counter()
    for network in method.networks.values():
        for name, encoder in network.encoders.items():
            encoder.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


def changed(method: Method[Any], act: Callable[[], Any]) -> set[str]:
    """Names of the weights that ``act`` changes."""
    before = {name: value.clone() for name, value in method.weights().items()}
    act()
    return {name for name, value in method.weights().items() if not value.equal(before[name])}


@pytest.mark.parametrize(
    ("name", "settings", "passes"),
    [
        # One for each of three modalities, and one more for each but the first that has its turn.
        ("amst_alternating", {}, [5]),
        ("amst_alternating", {"skip": {"sound": 2}}, [3]),
        ("amst_joint", {}, [3]),
        ("amst_full", {}, [5, 3]),
        ("amst_full", {"second_branch": "released"}, [5, 5]),
        ("mla", {}, [5]),
    ],
)
def test_no_head_is_run_more_often_than_it_changes(
    name: str,
    settings: dict[str, Any],
    passes: list[int],
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = method_of(name, problem_of(KINDS), **settings)
    counted: list[list[str]] = []
    for network in method.networks.values():
        counted.append(names := [])

        def logits(m: str, e: Tensor, run: Any = network.head.logits, to: Any = names) -> Tensor:
            to.append(m)
            return run(m, e)

        monkeypatch.setattr(network.head, "logits", logits)
    method.train_step(batch_of(method.problem), 1)
    assert [len(names) for names in counted] == passes


@each_form
def test_a_skipped_encoder_is_off_in_the_form_of_the_paper(
    name: str,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    method = method_of(name, problem_of(KINDS), skip={"sound": 2})
    batch = batch_of(method.problem)
    method.train_step(batch, 0)
    calls = count_calls(method)
    moved = changed(method, lambda: method.train_step(batch, 1))
    assert calls["sound"] == 0
    assert calls["view"] == len(method.networks)
    assert not any("encoders.sound" in key or "probes.sound" in key for key in moved)
    assert any("encoders.view" in key for key in moved)
    assert any("head" in key for key in moved)


@each_form
def test_a_skipped_encoder_is_run_in_the_released_form(
    name: str,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    settings = {"skip": {"sound": 2}, "skipped_encoder": "forward"}
    method = method_of(name, problem_of(KINDS), **settings)
    batch = batch_of(method.problem)
    method.train_step(batch, 0)
    calls = count_calls(method)
    moved = changed(method, lambda: method.train_step(batch, 1))
    assert calls["sound"] == len(method.networks)
    sound = {key for key in moved if "encoders.sound" in key}
    assert any(key.endswith("running_mean") for key in sound)
    assert all(".running_" in key or key.endswith("num_batches_tracked") for key in sound)
    assert any("probes.sound" in key for key in moved)
    assert not any("classifiers.sound" in key for key in moved)


@each_form
def test_off_equals_forward_with_frozen_statistics(
    name: str,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    problem = problem_of(KINDS)
    trained = []
    for skipped_encoder in ("off", "forward"):
        settings = {"skip": {"sound": 2, "view": 3}, "skipped_encoder": skipped_encoder}
        method = method_of(name, problem, **settings)
        for network in method.networks.values():
            for part in network.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.momentum = 0.0
        for epoch in range(5):
            method.train_step(batch_of(problem, seed=epoch), epoch)
            method.end_epoch()
        weights = method.weights()
        trained.append({k: v for k, v in weights.items() if "probes" not in k and "num_b" not in k})
    off, forward = trained
    assert all(value.equal(forward[key]) for key, value in off.items())


@each_form
@pytest.mark.parametrize("skipped_encoder", ["off", "forward"])
def test_a_derived_form_trains_by_its_own_schedule(
    name: str,
    skipped_encoder: str,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    """Of those that the factors let train, ``words`` skips, and ``sound`` trains instead."""
    own = {"trained_modalities": lambda _method, _epoch: frozenset({"view", "sound"})}
    derived = type("Derived", (methods.load(name),), own)
    settings = {"skip": {"sound": 2}, "skipped_encoder": skipped_encoder}
    method = method_of(derived, problem_of(KINDS), **settings)
    steps: list[Any] = []
    batch = batch_of(method.problem)
    moved = changed(method, lambda: steps.append(method.train_step(batch, 1)))
    for branch in method.networks:
        learnt = {key for key in moved if key.startswith(branch) and key.endswith("bias")}
        names = {m for m in KINDS for key in learnt if f"encoders.{m}." in key}
        assert names == {"view", "sound"}
    assert ("modality/words" in steps[0].logits) == (skipped_encoder == "forward")


@each_form
@pytest.mark.parametrize("skipped_encoder", ["off", "forward"])
def test_nothing_but_probes_and_statistics_moves_where_all_skip(
    name: str,
    skipped_encoder: str,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    settings = {"skip": dict.fromkeys(KINDS, 2), "skipped_encoder": skipped_encoder}
    method = method_of(name, problem_of(KINDS), **settings)
    batch = batch_of(method.problem)
    method.train_step(batch, 0)
    moved = changed(method, lambda: _all_skip(method, batch))
    assert bool(moved) == (skipped_encoder == "forward")
    assert all("probes" in key or ".running_" in key or "num_b" in key for key in moved)


def _all_skip(method: Method[Any], batch: Batch) -> None:
    needed = replace(batch, inputs={m: batch.inputs[m] for m in method.active_modalities(1)})
    assert method.train_step(needed, 1).loss.item() == 0


def test_the_joint_loss_sums_what_trains_and_keeps_its_share_of_the_bias(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    settings = {"skip": {"one": 2}, "skipped_encoder": "forward"}
    method = method_of("amst_joint", problem_of(PICTURES), **settings)
    head = method.network.head
    with torch.no_grad():
        head.bias.copy_(torch.tensor([0.3, -0.6, 0.9]))
    batch = batch_of(method.problem)
    embeddings = method.network(batch.inputs).embeddings
    z = sum(embeddings[m] @ head.classifiers[m].weight.T + head.bias / 3 for m in ("two", "three"))
    expected = cross_entropy(z, batch.labels).item()
    step = method.train_step(batch, 1)
    assert step.loss.item() == pytest.approx(expected, rel=1e-5)
    assert {"modality/one", "fused"} <= set(step.logits), "what is skipped is still reported"


@pytest.mark.parametrize(
    ("name", "settings", "apart", "together"),
    [
        ("amst_alternating", {}, [""], []),
        ("amst_full", {}, ["alternating"], ["joint"]),
        ("amst_full", {"second_branch": "released"}, ["alternating", "joint"], []),
    ],
)
def test_the_loss_that_is_reported_sums_all_losses_that_were_trained_on(
    name: str,
    settings: dict[str, Any],
    apart: list[str],
    together: list[str],
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    problem = problem_of(PICTURES, recipe=Recipe(learning_rate=1e-12))  # the heads stay
    method = method_of(name, problem, skip={"one": 2}, **settings)
    batch, expected = batch_of(problem), 0.0

    def logits(branch: str, modality: str) -> Tensor:
        network = method.networks[branch]
        head, embedding = network.head, network.encoders[modality](batch.inputs[modality])
        if branch == "joint":
            return embedding @ head.classifiers[modality].weight.T
        return embedding @ head.classifier.weight.T

    with torch.no_grad():
        for branch in apart:
            for m in ("two", "three"):
                expected += cross_entropy(logits(branch, m), batch.labels).item()
        for branch in together:
            z = logits(branch, "two") + logits(branch, "three")
            expected += cross_entropy(z, batch.labels).item()
    step = method.train_step(batch, 1)
    assert step.loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_alternating_branch_of_the_full_form_is_the_alternating_form(
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    problem, settings = problem_of(KINDS), {"skip": {"sound": 2}}
    full, alone = (
        method_of(name, problem, **settings) for name in ("amst_full", "amst_alternating")
    )
    for epoch in range(3):
        full.train_step(batch_of(problem, seed=epoch), epoch)
        alone.train_step(batch_of(problem, seed=epoch), epoch)
    theirs = full.weights()
    assert all(value.equal(theirs[f"alternating.{k}"]) for k, value in alone.weights().items())


@pytest.mark.parametrize(("second_branch", "alone"), [("paper", "amst_joint"), ("released", None)])
def test_the_second_branch_trains_jointly_in_the_form_of_the_paper_only(
    second_branch: str,
    alone: str | None,
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    problem = problem_of(PICTURES)
    full = method_of("amst_full", problem, second_branch=second_branch)
    joint = method_of("amst_joint", problem)
    joint.load_weights(
        {k.removeprefix("joint."): v for k, v in full.weights().items() if k.startswith("joint.")}
    )
    for epoch in range(2):
        full.train_step(batch_of(problem, seed=epoch), epoch)
        joint.train_step(batch_of(problem, seed=epoch), epoch)
    theirs = full.weights()
    same = all(value.equal(theirs[f"joint.{k}"]) for k, value in joint.weights().items())
    assert same == (alone == "amst_joint")


def test_the_branches_of_the_full_form_start_differently(method_of: Make, problem_of: Make) -> None:
    weights = method_of("amst_full", problem_of(PICTURES)).weights()
    drawn = [k for k, v in weights.items() if k.startswith("alternating.enc") and v.dim() > 1]
    assert drawn
    assert not any(weights[k].equal(weights[k.replace("alternating", "joint")]) for k in drawn)


@pytest.mark.parametrize("subset", [["one"], ["one", "three"], ["one", "three", "two"]])
def test_the_full_form_averages_all_logits_of_one_branch_and_the_joint_ones(
    subset: list[str],
    method_of: Make,
    problem_of: Make,
    batch_of: Make,
) -> None:
    method = method_of("amst_full", problem_of(PICTURES))
    method.eval()
    with torch.no_grad():
        named = method.predict(batch_of(method.problem), subset)
    singles = [named[f"modality/{m}"] for m in subset]
    joint = sum(named[f"joint/modality/{m}"] for m in subset)
    torch.testing.assert_close(named["joint"], joint)
    torch.testing.assert_close(named["alternating"], torch.stack(singles).mean(dim=0))
    torch.testing.assert_close(named["fused"], torch.stack([*singles, joint]).mean(dim=0))


@each_form
@pytest.mark.parametrize("skipped", ["off", "forward"])
def test_what_trains_does_not_depend_on_how_a_skipped_encoder_is_run(
    name: str, skipped: str, method_of: Make, problem_of: Make
) -> None:
    method = method_of(name, problem_of(KINDS), skip={"sound": 2}, skipped_encoder=skipped)
    assert method.trained_modalities(0) == frozenset(KINDS)
    assert method.trained_modalities(1) == {"view", "words"}
    loaded = frozenset(KINDS) if skipped == "forward" else {"view", "words"}
    assert method.active_modalities(1) == loaded
