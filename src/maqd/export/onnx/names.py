"""Names that are unique in a model, whatever the modules of a network are called."""

from dataclasses import replace

from maqd.graph import Graph, Input, Node, Output


def with_unique_names(graph: Graph) -> Graph:
    """The graph with node names that leave room for those of a model.

    A model's inputs and outputs go by their keys, tensors between a node's operators by the node's name, a slash and
    what they are, and constants that nodes share begin with a slash. So no node's name may have a slash or be a key,
    or be what a key has before a slash.

    Args:
        graph: A valid graph; most networks come back as they are.
    """
    keys = {node.key for node in (*graph.inputs, *graph.outputs)}
    reserved = keys | {key.partition("/")[0] for key in keys}
    names: dict[str, str] = {}
    taken = {node.name for node in graph.nodes}
    for node in graph.nodes:
        name = node.name.replace("/", ".")
        if name != node.name or name in reserved:
            number = 1
            while (free := f"{name}:{number}") in taken or free in reserved:
                number += 1
            taken.add(free)
            name = free
        names[node.name] = name
    if all(old == new for old, new in names.items()):
        return graph
    return Graph(nodes=tuple(_renamed(node, names) for node in graph.nodes), metadata=graph.metadata)


def _renamed(node: Node, names: dict[str, str]) -> Node:
    inputs = tuple(names[name] for name in node.inputs)
    if isinstance(node, Input | Output):
        return replace(node, name=names[node.name], inputs=inputs, key=node.key)
    return replace(node, name=names[node.name], inputs=inputs)
