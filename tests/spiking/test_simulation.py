"""Spiking networks in time: exact where neurons integrate before they fire, and as their charge says where not."""

import numpy as np
import pytest
from graphs import thresholds, weight
from spiking_graphs import spiking_graphs

from maqd.errors import SpikingError
from maqd.graph import Add, Conv, FixedPoint, Graph, Input, Linear, MaxPool, Multiply, Node, Output, Thresholds
from maqd.numerics.states import States
from maqd.runtime import inputs
from maqd.spiking import SpikingNetwork, compare, run_drained, run_free
from maqd.spiking.simulation import default_steps


def codes(network: SpikingNetwork, count: int = 2) -> tuple[np.ndarray, ...]:
    return inputs.prepare(network.graph, *inputs.random(network.graph, count, seed=1)).codes


def test_drained_spikes_are_the_integers_of_every_tensor():
    networks = spiking_graphs(60)
    kinds: set[str] = set()
    for network in networks:
        given = codes(network)
        simulation = run_drained(network, *given)
        rows = compare(network, simulation, *given)
        assert [row.name for row in rows if row.wrong or row.unsettled] == []
        for name, activity in simulation.activities.items():
            one = network.populations[name]
            assert not activity.spikes[: one.start].any()
            assert not activity.spikes[one.stop :].any()
            fired = activity.spikes[one.start : one.stop]
            assert (fired[1:] <= fired[:-1]).all()  # the first steps of a window, without gaps
        kinds |= {row.operation for row in rows}
    assert len(networks) >= 30
    assert kinds >= {"conv", "linear", "thresholds", "fixed_point", "max_pool", "sum_pool", "add", "concat", "gather"}


def test_additions_are_the_connections_that_spikes_take():
    rng = np.random.default_rng(3)
    first, second = weight(rng, 3, 6, 5), weight(rng, 3, 4, 6)
    nodes = chain(Linear(name="sum", inputs=("x",), weight=first, exponent=0), 4).nodes[:-1]
    nodes += (
        Linear(name="next", inputs=(nodes[-1].name,), weight=second, exponent=0),
        Output(name="out", inputs=("next",)),
    )
    network = SpikingNetwork(Graph(nodes=nodes))
    for run in (run_drained, run_free):
        simulation = run(network, *codes(network))
        (activity,) = simulation.activities.values()
        fan_out = np.count_nonzero(second.unpack(), axis=0)
        assert simulation.additions == {"next": int((activity.counts * fan_out).sum())}  # the input is a current
        assert simulation.additions["next"] > 0


def test_free_running_counts_are_those_of_the_charge_exactly_where_settled():
    wrong = 0
    for network in spiking_graphs(60):
        given = codes(network)
        steps = default_steps(network)
        simulation = run_free(network, *given)
        assert simulation.steps == simulation.scale == steps
        for name, activity in simulation.activities.items():
            one = network.populations[name]
            # What arrived: T times the source's codes, and the offset once a step.
            charge = one.gain * simulation.tensors[one.node.inputs[0]] + steps * one.offset
            np.testing.assert_array_equal(activity.potential, charge - activity.counts * activity.threshold)
            right = activity.counts == np.clip(charge // activity.threshold, 0, steps)
            np.testing.assert_array_equal(activity.settled, right)
            assert one.start > 0 or right.all()  # constant currents
        wrong += sum(row.wrong for row in compare(network, simulation, *given))
    assert wrong > 0


def test_more_steps_than_states_keep_constant_currents_exact():
    graph = chain(Linear(name="sum", inputs=("x",), weight=weight(np.random.default_rng(0), 3, 6, 5), exponent=0), 4)
    network = SpikingNetwork(graph)
    given = (np.random.default_rng(0).integers(-12, 13, (40, 5)),)
    simulation = run_free(network, *given, steps=12)
    (row,) = (row for row in compare(network, simulation, *given) if row.name == "act")
    assert row.wrong == 0
    assert len(set(simulation.activities["act"].counts.reshape(-1).tolist())) > 4  # finer than states
    with pytest.raises(SpikingError, match="at least 1 step, got 0"):
        run_free(network, *given, steps=0)


def chain(node: Node, count: int) -> Graph:
    """Five inputs, a node, an activation of equal steps."""
    act = FixedPoint(
        name="act",
        inputs=(node.name,),
        axis=0,
        states=States(count=count, signed=False),
        step_exponent=0,
        multiplier=np.full(6, 3),
        offset=np.arange(6),
        shift=6,
    )
    return Graph(nodes=(Input(name="x", inputs=(), shape=(5,)), node, act, Output(name="y", inputs=("act",))))


def refused(*nodes: Node) -> Graph:
    x = Input(name="x", inputs=(), shape=(3, 4, 4))
    return Graph(nodes=(x, *nodes, Output(name="y", inputs=(nodes[-1].name,))))


def test_what_spikes_cannot_do_is_refused_by_name():
    random = np.random.default_rng(0)
    act = thresholds(random, "act", "x", 3, 2, 60)
    window = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    conv = Conv(
        name="conv",
        inputs=("act",),
        weight=weight(random, 3, 3, 3, 1, 1),
        exponent=0,
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
    )
    with pytest.raises(SpikingError, match=r"max_pool node 'pool' takes maxima of what is not the spikes.*; pool"):
        SpikingNetwork(refused(act, conv, MaxPool(name="pool", inputs=("conv",), **window)))
    with pytest.raises(SpikingError, match=r"multiply node 'gate': a product of two tensors is not a sum.*; use"):
        SpikingNetwork(refused(act, Multiply(name="gate", inputs=("act", "x"))))
    uneven = Thresholds(
        name="uneven",
        inputs=("x",),
        axis=0,
        states=States(count=4, signed=False),
        step_exponent=0,
        thresholds=np.tile(np.array([[-100], [0], [1]], np.int16), (1, 3)),
        signs=np.ones(3, np.int8),
    )
    with pytest.raises(SpikingError, match=r"thresholds node 'uneven': neurons have one threshold.* its 3; use"):
        SpikingNetwork(refused(uneven))
    SpikingNetwork(
        refused(MaxPool(name="pool", inputs=("x",), **window), Multiply(name="square", inputs=("pool", "pool")))
    )


def test_a_population_waits_for_all_branches():
    random = np.random.default_rng(0)
    network = SpikingNetwork(
        refused(
            thresholds(random, "first", "x", 3, 2, 60),
            FixedPoint(
                name="second",
                inputs=("first",),
                axis=0,
                states=States(count=4, signed=False),
                step_exponent=0,
                multiplier=np.full(3, 5),
                offset=np.full(3, 1),
                shift=1,
            ),
            Add(name="sum", inputs=("first", "second"), shifts=(0, 0)),
            thresholds(random, "third", "sum", 3, 2, 3),
        )
    )
    assert {name: (one.start, one.stop) for name, one in network.populations.items()} == {
        "first": (0, 1), "second": (1, 4), "third": (4, 5),
    }  # fmt: skip
    assert network.latency == 5
    assert network.schedule.splitlines()[1] == "second  steps    1 .. 3     48 neurons, at most 3 spikes each"
    assert network.schedule.splitlines()[3] == "5 steps a sample"
    assert default_steps(network) == 3
