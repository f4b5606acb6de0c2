"""Serve a model on several replicas with Ray Serve, and go on with a session after its replica has changed.

    pip install '.[ray]'
    python examples/serve_ray.py

A sequence's requests bring the same header x-session-id, by which Ray sends them to the same replica. When replicas
come or go, the sequence's state moves through the directory of snapshots, which may be a bucket: here the application
is deployed anew between two chunks, so that every replica is another one, and the answers are those of one stream.
"""

import json
import tempfile
import urllib.request
from pathlib import Path

import numpy as np
import ray
from ray import serve

import fastrnn
from fastrnn import ray as fray


def send(address: str, session: str, x: np.ndarray, start: bool) -> np.ndarray:
    """One chunk (T, I) of a sequence; returns y (T, P)."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, *x.shape], "data": x.ravel().tolist()}
    body = {"inputs": [tensor], "parameters": {"sequence_id": session, "sequence_start": start}}
    request = urllib.request.Request(
        f"{address}/v2/models/tones/infer", json.dumps(body).encode(), {"x-session-id": session}
    )
    with urllib.request.urlopen(request) as response:
        (y,) = json.load(response)["outputs"]
    return np.array(y["data"], np.float32).reshape(y["shape"])[0]


def main(port: int = 8000, num_replicas: int = 2) -> None:
    rng = np.random.default_rng(0)
    weights = {"weight_ih_l0": (36, 4), "weight_hh_l0": (36, 12), "bias_ih_l0": 36, "bias_hh_l0": 36}
    arrays = {name: rng.uniform(-0.5, 0.5, shape).astype(np.float32) for name, shape in weights.items()}
    layer = fastrnn.GRU.from_state_dict(arrays)
    x = rng.standard_normal((20, 4), np.float32)
    if not ray.is_initialized():
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        serve.start(http_options={"port": port})
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as directory:
        layer.save(Path(directory) / "tones.safetensors")
        application = fray.application(
            {"tones": Path(directory) / "tones.safetensors"},
            num_replicas=num_replicas,
            snapshots=Path(directory) / "snapshots",
            deployment={"ray_actor_options": {"num_cpus": 0.5}},
        )
        serve.run(application)
        first = send(address, "caller 1", x[:10], start=True)
        serve.run(application)  # a rolling update: new replicas
        second = send(address, "caller 1", x[10:], start=False)
        serve.delete("default")
    same = np.concatenate([first, second]).tobytes() == layer(x)[0].tobytes()
    print(
        f"{len(first)} steps by one replica, {len(second)} by another one, bits {'the same' if same else 'different'}"
    )


if __name__ == "__main__":
    main()
