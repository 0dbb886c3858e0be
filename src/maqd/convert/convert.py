"""From a float network to one of few states: `convert`."""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, fx, nn

from maqd.convert.calibration import Agreement, agreed, assemble, compare, flat, gathered, watch
from maqd.convert.fitting import fit_scale, make_layer, make_site
from maqd.convert.inputs import make_entry
from maqd.convert.parts import Parts, convert_parts, trace_around
from maqd.convert.report import ConversionError, Report, Row
from maqd.convert.rewriter import Change, Plan, Rewriter
from maqd.convert.rules import RULES
from maqd.convert.values import Layer, Site
from maqd.errors import ConfigError, DataError
from maqd.lowering import Refusal, check
from maqd.nn import QuantLinear
from maqd.nn.quantizers import RoundClip
from maqd.nn.tracing import Traced, TracingError, evaluation, name_of, plain
from maqd.numerics.fixedpoint import AffineForm
from maqd.settings.conversion import Centring, ConversionConfig, Kept, Rounding


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A converted network.

    Args:
        model: The network of few states, with the names of the float network's modules.
        report: What became of each layer.
    """

    model: nn.Module
    report: Report


def convert(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    config: ConversionConfig | None = None,
    *,
    weights: int | None = None,
    activations: int | None = None,
    norm: Kept | str | None = None,
    calibrate: Iterable[Any] | None = None,
    partial: bool = False,
) -> Converted:
    """A network of few states that starts as its float original.

    The float network is traced, every layer becomes one of few states, and quantizers are put where the integer graph
    needs them. Steps are fitted by least squares; normalizations are changed so that their results have the float
    network's mean and variance. The float network and the random state are left as they are.

    Args:
        model: A float network of PyTorch's layers, on the CPU, in float32; evaluated as in evaluation mode.
        example: A batch for the parameter of `forward`, or a tuple of one for each. Its type is the input's: uint8
            stays pixels, floats are quantized within their range.
        config: States, normalization, exceptions; None for the defaults, changed by the three arguments after it.
        weights: M_w of the layers.
        activations: M_a.
        norm: What normalizations become, or its name: "keep", "lbn" or "levelled".
        calibrate: Batches as `example`, or with labels after the inputs, a few hundred samples in all, to fit steps
            and statistics on; None takes the example.
        partial: Whether to return a network that cannot be lowered, with the reasons in its report.

    Raises:
        ConversionError: Calls stay in float or cannot be lowered; the message names all of them.
        ConfigError: The configuration does not fit the network.
        DataError: The example or the calibration data are not the network's.
    """
    config = changed(config, weights, activations, norm)
    float_model = plain(model)
    check_model(float_model)
    examples = checked_examples(example)
    with torch.random.fork_rng(devices=[]):
        if config.centring is not Centring.CLOSER:
            return _convert(float_model, examples, config, calibrate, partial=partial)
        inputs = [examples] if calibrate is None else [gathered(calibrate)]
        both = [replace(config, centring=kind) for kind in (Centring.NEVER, Centring.ALWAYS)]
        found = [_convert(float_model, examples, one, inputs, partial=partial) for one in both]
    return max(found, key=lambda one: -1.0 if one.report.agreement is None else one.report.agreement.cosine)


def changed(
    config: ConversionConfig | None, weights: int | None, activations: int | None, norm: Kept | str | None
) -> ConversionConfig:
    """The configuration of a call."""
    if config is None:
        config = ConversionConfig()
    if weights is not None:
        config = replace(config, weights=weights)
    if activations is not None:
        config = replace(config, activations=activations)
    if norm is None:
        return config
    try:
        return replace(config, norm=Kept(norm))
    except ValueError:
        raise ConfigError(f"norm is one of {', '.join(kept.value for kept in Kept)}, got {norm!r}") from None


def check_model(model: nn.Module) -> None:
    """Refuses weights of a kind that conversion does not take, all at once.

    Raises:
        ConfigError: Weights are not float32, not on the CPU or not finite.
    """
    faults = []
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        if tensor.device.type != "cpu":
            faults.append(f"{name} is on {tensor.device}; convert model.cpu(), and move the result")
        elif tensor.dtype != torch.float32:
            faults.append(f"{name} is {tensor.dtype}; convert model.float()")
        elif count := int((~torch.isfinite(tensor)).sum()):
            faults.append(f"{count} values of {name} are infinite or not a number; load a checkpoint without them")
    if faults:
        raise ConfigError(faults[0] if len(faults) == 1 else "\n  ".join(["the network:", *faults]))


def checked_examples(example: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A tuple of batches.

    Raises:
        DataError: They are none.
    """
    examples = example if isinstance(example, tuple) else (example,)
    for one in examples:
        if not isinstance(one, Tensor) or one.ndim < 2 or not one.numel():
            what = f"{one.dtype} {tuple(one.shape)}" if isinstance(one, Tensor) else repr(type(one))
            raise DataError(f"convert needs a batch for each input, such as torch.rand(8, 3, 32, 32), got {what}")
        if one.device.type != "cpu":
            raise DataError(f"the example is on {one.device}; pass example.cpu()")
    return examples


def _convert(
    model: nn.Module,
    examples: tuple[Tensor, ...],
    config: ConversionConfig,
    calibrate: Iterable[Any] | None,
    *,
    partial: bool,
    inner: bool = False,
) -> Converted:
    inputs = gathered([examples] if calibrate is None else calibrate)[: len(examples)]
    for one, other in zip(examples, inputs, strict=True):
        if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
            raise DataError(
                f"calibration data are {other.dtype} N x {tuple(other.shape[1:])}, the example is {one.dtype} N x "
                f"{tuple(one.shape[1:])}; pass data of one kind"
            )
    try:
        traced, opaque = trace_around(model, examples)
    except TracingError as error:
        refusal = Refusal(module=error.module, line=error.line, reason=error.reason, remedy=error.remedy)
        found = untraced(model, inputs, config, refusal)
        if found is None or not partial:
            raise ConversionError((refusal,) if found is None else found.report.refusals) from error
        return found
    plan = Rewriter(traced, RULES, config, opaque=opaque, inner=inner).run()
    if not inner:
        check_overrides(config, plan)
    for name in opaque:
        parts = in_parts(model.get_submodule(name), lambda: model(*inputs), config)
        plan.modules[name] = parts.model
        plan.refusals += [replace(refusal, module=f"{name}.{refusal.module}") for refusal in parts.refusals]
    if plan.refusals and not partial:
        raise ConversionError(tuple(plan.refusals))
    converted, agreement = fitted(model, traced, plan, inputs, config)
    refusals = tuple(plan.refusals)
    if not inner:
        refusals += tuple(lowering_refusals(converted, traced, plan, examples))
    if refusals and not partial:
        raise ConversionError(refusals)
    report = Report(rows=rows(traced, plan, refusals, agreement), refusals=refusals, agreement=agreement)
    return Converted(model=converted, report=report)


def in_parts(module: nn.Module, run: Callable[[], object], config: ConversionConfig) -> Parts:
    """What a module that cannot be traced is made of, converted one by one."""

    def part(child: nn.Module, given: tuple[Tensor, ...]) -> Converted:
        whole = nn.Sequential(child) if type(child).__module__.startswith("torch.nn") else child
        return _convert(whole, given, config, None, partial=True, inner=True)

    return convert_parts(module, run, part)


def untraced(
    model: nn.Module, inputs: tuple[Tensor, ...], config: ConversionConfig, refusal: Refusal
) -> Converted | None:
    """A network whose own code stays in float, with converted parts; None where it does not run at all."""
    with evaluation(model), torch.no_grad():
        try:
            expected = flat(model(*inputs))
        except Exception:  # whatever its code raises: the refusal says where
            return None
        parts = in_parts(model, lambda: model(*inputs), config)
    with evaluation(parts.model), torch.no_grad():
        agreement = agreed(flat(parts.model(*inputs)), expected, {}) if expected else None
    found = [Row(name=refusal.module, was=type(model).__name__, becomes="float", refusal=refusal)]
    found += [replace(row, name=f"{name}.{row.name}") for name, made in parts.made.items() for row in made.report.rows]
    refusals = (refusal, *parts.refusals)
    return Converted(model=parts.model, report=Report(rows=tuple(found), refusals=refusals, agreement=agreement))


def fitted(
    model: nn.Module, traced: Traced, plan: Plan, inputs: tuple[Tensor, ...], config: ConversionConfig
) -> tuple[fx.GraphModule, Agreement]:
    """The converted network, with its numbers fitted to some data."""
    try:
        seen = watch(traced, plan.layers, plan.sites, plan.norms, plan.results, inputs)
    except RuntimeError as error:  # PyTorch's, of a type that a layer does not take: tracing sees shapes only
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"the float network fails on the data: {reason}; pass data as it takes them, or let it convert them"
        ) from error
    given = dict(zip(plan.entries, inputs, strict=bool(plan.entries)))  # a part of a network has none
    for entry in plan.entries:
        first = entry if entry.like is None else entry.like
        make_entry(entry, [data for other, data in given.items() if first in (other, other.like)])
    for scale in {site.scale.root(): None for site in plan.sites}:
        fit_scale(scale, seen.sites)
    modules = {name: copy.deepcopy(module) for name, module in plan.modules.items()}
    for entry in plan.entries:
        if entry.made is not None:
            modules[entry.name] = entry.made
    faults = []
    for item in plan.order:
        if isinstance(item, Layer):
            try:
                make_layer(item, centred=config.centring is Centring.ALWAYS)
            except ConfigError as error:
                faults.append(
                    Refusal(module=item.name, line=item.call.meta.get("line"), reason=str(error), remedy=FEWER)
                )
                make_layer(replace_float(item))
        else:
            norm = None if item.source.norm is None else plan.norms[item.source.norm]
            make_site(item, norm, None if norm is None else seen.read.get(norm), config)
        if item.made is not None:
            modules[item.name] = item.made
    if faults:
        raise ConversionError(tuple(faults))
    converted = assemble(model, modules, plan.graph)
    for module in converted.modules():  # not with train(), which would fold what `compare` folds
        module.training = model.training
    followed = plan.layers if config.rounding is Rounding.FOLLOWING else []
    agreement = compare(converted, traced, seen, inputs, followed)
    return converted, agreement


FEWER = "give it fewer states with an override, or its activations"


def replace_float(layer: Layer) -> Layer:
    """The layer in float, so that the ones after it can be looked at."""
    layer.states = None
    return layer


def lowering_refusals(
    converted: fx.GraphModule, traced: Traced, plan: Plan, examples: tuple[Tensor, ...]
) -> list[Refusal]:
    """What stands in the way of the converted network's integer graph, with the float network's names and lines."""
    sources = called(plan.graph)
    known = {refusal.module for refusal in plan.refusals}
    found = []
    for refusal in check(converted, examples, affine=AffineForm.THRESHOLDS):  # the form decides no refusal
        node = sources.get(refusal.module)
        name = refusal.module
        if node is not None and node.op != "call_module":
            name = traced.names.get(node.meta["float"], name)
        if name not in known:
            line = refusal.line if node is None else node.meta.get("line")
            found.append(replace(refusal, module=name, line=line))
    return found


def called(graph: fx.Graph) -> dict[str, fx.Node]:
    """The calls of a converted network by the names that a trace of it gives them."""
    found: dict[str, fx.Node] = {}
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "get_attr"):
            continue
        plain_name = name = name_of(node)
        number = 1
        while name in found:
            number += 1
            name = f"{plain_name}#{number}"
        found[name] = node
    return found


def check_overrides(config: ConversionConfig, plan: Plan) -> None:
    """Refuses a pattern that names no layer.

    Raises:
        ConfigError: There is one.
    """
    names = [layer.name for layer in plan.layers] + [site.source.name for site in plan.sites]
    for override in config.overrides:
        if not any(fnmatchcase(name, override.pattern) for name in names):
            raise ConfigError(
                f"overrides: the pattern {override.pattern!r} matches none of the layers ({', '.join(names)}); "
                "correct the pattern or remove it"
            )


def rows(traced: Traced, plan: Plan, refusals: tuple[Refusal, ...], agreement: Agreement) -> tuple[Row, ...]:
    """The table of a report."""
    by_name = {refusal.module: refusal for refusal in refusals}
    cosines = {layer.name: layer.cosine for layer in agreement.layers}
    made: dict[str, list[Site]] = {}
    for site in plan.sites:
        made.setdefault(site.source.norm or site.source.name, []).append(site)
    found = []
    for change in plan.changes:
        found.append(row(traced, change, by_name.get(change.name)))
        for site in made.pop(change.name, []):
            sign, step = "signed " if site.states.signed else "", 2.0**site.exponent / site.scale.value
            close = f", cosine {cosines[site.name]:.4f}" if site.name in cosines else ""
            found.append(
                Row(
                    name=site.name,
                    was="",
                    becomes=f"{sign}quantizer, step {step:.3g}{close}",
                    states=site.states.count,
                    refusal=by_name.get(site.name),
                )
            )
    return tuple(found)


def row(traced: Traced, change: Change, refusal: Refusal | None) -> Row:
    """What became of a call."""
    call = change.call
    was = call.target if isinstance(call.target, str) else getattr(call.target, "__name__", str(call.target))
    if call.op == "call_module":
        was = type(traced.model.get_submodule(str(call.target))).__name__
    elif call.op == "placeholder":
        return Row(name=str(call.target), was="input", becomes=change.becomes, refusal=refusal)
    layer = change.plan
    if layer is None or layer.made is None:
        return Row(name=change.name, was=str(was), becomes=change.becomes, refusal=refusal)
    weight, value = layer.made.weight, call.meta["value"]
    centred = ", centred" if isinstance(layer.made.quantizer, RoundClip) else ""
    errors = ""
    if layer.errors is not None:
        errors = f", error of sums {layer.errors[1]:.1%}, rounded {layer.errors[0]:.1%}"
    places = math.prod(value.shape[2:]) if value.ndim > 2 else 1
    if isinstance(layer.module, nn.modules.conv._ConvTransposeNd):  # each weight meets each input once
        places = math.prod(call.all_input_nodes[0].meta["value"].shape[2:])
    elif isinstance(layer.made, QuantLinear):
        places = math.prod(value.shape[1:-1])
    return Row(
        name=change.name,
        was=str(was),
        becomes=type(layer.made).__name__ + (", head" if layer.head else "") + centred + errors,
        states=layer.states,
        weights=weight.numel(),
        macs=weight.numel() * places,
        refusal=refusal,
    )
