"""Evaluation with gradients, in other dtypes, and with a part of the network frozen."""

import copy

import pytest
import torch
from torch import Tensor, nn

from maqd.errors import ConfigError
from maqd.nn import BatchNorm, IntegerInput, LayerBatchNorm, NormActivation, QuantConv2d, Quantizer, QuantLinear
from maqd.nn.functional import quantize_activation, quantize_weight
from maqd.numerics.states import States

FOUR = Quantizer(states=States(count=4, signed=False), step=0.5)
IMAGES = torch.randint(0, 256, (4, 2, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        IntegerInput(),
        QuantConv2d(2, 5, 3, bias=True, input_grid=IntegerInput.grid),
        NormActivation(BatchNorm(5), FOUR),
        QuantConv2d(5, 4, 3, input_grid=FOUR.grid),
        NormActivation(LayerBatchNorm(4), FOUR),
        nn.Flatten(),
        QuantLinear(16, 3, bias=True, input_grid=FOUR.grid),
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    net(IMAGES)
    return net


def gradients(net: nn.Module, inputs: Tensor = IMAGES) -> dict[str, Tensor]:
    net.zero_grad()
    net(inputs).square().sum().backward()
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def test_evaluation_has_the_surrogate_gradient_with_frozen_statistics():
    net = network().eval()
    statistics = {name: value.clone() for name, value in net.named_buffers()}
    conv, act = net[3], net[4]
    assert isinstance(conv, QuantConv2d)
    assert isinstance(act, NormActivation)
    x = (torch.randint(0, 4, (4, 5, 4, 4)) * FOUR.grid.unit).requires_grad_()
    out = act(conv(x))
    upstream = torch.randn(out.shape)
    found = torch.autograd.grad(out, [x, conv.weight, act.norm.weight, act.norm.bias], upstream)
    # The same by formulas: the quantized weight's gradient, the frozen affine map, the activation's surrogate.
    weight = quantize_weight(conv.weight, conv.quantizer.states, conv.quantizer.distance, 2.0**conv.exponent)
    sums = nn.functional.conv2d(x, weight)
    mean, rstd = (v.float() for v in act.norm.running_statistics())
    y = (sums - mean) * rstd * act.norm.weight[:, None, None] + act.norm.bias[:, None, None]
    reference = quantize_activation(y, FOUR)
    wanted = torch.autograd.grad(reference, [x, conv.weight, act.norm.weight, act.norm.bias], upstream)
    for gradient, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
        assert gradient.abs().max() > 0
    assert all(torch.equal(value, statistics[name]) for name, value in net.named_buffers())


def test_values_are_the_same_with_and_without_gradients():
    net = network().eval()
    with torch.no_grad():
        plain = net(IMAGES)
    recorded = net(IMAGES)
    assert recorded.requires_grad
    assert torch.equal(plain, recorded)


def test_a_foreign_normalization_is_refused_when_the_layer_is_built():
    message = r"^NormActivation needs a normalization of maqd.nn, .* got BatchNorm2d; use maqd.nn.BatchNorm or Layer"
    with pytest.raises(ConfigError, match=message):
        NormActivation(nn.BatchNorm2d(4), FOUR)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kinds", [(NormActivation,), (QuantConv2d,), (BatchNorm, LayerBatchNorm)])
def test_freezing_a_kind_of_layer_leaves_gradients_in_front_of_it(kinds: tuple[type, ...]):
    net = network().train()
    for module in net.modules():
        if isinstance(module, kinds):
            module.eval()
    found = gradients(net)
    assert set(found) == {name for name, _ in net.named_parameters()}
    assert all(float(found[name].abs().max()) > 0 for name in ("1.weight", "2.norm.weight", "3.weight", "6.weight"))


def test_saliency_maps_need_no_parameters_with_gradients():
    net = network().eval().requires_grad_(False)
    pixels = net[0](IMAGES).requires_grad_()
    (gradient,) = torch.autograd.grad(net[1:](pixels)[:, 0].sum(), pixels)
    assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("then_eval", [False, True])
def test_other_dtypes_evaluate_in_exact_integers_and_train(dtype: torch.dtype, then_eval: bool):
    net = network()
    with torch.no_grad():
        for parameter in net.parameters():  # what every dtype holds
            parameter.copy_(parameter.half().bfloat16().float())
        for buffer in net.buffers():
            buffer.copy_(buffer.half().bfloat16().float())
        expected = copy.deepcopy(net).eval()(IMAGES)
        cast = net.to(dtype).eval() if then_eval else net.eval().to(dtype)
        assert torch.equal(cast(IMAGES), expected)
    found = gradients(cast.train())
    assert all(gradient.dtype == dtype for gradient in found.values())
