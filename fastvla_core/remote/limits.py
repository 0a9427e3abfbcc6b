"""What both sides of the connection agree on: sizes, keep-alive, reconnection."""

from __future__ import annotations

_MAX_MESSAGE_BYTES = 64 * 2**20
_PATIENCE_MS = 3000

# gRPC's own limit of 4 MiB is less than two raw full-HD cameras.
MESSAGE_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    # A client that looks every few seconds whether the line is still there is no attacker.
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
)
CHANNEL_OPTIONS = (
    *MESSAGE_OPTIONS,
    # A cable that was pulled closes no connection: ask, and give it up. Recent versions of gRPC
    # look at the second of the two patiences, which is a minute by default.
    ("grpc.keepalive_time_ms", 2000),
    ("grpc.keepalive_timeout_ms", _PATIENCE_MS),
    ("grpc.http2.ping_timeout_ms", _PATIENCE_MS),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A robot talks to the address that it was told, not to the proxy of somebody's browser.
    ("grpc.enable_http_proxy", 0),
)
