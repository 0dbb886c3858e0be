"""The command line: `maqd COMMAND ...`. Importing this, and `maqd --help`, needs nothing but Python."""

import contextlib
import enum
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from maqd.cli.options import UsageError
from maqd.errors import MaqdError, advice, disk_is_full
from maqd.machine import rank
from maqd.optional import EXTRAS, remedy
from maqd.settings.tree import unknown_key

HELP = """\
usage: maqd COMMAND [OPTIONS]

Very low-bit neural networks, trained in PyTorch and run as the same integers everywhere.

commands:
  demo    train the digits networks, print a table, save a picture
  train   train a network from a recipe or a YAML file into a run directory
  eval    repeat the test accuracy of a run
  convert turn a trained float network into an integer graph without training it
  mix     choose the states of each layer for a budget
  check   say what stands between a network and its integer graph
  lower   turn a run into an integer graph, a .maqd file, with proof
  verify  compare PyTorch, NumPy, the native engine, ONNX Runtime, C and simulators on it, tensor by tensor
  run     compute its outputs for images and arrays
  info    print its layers, states, bytes and multiplications
  generate continue a text with a language model
  spikes  run it as a spiking network, and count the spikes that are not its integers
  export  write it as ONNX, QONNX, NIR or a C99 program
  report  show what a network does, in one HTML page
  experiment  repeat an experiment of the papers: results, table, picture
  recipes list the recipes that `maqd train` knows
  bench   measure the native engine, beside other runtimes, or the C program on a microcontroller

`maqd COMMAND --help` shows a command's options.
"""


class Command(enum.Enum):
    """What `maqd` can do."""

    DEMO = "demo"
    TRAIN = "train"
    EVAL = "eval"
    CONVERT = "convert"
    MIX = "mix"
    CHECK = "check"
    LOWER = "lower"
    VERIFY = "verify"
    RUN = "run"
    INFO = "info"
    GENERATE = "generate"
    SPIKES = "spikes"
    EXPORT = "export"
    REPORT = "report"
    EXPERIMENT = "experiment"
    RECIPES = "recipes"
    BENCH = "bench"


_MODULES = {
    Command.DEMO: "maqd.cli.demo",
    Command.TRAIN: "maqd.cli.train",
    Command.EVAL: "maqd.cli.evaluate",
    Command.CONVERT: "maqd.cli.convert",
    Command.MIX: "maqd.cli.mix",
    Command.CHECK: "maqd.cli.check",
    Command.LOWER: "maqd.cli.lower",
    Command.VERIFY: "maqd.cli.verify",
    Command.RUN: "maqd.cli.run",
    Command.INFO: "maqd.cli.info",
    Command.GENERATE: "maqd.cli.generate",
    Command.SPIKES: "maqd.cli.spikes",
    Command.EXPORT: "maqd.cli.export",
    Command.REPORT: "maqd.cli.report",
    Command.EXPERIMENT: "maqd.cli.experiment",
    Command.RECIPES: "maqd.cli.recipes",
    Command.BENCH: "maqd.cli.bench",
}
"""Where each command is; imported when it is asked for, so that those without PyTorch need none."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: Without the program's name; those of the process by default.

    Returns:
        The exit status: 0, 1 after an error, 2 after a wrong option, 128 + the signal that stopped a run.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files and classes may hold what the terminal cannot show; that must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = _run(given)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a full disk can still be told
        return status
    except MaqdError as error:
        message = str(error)
        return _fail(message.partition("\n")[0] if error.details else message, 1, error.details)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        return _fail(f"maqd {given[0]} needs {error.name}, which is not installed; {remedy(str(error.name))}", 1)
    except BrokenPipeError:
        _discard_output()  # its reader has gone
        return 1
    except OSError as error:
        # Files are named; what is printed has no name.
        where = f"{error.filename}: " if error.filename else ""
        if disk_is_full(error) and not where:
            _discard_output()
            where = "standard output: "
        return _fail(f"{where}{error.strerror or error}; {advice(error, 'check the path and its permissions')}", 1)
    except MemoryError as error:
        told = f": {error}" if str(error) else ""
        return _fail(f"memory is not enough{told}; take fewer samples at a time, or smaller ones", 1)
    except KeyboardInterrupt:
        return 130


def _run(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if given else 2
    if given[0] == "--version":
        print(_version())
        return 0
    return _dispatch(given[0], given[1:])


def _discard_output() -> None:
    """Let what could not be printed go nowhere: Python would report that again when it flushes at exit."""
    with contextlib.suppress(OSError, AttributeError):  # none, or none of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _dispatch(name: str, arguments: list[str]) -> int:
    commands = {command.value: command for command in Command}
    if name not in commands:
        return _fail(unknown_key(name, list(commands), what="command"), 2)
    try:
        return importlib.import_module(_MODULES[commands[name]]).command(arguments)
    except UsageError as error:
        return _fail(f"{error} (see maqd {name} --help)", 2)


def _version() -> str:
    """The version, and which compiled parts were built."""
    from maqd import __path__, __version__
    from maqd.runtime.native import native_module

    module = native_module()
    engine = "not built" if module is None else ", ".join(module.isas())
    training = any((Path(folder) / "maqd_train.so").exists() for folder in __path__)
    return f"maqd {__version__} (native engine: {engine}; training kernels: {'built' if training else 'not built'})"


def _fail(message: str, status: int, details: Sequence[str] = ()) -> int:
    """Print a message in one line, and further ones below it."""
    place = f"[process {rank()}] " if rank() else ""
    lines = [f"maqd: error: {place}{' '.join(message.split())}", *(f"  {' '.join(text.split())}" for text in details)]
    print("\n".join(lines), file=sys.stderr, flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
