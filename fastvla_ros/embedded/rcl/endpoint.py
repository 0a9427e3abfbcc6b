"""A DDS reader or writer that belongs to a node: watched, announced, and closed with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from cyclonedds.core import DDSStatus
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader

from fastvla_ros.embedded.wire import rawio

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

READER_STATUSES = DDSStatus.DataAvailable | DDSStatus.SubscriptionMatched
WRITER_STATUSES = DDSStatus.PublicationMatched
MATCHED = DDSStatus.SubscriptionMatched | DDSStatus.PublicationMatched


class Endpoint:
    """Announces its GUID as the node's until it is closed."""

    def __init__(
        self,
        node: Node,
        entity: DataReader | DataWriter,
        handler: Callable[[int], None],
        *,
        statuses: int = 0,
    ) -> None:
        """Watch `entity`; the wait thread calls `handler` with the status bits that rose.

        Args:
            statuses: Those to watch besides data and matches.
        """
        self.entity = entity
        self._node = node
        self._context = node.context
        self._graph = node.context.graph
        self._guid = entity.guid.bytes
        self._handler = handler
        reads = isinstance(entity, DataReader)
        self._guids = node.graph_entry.readers if reads else node.graph_entry.writers
        self._guids.add(self._guid)
        statuses |= READER_STATUSES if reads else WRITER_STATUSES
        # The wait thread may call back before `attach` returns, or while `close` deletes.
        self._handling = threading.Lock()
        with self._handling:
            self._token: int | None = self._context.participant.waitset.attach(
                entity, statuses, self._on_status
            )
        node.announce()

    @property
    def guid(self) -> bytes:
        """The 16 bytes that name the endpoint on the wire."""
        return self._guid

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._token is None

    def _on_status(self, status: int) -> None:
        with self._handling:
            if self._token is not None:
                self._handler(status)
        if status & MATCHED:
            self._graph.notify()

    def close(self) -> None:
        """Leave the graph; a second call does nothing."""
        with self._handling:
            if self._token is None:
                return
            self._context.participant.waitset.detach(self._token)
            self._token = None
            rawio.delete(self.entity)
        self._guids.discard(self._guid)
        self._node.announce()
