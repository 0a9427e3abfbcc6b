"""Names to classes, as a lazy table of strings: nothing is imported before it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from fastvla_core.errors import CheckpointError


class Registry:
    """Maps a type name to "module:Class"; add your own with `register`, or by an entry point.

    Args:
        group: Entry points of installed packages that belong here; our own names come first.
    """

    def __init__(self, kind: str, targets: Mapping[str, str], *, group: str | None = None) -> None:
        self._kind = kind
        self._targets = dict(targets)
        self._group = group

    def names(self) -> tuple[str, ...]:
        """All registered names, sorted."""
        return tuple(sorted(self._known()))

    def __contains__(self, name: object) -> bool:
        return name in self._known()

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
        target = self._known().get(name)
        if target is None:
            raise self._unknown(name)
        module, _, attribute = target.partition(":")
        return getattr(import_module(module), attribute)

    def _known(self) -> dict[str, str]:
        if self._group is None:
            return self._targets
        return {**_installed(self._group, tuple(sys.path)), **self._targets}

    def _unknown(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"there is no {self._kind} '{name}'; known: {', '.join(self.names())}",
            mend="correct the name, or add it with `Registry.register`",
        )


@lru_cache(maxsize=8)
def _installed(group: str, path: tuple[str, ...]) -> dict[str, str]:
    """Entry points of a group by name; looking through all packages takes tens of milliseconds."""
    return {point.name: point.value for point in entry_points(group=group)}


class BackboneRegistry(Registry):
    """Names, aliases and Hub names to `BackboneEntry`s: the published ones, and your own."""

    def names(self) -> tuple[str, ...]:
        """All names, without aliases, sorted."""
        return tuple(sorted(self.entries()))

    def entries(self) -> dict[str, Any]:
        """All entries by name."""
        from fastvla_core.models.backbones.vlm.catalogue import PUBLISHED

        return {
            **{name: super(BackboneRegistry, self).load(name) for name in self._known()},
            **PUBLISHED,
        }

    def __contains__(self, name: object) -> bool:
        return self._found(name) is not None

    def load(self, name: str) -> Any:
        """The entry of a name, an alias or a Hub repository.

        Raises:
            CheckpointError: there is none.
        """
        found = self._found(name)
        if found is None:
            raise self._unknown(name)
        return found

    def _found(self, name: object) -> Any:
        entries = self.entries()
        if name in entries:
            return entries[str(name)]
        others = (e for e in entries.values() if name == e.repo or name in e.aliases)
        return next(others, None)


POLICIES = Registry(
    "policy type",
    {
        "fastvla_flow": "fastvla_core.models.policies.flow_vla.family:FlowVLAFamily",
        "smolvla": "fastvla_core.models.policies.smolvla.family:SmolVLAFamily",
        "fastvla_vla": "fastvla_core.models.policies.vla.family:VLAFamily",
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
        "vla": "fastvla_core.models.policies.vla.presets:vla_config",
    },
)
ACTION_HEADS = Registry(
    "action head",
    {
        "flow": "fastvla_core.models.heads.flow:FlowHead",
        "regression": "fastvla_core.models.heads.regression:RegressionHead",
        "bins": "fastvla_core.models.heads.bins:BinHead",
        "fast": "fastvla_core.models.heads.fast:FastHead",
    },
    group="fastvla.action_heads",
)
VISION_STEMS = Registry(
    "vision stem",
    {
        "film_conv": "fastvla_core.models.backbones.film_conv:FilmConvStem",
        "vit": "fastvla_core.models.backbones.vit:VisionTransformerStem",
    },
)
_VLM = "fastvla_core.models.backbones.vlm"
VLM_FAMILIES = Registry(
    "backbone family",
    {
        "qwen2_vl": f"{_VLM}.qwen_vl:Qwen2VL",
        "qwen2_5_vl": f"{_VLM}.qwen_vl:Qwen25VL",
        "qwen3_vl": f"{_VLM}.qwen_vl:Qwen3VL",
        "paligemma": f"{_VLM}.paligemma:PaliGemma",
        "internvl": f"{_VLM}.internvl:InternVL",
        "llava": f"{_VLM}.llava:Llava",
        "llava_onevision": f"{_VLM}.llava:LlavaOneVision",
        "florence2": f"{_VLM}.florence2:Florence2",
        "smolvlm": f"{_VLM}.smolvlm:SmolVLM",
        "idefics3": f"{_VLM}.smolvlm:Idefics3",
        "gemma3": f"{_VLM}.gemma3:Gemma3",
        "fast_vlm": f"{_VLM}.fast_vlm:FastVLM",
    },
    group="fastvla.backbone_families",
)
VLM_BACKBONES = BackboneRegistry("vision-language backbone", {}, group="fastvla.backbones")
