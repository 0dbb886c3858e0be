"""`maqd recipes`."""

import json

from maqd.cli.options import Options, UsageError
from maqd.cli.text import table
from maqd.errors import ConfigError
from maqd.recipes import RECIPES, recipe
from maqd.settings.tree import to_plain


def command(arguments: list[str]) -> int:
    """Run `maqd recipes`; the exit status."""
    parser = Options(
        usage="maqd recipes [NAME] [--json]",
        description="List the recipes that `maqd train` knows, with their measured test accuracy; NAME shows one.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a recipe")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    try:
        chosen = RECIPES if options.name is None else (recipe(options.name),)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    if options.json:
        print(json.dumps({"recipes": [to_plain(found) for found in chosen]}))
        return 0
    rows = [
        (
            found.name,
            one.budget.value,
            " + ".join(str(phase.config.epochs) for phase in one.phases),
            one.measured or "not run",
        )
        for found in chosen
        for one in found.variants
    ]
    print(table(("recipe", "budget", "epochs", "test accuracy"), rows))
    if options.name is None:
        print("\nmaqd train RECIPE [--budget cpu]; maqd recipes NAME says why it is set up this way")
    else:
        for one in chosen[0].variants:
            if one.before:
                names = ", then ".join(f"{phase.name} ({phase.config.epochs} epochs)" for phase in one.phases)
                print(f"\n--budget {one.budget.value} trains in phases: {names}")
        print(f"\n{chosen[0].network}\n{chosen[0].reason}\nmaqd train {options.name} --print-config shows its options")
    return 0
