"""Who takes part in a race."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from training.bench.contest.engines import ENGINES, missing_for

_OURS = "training.bench.contest.ours"
_LEROBOT = "training.bench.contest.lerobot_peer"
_OPENPI = "training.bench.contest.openpi_peer"
LEROBOT_PYTHON = "FASTVLA_LEROBOT_PYTHON"
OPENPI_PYTHON = "FASTVLA_OPENPI_PYTHON"
REFERENCE = "torch, fp32"
_INT8_ENGINE = "onnxruntime_int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One row of the table.

    Attributes:
        name: Of the row.
        weights: What the large linear layers are stored in: "fp32", "bf16", "int8" or "nf4".
        compute: Type of the products; "int8" where activations take 8 bits, too.
        peer: Whether it is somebody else's way of running the policy.
        module: What its process runs.
        options: What that module builds.
        python: Its interpreter.
        environment: Of its process, beside this one's.
        missing: Why it cannot run here; empty when it can.
        slow_start: Whether it compiles or converts; such ones come last, those that compile behind
            all others, and get the time that others left.
    """

    name: str
    weights: str
    compute: str
    peer: bool = True
    module: str = _OURS
    options: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""
    slow_start: bool = False


def contenders(
    policy_type: str,
    *,
    device: str,
    compute: Sequence[str],
    lerobot_python: str | None = None,
    openpi_python: str | None = None,
) -> list[Contender]:
    """Everybody who could run a policy on a device: the reference, quick starters, compilers.

    Args:
        compute: Types in which the device multiplies, the float32 reference's included.
        lerobot_python, openpi_python: Interpreters that have them; None for the environment's, or
            this one.
    """
    everybody = [
        *_torch(device, compute),
        *_ours(device, compute),
        *_lerobot(policy_type, device, compute, lerobot_python),
        *_openpi(policy_type, device, compute, openpi_python),
    ]
    return sorted(everybody, key=lambda c: (c.name != REFERENCE, c.slow_start, _compiles(c)))


def _torch(device: str, compute: Sequence[str]) -> Iterator[Contender]:
    mode = "max-autotune" if device == "cuda" else "default mode"
    lacks_bnb = _lacks("bitsandbytes")
    for kind in compute:
        common = {"compute": kind, "weights": kind}
        yield Contender(
            name=f"torch, {kind}", weights=kind, compute=kind, options={**common, "way": "plain"}
        )
        yield Contender(
            name=f"torch.compile ({mode}), {kind}",
            weights=kind,
            compute=kind,
            options={**common, "way": "compile"},
            slow_start=True,
        )
    yield Contender(
        name="bitsandbytes, nf4",
        weights="nf4",
        compute=compute[-1],
        options={"compute": compute[-1], "weights": "nf4", "way": "bitsandbytes"},
        missing=lacks_bnb,
    )


def _ours(device: str, compute: Sequence[str]) -> Iterator[Contender]:
    for engine in ENGINES:
        # ONNX Runtime's graphs are made of float32.
        kind = "fp32" if engine.startswith("onnxruntime") else compute[-1]
        for weights in _weights(engine, kind):
            # What it makes its 8 bits of is not packed before.
            stored = kind if engine == _INT8_ENGINE else weights
            yield Contender(
                name=f"ours, {engine}, {weights}",
                weights=weights,
                compute="int8" if engine == _INT8_ENGINE else kind,
                peer=False,
                options={"compute": kind, "weights": stored, "way": engine},
                missing=missing_for(engine, device),
                slow_start=engine not in ("eager", "static", "cuda_graph"),
            )
    if device == "cuda":
        kind = compute[-1]
        for weights in (kind, "nf4"):
            yield Contender(
                name=f"ours, eager, {weights}, all kernels",
                weights=weights,
                compute=kind,
                peer=False,
                options={"compute": kind, "weights": weights, "way": "eager"},
                environment={"FASTVLA_KERNELS": "all"},
            )


def _compiles(contender: Contender) -> bool:
    # A graph is converted in half a minute, a compiler takes minutes: it gets what is left.
    ours = contender.options.get("way") in ("compile", "compiled")
    return ours or contender.options.get("compile", "no") != "no"


def _weights(engine: str, kind: str) -> tuple[str, ...]:
    if engine == _INT8_ENGINE:
        return ("int8",)
    # Inductor unpacks in every call; the exporters know no packed layers.
    return (kind,) if engine in ("compiled", "onnxruntime") else (kind, "nf4", "int8")


def _lerobot(
    policy_type: str, device: str, compute: Sequence[str], python: str | None
) -> Iterator[Contender]:
    python = python or os.environ.get(LEROBOT_PYTHON)
    missing = _lacks_elsewhere("lerobot", python, LEROBOT_PYTHON)
    if policy_type not in ("smolvla", "pi0", "pi05"):
        missing = f"LeRobot has no policy of type {policy_type}"
    fastest = compute[-1]
    for title, kind, compiles in (
        ("default: eager, fp32", "fp32", False),
        (f"fastest: compile_model, {fastest}", fastest, True),
    ):
        way = "yes" if compiles else "no"
        yield _elsewhere(f"LeRobot, {title}", _LEROBOT, python, kind, way, missing=missing)


def _openpi(
    policy_type: str, device: str, compute: Sequence[str], python: str | None
) -> Iterator[Contender]:
    python = python or os.environ.get(OPENPI_PYTHON)
    missing = _lacks_elsewhere("openpi", python, OPENPI_PYTHON)
    if policy_type not in ("pi0", "pi05"):
        missing = f"openpi has no policy of type {policy_type}"
    # openpi compiles by default; on a processor that mode tries templates for hours.
    mode, fastest = ("max-autotune" if device == "cuda" else "default"), compute[-1]
    for title, kind, compile_mode in (
        ("eager, fp32", "fp32", "no"),
        (f"default and fastest: {mode} mode, {fastest}", fastest, mode),
    ):
        yield _elsewhere(f"openpi, {title}", _OPENPI, python, kind, compile_mode, missing=missing)


def _elsewhere(
    name: str, module: str, python: str | None, kind: str, compiled: str, *, missing: str
) -> Contender:
    """One that may run in another interpreter; `compiled` is "no" or how."""
    return Contender(
        name=name,
        weights=kind,
        compute=kind,
        module=module,
        python=python or sys.executable,
        options={"compute": kind, "compile": compiled},
        missing=missing,
        slow_start=compiled != "no",
    )


def _lacks_elsewhere(package: str, python: str | None, variable: str) -> str:
    if python is not None or not (missing := _lacks(package)):
        return ""
    return f"{missing}; name an interpreter that has it in {variable}"


def _lacks(package: str) -> str:
    found = importlib.util.find_spec(package) is not None
    return "" if found else f"{package} is not installed"
