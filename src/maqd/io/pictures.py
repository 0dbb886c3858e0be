"""Pictures that say which program drew them."""

import io
from pathlib import Path
from typing import Any

from maqd.io.files import write_atomically
from maqd.io.outputs import NAME


def save_png(path: Path, figure: Any) -> None:
    """Write a figure of matplotlib as PNG; all of it or nothing.

    Args:
        path: The file.
        figure: The figure.

    Raises:
        OSError: The file cannot be written; one that was there is untouched.
    """
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, format="png", metadata={"Software": NAME})
    write_atomically(path, [picture.getbuffer()])
