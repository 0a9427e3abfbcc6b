"""How servers and clients find each other on the wire."""

from __future__ import annotations

from std_srvs.srv import Trigger

from fastvla_ros.embedded.rcl.service_peers import ServicePeers


def test_peers_of_other_vendors_are_refused_with_the_mend(ros, capfd, monkeypatch):
    monkeypatch.setattr("fastvla_ros.embedded.rcl.service_peers.VENDOR", b"\x01\x0f")
    node = ros.node("node")
    node.create_service(Trigger, "go", lambda q, r: r)
    client = node.create_client(Trigger, "go")
    assert not client.wait_for_service(timeout_sec=0.3)
    ros.until(lambda: False, timeout_s=0.1)
    assert "RMW_IMPLEMENTATION=rmw_cyclonedds_cpp" in capfd.readouterr().err


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
