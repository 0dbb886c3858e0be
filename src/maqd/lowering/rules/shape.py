"""The same codes in another shape, order or place, and calls that change nothing."""

import operator
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from maqd.graph import Concat, Flatten, Gather, Permute, Reshape, SumPool
from maqd.lowering.builder import Codes, Part, Raw, Rules, Step
from maqd.lowering.calls import of_layer
from maqd.lowering.rules.merging import aligned
from maqd.numerics.limits import EXACT_LIMIT


def reshape(step: Step, x: Codes | Raw, *arguments: Any, **options: Any) -> Codes:
    """Any call that keeps the order of a sample's values: view, reshape, flatten, squeeze and their like.

    The arguments need no reading: the traced result has the shape.
    """
    return reshaped(step, step.codes(x, divided=True), step.shape, step.name)


def reshaped(step: Step, source: Codes, shape: tuple[int, ...], name: str) -> Codes:
    """The same codes in a shape."""
    if shape == source.type.shape:
        return source
    if len(shape) == 1:
        return step.move(Flatten(name=name, inputs=(source.source,)), source)
    return step.move(Reshape(name=name, inputs=(source.source,), shape=shape), source)


def permute(step: Step, x: Codes | Raw, *arguments: Any, **options: Any) -> Codes:
    """Any call that changes the order of dimensions: permute, transpose, movedim and their like.

    The order is that of the result's strides in a sample whose dimensions differ.
    """
    source = step.codes(x, divided=True)
    rank = len(source.type.shape) + 1
    sizes = tuple(range(2, rank + 2))
    order = [sizes.index(size) for size in step.repeat(torch.empty(sizes, device="meta")).shape]
    if order[0] != 0:
        step.refuse("it moves the batch", "keep samples apart in dimension 0")
    return permuted(step, source, tuple(d - 1 for d in order[1:]), step.name)


def permuted(step: Step, source: Codes, order: tuple[int, ...], name: str) -> Codes:
    """Dimensions of a sample in another order."""
    if order == tuple(range(len(order))):
        return source
    return step.move(Permute(name=name, inputs=(source.source,), order=order), source)


def gathered(step: Step, source: Codes, axis: int, indices: Sequence[int], name: str, fill: int = 0) -> Codes:
    """Elements along a dimension of a sample; -1 stands for the fill."""
    if list(indices) == list(range(source.type.shape[axis])):
        return source
    node = Gather(name=name, inputs=(source.source,), axis=axis, indices=np.array(indices, np.int32), fill=fill)
    return step.move(node, source)


def placed(step: Step, source: Codes, places: Sequence[Sequence[int]], fill: int = 0) -> Codes:
    """Elements along every dimension of a sample; the last node has the call's name."""
    axes = [axis for axis, at in enumerate(places) if list(at) != list(range(source.type.shape[axis]))]
    for axis in axes:
        name = step.name if axis == axes[-1] else step.builder.free(f"{step.name}.axis{axis}")
        source = gathered(step, source, axis, places[axis], name, fill)
    return source


def rearrange(step: Step, x: Codes | Raw, *arguments: Any, **options: Any) -> Codes:
    """Any call that takes elements along dimensions of its own: flip, roll, nearest upsampling, repeats, crops.

    Each dimension is followed by the call itself, on the numbers of its places.
    """
    source = step.codes(x, divided=True)
    places = []
    for axis, size in enumerate(source.type.shape):
        column = torch.arange(1.0, size + 1).reshape(-1, *[1] * (len(source.type.shape) - axis - 1))
        found = step.repeat(column.expand(source.type.shape)[None])
        if found.ndim != len(source.type.shape) + 1 or len(found) != 1:
            step.refuse("it works on the batch, or changes the number of dimensions", OPERATE)
        line = found[0].movedim(axis, 0).flatten(1)
        if not bool((line == line[:, :1]).all()) or not bool((line == line.round()).all()):
            step.refuse("it mixes elements", "use nearest neighbours, slices, pads and permutations")
        places.append([int(value) - 1 for value in line[:, 0]])
    return placed(step, source, places)


OPERATE = "work on the dimensions of a sample, one by one"


def pad(step: Step, x: Codes | Raw, pad: Any, mode: str = "constant", value: float | None = None) -> Codes:
    """`F.pad`; a constant must be a multiple of the unit."""
    source = step.codes(x)
    if mode != "constant":
        return rearrange(step, source)
    code = (value or 0.0) * 2.0**-source.type.exponent
    if source.known and not (code == round(code) and abs(code) < EXACT_LIMIT):
        step.refuse(f"it pads with {value}, no multiple of 2^{source.type.exponent}", "pad with 0 or such a multiple")
    places = [list(range(size)) for size in source.type.shape]
    if len(pad) > 2 * len(places):
        step.refuse("it pads the batch", OPERATE)
    for number in range(len(pad) // 2):
        axis, (before, after) = len(places) - 1 - number, pad[2 * number : 2 * number + 2]
        size = len(places[axis])
        places[axis] = [at if 0 <= at < size else -1 for at in range(-before, size + after)]
    return placed(step, source, places, int(code) if source.known else 0)


def _pad_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    sizes = module.padding if isinstance(module.padding, tuple | list) else (module.padding,)
    return pad(step, x, sizes, "constant", float(getattr(module, "value", 0.0)))


def item(step: Step, values: Any, place: Any) -> Any:
    """One of several results, or a slice of a tensor."""
    if not isinstance(values, Codes | Raw):
        found = values[place]
        if not isinstance(found, Part):
            return found
        if found.squeezed:
            return step.builder.whole(step, found)
        return gathered(step, found.source, found.axis, found.indices, step.name)
    source = step.codes(values, divided=True)
    keys = [_listed(key) for key in (place if isinstance(place, tuple) else (place,))]
    lists = sum(isinstance(key, list) for key in keys)
    if lists > 1 or not all(key is None or key is Ellipsis or isinstance(key, int | slice | list) for key in keys):
        step.refuse(f"it takes elements by {place!r}", "use slices, numbers and one list of places")
    if lists and any(isinstance(key, int) or key is None for key in keys):
        step.refuse(f"it takes elements by {place!r}", "take the list of places and the number in two steps")
    rank = len(source.type.shape) + 1
    named = sum(key is not None and key is not Ellipsis for key in keys)
    spread = keys.index(Ellipsis) if Ellipsis in keys else len(keys)
    keys[spread : spread + 1] = [slice(None)] * (rank - named)
    taken = [key for key in keys if key is not None]
    if keys[0] is None or taken[0] != slice(None):
        step.refuse("it takes a part of the batch", OPERATE)
    places = []
    for key, size in zip(taken[1:], source.type.shape, strict=True):
        if isinstance(key, list):
            places.append([range(size)[at] for at in key])
        else:
            places.append([range(size)[key]] if isinstance(key, int) else list(range(size)[key]))
    if all(isinstance(key, slice | list) for key in keys):
        return placed(step, source, places)
    axes = [axis for axis, at in enumerate(places) if at != list(range(source.type.shape[axis]))]
    for axis in axes:
        source = gathered(step, source, axis, places[axis], step.builder.free(f"{step.name}.axis{axis}"))
    return reshaped(step, source, step.shape, step.name)


def _listed(key: Any) -> Any:
    """A key of places as a list of numbers; any other as it is."""
    if isinstance(key, torch.Tensor) and key.ndim == 1:
        return key.tolist()
    return list(key) if isinstance(key, list | range) else key


def index_select(step: Step, x: Codes | Raw, dim: int, index: Any) -> Codes:
    """`x.index_select(dim, index)` with places that do not depend on the data."""
    source = step.codes(x, divided=True)
    rank = len(source.type.shape) + 1
    if not isinstance(index, torch.Tensor) or dim % rank == 0:
        step.refuse("it takes elements by places that depend on the data, or samples", OPERATE)
    axis = dim % rank - 1
    size = source.type.shape[axis]
    return gathered(step, source, axis, [range(size)[at] for at in index.tolist()], step.name)


def select(step: Step, x: Codes | Raw, dim: int, index: int) -> Codes:
    """`x.select(dim, index)`: one element of a dimension, which is taken away."""
    source = step.codes(x, divided=True)
    axis = dim % (len(source.type.shape) + 1) - 1
    if axis < 0:
        step.refuse("it takes a sample", OPERATE)
    place = range(source.type.shape[axis])[index]
    one = gathered(step, source, axis, [place], step.builder.free(f"{step.name}.axis{axis}"))
    return reshaped(step, one, step.shape, step.name)


def unbind(step: Step, x: Codes | Raw, dim: int = 0) -> tuple[Part, ...]:
    """The elements of a dimension, one by one, each of which becomes a node where it is used."""
    source = step.codes(x, divided=True)
    axis = dim % (len(source.type.shape) + 1) - 1
    if axis < 0:
        step.refuse("it takes the batch apart", "take a dimension of the sample apart")
    size = source.type.shape[axis]
    return tuple(Part(source=source, axis=axis, indices=(at,), squeezed=True) for at in range(size))


def parts(step: Step, x: Codes | Raw, *arguments: Any, **options: Any) -> tuple[Part, ...]:
    """chunk, split and their like: slices, each of which becomes a node where it is used."""
    source = step.codes(x, divided=True)
    shapes = [tuple(part.shape[1:]) for part in step.call.meta["value"]]
    rank = len(source.type.shape)
    if any(len(shape) != rank for shape in shapes):
        step.refuse("it takes dimensions away", "use chunk, split or unbind")
    axes = [axis for axis in range(rank) if sum(s[axis] for s in shapes) == source.type.shape[axis]]
    axis = next((a for a in axes if all(s[:a] + s[a + 1 :] == _without(source.type.shape, a) for s in shapes)), None)
    if axis is None:
        step.refuse("it takes the batch apart", "split a dimension of the sample")
    ends = np.cumsum([0, *(shape[axis] for shape in shapes)]).tolist()
    return tuple(Part(source=source, axis=axis, indices=tuple(range(a, b))) for a, b in pairwise(ends))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def stack(step: Step, tensors: Sequence[Codes | Raw], dim: Any = 0) -> Codes:
    """Tensors side by side along a new dimension."""
    sources = [step.codes(tensor) for tensor in tensors]
    axis = (dim if dim >= 0 else dim + len(sources[0].type.shape) + 2) - 1
    if axis < 0:
        step.refuse("it stacks along the batch", OPERATE)
    shape = sources[0].type.shape
    shape = (*shape[:axis], 1, *shape[axis:])
    lifted = [
        reshaped(step, source, shape, step.builder.free(f"{step.name}.part{place}"))
        for place, source in enumerate(sources)
    ]
    names = tuple(source.source for source in lifted)
    return step.put(Concat(name=step.name, inputs=names, axis=axis, shifts=aligned(step, lifted)), *lifted)


def shuffle(step: Step, x: Codes | Raw, groups: int) -> Codes:
    """`F.channel_shuffle`."""
    source = step.codes(x, divided=True)
    order = np.arange(source.type.shape[0]).reshape(groups, -1).T.reshape(-1)
    return gathered(step, source, 0, order.tolist(), step.name)


def upsample(
    step: Step,
    x: Codes | Raw,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Codes:
    """`F.interpolate`: nearest neighbours to any size, linear ones to twice the size."""
    source, shape = step.codes(x, divided=mode.startswith("nearest")), step.shape
    if mode in ("nearest", "nearest-exact"):
        return rearrange(step, source)
    twice = tuple(2 * n for n in source.type.shape[1:]) == shape[1:]
    if mode not in ("linear", "bilinear", "trilinear") or not twice or align_corners or antialias:
        step.refuse(
            f"it interpolates with mode={mode!r} to {shape[1:]}, whose weights are no few bits",
            "use mode='nearest', or mode='bilinear' with scale_factor=2 and without align_corners",
        )
    # Weights 1/4 and 3/4: neighbours twice, the ends once more, and two sums of two along each dimension.
    space = source.type.shape[1:]
    for axis, n in enumerate(space, start=1):
        places = [0, *(at // 2 for at in range(2 * n)), n - 1]
        source = gathered(step, source, axis, places, step.builder.free(f"{step.name}.axis{axis}"))
    rank = len(space)
    for last in (False, True):
        name = step.name if last else step.builder.free(f"{step.name}.sum")
        shift = 2 * rank if last else 0
        window = {"kernel": (2,) * rank, "stride": (1,) * rank, "padding": (0,) * rank}
        source = step.put(SumPool(name=name, inputs=(source.source,), **window, shift=shift), source)
    return source


def _upsample_layer(step: Step, x: Codes | Raw, module: Any) -> Codes:
    return upsample(step, x, mode=module.mode, align_corners=module.align_corners)


def pixel_shuffle(step: Step, x: Codes | Raw, upscale_factor: int) -> Codes:
    """`F.pixel_shuffle`: N x C r^2 x H x W -> N x C x r H x r W."""
    source, r = step.codes(x, divided=True), upscale_factor
    channels, height, width = source.type.shape
    source = reshaped(step, source, (channels // (r * r), r, r, height, width), step.builder.free(f"{step.name}.split"))
    source = permuted(step, source, (0, 3, 1, 4, 2), step.builder.free(f"{step.name}.order"))
    return reshaped(step, source, step.shape, step.name)


def pixel_unshuffle(step: Step, x: Codes | Raw, downscale_factor: int) -> Codes:
    """`F.pixel_unshuffle`: N x C x r H x r W -> N x C r^2 x H x W."""
    source, r = step.codes(x, divided=True), downscale_factor
    channels, height, width = source.type.shape
    split = (channels, height // r, r, width // r, r)
    source = reshaped(step, source, split, step.builder.free(f"{step.name}.split"))
    source = permuted(step, source, (0, 2, 4, 1, 3), step.builder.free(f"{step.name}.order"))
    return reshaped(step, source, step.shape, step.name)


def unchanged(step: Step, x: Any, *arguments: Any, **options: Any) -> Any:
    """A call that changes nothing in evaluation."""
    return x


def to_float(step: Step, x: Any) -> Any:
    """`x.float()`: nothing, unless it would round."""
    source = step.codes(x, divided=True)
    if source.wide and source.type.grid.magnitude >= EXACT_LIMIT:
        step.refuse("it rounds integers that float32 does not hold", "leave .float() out")
    return replace(source, wide=False)  # an average in float64 becomes the one that float32 gives (docs/numerics.md)


def to_type(step: Step, x: Any, *arguments: Any, **options: Any) -> Any:
    """`x.to(..)`: nothing, where the result is a float32 again, or the float64 that it was."""
    source, result = step.codes(x, divided=True), step.call.meta["value"].dtype
    if result is torch.float64:  # traced in float32: the call asks for it
        step.refuse("it asks for float64, which decides how sums are rounded", "leave the call out")
    if not result.is_floating_point or result.itemsize < 4:
        step.refuse(f"it turns integers of the network into {result}", "leave the call out")
    return to_float(step, source) if torch.float32 in (*arguments, *options.values()) else source


RULES = Rules(
    modules={
        **dict.fromkeys((nn.Flatten, nn.Unflatten), of_layer(reshape)),
        **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), of_layer(unchanged)),
        **dict.fromkeys((nn.Upsample, nn.UpsamplingNearest2d), _upsample_layer),
        **dict.fromkeys(
            (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), _pad_layer
        ),
        **dict.fromkeys(
            (
                nn.ReplicationPad1d,
                nn.ReplicationPad2d,
                nn.ReplicationPad3d,
                nn.ReflectionPad1d,
                nn.ReflectionPad2d,
                nn.ReflectionPad3d,
                nn.CircularPad1d,
                nn.CircularPad2d,
                nn.CircularPad3d,
            ),
            of_layer(rearrange),
        ),
        nn.ChannelShuffle: of_layer(shuffle, "groups"),
        nn.PixelShuffle: of_layer(pixel_shuffle, "upscale_factor"),
        nn.PixelUnshuffle: of_layer(pixel_unshuffle, "downscale_factor"),
    },
    functions={
        operator.getitem: item,
        **dict.fromkeys((torch.flatten, torch.unflatten, torch.reshape, torch.squeeze, torch.unsqueeze), reshape),
        **dict.fromkeys(
            ("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "reshape_as", "view_as"), reshape
        ),
        **dict.fromkeys(
            (torch.permute, torch.transpose, torch.movedim, torch.swapaxes, torch.swapdims, torch.moveaxis), permute
        ),
        **dict.fromkeys(("permute", "transpose", "movedim", "swapaxes", "swapdims", "moveaxis"), permute),
        **dict.fromkeys(
            (torch.flip, torch.fliplr, torch.roll, torch.narrow, torch.repeat_interleave, torch.tile), rearrange
        ),
        **dict.fromkeys(
            ("flip", "fliplr", "roll", "narrow", "repeat_interleave", "repeat", "expand", "tile"), rearrange
        ),
        **dict.fromkeys((torch.chunk, torch.split, torch.tensor_split, "chunk", "split", "tensor_split"), parts),
        **dict.fromkeys((torch.unbind, "unbind"), unbind),
        **dict.fromkeys((torch.index_select, "index_select"), index_select),
        **dict.fromkeys((torch.select, "select"), select),
        torch.stack: stack,
        F.pad: pad,
        F.interpolate: upsample,
        torch.channel_shuffle: shuffle,
        torch.pixel_shuffle: pixel_shuffle,
        torch.pixel_unshuffle: pixel_unshuffle,
        **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d), unchanged),
        **dict.fromkeys(("contiguous", "clone", "detach", "requires_grad_"), unchanged),
        "float": to_float,
        **dict.fromkeys(("to", "type_as"), to_type),
    },
)
