"""Networks on vectors, sensor windows and several inputs, with several outputs: trained, lowered, equal everywhere."""

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agreement import assert_equal_everywhere, lowered
from torch import Tensor, nn

from maqd import States
from maqd.errors import ConfigError, DataError, LoweringError
from maqd.graph import Storage
from maqd.lowering import lower
from maqd.nn import IntegerInput, LayerBatchNorm, NormActivation, QuantConv1d, Quantizer, QuantLinear
from maqd.numerics.states import Grid

FOUR = Quantizer(states=States(count=4, signed=False), step=1.0)
FINE = Grid(low=-127, high=127, exponent=-6)


class Siamese(nn.Module):
    """Float sensor windows of three channels beside 16-bit vectors; two heads, one of them nested."""

    def __init__(self) -> None:
        super().__init__()
        self.windows = IntegerInput(FINE, Storage.F32)
        self.vectors = IntegerInput(Grid(low=-2000, high=2000, exponent=-10), Storage.I16, zero=100)
        self.conv = QuantConv1d(3, 8, 5, padding=2, states=15, input_grid=FINE)
        self.act = NormActivation(LayerBatchNorm(8), FOUR)
        self.linear = QuantLinear(6, 8, states=7, input_grid=self.vectors.grid)
        self.middle = NormActivation(LayerBatchNorm(8), FOUR)
        self.scores = QuantLinear(8 * 12, 3, states=7, input_grid=FOUR.grid)
        self.value = QuantLinear(8, 1, states=7, input_grid=FOUR.grid)

    def forward(self, window: Tensor, vector: Tensor) -> dict[str, Any]:
        x = self.act(self.conv(self.windows(window)))
        y = self.middle(self.linear(self.vectors(vector)))
        return {"scores": self.scores(x.flatten(1)), "other": (self.value(y),)}


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    window = torch.randn(count, 3, 12, generator=generator) * torch.tensor([0.1, 5.0, 300.0])[:, None] + 7
    vector = torch.randint(-1900, 2101, (count, 6), generator=generator).to(torch.int16)
    return window, vector


def trained() -> Siamese:
    torch.manual_seed(0)
    network = Siamese()
    network.windows.fit([samples(64, seed) for seed in range(3)], axis=0)
    optimizer = torch.optim.AdamW(network.parameters(), 4e-3)
    losses = []
    for step in range(30):
        window, vector = samples(32, step)
        labels = (window[:, 1].mean(1) > 7).long() + (window[:, 2].mean(1) > 7).long()
        found = network(window, vector)
        loss = (
            F.cross_entropy(found["scores"], labels)
            + (found["other"][0].squeeze(1) - vector[:, 0] / 1000).square().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])
    return network.eval()


def test_floats_and_integers_train_and_lower_to_the_same_integers():
    network = trained()
    graph = lowered(network, *samples(2, 0))
    assert [node.key for node in graph.inputs] == ["window", "vector"]
    assert [node.key for node in graph.outputs] == ["scores", "other.output0"]
    assert_equal_everywhere(network, graph, *samples(100, 9), random=20)


def test_a_fitted_input_is_saved_and_copied():
    network = trained()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = Siamese()
    other.load_state_dict(torch.load(file, weights_only=True))
    window, vector = samples(8, 1)
    for again in (other.eval(), copy.deepcopy(network)):
        assert torch.equal(again(window, vector)["scores"], network(window, vector)["scores"])


def test_the_range_of_each_channel_takes_all_codes():
    data = [samples(200, seed)[0] for seed in range(2)]
    layer = IntegerInput(FINE, Storage.F32).fit(data, axis=0)
    codes = torch.cat([layer(batch) for batch in data]) / FINE.unit
    for channel in range(3):
        assert codes[:, channel].min() == -127
        assert codes[:, channel].max() == 127
    whole = IntegerInput(FINE, Storage.F32).fit(data)
    assert whole.border is not None
    assert whole.border.multiplier.shape == (1,)


def test_a_channel_that_does_not_vary_leaves_the_others_their_codes():
    data = samples(200, 0)[0]
    data[:, 1] = 4.0
    codes = IntegerInput(FINE, Storage.F32).fit([data], axis=0)(data) / FINE.unit
    assert (codes[:, 1] == 0).all()
    for channel in (0, 2):
        assert (codes[:, channel].min(), codes[:, channel].max()) == (-127, 127)


def test_ranges_that_no_border_expresses_are_refused():
    far = torch.tensor([[1e12], [1e12 + 2e5]])
    with pytest.raises(ConfigError, match="cannot be quantized together; subtract a constant"):
        IntegerInput(FINE, Storage.F32).fit([far])
    apart = torch.tensor([[0.0, 0.0], [1e-6, 1e6]])
    with pytest.raises(ConfigError, match="cannot be quantized together"):
        IntegerInput(FINE, Storage.F32).fit([apart], axis=0)


def test_images_need_no_state():
    assert IntegerInput().state_dict() == {}


def test_what_cannot_be_an_input_is_refused():
    with pytest.raises(ConfigError, match=r"codes -127 \.\. 127 plus zero 0 must fit uint8"):
        IntegerInput(FINE, Storage.U8, zero=0)
    with pytest.raises(ConfigError, match="only float32 inputs are fitted, and this one takes int16"):
        IntegerInput(FINE, Storage.I16).fit([])
    layer = IntegerInput(FINE, Storage.F32)
    with pytest.raises(DataError, match="at least one batch, got none"):
        layer.fit([])
    with pytest.raises(DataError, match="infinity or not-a-number"):
        layer.fit([torch.tensor([[1.0, float("nan")]])])
    with pytest.raises(DataError, match="does not know the range of its floats"):
        layer(torch.zeros(1, 3))
    with pytest.raises(DataError, match=r"takes int16, got torch\.float32"):
        IntegerInput(FINE, Storage.I16)(torch.zeros(1, 3))
    with pytest.raises(LoweringError, match="does not know the range of its floats; call fit"):
        lower(nn.Sequential(layer, QuantLinear(3, 2, input_grid=FINE)), torch.zeros(1, 3))
