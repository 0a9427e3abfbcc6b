"""What readers and writers report: the bits, and the details behind them.

Source: dds/dds.h and dds/ddsc/dds_public_status.h.
"""

from __future__ import annotations

import ctypes as ct


class Status:
    """One bit each."""

    OFFERED_DEADLINE_MISSED = 1 << 1
    REQUESTED_DEADLINE_MISSED = 1 << 2
    OFFERED_INCOMPATIBLE_QOS = 1 << 3
    REQUESTED_INCOMPATIBLE_QOS = 1 << 4
    SAMPLE_LOST = 1 << 5
    DATA_AVAILABLE = 1 << 8
    LIVELINESS_LOST = 1 << 9
    LIVELINESS_CHANGED = 1 << 10
    PUBLICATION_MATCHED = 1 << 11
    SUBSCRIPTION_MATCHED = 1 << 12


class Count(ct.Structure):
    """Of missed deadlines, lost samples, and times without a sign of life."""

    _fields_ = [
        ("total_count", ct.c_uint32),
        ("total_count_change", ct.c_int32),
        ("last_handle", ct.c_uint64),
    ]


class Incompatible(ct.Structure):
    """Peers whose QoS does not fit."""

    _fields_ = [
        ("total_count", ct.c_uint32),
        ("total_count_change", ct.c_int32),
        ("last_policy_id", ct.c_uint32),
    ]


class Matched(ct.Structure):
    """Peers that fit."""

    _fields_ = [
        ("total_count", ct.c_uint32),
        ("total_count_change", ct.c_int32),
        ("current_count", ct.c_uint32),
        ("current_count_change", ct.c_int32),
        ("last_handle", ct.c_uint64),
    ]


class Alive(ct.Structure):
    """Writers that are alive, as a reader sees them."""

    _fields_ = [
        ("alive_count", ct.c_uint32),
        ("not_alive_count", ct.c_uint32),
        ("alive_count_change", ct.c_int32),
        ("not_alive_count_change", ct.c_int32),
        ("last_handle", ct.c_uint64),
    ]
