"""fastrnn and PyTorch on the shapes of ``shapes/*.txt``, with the same weights and inputs."""

import numpy as np
import pytest
from workloads import Workload, build_layer, draw_input, draw_lengths, draw_weights, read_workloads

every_workload = pytest.mark.parametrize("workload", read_workloads(), ids=str)


def describe(benchmark, workload: Workload, lengths: np.ndarray) -> None:
    benchmark.group = str(workload)
    benchmark.extra_info["steps"] = int(lengths.sum()) * workload.num_layers * workload.num_directions


def torch_call(workload: Workload, x: np.ndarray, lengths: np.ndarray, num_threads: int):
    """Return a function that runs the workload in PyTorch and returns the outputs (B, T, D*H) as an array."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(num_threads)
    module = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[workload.cell](
        workload.input_size,
        workload.hidden_size,
        workload.num_layers,
        bidirectional=workload.num_directions == 2,
        batch_first=True,
    ).eval()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in draw_weights(workload).items()})
    inputs, sizes = torch.from_numpy(x), torch.from_numpy(lengths)

    state = None

    @torch.inference_mode()
    def carry():
        nonlocal state
        y, state = module(inputs, state)
        return y.numpy()

    @torch.inference_mode()
    def whole():
        return module(inputs)[0].numpy()

    @torch.inference_mode()
    def packed():
        batch = torch.nn.utils.rnn.pack_padded_sequence(inputs, sizes, batch_first=True, enforce_sorted=False)
        y, _ = module(batch)
        return torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=workload.steps)[0].numpy()

    return carry if workload.group == "stream" else whole if workload.lengths == "full" else packed


def fastrnn_call(workload: Workload, x: np.ndarray, lengths: np.ndarray):
    """Return a function that runs the workload in fastrnn and returns the outputs."""
    layer = build_layer(workload)
    if workload.group == "stream":
        stream = layer.stream(workload.batch)
        return lambda: stream.step(x[:, 0])
    return lambda: layer(x, lengths=None if workload.lengths == "full" else lengths)[0]


@every_workload
def test_fastrnn(benchmark, workload):
    x, lengths = draw_input(workload), draw_lengths(workload.lengths, workload.batch, workload.steps)
    describe(benchmark, workload, lengths)
    benchmark(fastrnn_call(workload, x, lengths))


@every_workload
def test_torch(benchmark, workload, num_threads):
    x, lengths = draw_input(workload), draw_lengths(workload.lengths, workload.batch, workload.steps)
    describe(benchmark, workload, lengths)
    peer = torch_call(workload, x, lengths, num_threads)
    first = fastrnn_call(workload, x, lengths)()
    np.testing.assert_allclose(first.reshape(x.shape[0], x.shape[1], -1), peer(), atol=2e-5)
    benchmark(peer)
