"""QoS events and the profiles they are about."""

from __future__ import annotations

import pytest
from rclpy.duration import Duration, Infinite
from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    InvalidQoSProfileException,
    LivelinessPolicy,
    QoSCompatibility,
    QoSPresetProfiles,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_policy_name_from_kind,
    qos_profile_best_available,
    qos_profile_sensor_data,
)
from std_msgs.msg import String, UInt32

# Nothing is left to the middleware.
CERTAIN = {"liveliness": LivelinessPolicy.AUTOMATIC}
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


# From rclpy's own code.
@pytest.mark.filterwarnings("ignore:QoSEventHandler is deprecated")
def test_matches_are_told_on_both_sides(ros):
    node, offered, requested = ros.node("node"), [], []
    publisher = node.create_publisher(
        UInt32, "count", 10, event_callbacks=PublisherEventCallbacks(matched=offered.append)
    )
    subscription = node.create_subscription(
        UInt32,
        "count",
        lambda m: None,
        10,
        event_callbacks=SubscriptionEventCallbacks(matched=requested.append),
    )
    assert ros.until(lambda: offered and requested)
    assert (offered[0].total_count, offered[0].current_count) == (1, 1)
    assert (requested[0].current_count, requested[0].current_count_change) == (1, 1)
    node.destroy_subscription(subscription)
    assert ros.until(lambda: offered[-1].current_count == 0)
    assert (offered[-1].total_count, offered[-1].current_count_change) == (1, -1)
    node.destroy_publisher(publisher)


def test_missed_deadlines_are_told_on_both_sides(ros):
    node, offered, requested = ros.node("node"), [], []
    qos = QoSProfile(depth=1, deadline=Duration(nanoseconds=100_000_000))
    publisher = node.create_publisher(
        UInt32, "count", qos, event_callbacks=PublisherEventCallbacks(deadline=offered.append)
    )
    node.create_subscription(
        UInt32,
        "count",
        lambda m: None,
        qos,
        event_callbacks=SubscriptionEventCallbacks(deadline=requested.append),
    )
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    # The clock runs from the first message on.
    publisher.publish(UInt32())
    assert ros.until(lambda: offered and requested)
    assert offered[0].total_count >= 1
    assert requested[0].total_count_change >= 1


def test_a_publisher_that_stops_to_assert_its_liveliness_is_reported(ros):
    node, lost, changed = ros.node("node"), [], []
    qos = QoSProfile(
        depth=1,
        liveliness=LivelinessPolicy.MANUAL_BY_TOPIC,
        liveliness_lease_duration=Duration(nanoseconds=300_000_000),
    )
    publisher = node.create_publisher(
        UInt32, "count", qos, event_callbacks=PublisherEventCallbacks(liveliness=lost.append)
    )
    node.create_subscription(
        UInt32,
        "count",
        lambda m: None,
        qos,
        event_callbacks=SubscriptionEventCallbacks(liveliness=changed.append),
    )
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.assert_liveliness()
    assert ros.until(lambda: lost)
    assert ros.until(lambda: changed and changed[-1].alive_count == 0)
    assert changed[-1].not_alive_count == 1


def test_warnings_can_be_switched_off(ros, capfd):
    node, silent = ros.node("node"), SubscriptionEventCallbacks(use_default_callbacks=False)
    publisher = PublisherEventCallbacks(use_default_callbacks=False)
    node.create_publisher(String, "x", qos_profile_sensor_data, event_callbacks=publisher)
    node.create_subscription(String, "x", lambda m: None, 1, event_callbacks=silent)
    ros.spin(0.5)
    assert "QoS" not in capfd.readouterr().err


def test_a_deadline_of_zero_is_none(ros):
    node, got = ros.node("node"), []
    qos = QoSProfile(depth=1, deadline=Duration(), lifespan=Duration())
    publisher = node.create_publisher(UInt32, "unlimited", qos)
    node.create_subscription(UInt32, "unlimited", got.append, qos)
    assert ros.until(lambda: publisher.get_subscription_count() == 1)
    publisher.publish(UInt32(data=3))
    assert ros.until(lambda: got)
    assert ros.until(lambda: node.get_publishers_info_by_topic("unlimited"))
    told = node.get_publishers_info_by_topic("unlimited")[0].qos_profile
    assert (told.deadline, told.lifespan) == (Infinite, Infinite)


@pytest.mark.parametrize("offered", [qos_profile_sensor_data, LATCHED], ids=["weak", "strong"])
def test_a_profile_can_follow_its_peers(ros, offered):
    node, got = ros.node("node"), []
    publisher = node.create_publisher(UInt32, "followed", offered)
    assert ros.until(lambda: node.count_publishers("followed") == 1)
    node.create_subscription(UInt32, "followed", got.append, qos_profile_best_available)
    assert ros.until(lambda: node.count_subscribers("followed") == 1)
    (info,) = node.get_subscriptions_info_by_topic("followed")
    assert info.qos_profile.reliability is offered.reliability
    assert info.qos_profile.durability is offered.durability
    assert ros.until(lambda: publisher.get_subscription_count() == 1)


@pytest.mark.parametrize(
    ("offered", "requested", "expected", "word"),
    [
        (CERTAIN, CERTAIN, QoSCompatibility.OK, ""),
        ({}, {}, QoSCompatibility.WARNING, "iveliness"),
        ({}, CERTAIN, QoSCompatibility.OK, ""),
        ({"reliability": 2}, {}, QoSCompatibility.ERROR, "eliable"),
        ({}, {"durability": 1}, QoSCompatibility.ERROR, "transient local"),
        ({}, {"deadline": Duration(seconds=1)}, QoSCompatibility.ERROR, "eadline"),
        ({**CERTAIN, "deadline": Duration(seconds=1)}, CERTAIN, QoSCompatibility.OK, ""),
        ({**CERTAIN, "reliability": 0}, CERTAIN, QoSCompatibility.WARNING, "eliab"),
    ],
)
def test_profiles_can_be_compared(offered, requested, expected, word):
    found, reason = qos_check_compatible(
        QoSProfile(depth=1, **offered), QoSProfile(depth=1, **requested)
    )
    assert found == expected
    assert word in reason


def test_profiles_have_rclpys_defaults():
    profile = QoSProfile(depth=3)
    assert profile.history is HistoryPolicy.KEEP_LAST
    assert profile.reliability is ReliabilityPolicy.RELIABLE
    assert profile.durability is DurabilityPolicy.VOLATILE
    assert profile.liveliness is LivelinessPolicy.SYSTEM_DEFAULT
    assert profile.deadline == profile.lifespan == Duration()
    assert profile == QoSProfile(depth=3)
    assert profile != QoSProfile(depth=4)
    assert QoSProfile(history=HistoryPolicy.KEEP_ALL).history is HistoryPolicy.KEEP_ALL
    for wrong in ({}, {"history": HistoryPolicy.KEEP_LAST}):
        with pytest.raises(InvalidQoSProfileException):
            QoSProfile(**wrong)


def test_policies_and_profiles_have_short_names():
    assert ReliabilityPolicy.get_from_short_key("best_effort") == ReliabilityPolicy.BEST_EFFORT
    assert "transient_local" in DurabilityPolicy.short_keys()
    assert QoSPresetProfiles.get_from_short_key("sensor_data") == qos_profile_sensor_data
    assert "sensor_data" in QoSPresetProfiles.short_keys()
    assert qos_policy_name_from_kind(16) == "RELIABILITY"
