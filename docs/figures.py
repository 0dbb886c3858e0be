"""Draws the pictures of the documentation from a network trained for the purpose.

    python docs/figures.py

Trains the digits network (M_w=3, M_a=4) for a few epochs and follows one channel of one layer: real weights to codes,
codes to integer accumulators, accumulators through thresholds to codes.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F

from maqd.data import DataConfig, Source, open_data
from maqd.models import VGG, Architecture, ModelConfig, build_model
from maqd.nn import QuantConfig, Surrogate
from maqd.nn.functional import weight_standardize
from maqd.nn.surrogate import surrogate_gradient

mpl.use("Agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).parent / "images"
INK, ACCENT, WARM, PALE = "#1b2a41", "#2f6f9f", "#d1693f", "#c9d6df"


def trained() -> tuple[VGG, torch.Tensor]:
    """A digits network after ten epochs, and test images."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = open_data(DataConfig(source=Source.DIGITS, batch_size=64), seed=0)
    config = ModelConfig(architecture=Architecture.DIGITS, quant=QuantConfig())
    model = build_model(config, in_channels=1, num_classes=10, image_size=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    loader = data.train_loader()
    for epoch in range(10):
        loader.set_epoch(epoch)
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    images, _ = next(iter(data.test_loader()))
    if not isinstance(model, VGG):
        raise TypeError("the digits network is a VGG")
    return model, images


def tensor_picture() -> None:
    """What happens to a tensor: four panels in a row."""
    model, images = trained()
    block = model.features[0]
    with torch.no_grad():
        codes_in = model.stem(model.input(images))
        accumulator = torch.round(block.conv(codes_in) / block.conv.accumulator_unit).long()
        block.act(block.conv(codes_in))
    thresholds = (block.act.thresholds / block.conv.accumulator_unit).ceil().long()
    spread = (thresholds[-1] - thresholds[0]).double()
    channel = int(torch.argsort((spread - spread.median()).abs() + 1e3 * (block.act.signs < 0))[0])
    values = accumulator[:, channel].flatten().numpy()
    cuts = thresholds[:, channel].numpy()

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.9), constrained_layout=True)
    weights, acc, code, grad = axes

    standard = weight_standardize(block.conv.weight.detach()).flatten().numpy()
    step = block.conv.step
    bins = np.linspace(-3.5, 3.5, 71)
    weights.hist(standard, bins=bins, color=PALE)
    for cut in (-step / 2, step / 2):
        weights.axvline(cut, color=WARM, lw=1.5)
    top = weights.get_ylim()[1] * 1.12
    for at, text in ((-step * 1.4, "-1"), (0, "0"), (step * 1.4, "+1")):
        weights.text(at, top * 0.93, text, ha="center", color=INK, fontsize=13, weight="bold")
    weights.set_ylim(0, top)
    weights.set_title("1. weights, standardized per filter,\nare cut into M_w = 3 codes")
    weights.set_xlabel("standard deviations")
    weights.set_yticks([])

    low, high = np.percentile(values, [0.2, 99.8])
    edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    acc.hist(values, bins=edges, color=ACCENT)
    acc.set_title("2. convolving codes with codes gives\nintegers (one channel shown)")
    acc.set_xlabel("accumulator")
    acc.set_yticks([])
    for k, cut in enumerate(cuts):
        acc.axvline(cut - 0.5, color=WARM, lw=1.5)
        acc.text(cut, acc.get_ylim()[1] * (0.95 - 0.09 * k), f" x >= {cut}", color=WARM, fontsize=9)

    line = np.arange(np.floor(low), np.ceil(high) + 1)
    code.step(line, (line[:, None] >= cuts).sum(1), where="mid", color=INK, lw=2)
    code.set_yticks([0, 1, 2, 3])
    code.set_ylabel("activation code")
    code.set_xlabel("accumulator")
    code.set_title("3. normalization and activation are\nthose M_a - 1 = 3 comparisons")
    shares = np.bincount((values[:, None] >= cuts).sum(1), minlength=4) / len(values)
    for k, share in enumerate(shares):
        code.text(line[0], k + 0.08, f"{k}: {share:.0%} of positions", ha="left", color=ACCENT)
    code.set_ylim(-0.2, 3.5)

    v = torch.linspace(-1.5, 5.5, 701, dtype=torch.float64)
    grad.step((v - 0.5).numpy(), torch.floor(v).clamp(0, 3).numpy(), color=PALE, lw=2, label="code")
    phi = surrogate_gradient(v, 4, Surrogate())
    grad.plot((v - 0.5).numpy(), phi.numpy(), color=WARM, lw=2, label="gradient used")
    grad.set_title("4. training uses the staircase forward\nand a surrogate gradient backward")
    grad.set_xlabel("normalized value / step")
    grad.set_ylim(-0.2, 3.5)
    grad.legend(frameon=False, loc="upper left")

    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(11)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "tensor.png", dpi=110)


if __name__ == "__main__":
    tensor_picture()
