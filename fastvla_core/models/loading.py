"""A network from its checkpoint folder, quantised where asked or stored so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fastvla_core.errors import CheckpointError, FastVLAError
from fastvla_core.models.checkpoint import read_json
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES, LocalFiles
from fastvla_core.models.lerobot.openpi import norm_stats_file, openpi_data
from fastvla_core.models.lerobot.stored import settings_folder
from fastvla_core.models.registry import POLICIES
from fastvla_core.models.weightless import weightless
from fastvla_core.quant import Nf4Linear, quantize_module, quantized_layers

Quantization = Literal["nf4", "int8"]


def load_config(folder: Path, *, files: LocalFiles = NO_LOCAL_FILES) -> tuple[Any, Any]:
    """The policy family and the config that FOLDER/config.json names.

    Args:
        files: What takes the place of parts that the checkpoint names.
    Raises:
        CheckpointError: the file is missing or damaged, or its type is not known.
    """
    folder = settings_folder(folder)
    source = folder / "config.json"
    data = _policy_data(folder)
    if not isinstance(data.get("type"), str):
        raise CheckpointError(f"{source}: the key 'type' is missing", mend="is it a policy?")
    family = POLICIES.load(data["type"])
    return family, family.config(data, folder=folder, files=files)


def _policy_data(folder: Path) -> dict[str, Any]:
    """config.json; of an openpi checkpoint, the same in LeRobot's words."""
    source = folder / "config.json"
    data = read_json(source) if source.is_file() or norm_stats_file(folder) is None else {}
    return data if "type" in data else openpi_data(folder, data) or data


def load_model(family: Any, config: Any, folder: Path, *, quantization: Quantization | None) -> Any:
    """Build the family's network and give it the checkpoint's weights, on the CPU.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the config; or it is
            quantised in another way than asked for.
        QuantError: the weights cannot be quantised.
    """
    model = _build(family, config, folder)
    model.eval()
    family.load_weights(model, config, folder)
    stored = quantization_of(model)
    if stored is None and quantization is not None:
        return quantize_module(model, quantization, skip=skipped_layers(model, quantization))
    if quantization not in (None, stored):
        raise CheckpointError(
            f"{folder} is quantised to {stored}, not {quantization}",
            mend="quantise the checkpoint at full precision instead",
        )
    return model


def skipped_layers(model: Any, quantization: Quantization) -> tuple[str, ...]:
    """Patterns of the layers that stay at full precision where the others take fewer bits.

    Four bits alone leave queries, keys and values of the prefix and of the expert as they are: few
    weights, but most of the error of the actions (`fastvla_core/quant/README.md`).
    """
    further = getattr(model, "nf4_full_precision", ()) if quantization == "nf4" else ()
    return (*model.full_precision, *further)


def quantization_of(model: Any) -> Quantization | None:
    """How the model's linear layers are stored; None where all are at full precision."""
    kinds = {type(layer) for layer in quantized_layers(model).values()}
    return "nf4" if Nf4Linear in kinds else "int8" if kinds else None


def _build(family: Any, config: Any, folder: Path) -> Any:
    try:
        with weightless():
            return family.model(config)
    except FastVLAError:
        raise
    # Whatever torch says here is about sizes that the config gives.
    except Exception as error:
        raise CheckpointError(
            f"{folder / 'config.json'} describes no network that can be built: {error}",
            mend="use the config.json that belongs to these weights",
        ) from error
