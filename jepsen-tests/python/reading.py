"""What can be asked: history, subscriptions, hunts, health, reflection."""

import itertools

import grpc
from google.protobuf import descriptor_pool, empty_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from failure import expect, refusal
from play import HUNT
from producer import Producer, custom
from stubs import definition_pb, hunt_pb, service_pb

Code = grpc.StatusCode
STALE = service_pb.Consistency(stale=service_pb.Stale())


def health(node) -> str:
    """What the standard health service says of the node."""
    stub = health_pb2_grpc.HealthStub(node.channel)
    answers = {
        stub.Check(
            health_pb2.HealthCheckRequest(service=service),
            timeout=5,
            wait_for_ready=True,
        ).status
        for service in ("", "huntlog.v1.EventService", "huntlog.v1.HuntService")
    }
    assert len(answers) == 1, answers
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answers.pop())


def reflects_itself(node) -> None:
    """A client without our .proto files finds every service and method."""
    database = ProtoReflectionDescriptorDatabase(node.channel)
    services = set(database.get_services())
    pool = descriptor_pool.DescriptorPool(database)
    files = (service_pb.DESCRIPTOR, hunt_pb.DESCRIPTOR)
    for service in (s for file in files for s in file.services_by_name.values()):
        assert service.full_name in services, services
        reflected = pool.FindServiceByName(service.full_name)
        described = [
            (method.name, method.input_type.full_name, method.output_type.full_name)
            for method in service.methods
        ]
        assert described == [
            (method.name, method.input_type.full_name, method.output_type.full_name)
            for method in reflected.methods
        ]


def read(node, **request) -> list:
    """The events of one read, of however many messages."""
    answers = node.events.Read(service_pb.ReadRequest(**request), timeout=30)
    events = []
    for answer in answers:
        events.extend(answer.events)
        assert not events or answer.next_offset > events[-1].offset
    return events


def reads_history(node, producer: Producer) -> None:
    everything = read(node)
    assert [event.offset for event in everything] == list(range(len(everything)))
    # A node that has just been left behind a little serves what it has.
    stale = service_pb.Consistency(stale=service_pb.Stale(min_offset=len(everything)))
    assert read(node, consistency=stale) == everything
    answer = next(node.events.Read(service_pb.ReadRequest(consistency=STALE)))
    assert answer.HasField("staleness")

    filter = service_pb.Filter(
        players=["ada"], types=[service_pb.EVENT_TYPE_CLUE_ATTEMPTED]
    )
    attempts = read(node, filter=filter)
    assert [event.event.clue_attempted.clue for event in attempts] == ["crane"] * 2
    assert [event.session for event in attempts] == [producer.session] * 2
    assert len(read(node, from_offset=3, max_events=2)) == 2

    end = len(everything)
    beyond = service_pb.ReadRequest(from_offset=end + 1)
    refused = refusal(lambda: next(node.events.Read(beyond, timeout=10)))
    expect(
        refused, Code.OUT_OF_RANGE, "OUT_OF_RANGE", None, retry=False,
        metadata={"asked": str(end + 1), "end": str(end)},
    )
    future = service_pb.SubscribeRequest(from_offset=end + 1_000)
    refused = refusal(lambda: next(node.events.Subscribe(future, timeout=10)))
    expect(
        refused, Code.OUT_OF_RANGE, "OUT_OF_RANGE", None, retry=False,
        metadata={"asked": str(end + 1_000), "end": str(end)},
    )
    nowhere = service_pb.SubscribeRequest()
    refused = refusal(lambda: next(node.events.Subscribe(nowhere, timeout=10)))
    expect(
        refused, Code.INVALID_ARGUMENT, "INVALID", None, retry=False, fields=["start"]
    )
    unknown_type = service_pb.ReadRequest(filter=service_pb.Filter(types=[99]))
    refused = refusal(lambda: next(node.events.Read(unknown_type, timeout=10)))
    expect(
        refused, Code.INVALID_ARGUMENT, "INVALID", None, retry=False,
        fields=["filter.types[0]"],
    )


def subscribes(node, producer: Producer) -> None:
    """History first, then what is committed while the subscription is open."""
    end = len(read(node))
    answers = node.events.Subscribe(
        service_pb.SubscribeRequest(from_offset=end - 2), timeout=30
    )
    events = itertools.chain.from_iterable(answer.events for answer in answers)
    seen = [next(events).offset, next(events).offset]
    appended = producer.append(node, [custom(HUNT, b"live")])
    live = next(events)
    assert live.event.custom.payload == b"live"
    assert live.offset == appended.outcomes[0].accepted.offset
    assert [*seen, live.offset] == [end - 2, end - 1, end]
    answers.cancel()

    # One that matches nothing hears of its progress.
    nothing = service_pb.Filter(hunts=["atlantis"])
    answers = node.events.Subscribe(
        service_pb.SubscribeRequest(from_end=empty_pb2.Empty(), filter=nothing),
        timeout=30,
    )
    first = next(answers)
    producer.append(node, [custom(HUNT)])
    for answer in answers:
        assert not answer.events
        if answer.next_offset > first.next_offset:
            break
    answers.cancel()


def answers_for_hunts(node) -> None:
    hunt = node.hunts.GetHunt(hunt_pb.GetHuntRequest(hunt=HUNT), timeout=10)
    assert hunt.hunt.state == definition_pb.HUNT_STATE_RUNNING
    crane = hunt.hunt.definition.clues[0]
    assert not crane.answers and len(crane.answer_hashes[0]) == 32
    assert hunt.hunt.clues[0].attempts == 2 and hunt.hunt.clues[0].solves == 1
    assert hunt.hunt.treasures[0].winners == ["bob"]
    assert not hunt.as_of.HasField("staleness")

    request = hunt_pb.GetScoreboardRequest(hunt=HUNT)
    scoreboard = node.hunts.GetScoreboard(request, timeout=10)
    rows = [(row.rank, row.player, row.points, row.solved) for row in scoreboard.rows]
    # The treasure is worth 5; the clue 2, the hint costs 1.
    assert rows == [(1, "bob", 5, 0), (2, "ada", 1, 1)], rows
    assert not scoreboard.rows[0].HasField("last_solve_offset")
    assert scoreboard.rows[1].HasField("last_solve_offset")
    skipped = hunt_pb.GetScoreboardRequest(hunt=HUNT, skip=1, consistency=STALE)
    page = node.hunts.GetScoreboard(skipped, timeout=10)
    assert [row.player for row in page.rows] == ["ada"]
    assert page.as_of.HasField("staleness")

    request = hunt_pb.GetPlayerRequest(hunt=HUNT, player="ada")
    ada = node.hunts.GetPlayer(request, timeout=10).player
    assert (ada.solved_clues, ada.open_clues) == (["crane"], ["rail"]), ada
    listed = node.hunts.ListHunts(hunt_pb.ListHuntsRequest(page_size=1), timeout=10)
    assert [hunt.id for hunt in listed.hunts] == [HUNT]
    assert not listed.next_page_token

    def missing(call, metadata):
        refused = refusal(call)
        expect(
            refused, Code.NOT_FOUND, "NOT_FOUND", None, retry=False, metadata=metadata
        )

    unknown = hunt_pb.GetHuntRequest(hunt="atlantis")
    missing(
        lambda: node.hunts.GetHunt(unknown, timeout=10),
        {"missing": "hunt", "hunt": "atlantis"},
    )
    nobody = hunt_pb.GetPlayerRequest(hunt=HUNT, player="eve")
    missing(
        lambda: node.hunts.GetPlayer(nobody, timeout=10),
        {"missing": "player", "hunt": HUNT, "player": "eve"},
    )
    large = hunt_pb.GetScoreboardRequest(hunt=HUNT, page_size=10_001)
    refused = refusal(lambda: node.hunts.GetScoreboard(large, timeout=10))
    expect(
        refused, Code.INVALID_ARGUMENT, "INVALID", None, retry=False,
        fields=["page_size"],
    )
