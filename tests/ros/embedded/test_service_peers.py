"""How servers and clients find each other on the wire, and whom they refuse."""

from __future__ import annotations

import pytest
from std_srvs.srv import Trigger

from fastvla_ros.embedded.rcl import service_peers
from fastvla_ros.embedded.rcl.service_peers import ServicePeers
from tests.ros.embedded.foreign_peer import PREFIX, ForeignEndpoint, ForeignPeer

REQUEST = ("rq/goRequest", "std_srvs::srv::dds_::Trigger_Request_")
REPLY = ("rr/goReply", "std_srvs::srv::dds_::Trigger_Response_")
MEND = "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp"


@pytest.fixture
def foreign(ros):
    """Forges a participant of another vendor, and spins until `seen()` holds."""
    peers = []

    def make(*endpoints, seen):
        peer = ForeignPeer(ros.context.get_domain_id(), endpoints)
        peers.append(peer)

        def announced():
            peer.announce()
            return seen()

        assert ros.until(announced)

    yield make
    for peer in peers:
        peer.close()


def test_another_vendors_server_is_never_ready_and_is_reported_once(ros, foreign, capfd):
    node = ros.node("node")
    client = node.create_client(Trigger, "go")
    foreign(
        ForeignEndpoint("reader", *REQUEST),
        ForeignEndpoint("writer", *REPLY),
        seen=lambda: node.count_services("go") == 1 and "ERROR" in capfd.readouterr().err,
    )
    assert not client.service_is_ready()
    assert not client.wait_for_service(timeout_sec=0.05)
    ros.spin(0.2)
    # The report came once, though both of its endpoints match.
    assert "ERROR" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "endpoint",
    [ForeignEndpoint("writer", *REQUEST), ForeignEndpoint("reader", *REPLY)],
    ids=["its-requests", "its-replies"],
)
def test_the_report_names_the_service_the_peer_and_the_mend(ros, foreign, capfd, endpoint):
    node, said = ros.node("node"), []
    node.create_service(Trigger, "go", lambda q, r: r)
    foreign(
        endpoint,
        seen=lambda: said.append(capfd.readouterr().err) or "ERROR" in said[-1],
    )
    for expected in ("client of service '/go'", PREFIX.hex(), MEND):
        assert expected in said[-1]


def test_requests_of_another_vendor_are_dropped(ros, monkeypatch):
    node, called = ros.node("node"), []
    node.create_service(Trigger, "go", lambda q, r: called.append(q) or r)
    client = node.create_client(Trigger, "go")
    assert client.wait_for_service(timeout_sec=5.0)
    monkeypatch.setattr(service_peers, "VENDOR", b"\x01\x0f")
    client.call_async(Trigger.Request())
    ros.spin(0.3)
    assert called == []


def test_a_server_waits_for_the_reply_reader_before_it_answers(ros, monkeypatch):
    waited = []
    original = ServicePeers.wait_for_reply_reader
    monkeypatch.setattr(
        ServicePeers,
        "wait_for_reply_reader",
        lambda self, client, s: waited.append(s) or original(self, client, s),
    )
    node = ros.node("node")
    node.create_service(Trigger, "go", lambda q, r: r)
    client = node.create_client(Trigger, "go")
    assert client.wait_for_service(timeout_sec=5.0)
    for _ in range(2):
        ros.result(client.call_async(Trigger.Request()))
    # Once per client: the second reply knows that the reader is there.
    assert waited == [0.1]
