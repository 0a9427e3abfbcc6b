"""Two demos on one machine, or a robot next door, must not meet.

Other tests reserve domains at the same time: what is free here is asked for, never assumed.
"""

import socket

import pytest

from fastvla_core.errors import RosError
from fastvla_ros.demo import domain
from fastvla_ros.demo.domain import reserve_domain


@pytest.fixture(autouse=True)
def in_order(monkeypatch):
    """Everybody who asks tries the same id first, where by chance they would seldom meet."""
    monkeypatch.setattr(domain.random, "sample", lambda domains, count: list(domains)[:count])


def test_two_demos_get_different_domains():
    with reserve_domain() as first, reserve_domain() as second:
        assert first != second


def test_a_domain_with_a_participant_is_avoided():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        with reserve_domain() as taken:
            participant.bind(("", 7410 + 250 * taken))
        with reserve_domain() as free:
            assert free != taken


def test_when_all_are_taken_it_says_so(monkeypatch):
    with reserve_domain() as only:
        monkeypatch.setattr(domain, "DOMAINS", range(only, only + 1))
        with pytest.raises(RosError, match="every ROS domain id"), reserve_domain():
            pass
