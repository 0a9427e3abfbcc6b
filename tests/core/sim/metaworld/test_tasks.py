"""Meta-World's tasks by name; nothing here needs the package itself."""

from __future__ import annotations

import sys

import pytest

from fastvla_core.errors import DependencyError, SimError
from fastvla_core.robot.contract_file import load_contract
from fastvla_core.sim.catalogue import contract_name, make_environment, metaworld_task
from fastvla_core.sim.metaworld import sim as simulator
from fastvla_core.sim.metaworld.sim import CAMERAS, IMAGE_SIZE, OPEN_M, STATE_NAMES, MetaWorldSim
from fastvla_core.sim.metaworld.tasks import INSTRUCTIONS, MetaWorldTask


def test_fifty_tasks_have_a_sentence_each_that_no_other_has() -> None:
    assert len(INSTRUCTIONS) == len(set(INSTRUCTIONS.values())) == 50


@pytest.mark.parametrize(
    ("name", "near"),
    [("drawer-open", "drawer-open-v3"), ("window-open-v2", "window-open-v3"), ("xyz", "assembly")],
)
def test_an_unknown_task_is_refused_with_those_spelt_alike(name: str, near: str) -> None:
    with pytest.raises(SimError, match=f"Meta-World has no task '{name}'") as caught:
        contract_name(f"metaworld/{name}")
    assert near in caught.value.mend


def test_a_name_leads_to_its_simulator() -> None:
    assert contract_name("metaworld/reach-v3") == "metaworld"
    assert contract_name("reach") == "tabletop"
    assert metaworld_task("reach") is None
    with pytest.raises(SimError, match="no task 'dance'") as caught:
        make_environment("dance")
    assert "metaworld/" in caught.value.mend


def test_the_shipped_contract_is_that_of_the_simulated_robot() -> None:
    contract = load_contract("metaworld")
    assert contract.action_names == STATE_NAMES
    cameras = {camera.name: (camera.width, camera.height) for camera in contract.policy_cameras}
    assert cameras == dict.fromkeys(CAMERAS, (IMAGE_SIZE, IMAGE_SIZE))
    assert contract.control_rate_hz == 1 / simulator.STEP_S
    assert contract.joints[0].max_velocity == pytest.approx(simulator.STEP_M / simulator.STEP_S)
    assert contract.gripper is not None
    assert contract.gripper.upper == OPEN_M


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("metaworld.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(DependencyError, match="Meta-World's tasks need 'metaworld'") as caught:
        MetaWorldSim(MetaWorldTask(name="drawer-open-v3"))
    assert "fastvla[metaworld]" in caught.value.mend
