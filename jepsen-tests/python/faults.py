"""The contract while nodes start, die, freeze, fill up and stop."""

import queue
import time

import grpc

from cluster import Cluster, Node
from failure import GivenUp, expect, patiently, refusal
from play import HUNT
from producer import Producer, custom
from reading import health, read
from stubs import service_pb

Code = grpc.StatusCode
# As large as a batch can be: 16 fill a node's budget for appends in flight.
LARGE = [custom(HUNT, bytes(1_048_000))] * 4


def starts(cluster: Cluster) -> None:
    """A node that has not joined its cluster: UNAVAILABLE, NOT_APPLIED."""
    node = cluster.nodes[1]
    cluster.start(node)
    assert health(node) == "NOT_SERVING"
    request = service_pb.OpenSessionRequest(session="early", nonce=b"8 bytes.")
    refused = refusal(lambda: node.events.OpenSession(request, timeout=10))
    expect(refused, Code.UNAVAILABLE, "STARTING", "NOT_APPLIED", retry=True)
    for other in cluster.others(node):
        cluster.start(other)
    cluster.wait_ready()
    assert {health(node) for node in cluster.nodes.values()} == {"SERVING"}


def survives_a_kill(cluster: Cluster, producer: Producer) -> None:
    """The node that is talked to, the leader, dies under a stream of appends and
    a subscription. Both go on at another node: nothing is lost, nothing twice."""
    leader = cluster.leader()
    end = len(read(leader))
    requests: queue.SimpleQueue = queue.SimpleQueue()
    answers = leader.events.AppendStream(iter(requests.get, None), timeout=60)
    following = leader.events.Subscribe(
        service_pb.SubscribeRequest(from_offset=end), timeout=60
    )
    sent = [producer.request([custom(HUNT)]) for _ in range(30)]
    for request in sent[:10]:
        requests.put(request)
    for _ in range(10):
        producer.note(next(answers).appended)
    seen, resume_at = [], end
    while len(seen) < 10:
        answer = next(following)
        seen.extend(event.offset for event in answer.events)
        resume_at = answer.next_offset
    for request in sent[10:]:
        requests.put(request)
    cluster.kill(leader)
    unanswered = {request.batch.sequence: request for request in sent[10:]}
    try:
        for answer in answers:
            if answer.WhichOneof("result") == "appended":
                producer.note(answer.appended)
                del unanswered[answer.sequence]
    except grpc.RpcError as error:
        assert error.code() == Code.UNAVAILABLE, error
    requests.put(None)
    try:
        for answer in following:
            seen.extend(event.offset for event in answer.events)
            resume_at = answer.next_offset
    except grpc.RpcError as error:
        assert error.code() == Code.UNAVAILABLE, error

    # What was not answered is sent again, in order, until it is.
    survivor = cluster.others(leader)[0]
    for _, request in sorted(unanswered.items()):
        until_appended(survivor, producer, request)
    answers = survivor.events.Subscribe(
        service_pb.SubscribeRequest(from_offset=resume_at), timeout=60
    )
    while len(seen) < len(sent):
        seen.extend(event.offset for event in next(answers).events)
    assert seen == list(range(end, end + len(sent))), seen
    cluster.start(leader)
    cluster.wait_ready()


def until_appended(node: Node, producer: Producer, request) -> None:
    """Sends `request` until it is acknowledged, as the answers say."""
    patiently(lambda: producer.send(node, request))


def has_no_leader(cluster: Cluster, producer: Producer) -> None:
    """A follower without a quorum: UNAVAILABLE, NOT_APPLIED; stale reads go on."""
    leader = cluster.leader()
    node, other = cluster.others(leader)
    cluster.kill(other)
    cluster.pause(leader)
    request = producer.request([custom(HUNT)])
    while True:
        # Until the follower notices, it forwards to the frozen leader.
        try:
            refused = refusal(lambda: node.events.Append(request, timeout=0.5))
        except GivenUp:
            continue
        if refused.reason == "NO_LEADER":
            break
        assert refused.disposition == "UNKNOWN" and refused.retry_seconds, refused
    expect(refused, Code.UNAVAILABLE, "NO_LEADER", "NOT_APPLIED", retry=True)
    refused = refusal(lambda: read(node))
    expect(refused, Code.UNAVAILABLE, "NO_LEADER", None, retry=True)
    stale = service_pb.Consistency(stale=service_pb.Stale())
    assert read(node, consistency=stale)
    assert health(node) == "NOT_SERVING"
    cluster.resume(leader)
    cluster.start(other)
    cluster.wait_ready()
    # UNKNOWN or not, the same sequence again finds out.
    until_appended(node, producer, request)


def is_deposed(cluster: Cluster, first: Producer, second: Producer) -> None:
    """Appends in flight when the deadline passes, or another node takes over:
    UNKNOWN, and the same sequence finds out."""
    while True:
        leader = cluster.leader()
        followers = cluster.others(leader)
        for follower in followers:
            cluster.kill(follower)
        # While the leader's lease lasts it takes what it can not commit.
        overdue = first.request([custom(HUNT)])
        late = leader.events.Append.future(overdue, timeout=0.5)
        proposed = second.request([custom(HUNT)])
        lost = leader.events.Append.future(proposed, timeout=60)
        try:
            refused = refusal(late.result)
        except GivenUp:
            refused = None
        cluster.pause(leader)
        for follower in followers:
            cluster.start(follower)
        survivor = followers[0]
        while survivor.leader_id() in (0, leader.id):
            time.sleep(0.02)
        cluster.resume(leader)
        in_flight = refusal(lost.result)
        cluster.wait_ready()
        until_appended(survivor, first, overdue)
        until_appended(survivor, second, proposed)
        if refused and "NO_LEADER" not in (refused.reason, in_flight.reason):
            break
    expect(refused, Code.DEADLINE_EXCEEDED, "DEADLINE", "UNKNOWN", retry=True)
    expect(in_flight, Code.UNAVAILABLE, "LEADERSHIP_LOST", "UNKNOWN", retry=True)


def is_overloaded(cluster: Cluster, producers: list[Producer]) -> None:
    """What a follower holds for a leader that has frozen fills its budget."""
    reasons: set[str] = set()
    while "OVERLOADED" not in reasons:
        leader = cluster.leader()
        node, other = cluster.others(leader)
        cluster.pause(other)
        cluster.pause(leader)
        calls = []
        for producer in producers:
            request = producer.request(LARGE)
            call = node.events.Append.future(request, timeout=60)
            calls.append((producer, request, call))
        refusals = [refusal(call.result) for _, _, call in calls]
        for refused in refusals:
            if refused.reason == "OVERLOADED":
                expect(
                    refused, Code.RESOURCE_EXHAUSTED, "OVERLOADED", "NOT_APPLIED",
                    retry=True,
                )
            elif refused.reason == "UNREACHABLE":
                expect(
                    refused, Code.UNAVAILABLE, "UNREACHABLE", "UNKNOWN", retry=True,
                    metadata={"leader_id": str(leader.id)},
                )
            else:
                # A machine so slow that the follower has given its leader up.
                assert refused.reason == "NO_LEADER", refused
        cluster.resume(leader)
        cluster.resume(other)
        cluster.wait_ready()
        for producer, request, _ in calls:
            until_appended(node, producer, request)
        reasons = {refused.reason for refused in refusals}


def drains(cluster: Cluster, producer: Producer) -> None:
    """A node that stops: UNAVAILABLE, NOT_APPLIED; subscriptions say where they
    end."""
    leader = cluster.leader()
    end = len(read(leader))
    following = leader.events.Subscribe(
        service_pb.SubscribeRequest(from_offset=end), timeout=60
    )
    next(following)
    # Nobody can take over at once, so that it can be asked while it drains.
    for follower in cluster.others(leader):
        cluster.pause(follower)
    cluster.terminate(leader)
    refused = refusal(lambda: [answer for answer in following])
    expect(refused, Code.UNAVAILABLE, "DRAINING", None, retry=True)
    request = producer.request([custom(HUNT)])
    refused = refusal(lambda: leader.events.Append(request, timeout=10))
    expect(refused, Code.UNAVAILABLE, "DRAINING", "NOT_APPLIED", retry=True)
    for follower in cluster.others(leader):
        cluster.resume(follower)
    cluster.ended(leader)
    until_appended(cluster.others(leader)[0], producer, request)
    cluster.start(leader)
    cluster.wait_ready()


def keeps_its_promise(cluster: Cluster, producers: list[Producer]) -> None:
    """Every node has each acknowledged batch once, where it was acknowledged."""
    for node in cluster.nodes.values():
        events = read(node)
        assert [event.offset for event in events] == list(range(len(events)))
        found: dict = {}
        for event in events:
            batch = (event.session, event.sequence)
            found.setdefault(batch, []).append(event.offset)
        for producer in producers:
            for sequence, offsets in producer.acknowledged.items():
                batch = (producer.session, sequence)
                assert found.pop(batch, []) == offsets, (node.id, batch)
        assert not found, (node.id, found)
