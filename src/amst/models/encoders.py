"""Encoders: one modality's input to embeddings (B, D).

Pictures come as (B, 3, T, H, W) and have their T frames folded into the batch; sound comes as
(B, 1, frames, mel bins); text as token ids and mask (B, L). The libraries that only one kind of
encoder needs (torchvision, transformers) are imported when such an encoder is built.
"""

from copy import deepcopy
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, pixel_unshuffle
from torch.overrides import TorchFunctionMode

from amst.compiler import compiled
from amst.config.run import Modality, ResNet18, Roberta, SmallCNN, SmallTransformer
from amst.errors import AmstError
from amst.loading.batch import TextTokens
from amst.models.capture import CapturedPass, uncached_autocast
from amst.models.initial import initialise
from amst.pretrained import located, not_loaded
from amst.randomness import stream_seed

CHANNELS = {"audio": 1, "visual": 3}


class Encoder(nn.Module):
    """One modality's input to embeddings (B, ``width``).

    Attributes:
        width: length of the embeddings.
        drops_out: whether training draws random numbers from PyTorch's global generator.
        compiles: whether ``compile_training`` is worth its time.
        captures: whether ``capture_training`` can record its training pass: convolutions and what
            lies between them. Matrix products of passes that run at once would share a workspace,
            and random numbers a generator.
    """

    width: int
    drops_out: bool = False
    compiles: bool = False
    captures: bool = False
    _captured: CapturedPass | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Encoder":
        """A copy with weights of its own, for which nothing is compiled or captured."""
        other = memo[id(self)] = type(self).__new__(type(self))
        bound = {"forward", "_captured"}
        kept = {name: value for name, value in vars(self).items() if name not in bound}
        vars(other).update(deepcopy(kept, memo))
        return other

    def compile_training(self, samples: int) -> None:
        """Let PyTorch's compiler fuse what lies between the convolutions of the training pass.

        All else runs as before: passes without gradient, and the smaller last batch of an epoch,
        which would have to be compiled again. What hooks see does not change either.

        Args:
            samples: B of the batches that are compiled for, when the first of them comes.
        """
        plain, fused = self.forward, compiled(self.forward)

        def forward(inputs: Any) -> Tensor:
            if not (self.training and torch.is_grad_enabled() and len(inputs) == samples):
                return plain(inputs)
            with uncached_autocast(inputs.device.type):
                return fused(inputs)

        self.forward = forward

    def capture_training(self, sample: Tensor) -> None:
        """Let batches like ``sample`` (B, ...), on a GPU, replay a recorded training pass."""
        self._captured = CapturedPass(self, sample)
        self.forward = self._captured.__call__

    @property
    def captured(self) -> bool:
        """Whether the training pass is replayed."""
        return self._captured is not None

    def forget_replay(self) -> None:
        """A step has used the gradients of the last pass: the next one may overwrite them."""
        if self._captured:
            self._captured.gradients_wanted = False

    def start(self, inputs: Any) -> Tensor:
        """Like a call, but what it gives may still be computed, at once with what others start.

        It must be joined before it is used.
        """
        if self._captured:
            self._captured.expect()
        embedding: Tensor = self(inputs)
        return embedding

    def join(self, embedding: Tensor) -> Tensor:
        """What the last ``start`` gave, (B, ``width``)."""
        return self._captured.join(embedding) if self._captured else embedding


class ResNet18Encoder(Encoder):
    """ResNet-18 from scratch, without classifier (He et al., CVPR 2016).

    Args:
        channels: 1 for sound, 3 for pictures; the stem is 7x7 with stride 2.
        embedding: D. Other than 512, a 1x1 convolution without bias follows the feature map.
    """

    compiles = True
    captures = True

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        from torchvision.models import resnet18

        backbone = resnet18(weights=None)
        features = backbone.fc.in_features
        backbone.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        backbone.avgpool = nn.Identity()
        backbone.fc = nn.Identity()
        self.backbone = backbone
        self.projection = _projection(features, embedding)
        self.width = embedding

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, T, H, W) to (B, D)."""
        net = self.backbone
        # The largest of ReLUs is the ReLU of the largest, gradients too, and of a quarter of them.
        maps = net.relu(net.maxpool(net.bn1(self._stem(fold_frames(inputs)))))
        maps = net.layer4(net.layer3(net.layer2(net.layer1(maps))))
        return average(self.projection(maps), samples=inputs.shape[0])

    def _stem(self, pictures: Tensor) -> Tensor:
        even = not any(side % 2 for side in pictures.shape[2:])
        if self.training and pictures.is_cuda and even:
            return stem_in_blocks(pictures, self.backbone.conv1.weight)
        return self.backbone.conv1(channels_last(pictures))


def stem_in_blocks(pictures: Tensor, weight: Tensor) -> Tensor:
    """A 7x7 convolution with stride 2 and padding 3, as one of 4x4 with stride 1 on 2x2 blocks.

    The same products, summed in another order: GPUs are slow at convolutions of one or three
    channels, and blocks have four or twelve.

    Args:
        pictures: (N, C, H, W), H and W even.
        weight: (D, C, 7, 7).

    Returns:
        (N, D, H / 2, W / 2).
    """
    count, channels, height, width = pictures.shape
    if torch.is_autocast_enabled(pictures.device.type):
        pictures = pictures.to(torch.get_autocast_dtype(pictures.device.type))
    # Around the blocks lie two of zeros before the first and one after the last; channels are
    # side by side in memory.
    shape = (count, height // 2 + 3, width // 2 + 3, 4 * channels)
    blocks = pictures.new_zeros(shape)
    blocks[:, 2:-1, 2:-1] = pixel_unshuffle(pictures, 2).permute(0, 2, 3, 1)
    kernel = pixel_unshuffle(pad(weight, (1, 0, 1, 0)), 2)
    return conv2d(blocks.permute(0, 3, 1, 2), channels_last(kernel))


class SmallCNNEncoder(Encoder):
    """Per width a 3x3 convolution with stride 2, BatchNorm and ReLU; then the average.

    Args:
        channels: 1 for sound, 3 for pictures.
        widths: channels after each convolution.
        embedding: D. Other than the last width, a 1x1 convolution without bias follows.
    """

    captures = True

    def __init__(self, channels: int, widths: tuple[int, ...], embedding: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths, strict=False):
            layers += [
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)
        self.projection = _projection(widths[-1], embedding)
        self.width = embedding

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) or (B, C, T, H, W) to (B, D)."""
        maps = self.layers(channels_last(fold_frames(inputs)))
        return average(self.projection(maps), samples=inputs.shape[0])


def _projection(features: int, embedding: int) -> nn.Module:
    if features == embedding:
        return nn.Identity()
    return nn.Conv2d(features, embedding, kernel_size=1, bias=False)


def fold_frames(inputs: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B * T, C, H, W); sound has no T to fold."""
    return inputs.transpose(1, 2).flatten(0, 1) if inputs.dim() == 5 else inputs


def blank(samples: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Zeros (B, *shape) in the memory layout of a batch: frames before channels."""
    if len(shape) == 4:
        channels, frames, *sides = shape
        return torch.zeros(samples, frames, channels, *sides, device=device).transpose(1, 2)
    return torch.zeros(samples, *shape, device=device)


def channels_last(pictures: Tensor) -> Tensor:
    """(N, C, H, W) with the channels of a pixel side by side in memory."""
    return pictures.contiguous(memory_format=torch.channels_last)


def average(maps: Tensor, samples: int) -> Tensor:
    """Feature maps (B * T, D, H, W) to their mean over frames and positions (B, D)."""
    return maps.unflatten(0, (samples, -1)).mean(dim=(1, 3, 4))


class RobertaEncoder(Encoder):
    """Pretrained RoBERTa (Liu et al., 2019); the embedding is the last state of the first token.

    Only the last transformer layers train. Embeddings, earlier layers and pooler are frozen: no
    gradient reaches them.

    Args:
        model: a ``transformers.RobertaModel``.
        trainable_layers: how many of the last layers train.
        frozen_mode: ``train`` leaves dropout of the frozen layers on in training, as the released
            code does; ``eval`` turns it off.
    """

    drops_out = True

    def __init__(self, model: Any, trainable_layers: int, frozen_mode: str) -> None:
        super().__init__()
        self.model: Any = model
        self.width = model.config.hidden_size
        self.frozen_mode = frozen_mode
        layers = list(model.encoder.layer)
        self._first_trained = max(0, len(layers) - trainable_layers)
        model.requires_grad_(False)
        for layer in layers[self._first_trained :]:
            layer.requires_grad_(True)

    def train(self, mode: bool = True) -> "RobertaEncoder":
        """Set the mode of the trained layers, and of the frozen ones as ``frozen_mode`` says."""
        super().train(mode)
        if self.frozen_mode == "eval":
            self.model.embeddings.eval()
            for layer in self.model.encoder.layer[: self._first_trained]:
                layer.eval()
        return self

    def forward(self, tokens: TextTokens) -> Tensor:
        """Ids and mask (B, L) to (B, D)."""
        # An additive mask of four axes is used as it is; with two, transformers may read it on
        # the host to see whether anything is masked at all, which would wait for the device.
        mask = attention_bias(tokens.mask, next(self.model.parameters()).dtype)
        states = self.model(input_ids=tokens.ids, attention_mask=mask).last_hidden_state
        return states[:, 0]


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, L) with 1 for real tokens to (B, 1, 1, L): 0 there, very negative elsewhere."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None, :]


class SmallTransformerEncoder(Encoder):
    """A small pre-norm transformer trained from scratch; the mean state of the real tokens.

    Args:
        settings: layers, heads, width and dropout.
        vocabulary: number of token ids.
        tokens: L, the largest number of tokens.
        embedding: D. Other than the width, a linear layer without bias follows.
    """

    def __init__(
        self, settings: SmallTransformer, vocabulary: int, tokens: int, embedding: int
    ) -> None:
        super().__init__()
        width = settings.width
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(
            _TransformerLayer(width, settings.heads, settings.dropout)
            for _ in range(settings.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = (
            nn.Identity() if width == embedding else nn.Linear(width, embedding, bias=False)
        )
        self.width = embedding
        self.drops_out = settings.dropout > 0

    def forward(self, tokens: TextTokens) -> Tensor:
        """Ids and mask (B, L) to (B, D)."""
        states = self.token(tokens.ids) + self.position.weight[: tokens.ids.shape[1]]
        bias = attention_bias(tokens.mask, states.dtype)
        for layer in self.layers:
            states = layer(states, bias)
        real = tokens.mask.to(states.dtype).unsqueeze(-1)
        mean = (self.norm(states) * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
        return self.projection(mean)


class _TransformerLayer(nn.Module):
    """Self-attention and a two-layer perceptron, each normalised before and added after."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.before_perceptron = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        states = states + self.dropout(self._attention(self.before_attention(states), bias))
        return states + self.dropout(self.perceptron(self.before_perceptron(states)))

    def _attention(self, states: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.query_key_value(states).chunk(3, dim=-1)
        )
        scores = query @ key.transpose(-2, -1) * key.shape[-1] ** -0.5 + bias
        return self.merge((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(-2))


def build_encoder(
    name: str,
    modality: Modality,
    shape: tuple[int, ...],
    embedding: int | None,
    *,
    vocabulary: int | None = None,
    seed: int,
    stream: str = "",
) -> Encoder:
    """Encoder of one modality with its initial weights.

    Args:
        name: the modality's name, which names the random streams of its weights.
        modality: its kind and the settings of its encoder.
        shape: input shape of one sample.
        embedding: D; None leaves the encoder the width that it has by itself.
        vocabulary: number of token ids, for a text encoder trained from scratch.
        seed: the run's seed.
        stream: sets the weights of several encoders of one modality apart; equal stream, name
            and seed give equal weights in every method.

    Raises:
        AmstError: the encoder does not fit the kind of the modality or D, pretrained weights are
            not on this machine, or a text encoder trained from scratch has no vocabulary.
    """
    streams = (stream, "encoder", name)
    # Libraries draw default weights from the global generator, and RoBERTa keeps them for a pooler
    # that a checkpoint lacks; so that generator is set here, and put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "weights", *streams))
        if modality.kind == "text":
            return _text_encoder(name, modality, shape, embedding, vocabulary, seed, streams)
        with _NothingDrawn():
            encoder = _picture_encoder(name, modality, embedding)
    initialise(encoder, seed, *streams)
    # Convolutions are faster so, on CPUs (a quarter, measured on small_cnn) and GPUs.
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _NothingDrawn(TorchFunctionMode):
    """Leaves the weights undrawn that modules have by themselves: a ResNet draws its own twice."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in (nn.init.kaiming_uniform_, nn.init.uniform_, Tensor.normal_):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def _picture_encoder(name: str, modality: Modality, embedding: int | None) -> Encoder:
    channels, settings = CHANNELS[modality.kind], modality.encoder
    if isinstance(settings, ResNet18):
        return ResNet18Encoder(channels, embedding or 512)
    if isinstance(settings, SmallCNN):
        return SmallCNNEncoder(channels, settings.widths, embedding or settings.widths[-1])
    raise _misfit(name, modality, "resnet18 or small_cnn")


def _text_encoder(
    name: str,
    modality: Modality,
    shape: tuple[int, ...],
    embedding: int | None,
    vocabulary: int | None,
    seed: int,
    streams: tuple[str, ...],
) -> Encoder:
    settings = modality.encoder
    if isinstance(settings, Roberta):
        return _roberta_encoder(name, settings, embedding)
    if not isinstance(settings, SmallTransformer):
        raise _misfit(name, modality, "roberta or small_transformer")
    if vocabulary is None:
        raise AmstError(
            f"modality {name!r}: small_transformer needs the size of the vocabulary",
            "Extract the features of the text again, so that the manifest holds it",
        )
    width = embedding or settings.width
    encoder = SmallTransformerEncoder(settings, vocabulary, shape[0], width)
    initialise(encoder, seed, *streams)
    return encoder


def _roberta_encoder(name: str, settings: Roberta, embedding: int | None) -> Encoder:
    encoder = RobertaEncoder(
        load_roberta(settings.weights), settings.trainable_layers, settings.frozen_mode
    )
    if embedding not in (None, encoder.width):
        raise AmstError(
            f"modality {name!r}: RoBERTa from {settings.weights!r} gives embeddings of length "
            f"{encoder.width}, but embedding is {embedding}",
            f"Set embedding: {encoder.width} for this dataset",
        )
    return encoder


def _misfit(name: str, modality: Modality, fitting: str) -> AmstError:
    return AmstError(
        f"modality {name!r}: encoder {modality.encoder.name!r} does not read {modality.kind}",
        f"Choose {fitting}",
    )


def load_roberta(weights: str) -> Any:
    """RobertaModel with pretrained weights from a local folder or the cache of hub downloads.

    Never opens a connection.

    Raises:
        AmstError: the weights are not on this machine, cannot be read, or lack some of a RoBERTa
            other than its pooler, which the embedding does not use.
    """
    from transformers import RobertaModel

    what = "RoBERTa weights"
    remedy = (
        "Fetch them first (`amst fetch`), or set `weights` to a folder that holds config.json and "
        "model.safetensors"
    )
    loaded: Any
    try:
        # Plain attention, since the backward pass of the fused kernels is not reproducible.
        loaded = RobertaModel.from_pretrained(
            located(weights),
            local_files_only=True,
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, SafetensorError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise not_loaded(what, weights, error, remedy) from error
    except RuntimeError as error:
        if "mismatched" not in str(error):
            raise
        shapes = ValueError("its tensors are not of the shapes that its config.json says")
        raise not_loaded(what, weights, shapes, remedy) from error
    model, found = loaded
    # transformers draws those at random
    if lacking := sorted(n for n in found["missing_keys"] if not n.startswith("pooler.")):
        few = ValueError(f"it lacks {len(lacking)} tensors of a RoBERTa, {lacking[0]!r} among them")
        raise not_loaded(what, weights, few, remedy)
    return model.to(torch.get_default_dtype())
