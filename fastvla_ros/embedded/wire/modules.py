"""The importable packages of interfaces: `from sensor_msgs.msg import Image`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from fastvla_ros.embedded.wire.messages import MessageFactory

KINDS = ("msg", "srv", "action")


class InterfaceModule(ModuleType):
    """`package.msg`, `package.srv` or `package.action`; classes are made when named."""

    def __init__(self, factory: MessageFactory, package: str, kind: str) -> None:
        super().__init__(f"{package}.{kind}", f"Interfaces of {package}.")
        self._factory = factory
        self._prefix = f"{package}/{kind}/"
        self._names = factory.store.names(package, kind)
        self.__all__ = self._names

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(
                f"the embedded ROS runtime has no '{self._prefix}{name}' (it has: "
                f"{', '.join(self._names)})"
            )
        value = self._factory.interface(self._prefix + name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return self._names


def interface_modules(factory: MessageFactory) -> dict[str, ModuleType]:
    """Module names and modules of every package in the factory's store."""
    modules: dict[str, ModuleType] = {}
    for package in factory.store.packages():
        parent = ModuleType(package, f"Interfaces of {package}.")
        # An empty path makes it a package with nothing else to find.
        parent.__path__ = []
        modules[package] = parent
        for kind in KINDS:
            if factory.store.names(package, kind):
                child = InterfaceModule(factory, package, kind)
                modules[child.__name__] = child
                setattr(parent, kind, child)
    return modules
