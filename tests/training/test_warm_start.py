"""Networks of few states that start from float ones."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import Silent, elsewhere, entries
from torch import Tensor, nn
from torch.nn import functional as F

from maqd import States
from maqd.data import DataConfig, open_data
from maqd.errors import CheckpointError, ConfigError
from maqd.models import Architecture, ModelConfig, build_model
from maqd.nn import BatchNorm, Norm, NormActivation, QuantConfig, QuantConv2d, Quantizer
from maqd.settings.training import InitConfig, Schedule, TrainConfig
from maqd.training.runs import load_network
from maqd.training.warm_start import fitted_scale, quantization_error, reestimate_statistics, warm_start

FOUR = Quantizer(states=States(count=4, signed=False))
SIGNED = Quantizer(states=States(count=5, signed=True), step=0.5)


def digits(quant: QuantConfig, width: float = 0.25) -> nn.Module:
    config = ModelConfig(architecture=Architecture.DIGITS, width=width, quant=quant)
    return build_model(config, in_channels=1, num_classes=10, image_size=8)


def float_quant(norm: Norm = Norm.BN) -> QuantConfig:
    return QuantConfig(weight_states=None, act_states=None, norm=norm)


def images(count: int = 3, batch: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (batch, 1, 8, 8), dtype=torch.uint8, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(("quantizer", "codes"), [(FOUR, [0, 1, 2, 3]), (SIGNED, [-2, -1, 0, 1, 2])])
@pytest.mark.parametrize("scale", [0.25, 1.0, 2.0])
def test_values_on_a_scaled_grid_are_fitted_without_error(quantizer: Quantizer, codes: list[int], scale: float) -> None:
    values = torch.tensor(codes, dtype=torch.float32).repeat(5) * quantizer.step / scale
    assert quantization_error(values, quantizer, scale) == 0
    assert fitted_scale(values, quantizer) == scale


def test_error_is_that_of_the_rectified_value() -> None:
    values = torch.tensor([-5.0, 0.25, 9.0])
    # Codes 0, 0, 3 of step 1: errors 0, 1/4 and 6.
    assert quantization_error(values, FOUR, 1.0) == pytest.approx((0.25**2 + 6**2) / 3)
    # Scaled by 1/2: codes 0, 0, 3 mean 0, 0, 6.
    assert quantization_error(values, FOUR, 0.5) == pytest.approx((0.25**2 + 3**2) / 3)


def test_fit_of_a_gaussian_is_near_the_best_uniform_step() -> None:
    values = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    found = fitted_scale(values, FOUR)
    errors = {scale: quantization_error(values, FOUR, scale) for scale in (found * 0.9, found, found * 1.1)}
    assert min(errors, key=errors.__getitem__) == found
    assert 1.3 < found < 2.0


def test_statistics_are_plain_means_over_batches() -> None:
    network = nn.Sequential(BatchNorm(3))
    batches = [torch.randn(32, 3, 4, 4, generator=torch.Generator().manual_seed(k)) for k in range(5)]
    network.eval()
    reestimate_statistics(network, batches)
    assert not network.training
    norm = network[0]
    assert isinstance(norm, BatchNorm)
    assert norm.momentum == 0.1
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0))


@pytest.mark.parametrize("norm", [Norm.BN, Norm.LBN, Norm.LEVELLED_LBN])
def test_weights_are_carried_over_and_the_network_is_left_alone(norm: Norm) -> None:
    torch.manual_seed(0)
    float_net, network = digits(float_quant()), digits(QuantConfig(norm=norm))
    before = copy.deepcopy(network.state_dict())
    state = warm_start(network, float_net.state_dict(), images())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.load_state_dict(state)
    for name, parameter in float_net.named_parameters():
        if ".norm." not in name:
            assert torch.equal(state[name], parameter)
    scales = [state[name] for name in state if name.endswith("norm.weight")]
    assert len(scales) == 3
    for scale in scales:  # ones in the float network
        assert (scale == scale[0]).all()
    assert any(scale[0] != 1 for scale in scales)


def test_layers_are_fitted_on_what_the_layers_before_give_when_quantized() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(NormActivation(BatchNorm(1), FOUR), NormActivation(BatchNorm(1), FOUR))
    x = torch.randn(4096, 1)
    state = warm_start(network, network.state_dict(), [x])
    first, second = (float(state[f"{k}.norm.weight"]) for k in (0, 1))
    assert first == pytest.approx(fitted_scale((x - x.mean()) / x.std(), FOUR))
    codes = torch.clamp(torch.floor(first * (x - x.mean()) / x.std() + 0.5), 0, 3)
    assert second == pytest.approx(fitted_scale((codes - codes.mean()) / codes.std(), FOUR))


def test_a_trained_network_keeps_most_of_its_answers() -> None:
    torch.manual_seed(0)
    data = open_data(DataConfig(batch_size=64), seed=0)
    float_net = digits(float_quant(), width=1.0)
    optimizer = torch.optim.Adam(float_net.parameters(), lr=5e-3)
    for _ in range(3):
        for batch, labels in data.train_loader():
            optimizer.zero_grad()
            F.cross_entropy(float_net(batch), labels).backward()
            optimizer.step()

    def accuracy(network: nn.Module) -> float:
        network.eval()
        with torch.no_grad():
            hits = [(network(batch).argmax(1) == labels).float().mean() for batch, labels in data.test_loader()]
        return float(torch.stack(hits).mean())

    network = digits(QuantConfig(weight_states=15, act_states=16, act_step=0.25, norm=Norm.BN), width=1.0)
    start = [batch for batch, _ in data.train_loader()][:8]
    cold = accuracy(network)
    network.load_state_dict(warm_start(network, float_net.state_dict(), start))
    assert accuracy(float_net) > 0.9
    assert accuracy(network) > accuracy(float_net) - 0.1
    assert cold < 0.5


def test_a_float_network_of_another_shape_is_refused() -> None:
    network = digits(QuantConfig())
    with pytest.raises(CheckpointError, match=r"stem\.conv\.weight is \(16, 1, 3, 3\) there, \(4, 1, 3, 3\) here"):
        warm_start(network, digits(float_quant(), width=1.0).state_dict(), images())
    with pytest.raises(CheckpointError, match=r"stem\.conv\.weight is absent there"):
        warm_start(network, {}, images())


def test_batches_are_needed() -> None:
    network = digits(QuantConfig())
    with pytest.raises(ConfigError, match="got none"):
        warm_start(network, network.state_dict(), [])
    with pytest.raises(ConfigError, match="got none"):
        reestimate_statistics(nn.Sequential(QuantConv2d(1, 1, 1)), [])


def test_a_run_starts_from_another(config: TrainConfig, run: Silent) -> None:
    floats = replace(elsewhere(config, "float"), model=replace(config.model, quant=float_quant()))
    run(floats)
    constant = replace(config.optim, schedule=Schedule.CONSTANT)  # so that it can be continued
    started = replace(config, epochs=1, optim=constant, init=InitConfig(run=floats.run, batches=2))
    run(started)
    cold = replace(elsewhere(config, "cold"), epochs=1, optim=constant)
    run(cold)
    first, without = (entries(c, "train")[0]["loss"] for c in (started, cold))
    assert first < without
    assert "starting from" in run.text.getvalue()
    run(replace(started, epochs=2), resume=True)
    assert run.text.getvalue().count("starting from") == 1


def test_a_run_does_not_start_from_another_width(config: TrainConfig, run: Silent) -> None:
    wide = replace(elsewhere(config, "wide"), epochs=1, model=replace(config.model, width=0.5))
    run(wide)
    with pytest.raises(CheckpointError, match=r"last\.ckpt: the float network does not fit: .*architecture and width"):
        run(replace(config, init=InitConfig(run=wide.run)))


def test_a_run_without_rounding_is_started_from_without_a_jump(config: TrainConfig, run: Silent) -> None:
    quant = QuantConfig(weight_states=15, act_states=16, act_step=0.25, norm=Norm.BN)
    model = replace(config.model, quant=quant)
    floats = replace(elsewhere(config, "float"), model=replace(model, quant=replace(quant, rounding=False)))
    before = run(floats)
    started = replace(config, epochs=1, model=model, init=InitConfig(run=floats.run))
    run(started)
    assert entries(started, "train")[0]["loss"] < entries(floats, "train")[-1]["loss"] + 0.1
    state = load_network(Path(str(floats.run)))[0].state_dict()
    network = build_model(model, in_channels=1, num_classes=10, image_size=8)
    begun = warm_start(network, state, images(), fit=False)
    assert all(torch.equal(begun[name], state[name]) for name, _ in network.named_parameters())
    assert before.evaluation.total == 360
