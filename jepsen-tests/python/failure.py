"""What a failed call says, taken from its status details."""

import time

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from stubs import error_pb


class GivenUp(Exception):
    """The client's own clock was faster than the answer: there are no details."""


class Refusal:
    """The google.rpc details of a failed call."""

    def __init__(self, error: grpc.RpcError):
        self.code = error.code()
        # Checks too that code and message are the same in both places.
        status = rpc_status.from_call(error)
        if status is None and self.code == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise GivenUp(error.details())
        assert status is not None, f"no details with {self.code}: {error.details()}"
        self.message = status.message
        self.info = self._only(status.details, error_details_pb2.ErrorInfo)
        assert self.info is not None, f"no ErrorInfo: {status}"
        assert self.info.domain == "huntlog", self.info
        # Every reason is one that the contract lists.
        error_pb.ErrorReason.Value(f"ERROR_REASON_{self.info.reason}")
        self.reason = self.info.reason
        self.metadata = dict(self.info.metadata)
        self.disposition = self.metadata.pop("disposition", None)
        retry = self._only(status.details, error_details_pb2.RetryInfo)
        self.retry_seconds = retry and retry.retry_delay.ToTimedelta().total_seconds()
        bad = self._only(status.details, error_details_pb2.BadRequest)
        self.fields = [v.field for v in bad.field_violations] if bad else []
        if bad:
            assert all(v.description for v in bad.field_violations), bad

    @staticmethod
    def _only(details: list[any_pb2.Any], kind):
        message = kind()
        found = [detail for detail in details if detail.Is(kind.DESCRIPTOR)]
        assert len(found) <= 1, details
        return message if found and found[0].Unpack(message) else None

    def __repr__(self) -> str:
        return (
            f"{self.code.name} {self.reason} {self.disposition} "
            f"{self.metadata} {self.fields}: {self.message}"
        )


def refusal(call) -> Refusal:
    """Runs `call`, which has to fail, and answers what it says."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return Refusal(error)
    raise AssertionError(f"it did not fail: {answer}")


def patiently(call):
    """Repeats `call` as long as its failures say to."""
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            refused = Refusal(error)
            if not refused.retry_seconds:
                raise
            time.sleep(refused.retry_seconds)


def expect(
    refused: Refusal,
    code: grpc.StatusCode,
    reason: str,
    disposition: str | None,
    *,
    retry: bool,
    metadata: dict[str, str] | None = None,
    fields: list[str] | None = None,
) -> None:
    """Checks a row of the table of answers."""
    assert refused.code == code, refused
    assert refused.reason == reason, refused
    assert refused.disposition == disposition, refused
    assert bool(refused.retry_seconds) == retry, refused
    for key, value in (metadata or {}).items():
        assert refused.metadata.get(key) == value, refused
    if fields is not None:
        assert refused.fields == fields, refused
