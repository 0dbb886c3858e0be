"""Optional dependencies: which extra brings each, imported where they are needed."""

import importlib
from pathlib import Path
from types import ModuleType

from maqd.errors import MissingDependencyError

EXTRAS = {
    "PIL": "images",
    "torch": "train",
    "lightning": "train",
    "yaml": "train",
    "rich": "train",
    "tensorboard": "train",
    "matplotlib": "train",
    "sklearn": "train",
    "datasets": "train",
    "pyarrow": "train",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "peers",
    "gguf": "gguf",
    "huggingface_hub": "hub",
    "submitit": "cluster",
    **dict.fromkeys(("h5py", "loguru", "nir", "nirtorch", "norse", "snntorch", "spikingjelly"), "spiking"),
}
"""Extra of this package that brings each module."""


def require(module: str, what: str) -> ModuleType:
    """Imports `module`.

    Raises:
        MissingDependencyError: It is not installed; `what` names the feature that needs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise missing(package, what) from error


def missing(module: str, what: str) -> MissingDependencyError:
    """The error that says what needs `module`, and how to install it."""
    return MissingDependencyError(f"{what} needs {module}, which is not installed; {remedy(module)}")


def remedy(module: str) -> str:
    """The command that installs a module: from the checkout that this package runs from, or from an index."""
    extra = EXTRAS.get(module.partition(".")[0])
    if extra is None:
        return f"pip install {module}"
    checkout = Path(__file__).parents[2]
    if (checkout / "pyproject.toml").exists() and (checkout / "csrc").exists():
        return f'pip install --editable "{checkout}[{extra}]"'
    return f'pip install "maqd[{extra}]"'
