"""Images and labels as batches: decoded once into a cache and augmented in vectorized batches, or streamed.

Everything random is a function of the seed and the position (epoch, batch, process). So training can stop anywhere and
continue with exactly the batches that were left.
"""

from maqd.data.arrays import DataInfo, ImageArrays
from maqd.optional import missing
from maqd.settings.data import AugmentConfig, DataConfig, Source

try:
    from maqd.data.dataset import Data, open_data
    from maqd.data.loaders import TestLoader, TrainLoader
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise missing("torch", "maqd.data") from error

__all__ = [
    "AugmentConfig",
    "Data",
    "DataConfig",
    "DataInfo",
    "ImageArrays",
    "Source",
    "TestLoader",
    "TrainLoader",
    "open_data",
]
