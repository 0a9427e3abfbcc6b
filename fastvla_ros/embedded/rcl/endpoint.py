"""A DDS reader or writer that belongs to a node: watched, announced, and closed with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastvla_ros.embedded.wire.entities import Reader, Writer
from fastvla_ros.embedded.wire.statuses import Status

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.node import Node

READER_STATUSES = Status.DATA_AVAILABLE | Status.SUBSCRIPTION_MATCHED
WRITER_STATUSES = Status.PUBLICATION_MATCHED
MATCHED = Status.SUBSCRIPTION_MATCHED | Status.PUBLICATION_MATCHED


class Endpoint:
    """Announces its GUID as the node's until it is closed."""

    def __init__(
        self,
        node: Node,
        entity: Reader | Writer,
        handler: Callable[[int], None],
        *,
        statuses: int = 0,
    ) -> None:
        """Watch `entity`; who waits for the wire calls `handler` with the status bits that rose.

        Args:
            statuses: Those to watch besides data and matches.
        """
        self.entity = entity
        self._node = node
        self._context = node.context
        self._graph = node.context.graph
        self._guid = entity.guid
        self._handler = handler
        reads = isinstance(entity, Reader)
        self._guids = node.graph_entry.readers if reads else node.graph_entry.writers
        self._guids.add(self._guid)
        statuses |= READER_STATUSES if reads else WRITER_STATUSES
        # Another thread may call back before `attach` returns, or while `close` deletes.
        self._handling = threading.Lock()
        with self._handling:
            self._token: int | None = self._context.participant.waitset.attach(
                entity.ref, statuses, self._on_status
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
            self.entity.delete()
        self._guids.discard(self._guid)
        self._node.announce()
