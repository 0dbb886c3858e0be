"""NumPy's files: .npy with one array, .npz with several by name."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maqd.errors import DataError

SUFFIXES = (".npy", ".npz")


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a file by name; the one of a .npy file has the empty name.

    Nothing but numbers is read: arrays of Python objects are refused.

    Raises:
        DataError: The file is missing, damaged, empty, or holds something else.
    """
    try:
        # Opened here: NumPy leaves files open that it cannot read.
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return {"": found}
            with found:
                arrays = {name: found[name] for name in found.files}
    except Exception as error:
        # Damaged files raise nearly anything: BadZipFile, TokenError, MemoryError, zlib.error, NotImplementedError, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"{path} cannot be read as arrays: {reason}; save it with numpy.save or numpy.savez") from error
    if not arrays:
        raise DataError(f"{path} holds no arrays; save them by name with numpy.savez")
    return arrays
