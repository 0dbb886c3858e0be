"""Inputs of layers lie where the layers were built for: found, saved, and checked with the first batch."""

import copy
import io

import pytest
import torch
from torch import nn

import maqd
from maqd import Grid, States
from maqd.errors import ConfigError
from maqd.nn import BatchNorm, IntegerInput, NormActivation, QuantConv2d, Quantizer, QuantLinear, Values
from maqd.nn.input_grid import misfit

FOUR = Quantizer(states=States(count=4, signed=False), step=0.5)
EXAMPLE = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        IntegerInput(),
        QuantConv2d(1, 4, 3, bias=True),
        NormActivation(BatchNorm(4), FOUR),
        nn.AvgPool2d(2),
        nn.Flatten(),
        QuantLinear(4, 2, bias=True),
    )


def images() -> torch.Tensor:
    return torch.randint(0, 256, (8, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_check_gives_every_layer_the_grid_of_its_input():
    model = network()
    assert maqd.check(model, EXAMPLE) == ()
    assert model[1].input_grid == IntegerInput.grid
    assert model[5].input_grid == Grid(low=0, high=12, exponent=-3)
    stated = QuantLinear(4, 2, bias=True, input_grid=Grid(low=0, high=12, exponent=-3))
    assert model[5].exponent == stated.exponent
    model(images()).sum().backward()


def test_a_layer_without_a_grid_says_what_to_do_in_training_and_evaluation():
    for model in (network(), network().eval()):
        with pytest.raises(ConfigError, match=r"^QuantConv2d\(1, 4, .* where its input lies; call maqd\.check"):
            model(images())


def test_grids_are_saved_with_the_network():
    model = network()
    maqd.check(model, EXAMPLE)
    expected = model.eval()(images())
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = network()
    early = copy.deepcopy(other)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.eval()(images()), expected)
    for value, copied in zip(model.state_dict().values(), early.state_dict().values(), strict=True):
        copied.copy_(value)  # as a moving average of the weights does
    assert torch.equal(early.eval()(images()), expected)


def test_states_saved_without_grids_load_with_what_they_were_trained_with():
    old = {"weight": torch.randn(2, 4), "bias": torch.zeros(2)}
    layer = QuantLinear(4, 2, bias=True)
    layer.load_state_dict(old)
    assert layer.input_grid == Grid(low=0, high=1, exponent=0)
    stated = QuantLinear(4, 2, bias=True, input_grid=FOUR.grid)
    assert set(stated.state_dict()) == set(old)
    stated.load_state_dict(old)


def test_a_saved_grid_must_be_that_of_a_layer_built_with_one():
    model = QuantLinear(4, 2)
    model.set_input_grid(FOUR.grid)
    QuantLinear(4, 2, input_grid=FOUR.grid).load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="input_range"):
        QuantLinear(4, 2, input_grid=Grid(low=0, high=7, exponent=0)).load_state_dict(model.state_dict())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("x", "found"),
    [
        (torch.rand(8, 6), "no multiple of 2"),
        (torch.full((8, 6), 0.25), r"0\.25, no multiple of 2\^-1"),
        (torch.arange(-24.0, 24).reshape(8, 6) / 2, r"codes -24 \.\. 23"),
    ],
)
def test_the_first_batch_must_lie_on_the_grid(x: torch.Tensor, found: str, training: bool):
    layer = QuantLinear(6, 2, input_grid=FOUR.grid).train(training)
    with pytest.raises(ConfigError, match=rf"codes 0 \.\. 3 times 2\^-1 and gets .*{found}"):
        layer(x)


def test_dropout_and_few_bits_in_training_are_no_misfit():
    torch.manual_seed(0)
    layer = QuantLinear(6, 2, input_grid=FOUR.grid)
    codes = torch.randint(0, 4, (50, 6)) * 0.5
    for p in (0.1, 0.3, 0.5, 0.75):
        copy.deepcopy(layer)(nn.functional.dropout(codes, p))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        copy.deepcopy(layer)(codes.bfloat16())
    with pytest.raises(ConfigError, match="gets"):
        layer.eval()(nn.functional.dropout(codes, 0.3))


def test_a_range_in_bfloat16_may_round_beyond_its_end():
    grid = Grid(low=0, high=1023, exponent=0)
    assert misfit(torch.full((2, 3), 1023.0).bfloat16(), grid, dropout=False) is None
    assert misfit(torch.full((2, 3), 1024.0), grid, dropout=False) == "codes 1024 .. 1024"


def test_layers_for_floats_and_float_phases_take_any_batch():
    for model in (QuantLinear(6, 2, input_grid=Values.FLOAT), QuantLinear(6, 2, input_grid=FOUR.grid)):
        maqd.nn.set_rounding(model, model.float_input)
        assert model(torch.rand(8, 6)).shape == (8, 2)


def test_another_normalization_inside_is_noticed_in_training():
    act = NormActivation(BatchNorm(4), FOUR)
    act.norm = nn.BatchNorm2d(4)
    with pytest.raises(ConfigError, match="NormActivation holds BatchNorm2d"):
        act(torch.rand(2, 4, 3, 3))
