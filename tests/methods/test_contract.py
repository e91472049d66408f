"""What every method promises, checked for each one by being a file of ``amst.methods``.

The methods of docs/add-a-method.md are checked along with them, and one of ``by_sample.py``.
"""

import copy
import io
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from itertools import chain, combinations
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import one_hot
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from amst import methods
from amst.config.run import Kind, Modality, Recipe, Roberta, TextFeatures
from amst.loading.batch import Batch, TextTokens
from amst.methods.base import Method, Problem
from amst.models.capture import CapturedPass
from amst.models.sgd import SGD
from amst.training.checkpoint import check_plain
from tests.cudagraphs import stand_in

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "add-a-method.md"
FROM_PAGE = ["the page's first example", "the page's second example"]
BY_SAMPLE = "by_sample"
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

EACH = "of each"  # modality a number, for settings that need one
SKIP: dict[str, Any] = {"skip": {"sound": 2, "a.b": 2}}
FORWARD: dict[str, Any] = {"skipped_encoder": "forward"}
# Variants whose code differs from the defaults'. A method that is not named is run with defaults.
# Epochs 0 to 3 are trained, so what begins or recurs must do so within them to be checked.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "amst_alternating": [SKIP, SKIP | FORWARD],
    "amst_full": [SKIP, SKIP | FORWARD | {"second_branch": "released"}],
    "amst_joint": [SKIP, SKIP | FORWARD],
    "mla": [
        {},
        {"fusion": "equal", "entropy_of": "embeddings", "head_projection": True},
        {"fusion": "weights", "weights": EACH},
    ],
    "mslr": [{}, {"rates": "dynamic", "history": 2}],
    "naive": [{}, {"head": "concat"}],
    "ogm_ge": [{}, {"noise": False, "modulate": "all"}],
    "pmr": [{}, {"entropy": True, "prototypes_from": "validation", "factor": 1.0}],
    "unimodal": [{"modality": "sound"}, {"modality": "sound", "form": "released"}],
}
CASES = [
    pytest.param(name, settings, id=f"{name}-{index}")
    for name in [*methods.names(), *FROM_PAGE, BY_SAMPLE]
    for index, settings in enumerate(VARIANTS.get(name, [{}]))
]
MOST_REPEATED = 8
"""Epochs that are trained to see every encoder run of a method that draws which ones it runs."""
Kept = TypeVar("Kept")
# Names of modalities are free, whatever attributes a module may have.
KINDS: dict[str, Kind] = {"sound": "audio", "keys": "visual", "a.b": "text", "zoom": "visual"}

each_case = pytest.mark.parametrize(("name", "settings"), CASES)
each_size = pytest.mark.parametrize("size", [1, 2, 3, 4])
one_and_four = pytest.mark.parametrize("size", [1, 4])


@pytest.fixture
def case(
    name: str, settings: dict[str, Any], tmp_path: Path, problem_of: Callable[..., Problem]
) -> Callable[..., Method[Any]]:
    """Function (size, seed) -> the case's method for the first ``size`` modalities."""
    made = methods.load(name) if name in methods.names() else _from_file(_file_of(name, tmp_path))

    def make(size: int = 3, text: Modality | None = None, **changes: Any) -> Method[Any]:
        kinds = dict(list(KINDS.items())[:size])
        problem = problem_of(kinds, **changes)
        if text is not None:
            problem = replace(problem, modalities=problem.modalities | {"a.b": text}, embedding=12)
        given = _of_modalities(settings, list(problem.modalities))
        if "modality" in given and text is not None:
            given["modality"] = "a.b"
        try:
            checked = made.Settings.model_validate(given)
        except ValidationError as error:
            where = f"VARIANTS of {Path(__file__).name}, {name!r}"
            pytest.fail(f"{where}: give settings to check the method with. {error}", pytrace=False)
        method = made(checked, problem)
        method.to("cpu")
        return method

    return make


def _of_modalities(settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The same with all maps of modalities cut to ``names``, and with numbers for ``EACH``."""
    given: dict[str, Any] = {}
    for key, value in settings.items():
        if value == EACH:
            given[key] = {name: 1.0 + index for index, name in enumerate(names)}
        elif isinstance(value, Mapping) and value.keys() <= KINDS.keys():
            given[key] = {name: value[name] for name in names if name in value}
        else:
            given[key] = value
    return given


def test_settings_of_modalities_fit_any_number_of_them() -> None:
    settings = {"rates": EACH, "start": {"keys": 2, "sound": 3}, "other": {"x": 1}, "weights": 0.5}
    assert _of_modalities(settings, ["sound", "zoom"]) == {
        "rates": {"sound": 1.0, "zoom": 2.0},
        "start": {"sound": 3},
        "other": {"x": 1},
        "weights": 0.5,
    }


def _file_of(name: str, folder: Path) -> Path:
    if name == BY_SAMPLE:
        return HERE / "by_sample.py"
    codes = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    path = folder / "from_page.py"
    path.write_text(dict(zip(FROM_PAGE, codes, strict=True))[name])
    return path


def _from_file(path: Path) -> type[Method[Any]]:
    spec = spec_from_file_location("from_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["from_file"] = module
    spec.loader.exec_module(module)
    (found,) = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Method) and v.__module__ == "from_file"
    ]
    return found


def _one_part(batches: Iterable[Batch]) -> list[Batch]:
    """The batches with the positions that their samples have side by side in one part."""
    numbered, start = [], 0
    for batch in batches:
        numbered.append(replace(batch, positions=batch.positions + start))
        start += batch.size
    return numbered


@pytest.fixture
def run_epoch(
    batch_of: Callable[..., Batch], epoch_of: Callable[..., Any]
) -> Callable[..., list[Tensor]]:
    """Function (method, epoch, start, stop) -> losses of that part of an epoch of 3 batches.

    Later parts go on in the mode that the one before has left, unless they are ``resumed``. What
    the history would keep of the method is appended to ``told``.
    """

    def run(
        method: Method[Any],
        epoch: int,
        start: int = 0,
        stop: int = 3,
        told: list[Any] | None = None,
        resumed: bool = False,
    ) -> list[Tensor]:
        drawn = [batch_of(method.problem, size=6, seed=10 * epoch + i) for i in range(3)]
        batches = _one_part(drawn)
        if start == 0:
            method.eval()
            method.begin_epoch(epoch, epoch_of(batches, batches[:1]))
        if start == 0 or resumed:
            method.train()
        losses = [method.train_step(batch, epoch).loss for batch in batches[start:stop]]
        if stop == 3:
            method.eval()
            with torch.no_grad():
                names = method.predict(batches[0])
            scalars = {name: float(value) for name, value in method.scalars().items()}
            if told is not None:
                told.append(scalars)
            method.end_epoch()
            method.see_losses(1.0, dict.fromkeys(names, 1.0 - 0.1 * epoch))
            method.end_validation(dict.fromkeys(names, 0.2 + 0.1 * epoch))
        return losses

    return run


@each_case
@each_size
def test_predicts_logits_per_sample_and_class(
    case: Callable[..., Method[Any]],
    size: int,
    batch_of: Callable[..., Batch],
    epoch_of: Callable[..., Any],
) -> None:
    method = case(size)
    batch = batch_of(method.problem, size=5)
    method.eval()
    method.begin_epoch(0, epoch_of([batch], [batch]))
    method.train()
    step = method.train_step(batch, 0)
    method.eval()
    with torch.no_grad():
        predictions = method.predict(batch)
    assert method.main_prediction in method.fused_predictions
    assert set(method.fused_predictions) <= set(predictions)
    assert not any("/" in name for name in method.fused_predictions), "tables: of a modality"
    assert {f"modality/{m}" for m in method.modalities} <= set(predictions)
    assert set(step.logits) <= set(predictions)
    assert step.loss.dim() == 0
    for logits in (*predictions.values(), *step.logits.values()):
        assert logits.shape == (5, 3)
        assert logits.isfinite().all()
        assert not logits.requires_grad
    assert not step.loss.requires_grad


@each_case
@one_and_four
def test_a_step_changes_exactly_the_parts_that_it_says(
    case: Callable[..., Method[Any]],
    size: int,
    run_epoch: Callable[..., list[Tensor]],
    batch_of: Callable[..., Batch],
) -> None:
    method = case(size)
    added = {name: _trainable(module) for name, (module, _) in method.added.items()}
    for epoch in range(2):
        _assert_changes_what_it_says(method, epoch, run_epoch, batch_of(method.problem))
    for name, before in added.items() if size > 1 else ():  # there may be nothing for it to join
        now = _trainable(method.added[name][0])
        moved = [not a.equal(b) for a, b in zip(now, before, strict=True)]
        assert any(moved) or not moved, f"{name!r} was added, but none of its weights changed"
    kept = [tensor for tensor in _kept(method, Tensor) if tensor.grad_fn is not None]
    assert not kept, "keeps a graph, and all memory with it, after the step: detach()"


def _trainable(module: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters() if p.requires_grad]


def test_the_check_of_changes_sees_a_module_that_never_trains(
    method_of: Callable[..., Method[Any]],
    problem_of: Callable[..., Problem],
    run_epoch: Callable[..., list[Tensor]],
    batch_of: Callable[..., Batch],
) -> None:
    method = method_of("naive", problem_of({"sound": "audio"}))
    method.add("gate", torch.nn.Linear(1, 1))
    with pytest.raises(AssertionError, match="'gate' was added, but none of its weights changed"):
        test_a_step_changes_exactly_the_parts_that_it_says(lambda _: method, 4, run_epoch, batch_of)


@each_case
def test_frozen_layers_of_a_pretrained_encoder_stay_to_the_bit(
    case: Callable[..., Method[Any]],
    roberta: Modality,
    run_epoch: Callable[..., list[Tensor]],
    batch_of: Callable[..., Batch],
) -> None:
    method = case(text=roberta)
    network = next(iter(method.networks.values()))
    frozen = [p for p in network.encoder("a.b").parameters() if not p.requires_grad]
    assert len(frozen) == 5 + 2 * 16 + 2, "embeddings, the first two layers and the pooler"
    for epoch in range(2):
        _assert_changes_what_it_says(method, epoch, run_epoch, batch_of(method.problem))


@pytest.fixture(scope="session")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Modality:
    """Text by a RoBERTa of three layers, of which the last one trains."""
    from transformers import RobertaConfig, RobertaModel

    folder = tmp_path_factory.mktemp("roberta")
    size = {"vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 3, "intermediate_size": 16}
    config = RobertaConfig(num_attention_heads=2, max_position_embeddings=12, **size)
    RobertaModel(config).save_pretrained(folder)
    encoder = Roberta(weights=str(folder), trainable_layers=1)
    return Modality(kind="text", features=TextFeatures(), encoder=encoder)


def _assert_changes_what_it_says(
    method: Method[Any], epoch: int, run_epoch: Callable[..., list[Tensor]], batch: Batch
) -> None:
    """An epoch changes encoders and classifiers that train, probes and statistics of what runs.

    A head may also train on encoders that rest; one that predictions leave out need not change. An
    epoch in which no batch has run an encoder is repeated: a method may draw which ones it runs.
    """
    before = {name: value.clone() for name, value in _weights_of_networks(method).items()}
    with _encoders_run(method) as run:
        for _ in range(MOST_REPEATED):
            run_epoch(method, epoch, stop=2)
            active, trained = method.active_modalities(epoch), method.trained_modalities(epoch)
            assert trained <= active
            run_epoch(method, epoch, start=2)
            if all(
                (b, m) in run for b, net in method.networks.items() for m in active & {*net.names}
            ):
                break
    after = _weights_of_networks(method)
    changed = {name for name, value in after.items() if not value.equal(before[name])}
    must: set[str] = set()
    heads: set[str] = set()
    for branch, network in method.networks.items():
        trainable = {n for n, p in network.named_parameters() if p.requires_grad}
        for name in network.state_dict():
            part, modality = _part_of(name, network.names)
            full = f"{branch}.{name}" if branch else name
            if part == "probes" or name not in dict(network.named_parameters()):
                moves = modality in active
            else:
                moves = name in trainable and (modality in trained or (not modality and trained))
            must |= {full} if moves else set()
            heads |= {full} if part.startswith("head") and name in trainable else set()
    if not changed & heads and not _predicts_by_head(method, batch):
        must -= heads
    assert not must - changed, "said to be trained or run, but did not change"
    assert not changed - must - heads, "changed, though not said to be trained or run"


@contextmanager
def _encoders_run(method: Method[Any]) -> Iterator[set[tuple[str, str]]]:
    """Branch and modality of the encoders that have run in training mode."""
    run: set[tuple[str, str]] = set()

    def noted(branch: str, modality: str, encoder: torch.nn.Module) -> None:
        if encoder.training:
            run.add((branch, modality))

    hooks = [
        network.encoder(m).register_forward_hook(lambda e, *_, b=branch, m=m: noted(b, m, e))
        for branch, network in method.networks.items()
        for m in network.names
    ]
    yield run
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["gate", "head", "encoders", ""])
def test_an_added_module_needs_a_name_of_its_own(
    name: str, method_of: Callable[..., Method[Any]], problem_of: Callable[..., Problem]
) -> None:
    method = method_of("naive", problem_of({"sound": "audio"}))
    assert method.add("gate", torch.nn.Linear(1, 1)).learning_rate == 0.05
    with pytest.raises(ValueError, match="that name is taken"):
        method.add(name, torch.nn.Linear(1, 1))


def _weights_of_networks(method: Method[Any]) -> dict[str, Tensor]:
    """A method may have others of its own, which train as it likes."""
    own = tuple(f"{name}." for name in method.added)
    return {k: v for k, v in Method.weights(method).items() if not k.startswith(own)}


def _predicts_by_head(method: Method[Any], batch: Batch) -> bool:
    """Whether other heads give other predictions."""
    heads = [p for network in method.networks.values() for p in network.head.parameters()]
    before = [p.detach().clone() for p in heads]
    with torch.no_grad():
        expected = method.predict(batch)
        for p in heads:
            p.mul_(2).add_(1)
        found = method.predict(batch)
        for p, value in zip(heads, before, strict=True):
            p.copy_(value)
    return any(not found[name].equal(logits) for name, logits in expected.items())


def _part_of(name: str, modalities: tuple[str, ...]) -> tuple[str, str]:
    """Part of a network that a weight belongs to, and its modality; "" if it is of all."""
    for part in ("encoders", "head.classifiers", "probes"):
        for modality in modalities:
            if name.startswith(f"{part}.{modality}."):
                return part, modality
    return "head", ""


@each_case
def test_loses_less_after_some_epochs(
    case: Callable[..., Method[Any]], run_epoch: Callable[..., list[Tensor]]
) -> None:
    method = case()
    first = sum(loss.item() for loss in run_epoch(method, epoch=0))
    for _ in range(4):
        # The batches of epoch 0 again.
        last = sum(loss.item() for loss in run_epoch(method, epoch=0))
    assert last < first


@each_case
@pytest.mark.parametrize("decay_every", [1, 2])
def test_every_part_follows_the_step_schedule(
    case: Callable[..., Method[Any]], decay_every: int, batch_of: Callable[..., Batch]
) -> None:
    recipe = Recipe(learning_rate=0.05, decay_every=decay_every, decay_factor=0.5)
    method, constant = case(recipe=recipe), case(recipe=Recipe(learning_rate=0.05))
    at_first = _rates(constant)
    for epoch in range(3):
        for one in (method, constant):
            one.end_epoch()
            names = one.predict(batch_of(one.problem))
            one.end_validation(dict.fromkeys(names, 0.2 + 0.1 * epoch))
    factor = 0.5 ** (3 // decay_every)
    expected = pytest.approx([rate * factor for rate in _rates(constant)])
    assert _rates(method) == expected, "an optimiser that end_epoch does not tell of the schedule"
    # The adaptive rule of MSLR comes on top of the schedule.
    adapts = getattr(method.settings, "rates", "fixed") == "dynamic"
    assert (_rates(constant) != at_first) == adapts


def _rates(method: Method[Any]) -> list[float]:
    """Of all optimisers, those of the method's own included."""
    others = [each.param_groups for each in _kept(method, torch.optim.Optimizer)]
    own = [group["lr"] for groups in others for group in groups]
    return [sgd.learning_rate for sgd in _kept(method, SGD)] + own


def _kept(value: Any, kind: type[Kept], seen: set[int] | None = None) -> Iterator[Kept]:
    """All of ``kind`` that ``value`` keeps: in its attributes, in containers, in theirs."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, str | type | ModuleType):
        return
    seen.add(id(value))
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _kept(each, kind, seen)
    elif isinstance(value, Sequence | set | frozenset | deque):
        for each in value:
            yield from _kept(each, kind, seen)
    if hasattr(value, "__dict__") and not isinstance(value, Tensor):
        yield from _kept(vars(value), kind, seen)


@each_case
def test_is_deterministic_and_leaves_the_global_generator_alone(
    case: Callable[..., Method[Any]], run_epoch: Callable[..., list[Tensor]]
) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = case()
    run_epoch(one, epoch=0)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(2)
    other = case()
    run_epoch(other, epoch=0)
    _assert_equal(one.state_dict(), other.state_dict())


@each_case
def test_another_seed_gives_another_model(case: Callable[..., Method[Any]]) -> None:
    one, other = Method.weights(case(seed=1)), Method.weights(case(seed=2))
    drawn = [name for name, value in one.items() if value.dim() > 1]
    assert drawn
    assert not any(one[name].equal(other[name]) for name in drawn)


@each_case
@one_and_four
def test_continues_from_a_checkpoint_within_an_epoch(
    case: Callable[..., Method[Any]], size: int, run_epoch: Callable[..., list[Tensor]]
) -> None:
    recipe = Recipe(learning_rate=0.05, decay_every=2, decay_factor=0.5)
    method, new = case(size, recipe=recipe), case(size, recipe=recipe)
    for epoch in range(2):
        run_epoch(method, epoch)
    run_epoch(method, epoch=2, stop=2)
    file = io.BytesIO()
    check_plain(method.state_dict())
    torch.save(method.state_dict(), file)

    def end(one: Method[Any], resumed: bool = True) -> dict[str, Any]:
        told: list[dict[str, float]] = []
        run_epoch(one, epoch=2, start=2, told=told, resumed=resumed)
        run_epoch(one, epoch=3, told=told)
        return copy.deepcopy(one.state_dict()) | {"told": told}

    expected = end(method, resumed=False)
    for resumed in (new, method):  # what the second one has become since then is forgotten
        file.seek(0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        _assert_equal(end(resumed), expected)


def test_the_check_for_continuing_sees_a_mode_that_a_step_leaves(
    method_of: Callable[..., Method[Any]],
    problem_of: Callable[..., Problem],
    run_epoch: Callable[..., list[Tensor]],
) -> None:
    def left_in_evaluation(size: int, recipe: Recipe) -> Method[Any]:
        method = method_of("naive", problem_of({"sound": "audio"}, recipe=recipe))
        step = method.train_step

        def looking(batch: Batch, epoch: int) -> Any:
            result = step(batch, epoch)
            method.eval()
            return result

        method.train_step = looking  # type: ignore[method-assign]
        return method

    with pytest.raises(AssertionError, match=r"it\['networks'\].* differs"):
        test_continues_from_a_checkpoint_within_an_epoch(left_in_evaluation, 1, run_epoch)


@each_case
@pytest.mark.filterwarnings("ignore:.*to a meta parameter")
def test_all_that_it_keeps_is_moved_and_loaded_to_the_device(
    case: Callable[..., Method[Any]],
    run_epoch: Callable[..., list[Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, moved = case(), case()
    run_epoch(method, epoch=0)
    # As to a GPU, parameters stay the ones that optimisers have.
    monkeypatch.setattr(torch.__future__, "get_swap_module_params_on_conversion", lambda: True)
    moved.to("meta")
    monkeypatch.undo()
    _assert_on_meta(moved, "is left on the host by to(device)")
    moved.load_state_dict(method.state_dict())
    _assert_on_meta(moved, "is left on the host by load_state_dict, or by to(device)")


def _assert_on_meta(method: Method[Any], fault: str) -> None:
    for name, value in (vars(method) | {"weights()": method.weights()}).items():
        left = [tensor for tensor in _kept(value, Tensor) if not tensor.is_meta]
        assert not left, f"{name} {fault}"


@each_case
def test_weights_and_inputs_alone_give_the_predictions(
    case: Callable[..., Method[Any]],
    run_epoch: Callable[..., list[Tensor]],
    batch_of: Callable[..., Batch],
) -> None:
    method, fresh = case(), case()
    run_epoch(method, epoch=0)
    contiguous = {name: value.contiguous() for name, value in method.weights().items()}
    fresh.load_weights(safetensors.torch.load(safetensors.torch.save(contiguous)))
    batch = batch_of(method.problem)
    other = replace(batch, labels=(batch.labels + 1) % 3, positions=batch.positions.flip(0))
    for one in (method, fresh):
        one.eval()
    with torch.no_grad():
        found = method.predict(batch)
        _assert_equal(found, fresh.predict(batch), "by its weights alone")
        _assert_equal(found, method.predict(other), "by other labels or positions")


@pytest.mark.parametrize("seen", ["labels", "positions"])
def test_the_check_of_predictions_sees_what_is_no_input(
    seen: str,
    method_of: Callable[..., Method[Any]],
    problem_of: Callable[..., Problem],
    run_epoch: Callable[..., list[Tensor]],
    batch_of: Callable[..., Batch],
) -> None:
    def looking() -> Method[Any]:
        method = method_of("naive", problem_of({"sound": "audio"}))
        predict = method.predict

        def predicted(batch: Batch) -> dict[str, Tensor]:
            return predict(batch) | {"fused": getattr(batch, seen).float().unsqueeze(1)}

        method.predict = predicted  # type: ignore[method-assign,assignment]
        return method

    with pytest.raises(AssertionError, match="by other labels or positions"):
        test_weights_and_inputs_alone_give_the_predictions(looking, run_epoch, batch_of)


@each_case
@one_and_four
def test_predicts_from_every_subset_of_modalities(
    case: Callable[..., Method[Any]], size: int, batch_of: Callable[..., Batch]
) -> None:
    method = case(size)
    method.eval()
    batch = batch_of(method.problem)
    for subset in _subsets(method.modalities):
        with torch.no_grad():
            predictions = method.predict(batch, modalities=subset)
            without = replace(batch, inputs={m: batch.inputs[m] for m in subset})
            _assert_equal(predictions, method.predict(without))
        assert set(method.fused_predictions) <= set(predictions)
        for m in method.modalities:
            assert (f"modality/{m}" in predictions) == (m in subset)
        assert all(logits.isfinite().all() for logits in predictions.values())


def _subsets(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, n) for n in range(1, len(names) + 1))


@each_case
def test_refuses_to_predict_from_nothing(
    case: Callable[..., Method[Any]], batch_of: Callable[..., Batch]
) -> None:
    method = case()
    with pytest.raises(ValueError, match="no modality is present"):
        method.predict(batch_of(method.problem), modalities=[])


@each_case
@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [2]], ids=["one class", "one sample"])
def test_takes_a_batch_of_one_class_or_one_sample(
    case: Callable[..., Method[Any]],
    labels: list[int],
    batch_of: Callable[..., Batch],
    epoch_of: Callable[..., Any],
) -> None:
    method = case()
    small = [batch_of(method.problem, labels=labels, seed=seed) for seed in range(2)]
    batches = _one_part([*small, batch_of(method.problem, labels=[0, 1, 2])])
    for epoch in range(2):
        method.eval()
        method.begin_epoch(epoch, epoch_of(batches, batches[:2]))
        method.train()
        for batch in batches:
            assert method.train_step(batch, epoch).loss.isfinite()
        method.end_epoch()
    assert all(v.isfinite().all() for v in method.weights().values())


@each_case
def test_needs_only_the_active_modalities(
    case: Callable[..., Method[Any]], batch_of: Callable[..., Batch], epoch_of: Callable[..., Any]
) -> None:
    method = case()
    for epoch in range(3):
        whole = batch_of(method.problem, seed=epoch)
        method.eval()
        method.begin_epoch(epoch, epoch_of([whole], [batch_of(method.problem)]))
        method.train()
        active = method.active_modalities(epoch)
        assert active <= set(method.modalities)
        needed = replace(whole, inputs={m: whole.inputs[m] for m in active})
        assert method.train_step(needed, epoch).loss.isfinite()


@each_case
@pytest.mark.parametrize("device", DEVICES)
def test_a_step_never_waits_for_the_device(
    case: Callable[..., Method[Any]],
    device: str,
    batch_of: Callable[..., Batch],
    epoch_of: Callable[..., Any],
) -> None:
    method = case()
    method.to(device)
    drawn = [_on(device, batch_of(method.problem, seed=seed)) for seed in range(3)]
    batches = _one_part(drawn)
    for epoch in range(2):
        method.eval()
        method.begin_epoch(epoch, epoch_of(batches, batches[:1]))
        method.train()
        method.train_step(batches[0], epoch)
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            with NoHostReads(), NoHostCopies():
                for batch in batches:
                    method.train_step(batch, epoch)
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")


@each_case
@pytest.mark.parametrize(
    ("device", "half"),
    [("cpu", False), *(("cuda", half) for _ in DEVICES[1:] for half in (False, True))],
)
@pytest.mark.usefixtures("reproducible")
def test_captured_it_trains_to_the_same_bits(
    case: Callable[..., Method[Any]],
    device: str,
    half: bool,
    batch_of: Callable[..., Batch],
    epoch_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits, call = CapturedPass._fits, CapturedPass.__call__
    replayed: list[bool] = []
    run: list[bool] = []
    expected: list[bool] = []

    def noted(captured: CapturedPass, inputs: Tensor) -> bool:
        replayed.append(fits(captured, inputs))
        return replayed[-1]

    def called(captured: CapturedPass, inputs: Tensor) -> Tensor:
        run.append(len(inputs) == 5 and torch.is_grad_enabled())
        return call(captured, inputs)

    monkeypatch.setattr(CapturedPass, "_fits", noted)
    monkeypatch.setattr(CapturedPass, "__call__", called)

    def trained(captured: bool) -> dict[str, Tensor]:
        method = case(recipe=Recipe(learning_rate=0.05, batch_size=5))
        method.to(device)
        batches = [_on(device, batch_of(method.problem, n, seed=n)) for n in (5, 5, 3, 5)]
        precision = torch.autocast(device, torch.bfloat16, enabled=half, cache_enabled=False)
        if captured:
            with precision:
                method.capture_training()
            replayed.clear()
        for epoch in range(3):
            with precision:
                method.begin_epoch(epoch, epoch_of(batches, batches[:1]))
            method.train()
            for batch in batches:
                run.clear()
                with precision:
                    method.train_step(batch, epoch)
                expected.append(_trains_captured(method, epoch) and any(run))
        return method.weights()

    with stand_in(monkeypatch) if device == "cpu" else nullcontext():
        plain, captured = trained(False), trained(True)
    assert sum(replayed) >= sum(expected), "one encoder at least in each whole batch that runs one"
    assert any(replayed) == case().captures
    for name, value in plain.items():
        assert torch.equal(captured[name], value), name


def _trains_captured(method: Method[Any], epoch: int) -> bool:
    trained = method.trained_modalities(epoch)
    networks = method.networks.values()
    return any(net.encoder(m).captured for net in networks for m in trained & {*net.names})


def _on(device: str, batch: Batch) -> Batch:
    inputs: dict[str, Tensor | TextTokens] = {
        name: TextTokens(value.ids.to(device), value.mask.to(device))
        if isinstance(value, TextTokens)
        else value.to(device)
        for name, value in batch.inputs.items()
    }
    return Batch(batch.labels.to(device), inputs, batch.positions.to(device))


class NoHostReads(TorchDispatchMode):
    """Fails where a number or a shape would have to be read from the device."""

    FORBIDDEN = (
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "equal",
        "allclose",
        "is_nonzero",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "bincount",
        # torch.linalg: inv, solve, cholesky; eigh, eig, svd. inv_ex and its like do not wait.
        "_linalg_check_errors",
        "_linalg_eigh",
        "linalg_eig",
        "_linalg_svd",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.FORBIDDEN, f"{name} waits for the device"
        if name in ("index", "index_put_"):
            masks = [i for i in args[1] if i is not None and i.dtype == torch.bool]
            assert not masks, "an index by a mask waits for the device"
        return func(*args, **(kwargs or {}))


class NoHostCopies(TorchFunctionMode):
    """Fails where a tensor is copied to or from the host, even if it is there already."""

    FORBIDDEN = ("cpu", "numpy", "tolist", "item", "__array__", "tensor", "as_tensor", "new_tensor")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        assert name not in self.FORBIDDEN, f"{name} copies between host and device"
        if name == "to":  # a device that is no text may be the tensor's own, as for clip_grad_norm_
            others = [each for each in (*args[1:], *kwargs.values()) if isinstance(each, str)]
            assert "cpu" not in others, "to('cpu') copies to the host"
        if name == "one_hot" and (args[1:2] or [kwargs.get("num_classes", -1)])[0] != -1:
            with _disable_current_modes():  # which looks at the labels on a CPU only
                return func(*args, **kwargs)
        return func(*args, **kwargs)


@pytest.mark.parametrize(
    "read",
    [
        lambda x: bool(x.sum() > 0),
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x * torch.tensor(2.0),
        lambda x: x.new_tensor([2.0]),
        lambda x: x.unique(),
        lambda x: x.long().bincount(minlength=3),
        lambda x: one_hot(x.long()),
        lambda x: torch.linalg.inv(x.diag()),
        lambda x: torch.linalg.eigvalsh(x.diag()),
        lambda x: torch.linalg.svdvals(x.diag()),
    ],
)
def test_the_check_for_waiting_sees_what_waits(read: Callable[[Tensor], Any]) -> None:
    with pytest.raises(AssertionError), NoHostReads(), NoHostCopies():
        read(torch.ones(3))


@pytest.mark.parametrize(
    "step",
    [
        lambda x: one_hot(x.long(), 3),
        lambda x: one_hot(x.long(), num_classes=3),
        lambda x: x.to(x.device, torch.float64),
        lambda x: torch.linalg.inv_ex(x.diag()),
        lambda x: torch.nn.utils.clip_grad_norm_([_with_gradient(x)], 1.0),
    ],
)
def test_the_check_for_waiting_lets_pass_what_does_not(step: Callable[[Tensor], Any]) -> None:
    with NoHostReads(), NoHostCopies():
        step(torch.ones(3))


def _with_gradient(x: Tensor) -> Tensor:
    x.requires_grad_().square().sum().backward()
    return x


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fused", [False, True])
def test_of_torch_s_adam_only_the_fused_one_does_not_wait(device: str, fused: bool) -> None:
    weight = torch.nn.Parameter(torch.ones(3, device=device))
    adam = torch.optim.Adam([weight], fused=fused)
    weight.square().sum().backward()
    adam.step()
    waits = nullcontext() if fused else pytest.raises(AssertionError, match="host and device")
    with waits, NoHostReads(), NoHostCopies():
        adam.step()


@each_case
def test_half_precision_leaves_weights_in_full_precision(
    case: Callable[..., Method[Any]], run_epoch: Callable[..., list[Tensor]]
) -> None:
    method = case()
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        losses = run_epoch(method, epoch=0) + run_epoch(method, epoch=1)
    assert all(loss.isfinite() for loss in losses)
    assert {v.dtype for v in method.weights().values()} <= {torch.float32, torch.int64}


@each_case
def test_encoders_start_alike_in_every_method_and_company(
    name: str,
    case: Callable[..., Method[Any]],
    method_of: Callable[..., Method[Any]],
    problem_of: Callable[..., Problem],
) -> None:
    alone = method_of("naive", problem_of({"sound": "audio"})).weights()
    network = next(each for each in case(4).networks.values() if "sound" in each.names)
    weights = network.state_dict()
    shared = [key for key in alone if key.startswith("encoders.sound.layers")]
    assert shared
    assert all(alone[key].equal(weights[key]) for key in shared)


@each_case
def test_refuses_weights_of_another_model(case: Callable[..., Method[Any]]) -> None:
    method = case()
    weights = copy.copy(method.weights())
    weights.pop(next(iter(weights)))
    with pytest.raises(Exception, match="do not fit the method"):
        method.load_weights(weights)


def _assert_equal(one: Any, other: Any, where: str = "it") -> None:
    """Nested containers of numbers and tensors are equal to the last bit."""
    if isinstance(one, Tensor):
        assert one.equal(other), f"{where} differs"
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            _assert_equal(value, other[key], f"{where}[{key!r}]")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, (value, its) in enumerate(zip(one, other, strict=True)):
            _assert_equal(value, its, f"{where}[{index}]")
    else:
        same = one == other or (one is None and other is None) or math.isclose(one, other)
        assert same, f"{where} differs"
