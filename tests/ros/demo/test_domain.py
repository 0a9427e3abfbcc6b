"""Two demos on one machine, or a robot next door, must not meet."""

import socket

import pytest

from fastvla_core.errors import RosError
from fastvla_ros.demo import domain
from fastvla_ros.demo.domain import reserve_domain


def test_two_demos_get_different_domains(monkeypatch):
    monkeypatch.setattr(domain, "DOMAINS", range(60, 62))
    with reserve_domain() as first, reserve_domain() as second:
        assert {first, second} == {60, 61}


def test_a_domain_with_a_participant_is_avoided(monkeypatch):
    monkeypatch.setattr(domain, "DOMAINS", range(62, 64))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        participant.bind(("", 7410 + 250 * 62))
        for _ in range(4):
            with reserve_domain() as free:
                assert free == 63


def test_when_all_are_taken_it_says_so(monkeypatch):
    monkeypatch.setattr(domain, "DOMAINS", range(64, 65))
    with reserve_domain(), pytest.raises(RosError, match="every ROS domain id"), reserve_domain():
        pass
