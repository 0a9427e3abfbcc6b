"""Builds the pip distribution `fastvla`, which is also the ament_python package of that name."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
SHARE = "share/fastvla"

CORE = [
    "torch>=2.6",
    "numpy>=1.26,<3",
    "safetensors>=0.5",
    "tokenizers>=0.21",
    "huggingface_hub>=0.30",
    "pyyaml>=6",
    "opencv-python-headless>=4.11,<5",
    "typing_extensions>=4.1",
    # Unpacks JPEG faster than OpenCV, which gives the same pixels where there is no wheel of it.
    "simplejpeg>=1.8; sys_platform == 'linux' and platform_machine in 'x86_64 aarch64'",
]
SIM = ["mujoco>=3.2"]
BAGS = ["rosbags>=0.11.9,<0.12", "mcap>=1.6", "zstandard>=0.22", "lz4>=4.3"]
TRAIN = ["tqdm>=4.66", "matplotlib>=3.8", "av>=13"]
# The embedded ROS runtime stands in for rclpy; its wire layer has wheels for x86-64 Linux only.
EMBEDDED_ROS = ["cyclonedds==11.0.1; sys_platform == 'linux' and platform_machine == 'x86_64'"]
# A policy on another machine (docs/remote.md); the example for task planners (docs/planners.md).
REMOTE = ["grpcio>=1.66", "protobuf>=5"]
PLANNER = ["py_trees>=2.2"]
# Data sets of others in and out (docs/data.md); conversion beyond one machine.
INTEROP = ["pyarrow>=15", "h5py>=3.10"]
RAY = ["ray[data]>=2.30"]
# Adapters and 8-bit optimisers (docs/finetuning.md).
LORA = ["peft>=0.21", "bitsandbytes>=0.50.2; sys_platform == 'linux'"]
# ZeRO for several GPUs (docs/finetuning.md).
DEEPSPEED = ["deepspeed>=0.19"]
# Curves in a browser (docs/finetuning.md).
TENSORBOARD = ["tensorboard>=2.19"]
# Vision-language backbones (docs/backbones.md). Transformers renames things in minor versions: the
# lower bound is what the code was written for. For Python 3.10 there is no such version.
VLM = ["transformers>=5.23,<6; python_version >= '3.11'", *LORA]
# Another runtime for policies on a CPU (fastvla_core/engines/README.md).
ONNX = ["torch>=2.8", "onnxruntime>=1.20", "onnx>=1.17", "onnxscript>=0.3"]
# Somebody else's tasks, in an environment of their own: it wants MuJoCo 3.3.0 (docs/metaworld.md).
METAWORLD = ["metaworld>=3.1.1,<3.2"]
TEST = [
    *REMOTE,
    *PLANNER,
    *INTEROP,
    *VLM,
    *ONNX,
    *TENSORBOARD,
    *DEEPSPEED,
    "grpcio-tools>=1.66",
    "cryptography>=42",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "triton>=3.6; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "import-linter>=2.1",
    "ruff>=0.14",
    "pyright[nodejs]>=1.1.400",
    "psutil>=6",
]


def files_below(folder: str) -> list[tuple[str, list[str]]]:
    """Every file below `folder`, grouped by the share folder it is installed to."""
    groups: dict[str, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file():
            relative = path.relative_to(ROOT)
            groups.setdefault(f"{SHARE}/{relative.parent}", []).append(str(relative))
    return list(groups.items())


setup(
    name="fastvla",
    version="0.1.0",
    description="Vision-Language-Action policies on ROS 2 robots",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    maintainer="FastVLA maintainers",
    maintainer_email="maintainers@fastvla.invalid",
    python_requires=">=3.10",
    # `launch`, `config` and `tests` are folders of files: a bare find_packages() would install
    # a `launch` package over ROS 2's own.
    packages=find_packages(include=["fastvla_core*", "fastvla_ros*", "training*"]),
    package_data={
        "": ["*.md", "*.xml", "*.yaml", "*.json", "*.proto", "*.binpb"],
        "fastvla_ros.embedded": ["interfaces/*/*/*"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", ["config/resource/fastvla"]),
        (SHARE, ["package.xml"]),
        (f"{SHARE}/launch", ["launch/bringup.launch.py"]),
        *files_below("config/robots"),
        *files_below("config/policies"),
        *files_below("config/recipes"),
        *files_below("fastvla_msgs/action"),
        *files_below("fastvla_msgs/msg"),
        *files_below("fastvla_msgs/srv"),
    ],
    install_requires=[*CORE, *SIM, *BAGS, *TRAIN, *EMBEDDED_ROS],
    extras_require={
        "remote": REMOTE,
        "planner": PLANNER,
        "interop": INTEROP,
        "ray": RAY,
        "lora": LORA,
        "vlm": VLM,
        "onnx": ONNX,
        "deepspeed": DEEPSPEED,
        "tensorboard": TENSORBOARD,
        "metaworld": METAWORLD,
        "test": TEST,
    },
    zip_safe=True,
    entry_points={
        "console_scripts": [
            "fastvla = fastvla_core.cli:main",
            "policy_server = fastvla_ros.nodes.policy_server:main",
            "command_guard = fastvla_ros.nodes.command_guard:main",
            "black_box = fastvla_ros.nodes.black_box:main",
            "sim_robot = fastvla_ros.nodes.sim_robot:main",
            "task_cli = fastvla_ros.nodes.task_cli:main",
            "behaviour_tree = fastvla_ros.examples.behaviour_tree:main",
        ]
    },
)
