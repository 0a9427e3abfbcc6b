"""What does not need a running robot: each finding says what is wrong and how to mend it."""

from __future__ import annotations

import json
import time

import pytest

from fastvla_core.cli import main
from fastvla_core.resources import share_path
from fastvla_ros.doctor import examination, machine, network, network_buffers, project
from fastvla_ros.doctor.findings import Finding, error, ok, warning


def only(findings) -> Finding:
    (finding,) = findings
    return finding


def test_a_contract_with_an_unknown_key_is_a_finding_with_its_mend(tmp_path):
    text = share_path("config/robots/tabletop.yaml").read_text()
    path = tmp_path / "robot.yaml"
    path.write_text(text.replace("control_rate_hz:", "control_rate:"))
    finding = only(examination._guarded("contract", lambda: project.check_contract(str(path))))
    assert finding.level == "error"
    assert "robot.yaml" in finding.detail
    assert "control_rate" in finding.detail
    assert finding.mend


def test_a_checkpoint_that_is_not_there_is_a_finding_with_its_mend():
    check = project.check_checkpoint("/nowhere/policy", "tabletop")
    finding = only(examination._guarded("checkpoint", lambda: check))
    assert finding.level == "error"
    assert "/nowhere/policy" in finding.detail
    assert finding.mend


def test_small_network_buffers_are_a_warning_with_the_sysctl(tmp_path, monkeypatch):
    path = tmp_path / "rmem_max"
    path.write_text("212992\n")
    monkeypatch.setattr(network, "RMEM_MAX", path)
    finding = network_buffers()
    assert finding.level == "warning"
    assert "sysctl -w net.core.rmem_max=" in finding.mend


def test_graphics_are_tried_for_real():
    assert only(machine.check_graphics()).level == "ok"


def test_a_broken_driver_is_a_finding(monkeypatch):
    monkeypatch.setattr(machine, "_DRAW", "import os; os.abort()")
    finding = only(machine.check_graphics())
    assert finding.level == "error"
    assert "libegl1" in finding.mend


@pytest.mark.parametrize(
    ("name", "value", "level", "word"),
    [
        ("ROS_DOMAIN_ID", "seven", "error", "'seven'"),
        ("ROS_DOMAIN_ID", "233", "error", "233"),
        ("ROS_DOMAIN_ID", "150", "warning", "150"),
        ("ROS_AUTOMATIC_DISCOVERY_RANGE", "WORLD", "error", "WORLD"),
        ("CYCLONEDDS_URI", "file:///nowhere.xml", "error", "no such file"),
        ("ROS_DOMAIN_ID", "5", "ok", "domain 5"),
    ],
)
def test_what_keeps_nodes_from_finding_each_other(monkeypatch, name, value, level, word):
    for known in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "CYCLONEDDS_URI"):
        monkeypatch.delenv(known, raising=False)
    monkeypatch.setenv(name, value)
    list(network.check_ros())
    finding = only(network.check_discovery())
    assert (finding.level, word in finding.detail) == (level, True)


def test_a_processor_that_saves_power_is_a_warning(tmp_path, monkeypatch):
    folder = tmp_path / "cpu0" / "cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_governor").write_text("powersave\n")
    monkeypatch.setattr(machine, "_GOVERNORS", tmp_path)
    finding = only(machine.check_processor())
    assert finding.level == "warning"
    assert "performance" in finding.mend


def test_a_disk_that_is_nearly_full_is_a_warning(monkeypatch):
    class Usage:
        free = 1 << 30

    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: Usage)
    assert only(machine.check_disk()).level == "warning"


def test_the_driver_of_the_gpu_is_named(tmp_path, monkeypatch):
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Mon\n")
    monkeypatch.setattr(machine, "_DRIVER", path)
    assert machine.driver_version() == "570.86.15"


@pytest.mark.parametrize(("free_gib", "level"), [(40, "ok"), (1, "warning")])
def test_a_gpu_is_named_with_its_free_memory(monkeypatch, free_gib, level):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free_gib << 30, 48 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "RTX 6000")
    finding = only(machine.check_device())
    assert (finding.level, "RTX 6000" in finding.detail) == (level, True)
    assert f"{free_gib}.0 of 48.0 GiB free" in finding.detail


def test_a_gpu_that_torch_cannot_use_is_a_warning(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Mon\n")
    monkeypatch.setattr(machine, "_DRIVER", path)
    assert only(machine.check_device()).level == "warning"


def test_versions_are_what_a_report_needs():
    detail = only(machine.check_packages()).detail
    assert "torch 2" in detail
    assert "mujoco" in detail


def test_what_breaks_is_a_finding():
    def broken():
        yield ok("x", "fine so far")
        raise ZeroDivisionError("ouch")

    good, bad = examination._guarded("x", broken)
    assert good.level == "ok"
    assert bad.detail == "ZeroDivisionError: ouch"


def test_what_hangs_is_a_finding_in_bounded_time():
    begin = time.monotonic()
    finding = only(examination._run("x", lambda: time.sleep(60) or [], limit_s=0.2))
    assert time.monotonic() - begin < 10
    assert "0 s" in finding.detail
    assert "--timeout" in finding.mend


@pytest.mark.parametrize(
    ("findings", "strict", "status"),
    [
        ([ok("a", "fine")], True, 0),
        ([warning("a", "so", mend="so")], False, 0),
        ([warning("a", "so", mend="so")], True, 1),
        ([error("a", "bad", mend="so")], False, 1),
    ],
)
def test_the_exit_status_and_json(monkeypatch, capsys, findings, strict, status):
    monkeypatch.setattr("fastvla_ros.commands_cli.doctor.examine", lambda _: iter(findings))
    assert main(["doctor", "--json", *(["--strict"] if strict else [])]) == status
    assert [f["detail"] for f in json.loads(capsys.readouterr().out)] == [
        f.detail for f in findings
    ]


def test_each_finding_that_is_not_ok_is_printed_with_its_mend(monkeypatch, capsys):
    found = [ok("a", "fine"), error("b", "it is broken", mend="do this")]
    monkeypatch.setattr("fastvla_ros.commands_cli.doctor.examine", lambda _: iter(found))
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["ERROR", "b"]
    assert lines[2].strip() == "to mend: do this"


def test_the_parts_that_are_looked_at():
    names = [name for name, _ in examination._checks(examination.Options())]
    assert {"torch", "device", "graphics", "ros", "network buffers", "robot"} <= set(names)
