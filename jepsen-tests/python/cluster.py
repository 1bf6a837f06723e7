"""The cluster under test. The Rust test that has started this program owns the
nodes: it is asked for a deed by a line on stdout and answers on stdin."""

import sys

import grpc

from stubs import admin_grpc, admin_pb, hunt_grpc, service_grpc

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    # A node that comes back is found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


class Node:
    """One node, and the stubs to talk to it."""

    def __init__(self, id: int, address: str):
        self.id = id
        self.channel = grpc.insecure_channel(address, options=_OPTIONS)
        self.events = service_grpc.EventServiceStub(self.channel)
        self.hunts = hunt_grpc.HuntServiceStub(self.channel)
        self.admin = admin_grpc.AdminServiceStub(self.channel)

    def leader_id(self) -> int:
        """Who leads, as far as this node knows; 0 for nobody."""
        request = admin_pb.GetStatusRequest()
        status = self.admin.GetStatus(request, timeout=5, wait_for_ready=True)
        return status.partitions[0].leader_id if status.partitions else 0


class Cluster:
    """All nodes, and the deeds that can be done to them."""

    def __init__(self, addresses: list[str]):
        self.nodes = {
            id: Node(id, address) for id, address in enumerate(addresses, start=1)
        }

    def _deed(self, words: str) -> str:
        print(words, flush=True)
        answer = sys.stdin.readline().strip()
        if not answer:
            raise SystemExit(f"`{words}` was not done")
        return answer

    def start(self, node: Node) -> None:
        self._deed(f"start {node.id}")

    def kill(self, node: Node) -> None:
        """SIGKILL, and its end."""
        self._deed(f"kill {node.id}")

    def terminate(self, node: Node) -> None:
        """SIGTERM, without waiting for its end."""
        self._deed(f"terminate {node.id}")

    def ended(self, node: Node) -> None:
        """Waits for the end of a terminated node."""
        self._deed(f"ended {node.id}")

    def pause(self, node: Node) -> None:
        self._deed(f"pause {node.id}")

    def resume(self, node: Node) -> None:
        self._deed(f"resume {node.id}")

    def wait_ready(self) -> None:
        """Waits until every running node is ready."""
        self._deed("ready")

    def leader(self) -> Node:
        """The leader that all running nodes agree on."""
        return self.nodes[int(self._deed("leader"))]

    def others(self, node: Node) -> list[Node]:
        return [other for other in self.nodes.values() if other is not node]
