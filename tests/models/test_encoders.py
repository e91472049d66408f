import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.functional import conv2d
from transformers import RobertaConfig, RobertaModel

from amst.config.run import (
    AudioFeatures,
    Encoder,
    Kind,
    Modality,
    ResNet18,
    Roberta,
    SmallCNN,
    SmallTransformer,
    TextFeatures,
    VisualFeatures,
)
from amst.errors import AmstError, HostError
from amst.loading.batch import TextTokens
from amst.models.encoders import build_encoder, stem_in_blocks

SHAPES = {"audio": (1, 70, 33), "visual": (3, 2, 40, 40), "text": (6,)}
FEATURES = {"audio": AudioFeatures(), "visual": VisualFeatures(), "text": TextFeatures()}


def encoder_of(
    kind: Kind, settings: Encoder, embedding: int | None = None, **options: Any
) -> nn.Module:
    modality = Modality(kind=kind, features=FEATURES[kind], encoder=settings)
    given = {"vocabulary": 20, "seed": 0, "name": "m"} | options
    return build_encoder(modality=modality, shape=SHAPES[kind], embedding=embedding, **given).eval()


def tokens(lengths: list[int], seed: int = 0) -> TextTokens:
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    ids = torch.randint(2, 20, mask.shape, generator=draw)
    return TextTokens(ids.where(mask, 1), mask)


PICTURES = [ResNet18(), SmallCNN(widths=(4, 8))]


@pytest.mark.parametrize("settings", PICTURES, ids=["resnet18", "small_cnn"])
@pytest.mark.parametrize("embedding", [512, 8, 20])
@pytest.mark.parametrize("kind", ["audio", "visual"])
@torch.no_grad()
def test_sound_and_pictures_become_embeddings(
    kind: Kind, embedding: int, settings: Encoder
) -> None:
    encoder = encoder_of(kind, settings, embedding)
    assert encoder(torch.randn(3, *SHAPES[kind])).shape == (3, embedding)


@pytest.mark.parametrize("settings", PICTURES, ids=["resnet18", "small_cnn"])
@torch.no_grad()
def test_a_film_is_the_mean_of_its_frames(settings: Encoder) -> None:
    encoder = encoder_of("visual", settings, 20)
    film = torch.randn(2, *SHAPES["visual"])
    frames = torch.stack([encoder(film[:, :, t : t + 1]) for t in range(film.shape[2])])
    torch.testing.assert_close(encoder(film), frames.mean(dim=0), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_resnet18_is_that_of_torchvision_before_its_classifier() -> None:
    from torchvision.models import resnet18

    encoder = encoder_of("visual", ResNet18(), 512)
    whole = resnet18()
    whole.fc = nn.Identity()
    state = {k.removeprefix("backbone."): v for k, v in encoder.state_dict().items()}
    whole.load_state_dict(state)
    pictures = torch.randn(2, 3, 40, 40)
    expected = whole.eval()(pictures)
    torch.testing.assert_close(encoder(pictures[:, :, None]), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("embedding", "extra"), [(512, set()), (768, {"projection.weight"})])
def test_another_width_takes_a_1x1_convolution_without_bias(
    embedding: int, extra: set[str]
) -> None:
    state = encoder_of("audio", ResNet18(), embedding).state_dict()
    assert {name for name in state if not name.startswith("backbone.")} == extra
    if extra:
        assert state["projection.weight"].shape == (768, 512, 1, 1)


def test_without_a_width_an_encoder_has_its_own() -> None:
    assert encoder_of("audio", ResNet18()).width == 512
    assert encoder_of("audio", SmallCNN(widths=(4, 8))).width == 8
    assert encoder_of("text", SmallTransformer(width=12)).width == 12


@torch.no_grad()
def test_initial_weights_have_the_stated_spread() -> None:
    encoder = encoder_of("visual", ResNet18(), 768)
    state = encoder.state_dict()
    convolution = state["backbone.layer4.1.conv2.weight"]  # fan-out 512 x 3 x 3
    assert convolution.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
    assert all((v == 1).all() for k, v in state.items() if k.endswith("bn1.weight"))
    assert all((v == 0).all() for k, v in state.items() if k.endswith("bn1.bias"))


def test_initial_weights_depend_on_seed_and_name_only() -> None:
    settings = SmallCNN(widths=(4, 8))
    torch.manual_seed(1)
    one = encoder_of("audio", settings, 8).state_dict()
    torch.manual_seed(2)
    same = encoder_of("audio", settings, 8).state_dict()
    other_name = encoder_of("audio", settings, 8, name="n").state_dict()
    other_seed = encoder_of("audio", settings, 8, seed=1).state_dict()
    # A part more leaves the others as they are.
    wider = encoder_of("audio", settings, 9).state_dict()
    for name, value in one.items():
        assert same[name].equal(value)
        assert wider[name].equal(value)
        if value.dim() == 4:
            assert not other_name[name].equal(value)
            assert not other_seed[name].equal(value)


def test_building_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    encoder_of("audio", ResNet18(), 768)
    assert torch.get_rng_state().equal(state)


@pytest.fixture
def roberta(tmp_path: Path) -> Callable[..., Roberta]:
    """Function (settings) -> RoBERTa with weights in a local folder."""
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=20,
        hidden_size=12,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=10,
        type_vocab_size=1,
    )
    RobertaModel(config).save_pretrained(tmp_path / "weights")
    return lambda **settings: Roberta(weights=str(tmp_path / "weights"), **settings)


@torch.no_grad()
def test_roberta_gives_the_last_state_of_the_first_token(roberta: Callable[..., Roberta]) -> None:
    settings = roberta()
    encoder, batch = encoder_of("text", settings, 12), tokens([6, 3, 1])
    model = RobertaModel.from_pretrained(settings.weights).eval()
    states = model(input_ids=batch.ids, attention_mask=batch.mask.long()).last_hidden_state
    torch.testing.assert_close(encoder(batch), states[:, 0])


@pytest.mark.parametrize("trainable_layers", [0, 1, 2, 3, 5])
def test_only_the_last_layers_of_roberta_train(
    roberta: Callable[..., Roberta], trainable_layers: int
) -> None:
    encoder = encoder_of("text", roberta(trainable_layers=trainable_layers))
    trained = {n.split(".")[3] for n, p in encoder.named_parameters() if p.requires_grad}
    assert trained == {str(layer) for layer in range(3)[-trainable_layers or 3 :]}
    if trainable_layers:
        encoder(tokens([6, 3])).sum().backward()
        assert {n for n, p in encoder.named_parameters() if p.grad is not None} == {
            n for n, p in encoder.named_parameters() if p.requires_grad
        }


@pytest.mark.parametrize("frozen_mode", ["train", "eval"])
def test_frozen_layers_keep_their_dropout_as_set(
    roberta: Callable[..., Roberta], frozen_mode: Any
) -> None:
    encoder = encoder_of("text", roberta(trainable_layers=1, frozen_mode=frozen_mode))
    encoder.train()
    assert encoder.model.encoder.layer[2].training
    frozen = [encoder.model.embeddings, *encoder.model.encoder.layer[:2]]
    assert all(part.training == (frozen_mode == "train") for part in frozen)
    encoder.eval()
    assert not any(part.training for part in encoder.modules())


def test_frozen_layers_are_in_train_mode_by_default() -> None:
    assert Roberta().frozen_mode == "train"


def test_parts_that_a_checkpoint_lacks_are_the_same_in_every_run(tmp_path: Path) -> None:
    config = RobertaConfig(
        vocab_size=20, hidden_size=12, num_hidden_layers=1, num_attention_heads=2
    )
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    poolers = []
    for seed in range(2):
        torch.manual_seed(seed)
        encoder = encoder_of("text", Roberta(weights=str(tmp_path)))
        poolers.append(encoder.model.pooler.dense.weight)
    assert poolers[0].equal(poolers[1])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a RoBERTa of one layer."""
    folder = tmp_path_factory.mktemp("small")
    RobertaModel(
        RobertaConfig(vocab_size=20, hidden_size=12, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(folder)
    return folder


def _with(folder: Path, tmp_path: Path, name: str, content: bytes) -> str:
    """The path of a copy with another content of one file."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / name).write_bytes(content)
    return str(copy)


@pytest.mark.parametrize("lacking", ["encoder.layer.0.output.", "embeddings.word", ""])
def test_weights_that_lack_more_than_the_pooler_are_refused(
    small: Path, tmp_path: Path, lacking: str
) -> None:
    """Transformers would draw them at random."""
    weights = load_file(small / "model.safetensors")
    kept = {name: each for name, each in weights.items() if not name.startswith(lacking)}
    where = _with(small, tmp_path, "model.safetensors", save(kept, {"format": "pt"}))
    told = rf"cannot be read \(it lacks \d+ tensors of a RoBERTa, '{lacking or 'embeddings'}.*fetch"
    with pytest.raises(AmstError, match=told):
        encoder_of("text", Roberta(weights=where))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("model.safetensors", b"", "header too small"),
        ("model.safetensors", b"<html>log in first</html>", "header too large"),
        ("config.json", b"", "not a valid JSON file"),
        ("config.json", b"[]", "list indices"),
        ("config.json", b"{}", "not of the shapes that its config.json says"),
    ],
)
def test_damaged_weights_are_told_in_one_line(
    small: Path, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    with pytest.raises(AmstError, match=rf"cannot be read \(.*{why}.*\)\. Fetch") as told:
        encoder_of("text", Roberta(weights=_with(small, tmp_path, name, content)))
    assert "\n" not in str(told.value)


def test_weights_that_the_disk_does_not_give_are_not_to_be_fetched(
    small: Path, tmp_path: Path
) -> None:
    where = _with(small, tmp_path, "config.json", b"")
    Path(where, "config.json").unlink()
    Path(where, "config.json").symlink_to("/proc/self/mem")  # which nothing can be read from
    with pytest.raises(HostError, match=r"cannot be read \(Input/output error\)"):
        encoder_of("text", Roberta(weights=where))


def test_roberta_of_another_width_is_refused(roberta: Callable[..., Roberta]) -> None:
    with pytest.raises(AmstError, match=r"length 12, but embedding is 8.*embedding: 12"):
        encoder_of("text", roberta(), 8)


def test_weights_that_are_not_here_are_named_without_a_look_at_the_network() -> None:
    with pytest.raises(AmstError, match="'nobody/nothing' cannot be found on this machine"):
        encoder_of("text", Roberta(weights="nobody/nothing"))


@pytest.mark.parametrize(
    ("kind", "settings", "fitting"),
    [
        ("text", ResNet18(), "roberta or small_transformer"),
        ("audio", Roberta(), "resnet18 or small_cnn"),
        ("visual", SmallTransformer(), "resnet18 or small_cnn"),
    ],
)
def test_an_encoder_of_another_kind_is_refused(kind: Kind, settings: Encoder, fitting: str) -> None:
    with pytest.raises(AmstError, match=fitting):
        encoder_of(kind, settings, 8)


def test_a_transformer_from_scratch_needs_a_vocabulary() -> None:
    with pytest.raises(AmstError, match="needs the size of the vocabulary"):
        encoder_of("text", SmallTransformer(), vocabulary=None)


@pytest.mark.parametrize("width", [None, 7])
@torch.no_grad()
def test_padding_changes_no_embedding(width: int | None) -> None:
    encoder, batch = encoder_of("text", SmallTransformer(heads=2, width=8), width), tokens([2, 4])
    padded_otherwise = TextTokens(batch.ids.where(batch.mask, 5), batch.mask)
    torch.testing.assert_close(encoder(batch), encoder(padded_otherwise))
    alone = TextTokens(batch.ids[:1, :2], batch.mask[:1, :2])
    torch.testing.assert_close(encoder(batch)[:1], encoder(alone))


@torch.no_grad()
def test_a_text_without_tokens_has_a_finite_embedding() -> None:
    encoder = encoder_of("text", SmallTransformer(heads=2, width=8))
    assert encoder(tokens([0, 3])).isfinite().all()


def test_order_of_tokens_matters() -> None:
    encoder = encoder_of("text", SmallTransformer(heads=2, width=8))
    for parameter in encoder.position.parameters():
        nn.init.normal_(parameter)
    batch = tokens([6])
    turned = TextTokens(batch.ids.flip(1), batch.mask)
    assert not encoder(batch).allclose(encoder(turned))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_encoders_follow_the_default_type(dtype: torch.dtype, roberta: Any) -> None:
    torch.set_default_dtype(dtype)
    try:
        outputs: list[Tensor] = [
            encoder_of("audio", SmallCNN(widths=(4,)))(torch.randn(2, 1, 8, 8)),
            encoder_of("text", SmallTransformer(heads=2, width=8))(tokens([2])),
            encoder_of("text", roberta())(tokens([2])),
        ]
    finally:
        torch.set_default_dtype(torch.float32)
    assert {output.dtype for output in outputs} == {dtype}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_stem_in_blocks_is_the_convolution_of_the_pictures(channels: int) -> None:
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, channels, 12, 20, generator=draw, dtype=torch.float64)
    weight = torch.randn(5, channels, 7, 7, generator=draw, dtype=torch.float64).requires_grad_()
    wanted = conv2d(pictures, weight, stride=2, padding=3)
    found = stem_in_blocks(pictures, weight)
    torch.testing.assert_close(found, wanted)
    upstream = torch.randn(wanted.shape, generator=draw, dtype=torch.float64)
    gradients = [torch.autograd.grad(each, weight, upstream)[0] for each in (found, wanted)]
    torch.testing.assert_close(*gradients)
    with torch.autocast("cpu", torch.bfloat16):
        assert stem_in_blocks(pictures.float(), weight.float()).dtype == torch.bfloat16


def test_relu_after_pooling_changes_no_bit_of_the_gradients() -> None:
    net = encoder_of("audio", ResNet18(), 8).backbone
    inputs = torch.randn(2, *SHAPES["audio"]) - 0.5

    def gradients(pooled: Callable[[Tensor], Tensor]) -> list[Tensor]:
        given = inputs.clone().requires_grad_()
        out = pooled(net.bn1(net.conv1(given)))
        wanted = [given, net.conv1.weight, net.bn1.weight]
        return [out, *torch.autograd.grad((out * out.detach().cos()).sum(), wanted)]

    ours = gradients(lambda maps: net.relu(net.maxpool(maps)))
    theirs = gradients(lambda maps: net.maxpool(net.relu(maps)))
    assert all(map(torch.equal, ours, theirs))
    assert (ours[0] == 0).any(), "some windows have no positive number"


def test_only_full_training_batches_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def compiler(function: Callable[[Tensor], Tensor], **_options: Any) -> Any:
        def call(inputs: Tensor) -> Tensor:
            compiled.append(len(inputs))
            return function(inputs)

        return call

    monkeypatch.setattr(torch, "compile", compiler)
    encoder, seen = encoder_of("audio", ResNet18(), 8).train(), []
    full, rest = torch.randn(3, *SHAPES["audio"]), torch.randn(2, *SHAPES["audio"])
    weights, wanted = list(encoder.state_dict()), encoder(full)
    encoder.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    encoder.compile_training(samples=3)
    assert torch.equal(encoder(full), wanted), "the stand-in fuses nothing"
    assert compiled == [3]
    encoder(rest)
    with torch.no_grad():
        encoder(full)
    encoder.eval()
    encoder(full)
    assert compiled == [3]
    assert seen == [3, 2, 3, 3], "hooks see every pass"
    assert list(encoder.state_dict()) == weights


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", ["audio", "visual"])
@pytest.mark.usefixtures("reproducible")
def test_a_compiled_pass_trains_as_the_plain_one_does(kind: Kind, half: bool) -> None:
    assert shutil.which("gcc"), "Triton needs a C compiler"
    inputs = torch.randn(4, *SHAPES[kind], device="cuda")

    def gradients(compiled: bool, half: bool = half) -> list[Tensor]:
        encoder = encoder_of(kind, ResNet18(), 16).cuda().train()
        if compiled:
            encoder.compile_training(samples=4)
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            embedding = encoder(inputs)
            embedding.float().square().sum().backward()
        return [embedding, *(p.grad for p in encoder.parameters() if p.grad is not None)]

    plain, fused, again = gradients(False), gradients(True), gradients(True)
    exact = gradients(False, half=False)
    for ours, theirs, true in zip(fused, plain, exact, strict=True):
        # Through so many layers of such small maps bf16 loses a third, by itself.
        allowed = 1.5 * (theirs - true).norm() if half else 1e-3 * true.norm()
        assert (ours - true).norm() <= allowed + 1e-6
    assert all(map(torch.equal, again, fused))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", ["audio", "visual"])
@pytest.mark.usefixtures("reproducible")
def test_a_captured_pass_trains_to_the_same_bits(kind: Kind, compiled: bool, half: bool) -> None:
    inputs = torch.randn(3, 4, *SHAPES[kind], device="cuda")

    def trained(captured: bool) -> list[Tensor]:
        encoder = encoder_of(kind, ResNet18(), 16).cuda().train()
        precision = torch.autocast("cuda", torch.bfloat16, enabled=half)
        if compiled:
            encoder.compile_training(samples=4)
        if captured:
            with precision:
                encoder.capture_training(torch.zeros_like(inputs[0]))
        for batch in inputs:
            with precision:
                encoder.join(encoder.start(batch)).float().square().sum().backward()
            with torch.no_grad():
                for weight in encoder.parameters():
                    weight -= 1e-3 * weight.grad
        return [*encoder.state_dict().values()]

    assert all(map(torch.equal, trained(True), trained(False)))
