"""`train`: a run from a configuration to a run directory with a trained network."""

import contextlib
import logging
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from maqd.convert.state import load_state
from maqd.data import Data, open_data
from maqd.errors import CheckpointError, ConfigError, NonFiniteError
from maqd.machine import machine
from maqd.models import check_overrides
from maqd.nn.calling import Inputs
from maqd.settings.training import Device, Schedule, TrainConfig
from maqd.settings.tree import to_plain
from maqd.training.checkpoint import (
    AtomicCheckpointIO,
    Checkpoint,
    Evaluation,
    Position,
    check_same_run,
    check_tensors,
    describe,
    evaluated_images,
    fixed_changes,
    read_checkpoint,
    write_run_file,
)
from maqd.training.converted import ConvertedNetwork, float_of
from maqd.training.ema import WeightAverage
from maqd.training.environment import Processes, below_torchrun, processes, resolve_compute
from maqd.training.interrupt import Interrupted, StopCallback, StopRequest
from maqd.training.metrics import MetricsCallback, MetricsWriter, loss_trend, read_metrics, truncate_metrics
from maqd.training.module import TrainingModule
from maqd.training.networks import example_of, fit_inputs, network_of, require_lowerable
from maqd.training.nonfinite import all_finite, locate_nonfinite
from maqd.training.objective import Objective, check_objective
from maqd.training.progress import Output, ProgressCallback
from maqd.training.recording import RecordingCallback
from maqd.training.run_directory import RunDirectory, locked, stored_options
from maqd.training.text import TextCallback
from maqd.training.warm_start import warm_start


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run came to.

    Args:
        run: Its directory.
        images: What was evaluated: "validation" for held-out samples, "test" where none are held out.
        evaluation: Result of the last epoch's weights.
        best: Best result of any epoch on held-out images; None where none are held out.
        steps: Optimizer steps.
        seconds: Wall time of this call.
        losses: Mean training losses of the first and of the last tenth of its steps; None in a run of few steps.
    """

    run: Path
    images: str
    evaluation: Evaluation
    best: Evaluation | None
    steps: int
    seconds: float
    losses: tuple[float, float] | None

    @property
    def learned(self) -> bool:
        """Whether the training loss ended lower than it began, as far as is known."""
        return self.losses is None or self.losses[1] < self.losses[0]


class CheckpointCallback(pl.Callback):
    """Saves the last checkpoint after each epoch, and the best one on held-out images if there are any.

    Args:
        run: Where to.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save an epoch that is not evaluated."""
        if not pl_module.evaluates:
            save(trainer, self.run.last)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Save; the newest of equally good results is the best."""
        found, best = pl_module.evaluation, pl_module.best
        # The test set selects nothing.
        if pl_module.config.data.validation and (best is None or found.no_worse_than(best)):
            pl_module.best = found
            save(trainer, self.run.best)
        save(trainer, self.run.last)


def save(trainer: pl.Trainer, path: Path) -> None:
    """Save a checkpoint; called by all processes, written by the first.

    Raises:
        NonFiniteError: A parameter is not finite; the file on disk is kept.
        CheckpointError: It could not be written.
    """
    network: Any = trainer.lightning_module.network
    if not all_finite(network):
        raise NonFiniteError(
            f"{locate_nonfinite(network, None)} at step {trainer.lightning_module.position.step}; "  # pyright: ignore[reportAttributeAccessIssue]
            "the last checkpoint is kept; lower optim.lr or set optim.gradient_clip and start again"
        )
    trainer.save_checkpoint(path)


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    output: Output | None = None,
    label: str = "",
    epochs_per_line: int = 1,
) -> TrainResult:
    """Train a network, or continue to.

    Args:
        config: The run; `config.run` must name its directory.
        resume: Continue the run in that directory.
        overwrite: Replace the run in that directory.
        output: Where progress goes; standard output by default.
        label: Put before each line of progress.
        epochs_per_line: Epochs between two lines of progress that stay.

    Raises:
        ConfigError: Options do not go together, or the directory is in use or holds another run.
        OutputError: The directory cannot be made or written to.
        CheckpointError: The checkpoint to resume from is damaged or belongs to another model; or none can be written.
        DataError: The data set cannot be read.
        NonFiniteError: The loss became infinite or not a number.
        Interrupted: Ctrl-C or SIGTERM, after the checkpoint was saved.
    """
    if config.run is None:
        raise ConfigError("run is not set: name the directory of the run with --run DIR")
    run = RunDirectory(Path(config.run))
    config = replace(config, compute=resolve_compute(config.compute))
    place = processes(config.compute)
    output = output or Output()
    request = StopRequest()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        if place.rank == 0:
            if resume and not overwrite and not run.path.exists():
                raise CheckpointError(f"{run.path} holds no checkpoint to resume from; start it without --resume")
            stack.enter_context(locked(run))
            run.check(resume=resume, overwrite=overwrite)
        else:
            output = Output(output.stream, silent=True)
        request.install()
        stack.callback(request.restore)
        progress = [ProgressCallback(output, label, epochs_per_line)] if place.rank == 0 else []
        for bar in progress:
            stack.callback(bar.close)
        return _train(config, run, place, request=request, output=output, progress=progress, resume=resume)


def _train(
    config: TrainConfig,
    run: RunDirectory,
    place: Processes,
    *,
    request: StopRequest,
    output: Output,
    progress: list[ProgressCallback],
    resume: bool,
) -> TrainResult:
    begin = time.monotonic()
    checkpoint = read_checkpoint(run.last) if resume else None
    if checkpoint is not None:
        check_resumable(checkpoint, config, place.world)
        if checkpoint.header.position == replace(checkpoint.header.position, epoch=config.epochs, batch=0):
            return _already_done(checkpoint, run, output)
    if config.compute.threads is not None:
        torch.set_num_threads(config.compute.threads)
    objective = Objective.of(config)
    data = open_data(
        config.data, seed=config.seed, rank=place.rank, world_size=place.world, classifies=config.loss is None
    )
    torch.manual_seed(config.seed)
    network = network_of(config.model, data.info)
    name = config.model.function or config.model.architecture.value
    if data.train_inputs is not None:
        fit_inputs(network, data.train_inputs, name)
    if config.model.function is not None and config.lowerable:
        require_lowerable(network, example_of(data.info), name)
    if config.functions or data.train_inputs is not None:
        inputs, targets = next(iter(data.test_loader()))
        check_objective(network, inputs, targets, objective, name)
    start = Position()
    if checkpoint is not None:
        check_same_run(checkpoint, config, data.info)
        if isinstance(network, ConvertedNetwork):
            network.load_state_dict(checkpoint.trained_state())  # which converts it: the optimizer needs its parameters
        check_tensors(checkpoint.path, network.state_dict(), checkpoint.trained_state())
        start = checkpoint.header.position
        output.line(f"resuming {run.path} after step {start.step}")
    else:
        if config.model.convert.state is not None and config.init.run is None:
            load_state(float_of(network), Path(config.model.convert.state))
        if isinstance(network, ConvertedNetwork):
            if place.world > 1:
                raise ConfigError("a network is converted by one process; train it with --compute.devices 1")
            if config.init.run is None:
                network.fit(first_batches(config, data))
        else:
            check_overrides(config.model.quant, network)
        if config.init.run is not None:
            start_from(config, network, data)
            output.line(f"starting from {config.init.run}")
    module = TrainingModule(
        config,
        network,
        objective=objective,
        info=data.info,
        train_loader=data.train_loader(),
        evaluation_loader=data.validation_loader() or data.test_loader(),
        start=start,
        best=checkpoint.header.best if checkpoint is not None else None,
    )
    with contextlib.ExitStack() as stack:
        writer = None
        if place.rank == 0:
            if resume:
                run.sweep()
            else:
                run.clear()  # not sooner: a run that cannot start replaces none
            run.checkpoints.mkdir(exist_ok=True)
            write_run_file(run.config, stored_options(to_plain(config)))
            truncate_metrics(run.metrics, start)
            writer = stack.enter_context(MetricsWriter(run.metrics, run.tensorboard, step=start.step))
            writer.write("start", step=start.step, **_environment(config, place))
        trainer = _trainer(module, run, place, request=request, writer=writer, progress=progress, output=output)
        _fit(trainer, module, run if resume else None, request)
    evaluation = module.evaluation
    if evaluation is None:
        raise CheckpointError(f"{run.path}: training ended without a result; resume it with --resume")
    steps = start.step + trainer.global_step
    return TrainResult(
        run=run.path,
        images=evaluated_images(config),
        evaluation=evaluation,
        best=module.best,
        steps=steps,
        seconds=time.monotonic() - begin,
        losses=loss_trend(read_metrics(run.metrics)),
    )


def first_batches(config: TrainConfig, data: Data) -> Iterator[Inputs]:
    """Training samples to fit a network to."""
    return (inputs for inputs, _ in islice(data.train_loader(), config.init.batches))


def start_from(config: TrainConfig, network: torch.nn.Module, data: Data) -> None:
    """Give a network the weights that `config.init` names, fitted to its states.

    Raises:
        CheckpointError: They cannot be read, or belong to another network.
    """
    path = Path(str(config.init.run))
    checkpoint = read_checkpoint(RunDirectory(path).last if path.is_dir() else path)
    batches = first_batches(config, data)
    try:
        if isinstance(network, ConvertedNetwork):
            state = checkpoint.network_state()
            check_tensors(checkpoint.path, network.original.state_dict(), state)
            network.original.load_state_dict(state)
            network.fit(batches)
            return
        # What was trained with the quantizers' ranges has its scales already.
        fit = checkpoint.header.config.model.quant.act_states is None
        network.load_state_dict(warm_start(network, checkpoint.network_state(), batches, fit=fit))
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error


def _trainer(
    module: TrainingModule,
    run: RunDirectory,
    place: Processes,
    *,
    request: StopRequest,
    writer: MetricsWriter | None,
    progress: list[ProgressCallback],
    output: Output,
) -> pl.Trainer:
    config = module.config
    callbacks: list[pl.Callback] = []
    if config.ema_decay is not None:
        average = WeightAverage(module.network, config.ema_decay)
        module.evaluate_with(average.network)
        callbacks.append(average)
    callbacks.append(MetricsCallback(writer, config.log_every))
    callbacks.append(RecordingCallback(writer))
    callbacks += progress
    if module.info.text:
        callbacks.append(TextCallback(writer, output))
    callbacks.append(CheckpointCallback(run))
    trainer: list[pl.Trainer] = []
    callbacks.append(StopCallback(request, lambda: save(trainer[0], run.last), check_every=config.log_every))
    trainer.append(
        pl.Trainer(
            accelerator=config.compute.device.value,
            devices=config.compute.devices,
            num_nodes=config.compute.nodes,
            strategy=DDPStrategy(broadcast_buffers=False) if place.world > 1 else "auto",
            max_epochs=config.epochs - module.start.epoch,
            accumulate_grad_batches=config.optim.accumulate,
            gradient_clip_val=config.optim.gradient_clip,
            callbacks=callbacks,
            # Named, so that what Lightning finds in the environment, such as SLURM, cannot say otherwise.
            plugins=[AtomicCheckpointIO(), TorchElasticEnvironment() if below_torchrun() else LightningEnvironment()],
            default_root_dir=run.path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
            # Layers may keep what they computed in evaluation; inference tensors could not be used in training.
            inference_mode=False,
            benchmark=config.compute.device is Device.CUDA,
        )
    )
    return trainer[0]


def _fit(trainer: pl.Trainer, module: TrainingModule, resumed: RunDirectory | None, request: StopRequest) -> None:
    try:
        trainer.fit(module, ckpt_path=resumed.last if resumed is not None else None, weights_only=True)
    except (SystemExit, KeyboardInterrupt) as error:
        # Lightning turns the second Ctrl-C into an exit.
        if request.signum:
            raise Interrupted(request.signum, saved=False) from error
        raise
    except BaseException:
        launcher = trainer.strategy.launcher
        if launcher is not None and trainer.is_global_zero and hasattr(launcher, "kill"):
            _end_children(launcher)
        raise


def _end_children(launcher: Any) -> None:
    """End the processes that Lightning started, once they had time to end on their own."""
    children = getattr(launcher, "procs", [])
    deadline = time.monotonic() + 5
    for child in children:
        with contextlib.suppress(Exception):
            child.wait(timeout=max(deadline - time.monotonic(), 0.1))
    for child in children:
        if child.poll() is None:
            child.kill()


def check_resumable(checkpoint: Checkpoint, config: TrainConfig, world: int) -> None:
    """Check that a run may continue under a configuration.

    Raises:
        CheckpointError: Its model is another.
        ConfigError: Options differ that would make it another run.
    """
    check_same_run(checkpoint, config, checkpoint.header.data)
    changes = fixed_changes(checkpoint.header.config, config)
    if changes:
        raise ConfigError(
            f"{checkpoint.path} was trained with other options: {describe(changes)}; "
            "resume without changing them or start a new run"
        )
    header = checkpoint.header
    if header.processes != world:
        raise ConfigError(
            f"{checkpoint.path} was trained by {header.processes} processes, this run has {world}; "
            f"resume with compute.devices x compute.nodes = {header.processes}"
        )
    trained = header.config.epochs
    if header.position.epoch >= trained and config.epochs > trained and config.optim.schedule is not Schedule.CONSTANT:
        raise ConfigError(
            f"{checkpoint.path} is complete: its {config.optim.schedule.value} schedule has lowered the learning rate "
            f"for the last of its {trained} epochs, and more epochs would raise it again; train a new run with "
            f"--epochs {config.epochs}, or with --optim.schedule constant one that can be continued"
        )
    if (header.position.epoch, header.position.batch) > (config.epochs, 0):
        raise ConfigError(
            f"{checkpoint.path} has done {header.position.epoch} epochs, epochs is {config.epochs}; ask for more epochs"
        )


def _already_done(checkpoint: Checkpoint, run: RunDirectory, output: Output) -> TrainResult:
    header = checkpoint.header
    if header.evaluation is None:
        raise CheckpointError(f"{checkpoint.path} says its run is complete but holds no result; train again")
    output.line(f"{run.path} is complete: nothing to resume")
    return TrainResult(
        run=run.path,
        images=header.evaluated,
        evaluation=header.evaluation,
        best=header.best,
        steps=header.position.step,
        seconds=0.0,
        losses=loss_trend(read_metrics(run.metrics)),
    )


def _environment(config: TrainConfig, place: Processes) -> dict[str, object]:
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **asdict(machine()),
        "torch": torch.__version__,
        "device": config.compute.device.value,
        "processes": place.world,
        "threads": torch.get_num_threads(),
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's notices, which speak of its own options, away from the user."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            # A convolution of one channel has two layouts with the same meaning; DDP copies its few numbers.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
