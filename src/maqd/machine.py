"""The machine and the process: where a figure was measured, and which of several processes this is."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a figure was measured.

    Args:
        cpu: The processor, as the system names it.
        architecture: Its instruction set, such as x86_64.
        processors: How many of its processors this process may use.
        python: Version of Python.
        maqd: Version of this package.
    """

    cpu: str
    architecture: str
    processors: int
    python: str
    maqd: str


def machine() -> Machine:
    """This machine."""
    return Machine(
        cpu=cpu_name(),
        architecture=platform.machine(),
        processors=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        python=platform.python_version(),
        maqd=_version("maqd"),
    )


def cpu_name() -> str:
    """The processor, as far as the system says."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = info.read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family')}, model {fields.get('model')})"


def rank() -> int:
    """Number of this process on its machine or, below torchrun, among all: 0 for the one that prints and writes."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"


def revision() -> str:
    """The commit of the source, or "unknown" outside of a checkout."""
    import subprocess  # not for every command that imports this

    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
