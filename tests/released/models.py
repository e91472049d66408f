"""Models named and computed as in the released code, and the files it saves of them.

Written from the description of its checkpoints; shares nothing with `amst` but torchvision and
transformers underneath.
"""

import argparse

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet18

PREFIXES = {
    "naive": ("Naive", "lsum"),
    "ogm_ge": ("OGM", "lsum"),
    "pmr": ("PMR", "lsum"),
    "mslr": ("MSLR", "lsum"),
    "amst_alternating": ("AMST-ALT", "msum"),
    "amst_joint": ("AMST-JOINT", "concat"),
    "amst_full": ("AMST-FULL", "concat"),
}


class Pictures(nn.Module):
    """ResNet-18 on frames or a spectrum, averaged over everything."""

    def __init__(self, channels, width=512):
        super().__init__()
        self.basic_resnet18 = resnet18()
        self.basic_resnet18.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        del self.basic_resnet18.fc
        if width != 512:
            self.out_conv = nn.Conv2d(512, width, 1, bias=False)

    def forward(self, inputs):
        net = self.basic_resnet18
        frames = inputs.unsqueeze(2) if inputs.dim() == 4 else inputs
        total = 0
        for frame in frames.unbind(2):
            maps = net.maxpool(net.relu(net.bn1(net.conv1(frame))))
            maps = net.layer4(net.layer3(net.layer2(net.layer1(maps))))
            maps = self.out_conv(maps) if hasattr(self, "out_conv") else maps
            total = total + maps.mean((2, 3))
        return total / frames.shape[2]


class Text(nn.Module):
    def __init__(self, folder):
        super().__init__()
        from transformers import RobertaModel

        self.model = RobertaModel.from_pretrained(folder)

    def forward(self, inputs):
        ids, mask = inputs
        return self.model(ids, attention_mask=mask).last_hidden_state[:, 0]


class Fusion(nn.Module):
    def __init__(self, kind, letters, width, classes):
        super().__init__()
        if kind == "msum":
            self.fc = nn.Linear(width, classes)
            return
        if kind == "concat":
            self.bias = nn.Parameter(torch.randn(classes))
        self.out_layers = nn.ModuleDict(
            {letter: nn.Linear(width, classes, bias=kind == "lsum") for letter in letters}
        )

    def forward(self, embeddings):
        if hasattr(self, "fc"):
            return torch.stack([self.fc(e) for e in embeddings.values()]).mean(0)
        total = sum(self.out_layers[letter](e) for letter, e in embeddings.items())
        return total + getattr(self, "bias", 0)


class Multimodal(nn.Module):
    def __init__(self, kind, letters, classes, text=None):
        super().__init__()
        width = 768 if "t" in letters else 512
        makers = {
            "a": lambda: Pictures(1, width),
            "v": lambda: Pictures(3, width),
            "t": lambda: Text(text),
        }
        self.helpers = nn.ModuleDict({m: nn.Linear(width, classes) for m in letters})
        self.encoders = nn.ModuleDict({m: makers[m]() for m in letters})
        self.fusion = Fusion(kind, letters, width, classes)

    def forward(self, inputs):
        return self.fusion({m: encoder(inputs[m]) for m, encoder in self.encoders.items()})


class Full(nn.Module):
    def __init__(self, letters, classes, text=None):
        super().__init__()
        self.J = Multimodal("concat", letters, classes, text)
        self.A = Multimodal("msum", letters, classes, text)

    def forward(self, inputs):
        count = len(inputs)
        return (count * self.A(inputs) + self.J(inputs)) / (count + 1)


class Alone(nn.Module):
    def __init__(self, modality, classes, text=None):
        super().__init__()
        if modality == "text":
            self.text_encoder = Text(text)
        else:
            self.net = Pictures({"audio": 1, "visual": 3}[modality])
        self.fc = nn.Linear(768 if modality == "text" else 512, classes)

    def forward(self, inputs):
        ((letter, only),) = inputs.items()
        return self.fc((self.text_encoder if letter == "t" else self.net)(only))


def model_of(method, letters, classes, text=None, fusion=None):
    """A model with weights and BatchNorm statistics as after some training."""
    torch.manual_seed(7)
    if method == "amst_full":
        model = Full(letters, classes, text)
    else:
        model = Multimodal(fusion or PREFIXES[method][1], letters, classes, text)
    return _as_trained(model)


def alone(modality, classes, text=None):
    """A model of one modality."""
    torch.manual_seed(7)
    return _as_trained(Alone(modality, classes, text))


def _as_trained(model):
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(1234)
        elif buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) * 0.2 + 0.9 * name.endswith("var"))
    return model.eval()


def save(path, model, method, dataset="CREMAD", *, state=None, **args):
    """Save as the released code does: accuracies are NumPy numbers."""
    prefix, fusion = PREFIXES[method]
    line = {
        "dataset": dataset, "fusion_method": fusion, "batch_size": 64, "epochs": 100,
        "learning_rate": 0.001, "lr_decay_step": 70, "lr_decay_ratio": 0.1, "random_seed": 0,
        "save_path": "../ckpt", "prefix": prefix, "device_list": [0],
        "parallel_method": "single", "using_ploader": False, "run_test": True, "data_path": "",
        "with_tf32": False,
    }  # fmt: skip
    if method.startswith("amst"):
        line |= {"a_skip_factor": 5, "v_skip_factor": 1, "t_skip_factor": 0}
    value = {
        "model": state or model.state_dict(),
        "args": argparse.Namespace(**(line | args)),
        "best_val_acc": np.float64(0.7203),
        "best_test_acc": np.float64(0.7112),
        "epoch": 83,
    }
    torch.save(value, path)
    return path


def save_alone(path, model, modality, dataset="CREMAD", **args):
    """Save a model of one modality."""
    line = {
        "dataset": dataset, "batch_size": 64, "epochs": 100, "optimizer": "sgd",
        "learning_rate": 0.001, "lr_decay_step": 70, "lr_decay_ratio": 0.1, "random_seed": 0,
        "save_path": "../ckpt/", "modality": modality, "use_audio_augm": False, "name_prefix": "",
    }  # fmt: skip
    value = {
        "model": model.state_dict(),
        "args": argparse.Namespace(**(line | args)),
        "epoch": 40,
        "best_acc": np.float64(0.6129),
    }
    torch.save(value, path)
    return path
