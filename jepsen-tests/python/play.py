"""The contract while all is well: sessions, appends, hunts, reads."""

import queue

import grpc
from google.protobuf import empty_pb2, timestamp_pb2

from failure import expect, refusal
from producer import Producer, custom, reasons
from stubs import definition_pb, error_pb, event_pb, hunt_pb, service_pb

HUNT = "harbour"
Code = grpc.StatusCode
Event = event_pb.Event


def definition():
    return definition_pb.HuntDefinition(
        title="The harbour",
        clues=[
            definition_pb.Clue(id="crane", answers=["forty tons"], points=2),
            definition_pb.Clue(
                id="rail",
                answers=["gauge"],
                requires=["crane"],
                points=3,
                hints=[definition_pb.Hint(id="width", cost=1)],
            ),
        ],
        treasures=[definition_pb.Treasure(id="chest", limit=1, points=5)],
    )


def attempt(player: str, clue: str, answer: str):
    kind = event_pb.ClueAttempted(clue=clue, answer=answer)
    return Event(hunt=HUNT, player=player, clue_attempted=kind)


def plays_a_hunt(node, producer: Producer) -> None:
    """A rule of the hunt refuses: OK, with a rejected outcome."""
    claimed = event_pb.TreasureClaimed(treasure="chest")
    hint = event_pb.HintTaken(clue="rail", hint="width")
    registered = event_pb.PlayerRegistered
    answer = producer.append(
        node,
        [
            Event(hunt=HUNT, hunt_started=event_pb.HuntStarted()),
            Event(
                hunt=HUNT,
                hunt_created=event_pb.HuntCreated(definition=definition()),
                occurred_at=timestamp_pb2.Timestamp(seconds=1_000, nanos=5),
            ),
            Event(hunt=HUNT, hunt_opened=event_pb.HuntOpened()),
            Event(
                hunt=HUNT, player="ada", player_registered=registered(display_name="Ada")
            ),
            Event(hunt=HUNT, player="bob", player_registered=registered()),
            Event(hunt=HUNT, hunt_started=event_pb.HuntStarted()),
            attempt("ada", "crane", "thirty"),
            attempt("ada", "rail", "gauge"),
            attempt("ada", "crane", "FORTY-tons!"),
            Event(hunt=HUNT, player="ada", hint_taken=hint),
            Event(hunt=HUNT, player="bob", treasure_claimed=claimed),
            Event(hunt=HUNT, player="ada", treasure_claimed=claimed),
        ],
    )
    rejected = {
        position: reason for position, reason in enumerate(reasons(answer)) if reason
    }
    assert rejected == {
        0: "REJECT_REASON_HUNT_UNKNOWN",
        7: "REJECT_REASON_CLUE_LOCKED",
        11: "REJECT_REASON_TREASURE_EXHAUSTED",
    }, rejected
    effects = [
        [effect.WhichOneof("effect") for effect in outcome.accepted.effects]
        for outcome in answer.outcomes
    ]
    assert effects[5] == ["hunt_state_changed"], effects
    changed = answer.outcomes[5].accepted.effects[0].hunt_state_changed
    assert changed.from_state == definition_pb.HUNT_STATE_OPEN
    assert changed.to_state == definition_pb.HUNT_STATE_RUNNING
    assert effects[6] == ["answer_wrong"], effects
    assert effects[8] == ["clue_solved", "clue_unlocked"], effects
    assert effects[9] == ["hint_revealed"], effects
    assert effects[10] == ["treasure_won"], effects
    assert answer.log_index > 0 and answer.committed_at.seconds > 1_000


def answers_duplicates(node, producer: Producer) -> None:
    """A duplicate: OK, the first result, `duplicate`."""
    request = producer.request([custom(HUNT)])
    first = producer.send(node, request)
    again = producer.send(node, request)
    assert again.duplicate and not first.duplicate
    assert list(again.outcomes) == list(first.outcomes)


def refuses_what_is_malformed(node, producer: Producer) -> None:
    """INVALID_ARGUMENT, every field at fault named."""

    def invalid(events, fields):
        request = producer.request(events, sequence=producer.sequence + 1)
        refused = refusal(lambda: node.events.Append(request, timeout=10))
        expect(
            refused, Code.INVALID_ARGUMENT, "INVALID", "NOT_APPLIED",
            retry=False, fields=fields,
        )

    event = "batch.events[%d].%s"
    invalid([], ["batch.events"])
    invalid(
        [
            Event(),
            custom("", player="x" * 129),
            attempt("a\x07b", "", "x"),
            Event(hunt=HUNT, hunt_opened=event_pb.HuntOpened(), player="ada"),
            Event(
                hunt=HUNT,
                custom=event_pb.Custom(type="t"),
                occurred_at=timestamp_pb2.Timestamp(seconds=1 << 40, nanos=-1),
            ),
        ],
        [
            event % (0, "hunt"),
            event % (0, "kind"),
            event % (1, "hunt"),
            event % (1, "player"),
            event % (2, "clue_attempted.clue"),
            event % (2, "player"),
            event % (3, "player"),
            event % (4, "occurred_at.nanos"),
            event % (4, "occurred_at.seconds"),
        ],
    )
    invalid([custom(HUNT, bytes((1 << 20) + 1))], ["batch.events[0]"])
    invalid([custom(HUNT, bytes(1_000_000))] * 5, ["batch.events"])
    invalid([custom(HUNT, bytes(1_000_000))] * 7, ["batch"])
    invalid([custom(HUNT)] * 4_097, ["batch.events"])

    request = service_pb.OpenSessionRequest(session="", nonce=b"short")
    refused = refusal(lambda: node.events.OpenSession(request, timeout=10))
    expect(
        refused, Code.INVALID_ARGUMENT, "INVALID", "NOT_APPLIED",
        retry=False, fields=["session", "nonce"],
    )
    request = service_pb.AppendRequest(partition=7)
    refused = refusal(lambda: node.events.Append(request, timeout=10))
    expect(
        refused, Code.NOT_FOUND, "UNKNOWN_PARTITION", "NOT_APPLIED",
        retry=False, metadata={"partition": "7"},
    )
    request = hunt_pb.GetHuntRequest(partition=7, hunt=HUNT)
    refused = refusal(lambda: node.hunts.GetHunt(request, timeout=10))
    expect(refused, Code.NOT_FOUND, "UNKNOWN_PARTITION", None, retry=False)


def refuses_what_does_not_fit(node, producer: Producer) -> None:
    """FAILED_PRECONDITION, the reason and the actual value."""

    def precondition(request, reason, metadata):
        refused = refusal(lambda: node.events.Append(request, timeout=10))
        expect(
            refused, Code.FAILED_PRECONDITION, reason, "NOT_APPLIED",
            retry=False, metadata=metadata,
        )

    sequence = producer.sequence
    gap = producer.request([custom(HUNT)], sequence=sequence + 3)
    precondition(
        gap, "SEQUENCE_GAP", {"expected": str(sequence + 1), "sequence": str(sequence + 3)}
    )
    other = producer.request([custom(HUNT, b"other")], sequence=sequence)
    precondition(other, "PAYLOAD_MISMATCH", {"sequence": str(sequence)})
    unknown = producer.request([custom(HUNT)], sequence=1)
    unknown.batch.session = "nobody"
    precondition(unknown, "SESSION_UNKNOWN", {})

    revision = node.hunts.GetHunt(hunt_pb.GetHuntRequest(hunt=HUNT)).hunt.revision
    none = service_pb.ExpectedRevision(hunt=HUNT, none=empty_pb2.Empty())
    request = producer.request([custom(HUNT)], expected=[none])
    precondition(
        request, "REVISION_MISMATCH",
        {"hunt": HUNT, "expected": "0", "actual": str(revision)},
    )
    # Its sequence is used up; the next one stands on the revision it found.
    exactly = service_pb.ExpectedRevision(hunt=HUNT, exactly=revision)
    answer = producer.append(node, [custom(HUNT)], expected=[exactly])
    assert answer.outcomes[0].accepted.revision == revision + 1

    late = producer.request([custom(HUNT)], sequence=producer.sequence + 1)
    reopened = producer.open(node, b"another nonce")
    assert reopened.last_sequence == producer.sequence and not reopened.fresh
    assert producer.open(node, b"another nonce").epoch == reopened.epoch
    precondition(
        late, "FENCED", {"epoch": str(producer.epoch), "actual": str(reopened.epoch)}
    )
    producer.epoch = reopened.epoch


def streams_appends(node, first: Producer, second: Producer) -> None:
    """Many sessions over one stream; a batch that fails is answered in band."""
    requests: queue.SimpleQueue = queue.SimpleQueue()
    answers = node.events.AppendStream(iter(requests.get, None), timeout=30)
    sent = []
    for _ in range(20):
        for producer in (first, second):
            sent.append(producer.request([custom(HUNT)] * 3))
            requests.put(sent[-1])
    faulty = first.request([custom("")], sequence=first.sequence + 1)
    requests.put(faulty)
    gap = second.request([custom(HUNT)], sequence=second.sequence + 2)
    requests.put(gap)
    for request in sent:
        answer = next(answers)
        assert answer.WhichOneof("result") == "appended", answer
        named = (answer.session, answer.epoch, answer.sequence)
        batch = request.batch
        assert named == (batch.session, batch.epoch, batch.sequence)
        producer = first if answer.session == first.session else second
        producer.note(answer.appended)
        assert reasons(answer.appended) == [None] * 3
    failure = next(answers).failure
    assert failure.code == Code.INVALID_ARGUMENT.value[0], failure
    assert failure.reason == "INVALID", failure
    assert failure.disposition == error_pb.DISPOSITION_NOT_APPLIED, failure
    assert not failure.HasField("retry_after"), failure
    assert [v.field for v in failure.field_violations] == ["batch.events[0].hunt"]
    failure = next(answers).failure
    assert failure.reason == "SEQUENCE_GAP", failure
    assert failure.metadata["expected"] == str(second.sequence + 1), failure
    requests.put(None)
    assert next(answers, None) is None
