"""What a training run is made from. Values only: no tensors, no files."""

import enum
import math
from dataclasses import dataclass, field

from maqd.errors import ConfigError
from maqd.numerics.limits import MOST_THREADS
from maqd.numerics.states import FEW_STATES
from maqd.settings.data import DataConfig
from maqd.settings.model import ModelConfig


class Optimizer(enum.Enum):
    """Which optimizer."""

    SGD = "sgd"
    """Stochastic gradient descent with Nesterov momentum."""
    ADAMW = "adamw"
    """Adam with decoupled weight decay."""
    RMSPROP = "rmsprop"
    """RMSprop with momentum."""


class Schedule(enum.Enum):
    """How the learning rate moves, step by step; formulas in `maqd.training.optim.learning_rate_factor`."""

    CONSTANT = "constant"
    COSINE = "cosine"
    ONE_CYCLE = "one_cycle"


class Device(enum.Enum):
    """Where to compute."""

    AUTO = "auto"
    """A CUDA device if there is one, else the CPU."""
    CPU = "cpu"
    CUDA = "cuda"


def _require(condition: bool, name: str, invariant: str, value: object) -> None:
    if not condition:
        raise ConfigError(f"{name} must be {invariant}, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and schedule.

    Args:
        optimizer: Which optimizer.
        lr: Peak learning rate.
        weight_decay: Decay of parameters with two or more dimensions; norms' affine parameters and biases have none.
        momentum: Momentum of sgd and rmsprop.
        beta1: Decay rate of AdamW's mean of gradients.
        beta2: Decay rate of AdamW's mean of squared gradients, and rmsprop's.
        eps: Added to the root of the mean square by adamw and rmsprop.
        schedule: How the learning rate moves.
        warmup: Fraction of all steps in which the learning rate rises; not used by the constant schedule.
        gradient_clip: Largest global L2 norm of the gradient; null for no limit.
        accumulate: Batches per optimizer step.
    """

    optimizer: Optimizer = Optimizer.ADAMW
    lr: float = 4e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    schedule: Schedule = Schedule.ONE_CYCLE
    warmup: float = 0.15
    gradient_clip: float | None = None
    accumulate: int = 1

    def __post_init__(self) -> None:
        _require(math.isfinite(self.lr) and self.lr > 0, "optim.lr", "positive", self.lr)
        _require(self.weight_decay >= 0, "optim.weight_decay", "zero or positive", self.weight_decay)
        for name in ("momentum", "beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"optim.{name}", "in [0, 1)", getattr(self, name))
        _require(self.eps > 0, "optim.eps", "positive", self.eps)
        _require(0 <= self.warmup < 1, "optim.warmup", "a fraction of all steps in [0, 1)", self.warmup)
        if self.gradient_clip is not None:
            _require(self.gradient_clip > 0, "optim.gradient_clip", "positive or null", self.gradient_clip)
        _require(self.accumulate >= 1, "optim.accumulate", "at least 1", self.accumulate)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where and how the numbers are computed.

    Args:
        device: Kind of device.
        devices: Processes on this machine, one per device; taken from the environment below torchrun.
        nodes: Machines; taken from the environment below torchrun.
        bf16: Forward pass of training steps under bfloat16 autocast. Evaluation is always fp32.
        compile: Run training steps through torch.compile.
        threads: CPU threads per process; null keeps PyTorch's number.
    """

    device: Device = Device.AUTO
    devices: int = 1
    nodes: int = 1
    bf16: bool = False
    compile: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        _require(self.devices >= 1, "compute.devices", "at least 1", self.devices)
        _require(self.nodes >= 1, "compute.nodes", "at least 1", self.nodes)
        threads = f"1 .. {MOST_THREADS} or null"
        _require(self.threads is None or 1 <= self.threads <= MOST_THREADS, "compute.threads", threads, self.threads)


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """What a run starts from.

    Args:
        run: Directory of a float run of the same architecture and width, or a checkpoint: its weights are the first
            ones, fitted to the states of this run (`maqd.training.warm_start`). null starts from random weights.
        batches: Training batches that the fit and the first running statistics are taken from.
    """

    run: str | None = None
    batches: int = 8

    def __post_init__(self) -> None:
        _require(self.batches >= 1, "init.batches", "at least 1", self.batches)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run.

    Args:
        seed: Determines initial weights, the order of images and their augmentation. On a CPU the same seed and
            number of threads give the same run bit for bit.
        run: Directory of the run; null takes runs/NAME, where NAME is that of the configuration file.
        epochs: Passes over the training set.
        loss: package.module:function from outputs and targets to a scalar; null is cross-entropy of logits and labels.
        metric: package.module:function from outputs and targets to a number for each sample, or to the mean of a batch;
            it is evaluated with the loss, whose minimum then selects the best checkpoint. null is the accuracy.
        lowerable: Whether a network of your own with quantized layers must be one that can be lowered. false trains it
            whatever `maqd check` says of it.
        label_smoothing: Probability mass spread evenly over all classes, with cross-entropy.
        ema_decay: Decay of the moving average of the weights that is evaluated and saved beside them; null for none.
        log_every: Optimizer steps between two lines of training metrics.
        evaluate_every: Epochs between two evaluations; the last epoch is always evaluated. `epochs` reads the test set
            once, and saves up to a third of the time of small networks.
        model: The network.
        data: The data set.
        optim: Optimizer and schedule.
        compute: Devices and precision.
        init: What the weights start from.
    """

    seed: int = 0
    run: str | None = None
    epochs: int = 10
    loss: str | None = None
    metric: str | None = None
    lowerable: bool = True
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    log_every: int = 50
    evaluate_every: int = 1
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    init: InitConfig = field(default_factory=InitConfig)

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**63, "seed", "in 0 .. 2**63 - 1", self.seed)
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(0 <= self.label_smoothing < 1, "label_smoothing", "in [0, 1)", self.label_smoothing)
        plain = self.loss is None or self.label_smoothing == 0
        _require(plain, "label_smoothing", f"0 with the loss {self.loss}", self.label_smoothing)
        _require(self.ema_decay is None or 0 < self.ema_decay < 1, "ema_decay", "in (0, 1) or null", self.ema_decay)
        _require(self.log_every >= 1, "log_every", "at least 1", self.log_every)
        _require(self.evaluate_every >= 1, "evaluate_every", "at least 1", self.evaluate_every)
        most = self.model.quant.most_act_states
        exact = not self.compute.bf16 or most <= FEW_STATES
        _require(exact, "compute.bf16", f"false with {most} states of an activation: bfloat16 holds {FEW_STATES}", True)

    @property
    def functions(self) -> dict[str, str]:
        """The functions of modules outside this package that it names, by dotted option."""
        named = {
            "model.function": self.model.function,
            "data.function": self.data.function,
            "loss": self.loss,
            "metric": self.metric,
        }
        return {key: place for key, place in named.items() if place is not None}

    @property
    def classifies(self) -> bool:
        """Whether the loss is cross-entropy, and right answers are counted."""
        return self.loss is None and self.metric is None


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What may differ between a run and the evaluation of its checkpoint.

    Args:
        data: The data set.
        compute: Device and threads; a single process evaluates.
    """

    data: DataConfig = field(default_factory=DataConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
