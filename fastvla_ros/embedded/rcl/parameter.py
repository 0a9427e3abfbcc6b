"""Parameters as values with a type."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue

from fastvla_ros.embedded.rcl.parameter_overrides import ANY_NODE, read_parameter_file

PARAMETER_SEPARATOR_STRING = "."


class Parameter:
    """A name and a value; the type follows from the value unless it is given."""

    class Type(Enum):
        """The types there are, numbered as in rcl_interfaces/ParameterType."""

        NOT_SET = ParameterType.PARAMETER_NOT_SET
        BOOL = ParameterType.PARAMETER_BOOL
        INTEGER = ParameterType.PARAMETER_INTEGER
        DOUBLE = ParameterType.PARAMETER_DOUBLE
        STRING = ParameterType.PARAMETER_STRING
        BYTE_ARRAY = ParameterType.PARAMETER_BYTE_ARRAY
        BOOL_ARRAY = ParameterType.PARAMETER_BOOL_ARRAY
        INTEGER_ARRAY = ParameterType.PARAMETER_INTEGER_ARRAY
        DOUBLE_ARRAY = ParameterType.PARAMETER_DOUBLE_ARRAY
        STRING_ARRAY = ParameterType.PARAMETER_STRING_ARRAY

        @classmethod
        def from_parameter_value(cls, value: Any) -> Parameter.Type:
            """The type of a Python value; TypeError when it has none."""
            if value is None:
                return cls.NOT_SET
            for kind, name in SCALAR_TYPES:
                if isinstance(value, kind):
                    return cls[name]
            if isinstance(value, array):
                return cls.DOUBLE_ARRAY if value.typecode in "fd" else cls.INTEGER_ARRAY
            if isinstance(value, (list, tuple)):
                return cls._from_items(value)
            raise TypeError(f"The given value is not one of the allowed types '{value!r}'.")

        @classmethod
        def _from_items(cls, items: Any) -> Parameter.Type:
            if all(isinstance(item, bytes) for item in items):
                return cls.BYTE_ARRAY
            for kind, name in SCALAR_TYPES:
                if all(isinstance(item, kind) for item in items):
                    return cls[f"{name}_ARRAY"]
            raise TypeError(f"The given value is not one of the allowed types '{items!r}'.")

        def check(self, value: Any) -> bool:
            """Whether a value has this type; an empty list has any array type."""
            if isinstance(value, (list, tuple, array)) and not len(value):
                return self.name.endswith("_ARRAY")
            return Parameter.Type.from_parameter_value(value) is self

    def __init__(self, name: str, type_: Type | None = None, value: Any = None) -> None:
        """Pair a name with a value.

        Raises:
            TypeError: the value has no parameter type, or the type is not a Parameter.Type.
            ValueError: the value has another type than the given one.
        """
        if type_ is None:
            type_ = Parameter.Type.from_parameter_value(value)
        if not isinstance(type_, Parameter.Type):
            raise TypeError("type must be an instance of Parameter.Type")
        if not type_.check(value):
            raise ValueError(f"Type '{type_}' and value '{value}' do not agree")
        self._name = name
        self._type = type_
        self._value = value

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    @property
    def type_(self) -> Type:
        """The type."""
        return self._type

    @property
    def value(self) -> Any:
        """The value; None when not set."""
        return self._value

    @classmethod
    def from_parameter_msg(cls, param_msg: ParameterMsg) -> Parameter:
        """From rcl_interfaces/Parameter."""
        value = parameter_value_to_python(param_msg.value)
        return cls(param_msg.name, cls.Type(param_msg.value.type), value)

    def get_parameter_value(self) -> ParameterValue:
        """As rcl_interfaces/ParameterValue."""
        message = ParameterValue(type=self._type.value)
        if self._type is not Parameter.Type.NOT_SET:
            setattr(message, VALUE_FIELDS[self._type.value], self._value)
        return message

    def to_parameter_msg(self) -> ParameterMsg:
        """As rcl_interfaces/Parameter."""
        return ParameterMsg(name=self._name, value=self.get_parameter_value())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameter):
            return NotImplemented
        mine = (self._name, self._type, self._value)
        return mine == (other._name, other._type, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Parameter({self._name!r}, {self._type}, {self._value!r})"


# bool before int, because Python's bool is an int.
SCALAR_TYPES = ((bool, "BOOL"), (int, "INTEGER"), (float, "DOUBLE"), (str, "STRING"))

VALUE_FIELDS = {
    ParameterType.PARAMETER_BOOL: "bool_value",
    ParameterType.PARAMETER_INTEGER: "integer_value",
    ParameterType.PARAMETER_DOUBLE: "double_value",
    ParameterType.PARAMETER_STRING: "string_value",
    ParameterType.PARAMETER_BYTE_ARRAY: "byte_array_value",
    ParameterType.PARAMETER_BOOL_ARRAY: "bool_array_value",
    ParameterType.PARAMETER_INTEGER_ARRAY: "integer_array_value",
    ParameterType.PARAMETER_DOUBLE_ARRAY: "double_array_value",
    ParameterType.PARAMETER_STRING_ARRAY: "string_array_value",
}


def parameter_value_to_python(parameter_value: ParameterValue) -> Any:
    """The Python value of rcl_interfaces/ParameterValue; None when not set.

    Raises:
        RuntimeError: its type number is unknown.
    """
    if parameter_value.type == ParameterType.PARAMETER_NOT_SET:
        return None
    if parameter_value.type not in VALUE_FIELDS:
        raise RuntimeError(f"unexpected parameter type {parameter_value.type}")
    value = getattr(parameter_value, VALUE_FIELDS[parameter_value.type])
    return list(value) if isinstance(value, (list, array)) else value


def get_parameter_value(string_value: str) -> ParameterValue:
    """The ParameterValue of a text, read as YAML; what has no type of a parameter is a text."""
    # Late: programs without parameters on their command line start without it.
    import yaml

    try:
        value = yaml.safe_load(string_value)
        kind = Parameter.Type.from_parameter_value(value)
    except (yaml.YAMLError, TypeError):
        value, kind = string_value, Parameter.Type.STRING
    if kind is Parameter.Type.NOT_SET:
        value, kind = string_value, Parameter.Type.STRING
    return Parameter("", kind, value).get_parameter_value()


def parameter_dict_from_yaml_file(
    parameter_file: str,
    use_wildcard: bool = False,
    target_nodes: Sequence[str] | None = None,
    namespace: str = "",
) -> dict[str, ParameterMsg]:
    """The parameters of a file, keyed by their names.

    Args:
        use_wildcard: Those of `/**` too; what a node's own part says is stronger.
        target_nodes: Only those of these nodes, as the file names them; None is all.
        namespace: Stands before the names.
    Raises:
        RuntimeError: a node is not in the file, or it is not a parameter file.
    """
    rules = {rule.pattern: rule.values for rule in read_parameter_file(Path(parameter_file))}
    everybody = rules.pop(ANY_NODE, {})
    wanted = [f"/{name.strip('/')}" for name in target_nodes] if target_nodes else list(rules)
    missing = [name for name in wanted if name not in rules]
    if missing:
        raise RuntimeError(
            f"Param file does not contain parameters for {missing}, only for nodes: {list(rules)}"
        )
    values: dict[str, Any] = dict(everybody) if use_wildcard else {}
    for name in wanted:
        values |= rules[name]
    if not values:
        raise RuntimeError("Param file does not contain selected parameters")
    named = {f"{namespace}{name}": value for name, value in values.items()}
    return {name: Parameter(name, value=v).to_parameter_msg() for name, v in named.items()}
