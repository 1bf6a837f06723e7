"""Drives a cluster through stubs generated from the .proto files alone, as a
client that is not ours would. The arguments are the nodes' client addresses;
cluster.py says how the nodes are started, killed and frozen. It ends at the
first answer that is not as the contract says."""

import sys
import time

import faults
import play
import reading
from cluster import Cluster
from producer import Producer

# One more than fill a node's budget.
LARGE_APPENDS = 17


def main() -> None:
    cluster = Cluster(sys.argv[1:])

    def step(deed, *arguments) -> None:
        began = time.monotonic()
        deed(*arguments)
        print(f"{deed.__name__}: {time.monotonic() - began:.1f} s", file=sys.stderr)

    step(faults.starts, cluster)
    # A follower: what it is told is forwarded, and answered all the same.
    node = cluster.others(cluster.leader())[0]
    producer = Producer(node, "python")
    second = Producer(node, "python 2")
    step(reading.reflects_itself, node)
    step(play.plays_a_hunt, node, producer)
    step(reading.answers_for_hunts, node)
    step(play.answers_duplicates, node, producer)
    step(play.refuses_what_is_malformed, node, producer)
    step(play.refuses_what_does_not_fit, node, producer)
    step(play.streams_appends, node, producer, second)
    step(reading.reads_history, node, producer)
    step(reading.subscribes, node, producer)
    step(faults.survives_a_kill, cluster, producer)
    step(faults.has_no_leader, cluster, producer)
    step(faults.is_deposed, cluster, producer, second)
    large = [
        Producer(cluster.leader(), f"large {number}") for number in range(LARGE_APPENDS)
    ]
    step(faults.is_overloaded, cluster, large)
    step(faults.drains, cluster, producer)
    step(faults.keeps_its_promise, cluster, [producer, second, *large])
    print("done", flush=True)


main()
