"""The configuration for KubeRay in docs/deploy, as far as Ray itself can check it."""

import inspect
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="needs the package ray")

import yaml  # noqa: E402
from ray.serve.schema import ServeDeploySchema  # noqa: E402

from fastrnn.ray.deployment import application, build  # noqa: E402
from fastrnn.serve import Options  # noqa: E402

FILE = Path(__file__).parents[1] / "docs" / "deploy" / "rayservice.yaml"


def test_the_configuration_of_serve():
    spec = yaml.safe_load(FILE.read_text())["spec"]
    assert spec["rayClusterConfig"]["rayVersion"] == ray.__version__
    config = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (served,) = config.applications
    assert served.import_path == f"{build.__module__}:{build.__name__}"
    assert set(served.args) <= set(inspect.signature(application).parameters)
    Options(**served.args["options"])
    bound = build(served.args)
    assert {deployment.name for deployment in served.deployments} == {bound._bound_deployment.name}


def test_what_is_refused():
    with pytest.raises(TypeError, match="wanted files by name"):
        application({})
    with pytest.raises(ValueError, match=r"snapshot_dir is .*give snapshots instead"):
        application({"a": "b"}, options=Options(snapshot_dir=Path("here")))
