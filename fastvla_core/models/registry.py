"""Names to classes, as a lazy table of strings: nothing is imported before it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastvla_core.errors import CheckpointError


class Registry:
    """Maps a type name to "module:Class"; add your own with `register`."""

    def __init__(self, kind: str, targets: dict[str, str]) -> None:
        self._kind = kind
        self._targets = dict(targets)

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._targets))

    def register(self, name: str, target: str) -> None:
        """Let `name` stand for `target`, written "package.module:Class".

        Raises:
            ValueError: the target is not of that form, or the name already means another class.
        """
        module, _, attribute = target.partition(":")
        if not module or not attribute:
            raise ValueError(f"'{target}' is not of the form 'package.module:Class'")
        if self._targets.setdefault(name, target) != target:
            raise ValueError(f"{self._kind} '{name}' already stands for {self._targets[name]}")

    def load(self, name: str) -> Any:
        """Import and return the class behind `name`.

        Raises:
            CheckpointError: the name is unknown.
        """
        if name not in self._targets:
            raise CheckpointError(
                f"there is no {self._kind} '{name}'; known: {', '.join(self.names())}",
                mend="correct the name, or add it with `Registry.register`",
            )
        module, _, attribute = self._targets[name].partition(":")
        return getattr(import_module(module), attribute)


POLICIES = Registry(
    "policy type",
    {
        "fastvla_flow": "fastvla_core.models.policies.flow_vla.family:FlowVLAFamily",
        "smolvla": "fastvla_core.models.policies.smolvla.family:SmolVLAFamily",
        "pi0": "fastvla_core.models.policies.pi.family:Pi0Family",
        "pi05": "fastvla_core.models.policies.pi.family:Pi05Family",
        "pi0_fast": "fastvla_core.models.policies.pi0_fast.family:Pi0FastFamily",
        "act": "fastvla_core.models.policies.act.family:ActFamily",
        "diffusion": "fastvla_core.models.policies.diffusion.family:DiffusionFamily",
    },
)
PRESETS = Registry(
    "policy preset",
    {
        "nano": "fastvla_core.models.policies.flow_vla.presets:nano_config",
        "large": "fastvla_core.models.policies.flow_vla.presets:large_config",
    },
)
VISION_STEMS = Registry(
    "vision stem",
    {
        "film_conv": "fastvla_core.models.backbones.film_conv:FilmConvStem",
        "vit": "fastvla_core.models.backbones.vit:VisionTransformerStem",
    },
)
