"""The chain of a URDF against MuJoCo's own kinematics, and what cannot be a chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastvla_core.errors import ContractError
from fastvla_core.resources import share_path
from fastvla_core.robot.kinematics import ToolChain, read_chain
from fastvla_core.sim.gl import load_mujoco

# Imported plainly it would draw to a screen, in every test after this one.
mujoco = load_mujoco()

TABLETOP = share_path("config/robots/tabletop.urdf")
ARM = [f"joint{i}" for i in range(1, 7)]
SCENE = share_path("fastvla_core/sim/scene.xml")

# Every kind of joint, with turned frames and skew axes; MuJoCo reads the same file.
ODD = """<robot name="odd">
  <link name="world"/>
  <link name="base"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="rail"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="arm"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <link name="tip"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial></link>
  <joint name="mount" type="fixed"><parent link="world"/><child link="base"/><origin xyz="0.1 0 0.2"/></joint>
  <joint name="slide" type="prismatic"><parent link="base"/><child link="rail"/>
    <origin xyz="0.1 -0.2 0.3" rpy="0.3 -0.5 1.1"/><axis xyz="1 2 -1"/><limit lower="-1" upper="1" velocity="1" effort="1"/></joint>
  <joint name="spin" type="continuous"><parent link="rail"/><child link="arm"/>
    <origin xyz="0 0.4 0.1" rpy="-1.2 0.2 0.4"/><axis xyz="0 0 -1"/></joint>
  <joint name="bend" type="revolute"><parent link="arm"/><child link="tip"/>
    <origin xyz="0.3 0.1 -0.2" rpy="0.7 1.4 -2.0"/><axis xyz="-1 0.5 0.2"/><limit lower="-2" upper="2" velocity="1" effort="1"/></joint>
</robot>"""  # noqa: E501


def mujoco_tool(model, qpos, body: str, site: str | None = None):
    """MuJoCo's rotation, position and Jacobian of a body or a site."""
    data = mujoco.MjData(model)
    data.qpos[: len(qpos)] = qpos
    mujoco.mj_forward(model, data)
    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    if site:
        index = model.site(site).id
        mujoco.mj_jacSite(model, data, linear, angular, index)
        rotation, position = data.site_xmat[index], data.site_xpos[index]
    else:
        index = model.body(body).id
        mujoco.mj_jacBody(model, data, linear, angular, index)
        rotation, position = data.xmat[index], data.xpos[index]
    jacobian = np.vstack([linear, angular])[:, : len(qpos)]
    return rotation.reshape(3, 3), position, jacobian


def check(chain: ToolChain, positions, expected) -> None:
    pose = chain.pose(positions)
    np.testing.assert_allclose(pose.rotation, expected[0], atol=1e-9)
    np.testing.assert_allclose(pose.position, expected[1], atol=1e-9)
    np.testing.assert_allclose(chain.jacobian(positions), expected[2], atol=1e-9)


@pytest.fixture(scope="module")
def scene():
    return mujoco.MjModel.from_xml_path(str(SCENE))


@given(positions=arrays(np.float64, 6, elements=st.floats(-2.5, 2.5)))
def test_the_shipped_arm_is_the_simulated_one(scene, positions):
    chain = read_chain(TABLETOP, base="base_link", tool="tool0", joints=ARM)
    check(chain, positions, mujoco_tool(scene, positions, "hand", "tcp"))


@given(positions=arrays(np.float64, 3, elements=st.floats(-3.0, 3.0)))
def test_any_frames_axes_and_kinds_of_joints(tmp_path_factory, positions):
    path = tmp_path_factory.getbasetemp() / "odd.urdf"
    path.write_text(ODD)
    chain = read_chain(path, base="world", tool="tip", joints=["slide", "spin", "bend"])
    model = mujoco.MjModel.from_xml_string(ODD)
    check(chain, positions, mujoco_tool(model, positions, "tip"))


def test_columns_follow_the_given_order():
    plain = read_chain(TABLETOP, base="base_link", tool="tool0", joints=ARM)
    mixed = read_chain(TABLETOP, base="base_link", tool="tool0", joints=ARM[::-1])
    positions = np.linspace(-1, 1, 6)
    np.testing.assert_allclose(
        plain.jacobian(positions), mixed.jacobian(positions[::-1])[:, ::-1], atol=1e-12
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<robot", "<<robot", "cannot be read as URDF .*"),
        ('<child link="hand"/>', '<child link="claw"/>', "does not connect .* 'base_link'"),
        ('name="joint3" type="revolute"', 'name="joint3" type="planar"', "'joint3' is planar"),
        ('name="joint3" type="revolute"', 'name="elbow" type="revolute"', "'elbow' moves the tool"),
        ('name="joint3" type="revolute"', 'name="joint3" type="fixed"', "no joint joint3 between"),
        ('<axis xyz="0 0 1"/>', '<axis xyz="0 0 0"/>', "'joint1' has no axis"),
        ('xyz="0.25 0 0"', 'xyz="0.25 0"', 'xyz="0.25 0" is no three numbers'),
        ('xyz="0.25 0 0"', 'xyz="0.25 nan 0"', "is no three numbers"),
        ('<parent link="link1"/>', "", "'joint2' has no <parent>"),
        ('<axis xyz="0 0 1"/>', '<axis xyz="0 0 1"/><mimic joint="x"/>', "'joint1' mimics"),
        ('<parent link="base_link"/>', '<parent link="hand"/>', "does not connect"),
    ],
)
def test_what_is_no_chain_is_named(tmp_path: Path, old: str, new: str, words: str):
    text = TABLETOP.read_text()
    assert old in text
    path = tmp_path / "arm.urdf"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ContractError, match=words) as caught:
        read_chain(path, base="base_link", tool="tool0", joints=ARM)
    assert str(path) in str(caught.value)
    assert caught.value.mend


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ContractError, match="cannot be read as URDF"):
        read_chain(tmp_path / "none.urdf", base="a", tool="b", joints=["c"])
