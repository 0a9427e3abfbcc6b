"""`fastvla doctor` names what is wrong and how to mend it."""

import json

import pytest

from fastvla_core.cli import main
from fastvla_ros import doctor


def findings(**options):
    return {
        f.name: f
        for f in doctor.examine(**{"contract": "tabletop", "checkpoint": "nano", **options})
    }


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(
        doctor, "_graphics", lambda: doctor.Finding(name="graphics", level="ok", detail="")
    )


def test_a_contract_with_an_unknown_key_is_a_finding_with_its_mend(tmp_path, quick):
    text = doctor_contract().replace("control_rate_hz:", "control_rate:")
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    finding = findings(contract=str(path))["contract"]
    assert finding.level == "error"
    assert "robot.yaml" in finding.detail
    assert "control_rate" in finding.detail
    assert finding.mend


def test_a_checkpoint_that_is_not_there_is_a_finding_with_its_mend(quick):
    finding = findings(checkpoint="/nowhere/policy")["checkpoint"]
    assert finding.level == "error"
    assert "/nowhere/policy" in finding.detail
    assert finding.mend


def test_small_network_buffers_are_a_warning_with_the_sysctl(tmp_path, monkeypatch):
    path = tmp_path / "rmem_max"
    path.write_text("212992\n")
    monkeypatch.setattr(doctor, "_RMEM_MAX", path)
    finding = doctor.network_buffers()
    assert finding.level == "warning"
    assert "sysctl -w net.core.rmem_max=" in finding.mend


def test_graphics_are_tried_for_real():
    assert doctor._graphics().level == "ok"


def test_a_broken_driver_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "_DRAW", "import os; os.abort()")
    finding = doctor._graphics()
    assert finding.level == "error"
    assert "libegl1" in finding.mend


def test_json_and_exit_status(quick, capsys):
    status = main(["doctor", "--json", "--checkpoint", "/nowhere/policy"])
    report = json.loads(capsys.readouterr().out)
    assert status == 1
    assert {"python", "torch", "ros", "contract", "checkpoint"} <= {f["name"] for f in report}


def doctor_contract():
    from fastvla_core.resources import share_path

    return share_path("config/robots/tabletop.yaml").read_text()
