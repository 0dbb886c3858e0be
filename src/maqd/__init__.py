"""maqd: very low-bit neural networks, trained in PyTorch and run as the same integers everywhere.

`import maqd` needs NumPy and safetensors only. What needs PyTorch lives below `maqd.nn`, `maqd.models`,
`maqd.data` and `maqd.training`, and is imported when it is asked for.
"""

from maqd.errors import MaqdError
from maqd.states import Grid, States

__version__ = "0.1.0"

__all__ = ["Grid", "MaqdError", "States", "__version__"]
