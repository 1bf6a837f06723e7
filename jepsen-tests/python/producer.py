"""A producer as any Python programmer would write one: it opens a session,
numbers its batches, and remembers what was acknowledged."""

import os

from stubs import event_pb, service_pb


class Producer:
    """One session, used through whichever node is asked."""

    def __init__(self, node, session: str):
        self.session = session
        self.sequence = 0
        # Sequence -> offsets of its accepted events.
        self.acknowledged: dict[int, list[int]] = {}
        self.epoch = self.open(node, os.urandom(16)).epoch

    def open(self, node, nonce: bytes):
        request = service_pb.OpenSessionRequest(session=self.session, nonce=nonce)
        return node.events.OpenSession(request, timeout=10, wait_for_ready=True)

    def request(self, events, *, sequence=None, epoch=None, expected=()):
        """The next batch, unless `sequence` names another."""
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        return service_pb.AppendRequest(
            batch=service_pb.Batch(
                session=self.session,
                epoch=self.epoch if epoch is None else epoch,
                sequence=sequence,
                events=events,
                expected_revisions=expected,
            )
        )

    def append(self, node, events, **named):
        """Appends the next batch, which has to succeed."""
        return self.send(node, self.request(events, **named))

    def send(self, node, request, timeout=10):
        answer = node.events.Append(request, timeout=timeout)
        self.note(answer)
        return answer

    def note(self, answer) -> None:
        """An answer holds for ever, however often it is given."""
        assert answer.session == self.session
        offsets = [
            outcome.accepted.offset
            for outcome in answer.outcomes
            if outcome.WhichOneof("outcome") == "accepted"
        ]
        before = self.acknowledged.setdefault(answer.sequence, offsets)
        assert before == offsets, f"{self.session}/{answer.sequence} has moved"


def custom(hunt: str, payload: bytes = b"", player: str = ""):
    kind = event_pb.Custom(type="position", payload=payload)
    return event_pb.Event(hunt=hunt, player=player, custom=kind)


def reasons(answer) -> list[str | None]:
    """Why each event of a batch was rejected; None for those accepted."""
    return [
        None
        if outcome.WhichOneof("outcome") == "accepted"
        else event_pb.RejectReason.Name(outcome.rejected.reason)
        for outcome in answer.outcomes
    ]
