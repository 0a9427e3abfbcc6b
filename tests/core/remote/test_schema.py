"""The compiled descriptors are those of the .proto files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from fastvla_core import remote
from fastvla_core.remote import schema

FOLDER = Path(remote.__file__).parent


def test_the_descriptors_are_compiled_from_the_proto_files(tmp_path):
    out = tmp_path / "schema.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--descriptor_set_out={out}"]
    done = subprocess.run(
        [*command, "policy.proto", "health.proto"],
        cwd=FOLDER, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shipped = FileDescriptorSet.FromString((FOLDER / "schema.binpb").read_bytes())
    assert shipped == FileDescriptorSet.FromString(out.read_bytes()), "compile schema.binpb again"


def test_methods_are_found_by_service():
    assert set(schema.methods(schema.POLICY)) == {"Describe", "Infer"}
    assert schema.methods(schema.HEALTH)["Check"].path == "/grpc.health.v1.Health/Check"
