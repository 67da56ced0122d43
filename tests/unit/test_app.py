"""The graph as Ray Serve builds it: nothing starts."""

from importlib import resources

import pytest
import yaml
from click.testing import CliRunner
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema
from ray.serve.scripts import cli

from cellular.bank import create_bank
from cellular.errors import CellularError
from cellular.teachers import HashTeacher
from serve import app
from serve.settings import ServeConfig


def test_the_configuration_is_one_that_ray_serve_takes():
    text = resources.files("serve").joinpath("config.yaml").read_text("utf-8")
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(text)).applications
    assert application.import_path == "serve.app:build"
    ServeConfig.model_validate(application.args)


def test_a_machine_of_two_cores_has_room_for_every_stage():
    options = app.deployment_options().values()
    assert sum(one["ray_actor_options"]["num_cpus"] for one in options) <= 2


def test_serve_build_writes_the_deployments_of_what_the_package_serves(tmp_path):
    result = CliRunner().invoke(cli, ["build", "serve.app:application", "-o", str(tmp_path / "built.yaml")])
    assert result.exit_code == 0, result.output
    (application,) = yaml.safe_load((tmp_path / "built.yaml").read_text())["applications"]
    assert {"Gateway", "Embedder", "RETDecoder"} <= {one["name"] for one in application["deployments"]}


def test_a_fused_application_is_one_deployment(ret_checkpoint):
    config = ServeConfig(checkpoint=str(ret_checkpoint), fused=True)
    fused = app.build(config)
    assert isinstance(fused, Application)
    assert fused._bound_deployment.name == "Gateway"
    assert fused._bound_deployment.num_replicas == 1


def test_another_teacher_than_the_banks_is_refused_before_anything_starts(tmp_path):
    teacher = HashTeacher(dimension=128)
    teacher.name = "another"
    create_bank(tmp_path, ["a phrase"], teacher)
    with pytest.raises(CellularError, match=f"{teacher.fingerprint}.*{HashTeacher().fingerprint}"):
        app.build(ServeConfig(banks={"one": tmp_path}, stages=("PhraseBankDecoder",), teacher="hash"))


def test_a_checkpoint_of_another_teacher_is_refused_before_anything_starts(tmp_path, ret_checkpoint):
    other = HashTeacher()
    create_bank(tmp_path, ["a phrase"], other)
    both = f"{HashTeacher(384).fingerprint}.*{other.fingerprint}"
    with pytest.raises(CellularError, match=both):
        app.build(ServeConfig(banks={"one": tmp_path}, checkpoint=str(ret_checkpoint)))
    with pytest.raises(CellularError, match=both):
        app.build(ServeConfig(checkpoint=str(ret_checkpoint), teacher="hash"))
