"""The stubs any Python programmer would have: generated from the .proto files."""

import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

_PROTOS = Path(__file__).resolve().parents[2] / "proto" / "proto"
_STUBS = tempfile.TemporaryDirectory(prefix="huntlog-stubs-")


def _generate() -> None:
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    files = [str(path) for path in sorted((_PROTOS / "huntlog" / "v1").glob("*.proto"))]
    arguments = [
        f"--proto_path={_PROTOS}",
        f"--proto_path={well_known}",
        f"--python_out={_STUBS.name}",
        f"--grpc_python_out={_STUBS.name}",
        *files,
    ]
    if protoc.main(["protoc", *arguments]) != 0:
        raise SystemExit("the stubs could not be generated")
    sys.path.insert(0, _STUBS.name)


_generate()

from huntlog.v1 import (  # noqa: E402, F401
    admin_service_pb2 as admin_pb,
    admin_service_pb2_grpc as admin_grpc,
    definition_pb2 as definition_pb,
    error_pb2 as error_pb,
    event_pb2 as event_pb,
    event_service_pb2 as service_pb,
    event_service_pb2_grpc as service_grpc,
    hunt_service_pb2 as hunt_pb,
    hunt_service_pb2_grpc as hunt_grpc,
)
