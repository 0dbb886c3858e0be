"""`maqd mix`."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from maqd.cli.options import Options, UsageError, some_path, whole
from maqd.cli.text import Counter, table
from maqd.graph.mixture import Budget, Choice, Group, Kind, Loss, Mixture, front, groups_of, uniform, within
from maqd.io.files import write_atomically
from maqd.io.outputs import OPTIONS, Artefact, check_output
from maqd.settings.tree import to_plain

if TYPE_CHECKING:
    from maqd.training.runs import Run

CURVE = 12
"""Points of the curve that are printed."""


def command(arguments: list[str]) -> int:
    """Run `maqd mix`; the exit status."""
    parser = Options(
        usage="maqd mix RUN [--bytes N | --operations N] [-o FILE.yaml] [--picture FILE.png] [--json]",
        description="Choose the states of each layer for a budget, from how much the loss of a run without rounding "
        "rises when one layer has few states. Trains nothing: give the file to `maqd train --config`.",
        epilog="example: maqd train cifar10-resnet8-w3a8 --run runs/few\n"
        "         maqd mix runs/few/unrounded --operations 60e6 -o mixed.yaml\n"
        "         maqd train --config mixed.yaml --run runs/mixed",
    )
    parser.add_argument("run", metavar="RUN", type=some_path, help="directory of a run")
    parser.add_argument("--bytes", metavar="N", type=float, help="budget: bytes of weights")
    parser.add_argument("--operations", metavar="N", type=float, help="budget: multiplications of bits for one sample")
    parser.add_argument("--weight-states", metavar="M", default="3,5,7,15", help="numbers to choose from (3,5,7,15)")
    parser.add_argument("--act-states", metavar="M", default="2,4,8,16", help="numbers to choose from (2,4,8,16)")
    parser.add_argument("--batches", metavar="N", type=whole, default=4, help="training batches for the losses (4)")
    parser.add_argument("-o", "--output", metavar="FILE", type=some_path, help="options of the training that follows")
    parser.add_argument("--picture", metavar="FILE", type=some_path, help="PNG of loss against cost")
    parser.add_allow_import()
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.read(arguments)
    if options.bytes is not None and options.operations is not None:
        raise UsageError("--bytes and --operations are two budgets; give one")
    budget = Budget.BYTES if options.operations is None else Budget.OPERATIONS
    limit = options.bytes if options.operations is None else options.operations
    if options.output is not None and limit is None:
        raise UsageError("-o writes the choice for a budget; give --bytes or --operations")
    if options.batches < 1:
        raise UsageError(f"--batches must be at least 1, got {options.batches}")
    weights = _counts("--weight-states", options.weight_states)
    acts = _counts("--act-states", options.act_states)
    if options.output is not None:
        check_output(options.output, Artefact.OPTIONS)
    if options.picture is not None:
        check_output(options.picture, Artefact.PICTURE)

    from maqd.training.runs import open_run

    run = open_run(options.run, allow_import=options.allow_import)
    groups, losses = _measure(run, weights, acts, options.batches)
    mixtures = front(groups, losses, budget)
    even = [(m, a, uniform(groups, losses, budget, m, a)) for m in weights for a in acts]
    chosen = None if limit is None else within(mixtures, limit, budget)
    if options.output is not None and chosen is not None:
        _write(options.output, run, options.run, chosen)
    if options.picture is not None:
        from maqd.report.trade_off import draw

        points = [(f"({m},{a})", (mixture.cost, mixture.increase)) for m, a, mixture in even]
        star = None if chosen is None else (chosen.cost, chosen.increase)
        draw([(one.cost, one.increase) for one in mixtures], points, star, unit=budget.value, path=options.picture)
    if options.json:
        print(json.dumps(_found(budget, mixtures, even, chosen), default=lambda one: one.value))
    else:
        _print(budget, mixtures, even, chosen)
    return 0


def _counts(flag: str, text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"{flag} takes numbers with commas between them, got {text!r}") from None
    if counts[0] < 2:
        raise UsageError(f"{flag}: a layer has at least 2 states, got {counts[0]}")
    return counts


def _measure(
    run: "Run", weights: Sequence[int], acts: Sequence[int], count: int
) -> tuple[tuple[Group, ...], list[Loss]]:
    from maqd.data import open_data
    from maqd.lowering import lower
    from maqd.settings.functions import check_imports
    from maqd.training.networks import network_of
    from maqd.training.sensitivity import losses

    config, header = run.config, run.header
    check_imports(config.functions, (), where=str(run.path), allow=run.allow_import)
    network = network_of(replace(config.model, quant=replace(config.model.quant, rounding=True)), header.data)
    groups = groups_of(lower(network.eval(), run.example).graph)
    data = open_data(config.data, seed=config.seed, classifies=config.loss is None)
    batches = list(islice(data.train_loader(), count))
    counter = Counter("losses of layers")
    total = sum(len(group.readers) * len(weights) + (group.activation is not None) * len(acts) for group in groups)
    found = []
    for loss in losses(
        lambda quant: network_of(replace(config.model, quant=quant), header.data),
        config.model.quant,
        run.network.state_dict(),
        weight_states=weights,
        act_states=acts,
        batches=batches,
        objective=run.objective.training_loss,
    ):
        found.append(loss)
        counter.show(len(found), total, loss.choice.name)
    counter.clear()
    return groups, found


def _write(output: Path, run: "Run", path: Path, chosen: Mixture) -> None:
    import yaml

    from maqd.training.sensitivity import mixed

    config = run.config
    quant = replace(mixed(replace(config.model.quant, overrides=[]), chosen.choices), rounding=True)
    following = replace(
        config, run=None, model=replace(config.model, quant=quant), init=replace(config.init, run=str(path))
    )
    write_atomically(output, [OPTIONS, yaml.safe_dump(to_plain(following), sort_keys=False).encode()])


Even = Sequence[tuple[int, int, Mixture]]


def _found(budget: Budget, mixtures: Sequence[Mixture], even: Even, chosen: Mixture | None) -> dict[str, object]:
    return {
        "budget": budget.value,
        "front": [{"cost": one.cost, "loss": one.increase} for one in mixtures],
        "uniform": [
            {"weight_states": m, "act_states": a, "cost": one.cost, "loss": one.increase} for m, a, one in even
        ],
        "chosen": None if chosen is None else asdict(chosen),
    }


def _print(budget: Budget, mixtures: Sequence[Mixture], even: Even, chosen: Mixture | None) -> None:
    rows = [(f"({m},{a}) everywhere", round(one.cost), one.increase) for m, a, one in even]
    step = max(1, (len(mixtures) - 1) // (CURVE - 1))
    rows += [("mixed", round(one.cost), one.increase) for one in mixtures[::step]]
    print(table(("states", budget.value, "rise of the loss"), sorted(rows, key=lambda row: row[1])))
    if chosen is None:
        return
    print(f"\nchosen: {chosen.cost:,.0f} {budget.value}, the loss rises by {chosen.increase:.3f} before training\n")
    print(table(("layer", "M_w", "M_a"), [_row(choice) for choice in chosen.choices]))


def _row(choice: Choice) -> tuple[str, int | None, int | None]:
    weights = choice.kind is Kind.WEIGHTS
    return choice.name, choice.states if weights else None, None if weights else choice.states
