"""What a node has with callbacks: making, finding and destroying it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from fastvla_ros.embedded.rcl.callback_groups import (
    CallbackGroup,
    MutuallyExclusiveCallbackGroup,
    ReentrantCallbackGroup,
)
from fastvla_ros.embedded.rcl.client import Client
from fastvla_ros.embedded.rcl.clock import Clock
from fastvla_ros.embedded.rcl.event_handler import (
    PublisherEventCallbacks,
    SubscriptionEventCallbacks,
)
from fastvla_ros.embedded.rcl.guard_condition import GuardCondition
from fastvla_ros.embedded.rcl.publisher import Publisher
from fastvla_ros.embedded.rcl.qos import QoSProfile, as_profile, qos_profile_services_default
from fastvla_ros.embedded.rcl.qos_compatibility import (
    for_publisher,
    for_subscription,
    is_adaptive,
)
from fastvla_ros.embedded.rcl.service import RequestServer, Service
from fastvla_ros.embedded.rcl.subscription import Subscription
from fastvla_ros.embedded.rcl.timer import Rate, Timer

if TYPE_CHECKING:
    from fastvla_ros.embedded.rcl.context import Context
    from fastvla_ros.embedded.rcl.node import Node

E = TypeVar("E")
NS = 1_000_000_000
# Executors with faster timers leave the wire to its own thread: to take it and to leave it costs
# about 15 us for each wait.
FAST_TIMER_NS = 20_000_000


class NodeEntities:
    """The entity methods of `Node`, in rclpy's words."""

    if TYPE_CHECKING:
        _clock: Clock

        @property
        def context(self) -> Context: ...

        def resolve_topic_name(self, topic: str, *, only_expand: bool = False) -> str: ...
        def resolve_service_name(self, service: str, *, only_expand: bool = False) -> str: ...
        def wake_executor(self) -> None: ...

    def _start_empty(self) -> None:
        self._entities: tuple[Any, ...] = ()
        self._living: frozenset[Any] = frozenset()
        # Of those: the timers, and what may have work, in the order in which it came.
        self._timers: tuple[Timer, ...] = ()
        self.has_fast_timers = False
        self._woken: dict[Any, None] = {}
        self._publishers: tuple[Publisher[Any], ...] = ()
        self._entities_lock = threading.RLock()
        self._default_callback_group = MutuallyExclusiveCallbackGroup()
        # Rates tick while a callback of the default group sleeps on them.
        self._rate_group = ReentrantCallbackGroup()

    @property
    def _node(self) -> Node:
        """This object, as what it is mixed into."""
        return cast("Node", self)

    @property
    def default_callback_group(self) -> CallbackGroup:
        """The group of everything that was created without one: one callback at a time."""
        return self._default_callback_group

    @property
    def publishers(self) -> Iterator[Publisher[Any]]:
        """Every publisher."""
        yield from self._publishers

    @property
    def subscriptions(self) -> Iterator[Subscription[Any]]:
        """Every subscription."""
        yield from self._of_kind(Subscription)

    @property
    def timers(self) -> Iterator[Timer]:
        """Every timer."""
        yield from self._timers

    @property
    def clients(self) -> Iterator[Client]:
        """Every client."""
        yield from self._of_kind(Client)

    @property
    def services(self) -> Iterator[RequestServer]:
        """Every service server."""
        yield from self._of_kind(RequestServer)

    @property
    def guards(self) -> Iterator[GuardCondition]:
        """Every guard condition."""
        yield from self._of_kind(GuardCondition)

    def entity_woke(self, entity: Any) -> None:
        """An entity of this node has work."""
        self._woken[entity] = None
        self.wake_executor()

    def ready_entities(self) -> list[Any]:
        """What has work, for the node's executor, which asks the callback groups."""
        ready: list[Any] = [timer for timer in self._timers if timer.ready()]
        for entity in tuple(self._woken):
            # In this order, so that what comes meanwhile is not overlooked.
            self._woken.pop(entity, None)
            if entity.ready() and entity in self._living:
                self._woken[entity] = None
                ready.append(entity)
        return ready

    def create_publisher(
        self,
        msg_type: type[Any],
        topic: str,
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: PublisherEventCallbacks | None = None,
        publisher_class: type[Publisher[Any]] = Publisher,
    ) -> Publisher[Any]:
        """Offer a topic; an int is a queue depth."""
        name, profile = self.resolve_topic_name(topic), as_profile(qos_profile)
        if is_adaptive(profile):
            peers = self._node.get_subscriptions_info_by_topic(name)
            profile = for_publisher(profile, [peer.qos_profile for peer in peers])
        publisher = publisher_class(
            self._node,
            msg_type,
            name,
            profile,
            event_callbacks=event_callbacks,
            callback_group=self._group(callback_group),
        )
        with self._entities_lock:
            self._publishers += (publisher,)
        for handler in publisher.event_handlers:
            self.add_entity(handler)
        return publisher

    def create_subscription(
        self,
        msg_type: type[Any],
        topic: str,
        callback: Callable[..., Any],
        qos_profile: QoSProfile | int,
        *,
        callback_group: CallbackGroup | None = None,
        event_callbacks: SubscriptionEventCallbacks | None = None,
        raw: bool = False,
    ) -> Subscription[Any]:
        """Listen to a topic; the callback may take the message's info as a second argument."""
        name, profile = self.resolve_topic_name(topic), as_profile(qos_profile)
        if is_adaptive(profile):
            peers = self._node.get_publishers_info_by_topic(name)
            profile = for_subscription(profile, [peer.qos_profile for peer in peers])
        return self.add_entity(
            Subscription(
                self._node,
                msg_type,
                name,
                callback,
                profile,
                callback_group=self._group(callback_group),
                event_callbacks=event_callbacks,
                raw=raw,
            )
        )

    def create_client(
        self,
        srv_type: Any,
        srv_name: str,
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Client:
        """Call a service."""
        name = self.resolve_service_name(srv_name)
        group = self._group(callback_group)
        return self.add_entity(
            Client(self._node, srv_type, name, qos_profile, callback_group=group)
        )

    def create_service(
        self,
        srv_type: Any,
        srv_name: str,
        callback: Callable[[Any, Any], Any],
        *,
        qos_profile: QoSProfile = qos_profile_services_default,
        callback_group: CallbackGroup | None = None,
    ) -> Service:
        """Serve a service."""
        name = self.resolve_service_name(srv_name)
        group = self._group(callback_group)
        return self.add_entity(
            Service(self._node, srv_type, name, callback, qos_profile, callback_group=group)
        )

    def create_timer(
        self,
        timer_period_sec: float,
        callback: Callable[[], Any],
        callback_group: CallbackGroup | None = None,
        clock: Clock | None = None,
        autostart: bool = True,
    ) -> Timer:
        """Call back periodically on the node's clock, or on another."""
        timer = Timer(
            callback,
            self._group(callback_group),
            int(float(timer_period_sec) * NS),
            self._clock if clock is None else clock,
            node=self._node,
            autostart=autostart,
        )
        return self.add_entity(timer)

    def create_rate(self, frequency: float, clock: Clock | None = None) -> Rate:
        """Sleep at a frequency [Hz] in a thread that does not spin."""
        if frequency <= 0:
            raise ValueError("frequency must be > 0")
        timer = self.create_timer(1.0 / frequency, lambda: None, self._rate_group, clock)
        return Rate(timer, context=self.context)

    def create_guard_condition(
        self, callback: Callable[[], Any], callback_group: CallbackGroup | None = None
    ) -> GuardCondition:
        """Have a callback run when it is triggered."""
        return self.add_entity(
            GuardCondition(callback, self._group(callback_group), node=self._node)
        )

    def add_entity(self, entity: E) -> E:
        """Let executors run the entity's callbacks, and those of its QoS events."""
        new = (entity, *getattr(entity, "event_handlers", ()))
        with self._entities_lock:
            self._set_entities(self._entities + new)
        # What came before they were among the entities counts too.
        self._woken.update(dict.fromkeys(new))
        self.wake_executor()
        return entity

    def destroy_entity(self, entity: Any) -> bool:
        """Destroy an entity of this node; False when it is none."""
        with self._entities_lock:
            gone = {id(entity), *map(id, getattr(entity, "event_handlers", ()))}
            before = len(self._entities) + len(self._publishers)
            self._set_entities(tuple(e for e in self._entities if id(e) not in gone))
            self._publishers = tuple(p for p in self._publishers if p is not entity)
            if len(self._entities) + len(self._publishers) == before:
                return False
        entity.destroy()
        self._woken.pop(entity, None)
        self.wake_executor()
        return True

    destroy_publisher = destroy_entity
    destroy_subscription = destroy_entity
    destroy_client = destroy_entity
    destroy_service = destroy_entity
    destroy_timer = destroy_entity
    destroy_guard_condition = destroy_entity

    def destroy_rate(self, rate: Rate) -> bool:
        """End a rate."""
        rate.destroy()
        return self.destroy_entity(rate._timer)

    def _group(self, callback_group: CallbackGroup | None) -> CallbackGroup:
        return self._default_callback_group if callback_group is None else callback_group

    def _set_entities(self, entities: tuple[Any, ...]) -> None:
        self._entities, self._living = entities, frozenset(entities)
        self._timers = tuple(entity for entity in entities if isinstance(entity, Timer))
        self.has_fast_timers = any(t.timer_period_ns < FAST_TIMER_NS for t in self._timers)

    def _of_kind(self, kind: type[E]) -> Iterator[E]:
        yield from (entity for entity in self._entities if isinstance(entity, kind))

    def _destroy_entities(self) -> None:
        for entity in (*self._entities, *self._publishers):
            if hasattr(entity, "destroy"):
                entity.destroy()
        self._set_entities(())
        self._publishers = ()
        self._woken.clear()
