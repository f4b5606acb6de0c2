"""The orders of the gates, and the change from one to another."""

import numpy as np
import pytest
from bits import assert_same_bits

from fastrnn.importers.gate_orders import GATE_ORDERS, reorder_gates
from fastrnn.spec import NUM_GATES

#: Each framework's gates under its own names, in its order; then in PyTorch's.
OWN_NAMES = {
    ("pytorch", "lstm"): ("ifgo", "ifgo"),
    ("pytorch", "gru"): ("rzn", "rzn"),
    ("keras", "lstm"): ("ifco", "ifco"),
    ("keras", "gru"): ("zrh", "rzh"),
    ("tensorflow", "lstm"): ("ijfo", "ifjo"),
    ("tensorflow", "gru"): ("ruc", "ruc"),
    ("onnx", "lstm"): ("iofc", "ifco"),
    ("onnx", "gru"): ("zrh", "rzh"),
    ("flax", "lstm"): ("ifgo", "ifgo"),
    ("flax", "gru"): ("rzn", "rzn"),
    ("ncnn", "lstm"): ("ifog", "ifgo"),
    ("ncnn", "gru"): ("run", "run"),
}


def test_every_order_has_the_gates_of_its_cell():
    for framework, orders in GATE_ORDERS.items():
        assert orders.keys() == NUM_GATES.keys(), framework
        for kind, order in orders.items():
            assert len(order) == NUM_GATES[kind]
            assert sorted(order) == sorted(GATE_ORDERS["pytorch"][kind]), (framework, kind)
            assert kind == "rnn" or (framework, kind) in OWN_NAMES


@pytest.mark.parametrize("framework, kind", OWN_NAMES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_names_move_with_their_gates(framework, kind, axis):
    theirs, in_pytorchs_order = OWN_NAMES[framework, kind]
    columns = np.array([ord(gate) * 100 + unit for gate in theirs for unit in range(3)])
    wanted = np.array([ord(gate) * 100 + unit for gate in in_pytorchs_order for unit in range(3)])
    array = np.stack([columns, -columns], 1 if axis == 0 else 0)
    moved = reorder_gates(array, kind, source=framework, axis=axis)
    assert_same_bits(moved, np.stack([wanted, -wanted], 1 if axis == 0 else 0))
    assert_same_bits(reorder_gates(moved, kind, target=framework, axis=axis), array)
    assert not np.shares_memory(moved, array)
