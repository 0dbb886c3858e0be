"""The trained networks of MLPerf Tiny, converted without training: how often they give the float network's answer.

    python benchmarks/reference_networks.py --tiny DIR --path CIFAR10 --keywords DIR [--networks ic kws vww]

DIR of `--tiny` is a checkout of github.com/mlcommons/tiny (Apache-2.0), whose trained float weights are read into the
modules of examples/mlperf_tiny. `ic` is tested on CIFAR-10 (a folder of train and test .parquet files); `kws` on every
other of the 1,000 inputs of 49 x 10 bytes of github.com/eembc/energyrunner (`--keywords`; EEMBC's, for measuring only);
the others calibrate. `vww` has no data here: it gets CIFAR-10's images, three times as large, and only its agreement
with the float network means something. The data of the autoencoder and of the streaming network are not to be had
without their owners' downloads. Nothing of all these is part of this package.

Each network is converted at several states, its weights rounded each by itself and along 512 training samples. The
native engine gives the answers. NET_STATES_ROUNDING_lost_ratio is the share that is not the float network's.
"""

import csv
import importlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

import maqd
from harness import machine, options_parser, print_json, print_machine
from maqd.convert import ConversionConfig, Rounding
from maqd.convert.pixels import FromPixels
from maqd.data import DataConfig, Source, open_data
from maqd.runtime import ENGINES

FOLDER = Path(__file__).parents[1] / "examples" / "mlperf_tiny"
TRAINED = "benchmark/training"
KEYWORD_SCALE, KEYWORD_ZERO = 0.5847029089927673, 83
"""Of the input of the reference's int8 network, in whose units the keyword inputs are."""

POINTS = ((255, 256), (16, 16), (7, 8), (7, 256), (3, 256), (3, 8))
"""States of weights and activations."""

BATCH = 100

CLASSES = (("ds_cnn", "DSCNN"), ("mobilenet", "MobileNet"), ("resnet8", "ResNet8"))
"""Modules and classes of examples/mlperf_tiny."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of the reference.

    Args:
        kernel: Of a convolution (H x W x I x O), a depthwise one (H x W x C x 1), or a dense layer (I x O).
        bias: Of it.
        norm: gamma, beta, mean and variance of a normalization, in place of both.
    """

    kernel: Tensor | None = None
    bias: Tensor | None = None
    norm: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a converted network gave.

    Args:
        network, weights, activations, rounding: Which.
        right: Share of right answers; None without labels.
        same: Share of the float network's answers.
        samples: That were tested.
        seconds: Of the conversion.
    """

    network: str
    weights: int
    activations: int
    rounding: str
    right: float | None
    same: float
    samples: int
    seconds: float


def keras_layers(path: Path) -> list[Layer]:
    """The layers of a Keras file, in order."""
    found = []
    with h5py.File(path) as file:
        weights: Any = file["model_weights"]
        for name in weights.attrs["layer_names"]:
            tensors: dict[str, Tensor] = {}
            for key in weights[name].attrs["weight_names"]:
                tensors[str(key, "utf-8").rpartition("/")[2].partition(":")[0]] = torch.from_numpy(
                    np.array(weights[name][key])
                )
            if tensors:
                found.append(layer_of(tensors))
    return found


def layer_of(tensors: dict[str, Tensor]) -> Layer:
    """A layer from its variables."""
    if "gamma" in tensors:
        return Layer(norm=tuple(tensors[key] for key in ("gamma", "beta", "moving_mean", "moving_variance")))
    return Layer(kernel=tensors.get("kernel", tensors.get("depthwise_kernel")), bias=tensors.get("bias"))


def varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, place


def entries(table: bytes, handle: bytes) -> Iterator[tuple[str, bytes]]:
    """Keys and values of a block of a sorted table."""
    start, place = varint(handle, 0)
    size, _ = varint(handle, place)
    block = table[start : start + size]
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    place, key = 0, b""
    while place < end:
        shared, place = varint(block, place)
        own, place = varint(block, place)
        length, place = varint(block, place)
        key = key[:shared] + block[place : place + own]
        place += own
        yield key.decode(), block[place : place + length]
        place += length


def message(data: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer."""
    found: dict[int, list[Any]] = {}
    place = 0
    while place < len(data):
        tag, place = varint(data, place)
        value: Any
        if tag & 7 == 0:
            value, place = varint(data, place)
        else:
            size, place = varint(data, place) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], place)
            value = data[place : place + size]
            place += size
        found.setdefault(tag >> 3, []).append(value)
    return found


def bundle_layers(folder: Path) -> list[Layer]:
    """The layers of a TensorFlow checkpoint of a Keras network, in order."""
    table = (folder / "variables.index").read_bytes()
    data = (folder / "variables.data-00000-of-00001").read_bytes()
    foot, place = table[-48:], 0
    for _ in range(2):
        _, place = varint(foot, place)
    layers: dict[int, dict[str, Tensor]] = {}
    for _, handle in entries(table, foot[place:]):
        for key, value in entries(table, handle):
            first, _, rest = key.partition("/")
            if not first.startswith("layer_with_weights-") or "OPTIMIZER" in key:
                continue
            fields = message(value)
            sizes = [message(part).get(1, [0])[0] for part in message(fields[2][0]).get(2, [])]
            start = int(fields.get(4, [0])[0])
            array = np.frombuffer(data, np.float32, int(np.prod(sizes)), start).reshape(sizes)
            layers.setdefault(int(first.rpartition("-")[2]), {})[rest.partition("/")[0]] = torch.from_numpy(
                array.copy()
            )
    return [layer_of(layers[number]) for number in sorted(layers)]


@torch.no_grad()
def fill(model: nn.Module, layers: list[Layer]) -> nn.Module:
    """Gives a network of examples/mlperf_tiny the reference's weights."""
    kernels = [layer for layer in layers if layer.kernel is not None]
    norms = [layer.norm for layer in layers if layer.norm]
    ahead: Tensor | None = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            layer = kernels.pop(0)
            kernel = layer.kernel
            assert kernel is not None
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            order = (1, 0) if kernel.ndim == 2 else (2, 3, 0, 1) if groups > 1 else (3, 2, 0, 1)
            module.weight.copy_(kernel.permute(order))
            ahead = None
            if module.bias is not None and layer.bias is not None:
                module.bias.copy_(layer.bias)
            elif layer.bias is not None:
                ahead = layer.bias
        elif isinstance(module, nn.BatchNorm2d):
            gamma, beta, mean, variance = norms.pop(0)
            module.weight.copy_(gamma)
            module.bias.copy_(beta)
            module.running_mean.copy_(mean if ahead is None else mean - ahead)  # pyright: ignore[reportOptionalMemberAccess]
            module.running_var.copy_(variance)  # pyright: ignore[reportOptionalMemberAccess]
            module.eps = 1e-3
    if kernels or norms:
        raise RuntimeError(f"{len(kernels)} kernels and {len(norms)} normalizations are left over")
    return model.eval()


class FromFeatures(nn.Module):
    """A network behind int8 features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x.float() - KEYWORD_ZERO) * KEYWORD_SCALE)


def images(path: str, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """512 training images of CIFAR-10, some test images, and their labels."""
    data = open_data(DataConfig(source=Source.CIFAR10, path=path, batch_size=512, eval_batch_size=BATCH), seed=0)
    calibrate = next(iter(data.train_loader()))[0]
    tested = [(x, y) for x, y in data.test_loader()][: -(-count // BATCH)]
    return calibrate, torch.cat([x for x, _ in tested])[:count], torch.cat([y for _, y in tested])[:count]  # pyright: ignore[reportReturnType, reportArgumentType]


def keywords(folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs to calibrate on, inputs to test, and the labels of those."""
    folder = folder / "datasets" / "kws01"
    rows = list(csv.reader((folder / "y_labels.csv").read_text().splitlines()))
    x = torch.from_numpy(np.stack([np.fromfile(folder / row[0], np.int8).reshape(1, 49, 10) for row in rows]))
    labels = torch.tensor([int(row[2]) for row in rows])
    return x[1::2], x[::2], labels[::2]


def answers(model: nn.Module, x: Tensor) -> Tensor:
    """Classes of a float network."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(BATCH)])


def tested(
    name: str, model: nn.Module, data: tuple[Tensor, Tensor, Tensor | None], point: tuple[int, int], rounding: Rounding
) -> Found:
    """A converted network's answers."""
    calibrate, x, labels = data
    weights, activations = point
    start = time.perf_counter()
    config = ConversionConfig(weights=weights, activations=activations, rounding=rounding)
    converted = maqd.convert(model, calibrate[:1], config, calibrate=[calibrate]).model
    seconds = time.perf_counter() - start
    engine = ENGINES["native"].make(maqd.lower(converted, calibrate[:1]).graph, threads=1)
    found = torch.cat([torch.from_numpy(np.asarray(engine.scores(part.numpy()))).argmax(1) for part in x.split(BATCH)])
    return Found(
        network=name,
        weights=weights,
        activations=activations,
        rounding=rounding.value,
        right=None if labels is None else float((found == labels).double().mean()),
        same=float((found == answers(model, x)).double().mean()),
        samples=len(x),
        seconds=seconds,
    )


def main() -> int:
    """Measures and prints; the exit status."""
    parser = options_parser(__doc__)
    parser.add_argument("--tiny", type=Path, required=True, help="checkout of mlcommons/tiny")
    parser.add_argument("--path", help="folder of CIFAR-10")
    parser.add_argument("--keywords", type=Path, help="checkout of eembc/energyrunner")
    parser.add_argument("--networks", nargs="+", choices=("ic", "kws", "vww"), default=["ic", "kws", "vww"])
    parser.add_argument("--points", nargs="+", default=[f"{w},{a}" for w, a in POINTS], help="M_w,M_a")
    parser.add_argument("--images", type=int, default=2000, help="test images of CIFAR-10 (2000)")
    options = parser.parse_args()
    sys.path.insert(0, str(FOLDER))
    torch.set_num_threads(1)
    classes = {name: getattr(importlib.import_module(module), name) for module, name in CLASSES}
    trained, results = options.tiny / TRAINED, list[Found]()
    figures: dict[str, object] = {}
    if not options.json:
        print_machine(machine())
        print("| network | states | rounding | right, % | float network's answers, % | samples | seconds to convert |")
        print("|" + "---|" * 7)
    for name in options.networks:
        data: tuple[Tensor, Tensor, Tensor | None]
        if name == "kws":
            layers = bundle_layers(trained / "keyword_spotting/trained_models/kws_ref_model/variables")
            model, data = FromFeatures(fill(classes["DSCNN"](), layers)).eval(), keywords(options.keywords)
        else:
            data = images(options.path, options.images if name == "ic" else options.images // 4)
            network, file = classes["ResNet8"](), "image_classification/trained_models/pretrainedResnet.h5"
            if name == "vww":
                network, file = classes["MobileNet"](), "visual_wake_words/trained_models/vww_96.h5"
                larger = [part.repeat_interleave(3, 2).repeat_interleave(3, 3) for part in data[:2]]  # pyright: ignore[reportOptionalMemberAccess]
                data = larger[0], larger[1], None
            std = 1.0 if name == "vww" else 1 / 255  # the reference's networks of images take 0 .. 1, and 0 .. 255
            model = FromPixels(fill(network, keras_layers(trained / file)), (0.0,), (std,)).eval()
        right = None if data[2] is None else float((answers(model, data[1]) == data[2]).double().mean())
        figures[f"{name}_float"] = right
        if not options.json:
            print(f"| {name} | float | | {'' if right is None else f'{right:.1%}'} | | {len(data[1])} | |", flush=True)
        for text in options.points:
            weights, activations = (int(part) for part in text.split(","))
            for rounding in Rounding:
                found = tested(name, model, data, (weights, activations), rounding)
                results.append(found)
                key = f"{name}_{weights}_{activations}_{rounding.value}_lost_ratio"
                figures[key] = 1 - found.same
                if not options.json:
                    right = "" if found.right is None else f"{found.right:.1%}"
                    print(
                        f"| {name} | {weights}, {activations} | {rounding.value} | {right} | {found.same:.1%} | "
                        f"{found.samples} | {found.seconds:.1f} |",
                        flush=True,
                    )
    if options.json:
        print_json(machine(), {**figures, "results": [asdict(found) for found in results]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
