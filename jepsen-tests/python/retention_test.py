"""Reads and subscriptions from before the retained history, through stubs
generated from the .proto files alone. The arguments are the client addresses of
nodes that keep no more than they have to; cluster.py says how they are started.
It ends at the first answer that is not as the contract says."""

import sys
import time

import grpc

from cluster import Cluster, Node
from failure import Refusal, expect, patiently, refusal
from faults import LARGE, until_appended
from play import HUNT, definition
from producer import Producer
from stubs import event_pb, service_pb

Code = grpc.StatusCode


def main() -> None:
    cluster = Cluster(sys.argv[1:])
    nodes = list(cluster.nodes.values())
    for node in nodes:
        cluster.start(node)
    cluster.wait_ready()
    node = cluster.others(cluster.leader())[0]
    producer = Producer(node, "python")
    created = event_pb.HuntCreated(definition=definition())
    creation = producer.request([event_pb.Event(hunt=HUNT, hunt_created=created)])
    until_appended(node, producer, creation)
    while first_offset(node) == 0:
        until_appended(node, producer, producer.request(LARGE))
    earliest = settled(nodes)
    end = max(offset for offsets in producer.acknowledged.values() for offset in offsets)
    assert 0 < earliest <= end, (earliest, end)
    for node in nodes:
        refuses_what_is_gone(node, earliest)
    print("done", flush=True)


def reading(node: Node, from_offset: int):
    request = service_pb.ReadRequest(from_offset=from_offset, max_events=1)
    return patiently(lambda: next(node.events.Read(request, timeout=10)))


def subscribing(node: Node, from_offset: int):
    request = service_pb.SubscribeRequest(from_offset=from_offset)
    return patiently(lambda: next(node.events.Subscribe(request, timeout=10)))


def first_offset(node: Node) -> int:
    """The first offset that can be read by way of `node`."""
    try:
        return reading(node, 0).events[0].offset
    except grpc.RpcError as error:
        refused = Refusal(error)
        assert refused.code == Code.OUT_OF_RANGE, refused
        return int(refused.metadata["earliest"])


def settled(nodes: list[Node]) -> int:
    """The first offset, once all agree on it, and no more is given up."""
    agreed, since = 0, time.monotonic()
    while True:
        firsts = {first_offset(node) for node in nodes}
        if firsts != {agreed}:
            agreed, since = max(firsts), time.monotonic()
        elif time.monotonic() - since > 3:
            return agreed
        time.sleep(0.1)


def refuses_what_is_gone(node: Node, earliest: int) -> None:
    """Before the retained history: OUT_OF_RANGE with the earliest offset."""
    for asked in (0, earliest - 1):
        for ask in (reading, subscribing):
            refused = refusal(lambda: ask(node, asked))
            expect(
                refused, Code.OUT_OF_RANGE, "OUT_OF_RANGE", None, retry=False,
                metadata={"asked": str(asked), "earliest": str(earliest)},
            )
    for ask in (reading, subscribing):
        assert ask(node, earliest).events[0].offset == earliest


main()
