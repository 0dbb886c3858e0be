"""Damaged files: bytes that were flipped, cut, doubled or exchanged, and plain trees with other values."""

import random
from typing import Any

NUMBERS = (0, 1, -1, 2, 7, 8, 255, 256, 65535, 2**31 - 1, -(2**31), 2**32, 2**62, -(2**63), 2**63, 2**64, 10**30)
"""Integers at which something may break."""

VALUES: tuple[Any, ...] = (
    *NUMBERS,
    None,
    True,
    False,
    0.5,
    -0.0,
    1e308,
    "",
    "x",
    "\ud800",
    "a" * 300,
    [],
    {},
    [[]],
    {"": 0},
)
"""Values of another kind."""


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The bytes after one to four changes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(changed) + 1)
        length = chance.choice((1, 1, 2, 4, 8, 30))
        match chance.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at : at + length] = chance.randbytes(length)
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                width = chance.choice((1, 2, 4, 8))
                number = chance.choice(NUMBERS) % 256**width
                changed[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
            case 6 if b"0" < bytes(changed[at : at + 1]) <= b"9":
                changed[at : at + 1] = str(chance.choice(NUMBERS)).encode()
            case _:
                other = chance.randrange(len(changed) + 1)
                changed[at : at + length] = changed[other : other + length]
    return bytes(changed)


def mutated_tree(tree: Any, chance: random.Random) -> Any:
    """The same tree with one to three values changed, removed or added; values may be of any kind."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        tree = _changed(tree, chance)
    return tree


def _changed(tree: Any, chance: random.Random) -> Any:
    inside = isinstance(tree, dict | list) and len(tree) > 0 and chance.random() < 0.93
    if not inside:
        if type(tree) is int and chance.random() < 0.5:
            return tree + chance.choice((-1, 1, -tree, tree))
        return chance.choice(VALUES)
    if isinstance(tree, dict):
        key = chance.choice(sorted(tree, key=str))
        match chance.randrange(12):
            case 0:
                return {name: value for name, value in tree.items() if name != key}
            case 1:
                return {**tree, chance.choice(("", "x", "schema", "name")): chance.choice(VALUES)}
            case 2:
                return {**tree, key: tree[chance.choice(sorted(tree, key=str))]}
            case _:
                return {**tree, key: _changed(tree[key], chance)}
    at = chance.randrange(len(tree))
    match chance.randrange(12):
        case 0:
            return [*tree[:at], *tree[at + 1 :]]
        case 1:
            return [*tree[:at], tree[at], *tree[at:]]
        case 2:
            return [*tree[:at], tree[chance.randrange(len(tree))], *tree[at + 1 :]]
        case _:
            return [*tree[:at], _changed(tree[at], chance), *tree[at + 1 :]]
