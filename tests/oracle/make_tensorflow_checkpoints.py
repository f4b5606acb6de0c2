"""Write tests/golden/checkpoints and tests/golden/checkpoints.npz: checkpoints of TensorFlow, and its answers.

    python tests/oracle/make_tensorflow_checkpoints.py

Needs the extra `oracle`.
"""

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from checkpoint_cases import BY_NAME, FOLDER, GOLDEN, GRAPHS, LIST, OLD, TRAINED, named  # noqa: E402
from live_checkpoints import build_graph, tf, v1  # noqa: E402

#: Names of TensorFlow 1.0 for the two cells of OLD.
RENAMED = {"kernel": "weights", "bias": "biases"}


def save(path: str, variables: object = None) -> None:
    session = v1.get_default_session()
    v1.train.Saver(variables).save(session, path, write_meta_graph=False, write_state=False)


def answers(name: str, outputs: object, states: object) -> dict[str, np.ndarray]:
    found = named(*v1.get_default_session().run((outputs, states)))
    return {f"{name} {path}": array for path, array in found.items()}


def save_graphs() -> dict[str, np.ndarray]:
    """Every graph under its scope, and what else a program has."""
    golden: dict[str, np.ndarray] = {}
    with tf.Graph().as_default(), v1.Session() as session:
        for graph in LIST:
            golden |= answers(graph.name, *build_graph(graph, session))
        v1.get_variable("softmax/kernel", initializer=tf.constant([[1.0, 2.0]])).load([[1.0, 2.0]], session)
        v1.get_variable("softmax/bias", initializer=tf.zeros(2)).load([0.0, 0.5], session)
        whole = np.arange(15 * 8, dtype="f4").reshape(15, 8)
        sliced = v1.get_variable(
            "sliced/rnn/lstm_cell/kernel",
            whole.shape,
            initializer=v1.zeros_initializer(),
            partitioner=v1.fixed_size_partitioner(3),
        )
        bias = v1.get_variable("sliced/rnn/lstm_cell/bias", initializer=tf.zeros(8))
        half = v1.get_variable("half/rnn/gru_cell/gates/kernel", initializer=tf.cast(whole[:3, :4] / 64, tf.bfloat16))
        parts = {"gates/bias": 4 * [1.0], "candidate/kernel": whole[:3, :2] / 64, "candidate/bias": 2 * [-0.5]}
        halves = [
            v1.get_variable(f"half/rnn/gru_cell/{name}", initializer=tf.constant(value, tf.float16))
            for name, value in parts.items()
        ]
        session.run(v1.variables_initializer([*sliced, bias, half, *halves]))
        for part, rows in zip(sliced, np.split(whole, 3), strict=True):
            part.load(rows, session)
        save(GRAPHS)
    return golden


def save_trained() -> None:
    """One layer with the variables of several optimisers, averages and counters; no scope is needed."""
    graph = BY_NAME["multi_lstm"]
    with tf.Graph().as_default(), v1.Session() as session:
        build_graph(graph, session)
        variables = v1.global_variables()
        values = session.run(variables)
        step = v1.train.get_or_create_global_step()
        optimizers = [
            v1.train.AdamOptimizer(),
            v1.train.MomentumOptimizer(0.1, 0.9),
            v1.train.RMSPropOptimizer(0.1),
        ]
        loss = tf.add_n([tf.reduce_sum(variable) for variable in variables])  # any; what it leaves behind counts
        updates = [optimizer.minimize(loss, global_step=step) for optimizer in optimizers]
        with v1.variable_scope("averages"):
            updates.append(tf.train.ExponentialMovingAverage(0.9).apply(variables))
        updates.append(tf.train.ExponentialMovingAverage(0.5, zero_debias=True).apply([tf.cast(step, tf.float32)]))
        session.run(v1.global_variables_initializer())
        session.run(updates)
        for variable, value in zip(variables, values, strict=True):
            variable.load(value, session)
        save(TRAINED)


def save_old() -> None:
    """The names of TensorFlow 1.0, and of 0.x."""
    with tf.Graph().as_default(), v1.Session() as session:
        names = {}
        for name in ("lstm_projected", "gru", "basic_lstm"):
            build_graph(BY_NAME[name], session)
        for variable in v1.global_variables():
            scope, _, last = variable.op.name.rpartition("/")
            old = f"{scope}/{RENAMED.get(last, last)}"
            if old.startswith("basic_lstm/"):
                last = {"kernel": "Linear/Matrix", "bias": "Linear/Bias"}[last]
                old = f"basic_lstm/RNN/BasicLSTMCell/{last}"
            names[old] = variable
        save(OLD, names)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    golden = save_graphs()
    save_trained()
    save_old()
    np.savez_compressed(GOLDEN / "checkpoints.npz", **golden)
    size = sum(path.stat().st_size for path in [*FOLDER.iterdir(), GOLDEN / "checkpoints.npz"])
    print(f"{len(golden)} arrays, {size:,} bytes in all")


if __name__ == "__main__":
    main()
