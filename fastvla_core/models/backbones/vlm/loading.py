"""A backbone from its folder, its registered name or the Hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from fastvla_core.errors import CheckpointError, DependencyError, FastVLAError
from fastvla_core.models.backbones.vlm import lora as adapters
from fastvla_core.models.backbones.vlm.interface import LoraOptions, Quantization, VLMBackbone
from fastvla_core.models.checkpoint import read_json, tensor_shapes
from fastvla_core.models.hub import find_checkpoint, find_hub_files
from fastvla_core.models.lerobot.stored import (
    ADAPTER_CONFIG,
    INDEX,
    SINGLE,
    find_base,
    read_stored,
    weight_files,
)
from fastvla_core.models.registry import VLM_BACKBONES, VLM_FAMILIES
from fastvla_core.quant import prepare_for_state, quantize_module

_MEND = "use the config.json that belongs to these weights"
_Result = TypeVar("_Result")


def load_backbone(
    path_or_name: str | Path,
    *,
    quantization: Quantization | None = None,
    lora: LoraOptions | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> VLMBackbone:
    """See `VLMBackbone.from_pretrained`."""
    found, origin = find_backbone(path_or_name)
    folder = found
    if is_adapter(found):
        if lora is not None:
            raise CheckpointError(
                f"{found} is an adapter already", mend="leave `lora` out to train it further"
            )
        settings = read_json(found / ADAPTER_CONFIG)
        folder = find_base(found, settings)
        origin = settings["base_model_name_or_path"]
    family = family_of(folder)
    network = _loaded(family, folder, dtype)
    stored = is_quantized(folder)
    if stored is not None and quantization not in (None, stored):
        raise CheckpointError(
            f"{folder} is quantised to {stored}, not {quantization}",
            mend="quantise the backbone at full precision instead",
        )
    if quantization is not None and stored is None:
        quantize_module(network, quantization, skip=family.full_precision())
    backbone = family(network, folder=folder, origin=origin)
    if lora is not None:
        backbone.add_lora(lora)
    elif folder != found:
        adapters.load(network, found)
    return backbone.to(device).eval()


def build_backbone(
    path_or_name: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> VLMBackbone:
    """See `VLMBackbone.from_config`."""
    folder, origin = find_backbone(path_or_name)
    family = family_of(folder)
    network = family_network(family, folder, dtype=dtype)
    return family(network, folder=folder, origin=origin).to(device).eval()


def find_backbone(path_or_name: str | Path, *, weights: bool = True) -> tuple[Path, str]:
    """The local folder of a backbone, and what others can find it by.

    Args:
        weights: Whether its weights are wanted, or its config and tokenizer alone.

    Raises:
        CheckpointError: there is none of that name, or the Hub cannot be reached.
    """
    name = str(path_or_name)
    if Path(path_or_name).exists():
        return find_checkpoint(path_or_name), str(Path(path_or_name).absolute())
    entry = VLM_BACKBONES.load(name) if name in VLM_BACKBONES else None
    if entry is None and "/" not in name:
        # Says which names there are.
        VLM_BACKBONES.load(name)
    repository = name if entry is None else entry.repo
    if weights:
        return find_checkpoint(repository), repository
    return find_hub_files(repository, ("*.json",), wanted="config.json"), repository


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, whose config names the backbone."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def family_of(folder: Path) -> Any:
    """The class of the family that FOLDER/config.json names.

    Raises:
        CheckpointError: the file is missing, or the family is not known.
        DependencyError: Transformers is not installed.
    """
    transformers()
    data = read_json(folder / "config.json")
    kind = data.get("model_type")
    if not isinstance(kind, str):
        raise CheckpointError(
            f"{folder / 'config.json'}: the key 'model_type' is missing",
            mend="is it a vision-language model in the layout of Transformers?",
        )
    return VLM_FAMILIES.load(kind)


def family_network(family: Any, folder: Path, *, dtype: torch.dtype | None = None) -> Any:
    """The network that FOLDER/config.json describes, with fresh weights.

    Args:
        dtype: Of the weights; None as the config says.
    """
    kind = getattr(transformers(), family.network_class)

    def build() -> Any:
        config = kind.config_class.from_pretrained(folder, local_files_only=True)
        # Converted afterwards, the rotary frequencies would lose digits.
        return kind._from_config(config, **({} if dtype is None else {"dtype": dtype}))

    return _mended(build, folder / "config.json")


def is_quantized(folder: Path) -> Quantization | None:
    """How the weights are stored; only their names are read."""
    for path in weight_files(folder):
        names = tensor_shapes(path)
        if any(".quant_state." in name for name in names):
            return "nf4"
        if any(name.endswith(".SCB") for name in names):
            return "int8"
    return None


def transformers() -> Any:
    """The package.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import transformers as package
    except ImportError as error:
        raise DependencyError(
            f"vision-language backbones need Transformers ({error})",
            mend="pip install 'fastvla[vlm]'",
        ) from error
    return package


def _loaded(family: Any, folder: Path, dtype: torch.dtype | None) -> Any:
    """The network with the folder's weights; quantised layers where they are stored so."""
    if is_quantized(folder) is not None:
        return _loaded_quantized(family, folder, dtype)
    kind = getattr(transformers(), family.network_class)

    def load() -> tuple[Any, dict[str, Any]]:
        return kind.from_pretrained(
            folder,
            dtype="auto" if dtype is None else dtype,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )

    network, report = _mended(load, folder / (SINGLE if (folder / SINGLE).is_file() else INDEX))
    problems = [f"'{name}' is missing" for name in sorted(report["missing_keys"])]
    problems += [f"'{name}' is not part of the model" for name in sorted(report["unexpected_keys"])]
    problems += [
        f"'{name}' is {tuple(found)}, expected {tuple(expected)}"
        for name, found, expected in sorted(report["mismatched_keys"])
    ]
    problems += [str(error) for error in report["error_msgs"]]
    _refuse(problems, folder)
    return _own_memory(network)


def _loaded_quantized(family: Any, folder: Path, dtype: torch.dtype | None) -> Any:
    network = unweighted_network(family, folder)
    state = read_stored(folder)
    prepare_for_state(network, state)
    result = network.load_state_dict(state, strict=False, assign=True)
    network.tie_weights()
    absent = [name for name, tensor in network.named_parameters() if tensor.is_meta]
    problems = [f"'{name}' is missing" for name in absent]
    problems += [f"'{name}' is not part of the model" for name in result.unexpected_keys]
    _refuse(problems, folder)
    if dtype is not None:
        network.config.dtype = dtype
        for parameter in network.parameters():
            parameter.data = parameter.data.to(dtype)
    return _own_memory(network)


def unweighted_network(family: Any, folder: Path) -> Any:
    """The network without memory for its weights, as FOLDER/config.json describes it."""
    transformers()
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    # Rotary frequencies are buffers that no file holds: they are computed, weights are not.
    with init_empty_weights(include_buffers=False), no_init_weights():
        network = family_network(family, folder)
    # That is left out together with the drawing of weights.
    network.tie_weights()
    return network


def _own_memory(network: Any) -> Any:
    """The network with weights that are copies of what the file holds.

    The file's own memory is not aligned, and matrix products round differently there; it also must
    not change below a robot when the file does.
    """
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = tensor.data.clone()
    return network


def _refuse(problems: list[str], folder: Path) -> None:
    if problems:
        shown = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise CheckpointError(f"{folder}: {len(problems)} weights do not fit: {shown}", mend=_MEND)


def _mended(action: Callable[[], _Result], source: Path) -> _Result:
    """The action's result; what it raises, as an error that names the file."""
    try:
        return action()
    except FastVLAError:
        raise
    except ImportError as error:
        raise DependencyError(f"{source}: {error}", mend="install what is named") from error
    # Whatever Transformers says here is about what the files hold.
    except Exception as error:
        raise CheckpointError(f"{source} cannot be used: {error}", mend=_MEND) from error
