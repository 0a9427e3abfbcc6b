"""Message definitions of what is recorded: rosbags' Jazzy store and the project's interfaces."""

from __future__ import annotations

import functools

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from fastvla_core.errors import BagError
from fastvla_core.resources import share_path

FEEDBACK = "fastvla_msgs/action/ExecuteTask_FeedbackMessage"
"""What the action's hidden topic `.../_action/feedback` carries."""

_ACTION = "fastvla_msgs/action/ExecuteTask.action"
# Definitions refer to `package/Name`, which readers take for `package/msg/Name`.
_FEEDBACK_PART = "fastvla_msgs/msg/ExecuteTask_Feedback"
_FEEDBACK_TEXT = "unique_identifier_msgs/UUID goal_id\nfastvla_msgs/ExecuteTask_Feedback feedback\n"
# A command interface whose package is not in the store.
_JOINT_JOG = "control_msgs/msg/JointJog"
_JOINT_JOG_TEXT = (
    "std_msgs/Header header\nstring[] joint_names\n"
    "float64[] displacements\nfloat64[] velocities\nfloat64 duration\n"
)
# What service introspection publishes; recorders keep the .srv file instead of a definition of it.
_CALLS = {"SetBool": ("bool data\n", "bool success\nstring message\n"),
          "Trigger": ("", "bool success\nstring message\n")}  # fmt: skip


@functools.lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The standard messages, equal from Humble to Jazzy as far as used here, and our own."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(share_path("fastvla_msgs/msg").glob("*.msg")):
        text = path.read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, f"fastvla_msgs/msg/{path.stem}"))
    *_, feedback = share_path(_ACTION).read_text(encoding="utf-8").split("\n---\n")
    store.register(get_types_from_msg(feedback, _FEEDBACK_PART))
    store.register(get_types_from_msg(_FEEDBACK_TEXT, FEEDBACK))
    store.register(get_types_from_msg(_JOINT_JOG_TEXT, _JOINT_JOG))
    for name, (request, response) in _CALLS.items():
        parts = {"Request": request, "Response": response}
        for part, text in parts.items():
            if f"std_srvs/msg/{name}_{part}" not in store.fielddefs:
                store.register(get_types_from_msg(text, f"std_srvs/msg/{name}_{part}"))
        event = "service_msgs/ServiceEventInfo info\n" + "".join(
            f"std_srvs/{name}_{part}[<=1] {part.lower()}\n" for part in parts
        )
        # Read as a message, because the parser knows no other kind of name.
        (fields,) = get_types_from_msg(event, f"std_srvs/msg/{name}_Event").values()
        store.register({f"std_srvs/srv/{name}_Event": fields})
    return store


def is_known(type_name: str) -> bool:
    """Whether messages of this type can be recorded."""
    return type_name in typestore().fielddefs


def definition(type_name: str) -> str:
    """The definition of a type and of all it is made of, as rosbag2 keeps it in a bag.

    Raises:
        BagError: the type is not known here.
    """
    if not is_known(type_name):
        raise BagError(
            f"the type {type_name} is not known",
            mend="record it with `ros2 bag record`, which reads the definition from ROS",
        )
    return typestore().generate_msgdef(type_name, ros_version=2)[0]


def type_hash(type_name: str) -> str:
    """The RIHS01 hash of a message type (REP 2016); "" for parts of an action."""
    return typestore().hash_rihs01(type_name) if "/msg/" in type_name else ""
