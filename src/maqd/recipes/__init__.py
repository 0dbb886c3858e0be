"""Named training runs, each with its reason and its measured result: `maqd recipes`, `maqd train RECIPE`.

A recipe is a value; a new one is an entry in one of the tuples below (see CONTRIBUTING.md). Needs no PyTorch.
"""

from maqd.errors import ConfigError
from maqd.recipes.cifar import CIFAR
from maqd.recipes.digits import DIGITS
from maqd.recipes.language import LANGUAGE
from maqd.recipes.micro import MICRO
from maqd.recipes.resnet8 import RESNET8
from maqd.recipes.table import Budget, Recipe, Variant
from maqd.settings.tree import unknown_key

__all__ = ["RECIPES", "Budget", "Recipe", "Variant", "recipe"]

RECIPES: tuple[Recipe, ...] = (*DIGITS, *CIFAR, *RESNET8, *MICRO, *LANGUAGE)


def recipe(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ConfigError: There is none; the message names the closest one.
    """
    for found in RECIPES:
        if found.name == name:
            return found
    raise ConfigError(f"{unknown_key(name, [known.name for known in RECIPES], what='recipe')} (see maqd recipes)")
