"""Low-rank adapters through peft, on full-precision and on quantised layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fastvla_core.errors import CheckpointError, QuantError
from fastvla_core.models.backbones.vlm.interface import LoraOptions
from fastvla_core.models.checkpoint import read_json, read_tensors, write_json, write_tensors
from fastvla_core.models.lerobot.stored import ADAPTER, ADAPTER_CONFIG
from fastvla_core.models.peft_layers import ADAPTER_NAME, PEFT_PREFIX, import_peft, inject
from fastvla_core.quant import QuantizedLinear

_MEND = "use the backbone that the adapter was trained on"


def add(network: nn.Module, options: LoraOptions, *, parts: Sequence[str]) -> None:
    """Freeze the network and put adapters on the linear layers below `parts`, in place.

    Args:
        parts: Dotted names of the modules that get adapters.
    Raises:
        CheckpointError: no layer has one of the names asked for.
        DependencyError: peft is not installed.
    """
    targets = list(_targets(network, options, parts))
    if not targets:
        raise CheckpointError(
            f"no linear layer of {', '.join(parts)} is called {', '.join(options.targets)}",
            mend="leave `targets` empty for all of them, or correct the names",
        )
    config = import_peft().LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
    )
    inject(network, config)


def load(network: nn.Module, folder: Path) -> None:
    """Put a stored adapter on the network, ready to be trained further.

    Raises:
        CheckpointError: it is missing or damaged, or does not fit.
    """
    settings = read_json(folder / ADAPTER_CONFIG)
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: 'peft_type' is {settings.get('peft_type')!r}",
            mend="only LoRA adapters are loaded; merge others with peft",
        )
    peft = import_peft()
    config = peft.LoraConfig.from_pretrained(str(folder))
    config.inference_mode = False
    try:
        inject(network, config)
    # peft's word for layers that are not there.
    except ValueError as error:
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: {error}", mend=_MEND) from error
    stored = read_tensors(folder / ADAPTER)
    tensors = {name.removeprefix(PEFT_PREFIX): tensor for name, tensor in stored.items()}
    expected = _adapter_weights(network)
    wrong = sorted(
        name
        for name in expected.keys() | tensors.keys()
        if name not in expected
        or name not in tensors
        or expected[name].shape != tensors[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"{folder / ADAPTER}: {len(wrong)} tensors do not fit the backbone, the first is "
            f"'{wrong[0]}'",
            mend=_MEND,
        )
    peft.set_peft_model_state_dict(network, tensors, adapter_name=ADAPTER_NAME)


def save(network: nn.Module, folder: Path, *, base: str) -> None:
    """Write the adapter as peft does: adapter_config.json and adapter_model.safetensors.

    Args:
        base: Folder or Hub name of the backbone that it belongs to.
    """
    tensors = {PEFT_PREFIX + name: tensor for name, tensor in _adapter_weights(network).items()}
    write_tensors(folder / ADAPTER, tensors)
    config: Any = network.peft_config[ADAPTER_NAME]  # pyright: ignore[reportIndexIssue, reportArgumentType]
    data = {
        key: sorted(value) if isinstance(value, set) else value
        for key, value in config.to_dict().items()
    }
    data |= {"base_model_name_or_path": base, "inference_mode": True}
    write_json(folder / ADAPTER_CONFIG, data)


def is_adapted(network: nn.Module) -> bool:
    """Whether the network has adapters."""
    return getattr(network, "peft_config", None) is not None


def merge(network: nn.Module) -> None:
    """Add the adapters to their weights, and take them away; without any, do nothing.

    Raises:
        QuantError: the weights are quantised.
    """
    if not is_adapted(network):
        return
    kind = import_peft().tuners.lora.LoraLayer
    adapted: list[tuple[str, Any]] = [
        (name, layer) for name, layer in network.named_modules() if isinstance(layer, kind)
    ]
    for name, layer in adapted:
        if isinstance(layer.get_base_layer(), QuantizedLinear):
            raise QuantError(
                f"'{name}' is quantised: an adapter cannot be merged into it",
                mend="load the adapter on the backbone at full precision, then merge",
            )
    for name, layer in adapted:
        layer.merge()
        network.set_submodule(name, layer.get_base_layer())
    del network.peft_config


def _adapter_weights(network: nn.Module) -> dict[str, Tensor]:
    # "auto" would ask the Hub for the vocabulary that the backbone once had.
    return import_peft().get_peft_model_state_dict(
        network, adapter_name=ADAPTER_NAME, save_embedding_layers=False
    )


def _targets(network: nn.Module, options: LoraOptions, parts: Sequence[str]) -> Iterator[str]:
    # A head whose weight is also the embedding must not change alone.
    head: Any = getattr(network, "lm_head", None)
    for part in parts:
        for name, module in network.get_submodule(part).named_modules():
            full = f"{part}.{name}" if name else part
            linear = isinstance(module, (nn.Linear, QuantizedLinear)) and module is not head
            if linear and (not options.targets or full.rpartition(".")[2] in options.targets):
                yield full
