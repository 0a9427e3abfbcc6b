"""The front door: load a policy, give it observations, get action chunks."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from fastvla_core.contract_binding import RobotBinding, bound_config
from fastvla_core.engines.interface import Engine
from fastvla_core.engines.making import make_engine, uploads
from fastvla_core.engines.names import EngineChoice
from fastvla_core.errors import CheckpointError, PolicyError
from fastvla_core.models.checkpoint import written_atomically
from fastvla_core.models.hub import find_checkpoint
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES, LocalFiles
from fastvla_core.models.loading import Quantization, load_config, load_model, quantization_of
from fastvla_core.models.registry import POLICIES, PRESETS
from fastvla_core.models.seeding import drawn_from
from fastvla_core.models.statistics import Statistics
from fastvla_core.models.token_table import TokenTablePlace, keep_on_host, with_words
from fastvla_core.models.vision_tokens.memory import TokenMemory
from fastvla_core.models.vision_tokens.options import ALL_TOKENS, VisionTokens, use_tokens
from fastvla_core.models.weightless import weightless
from fastvla_core.quant import dequantized
from fastvla_core.robot.contract import RobotContract
from fastvla_core.types import ActionChunk, ChunkPrefix, Conditioning, Observation

_CONDITIONING_MENDS: Mapping[Conditioning, str] = {
    "inpaint": "use a flow policy, or merge chunks by 'switch' or 'ensemble'",
    "trained": "train it with `training.max_prefix_steps` above 0 in the recipe, or merge chunks "
    "by 'rtc'",
}


def policy_config(preset: str, *, contract: RobotContract, **others: Any) -> Any:
    """The config of a preset ("nano", "large", "vla") for a robot.

    Args:
        others: Fields of the config that replace the preset's.
    Raises:
        CheckpointError: there is no such preset.
    """
    cameras = contract.policy_cameras
    gripper = (contract.gripper.name,) if contract.gripper else ()
    fields = {
        "cameras": tuple(camera.name for camera in cameras),
        "optional_cameras": tuple(camera.name for camera in cameras if not camera.required),
        "state_names": contract.state_names,
        "action_names": contract.action_names,
        "relative_exclude_joints": gripper,
        "robot_contract": contract.to_dict(),
        "robot_contract_hash": contract.hash(),
    }
    return PRESETS.load(preset)(**{**fields, **others})


class FastVLA:
    """A policy: network, config and processor.

    Attributes:
        config: For example a `FlowVLAConfig`.
        model: The network.
        processor: Observations to batches and outputs to targets.
        quantization: "nf4" or "int8" where the large linear layers are stored so, else None.
        engine: Runs plain requests; see `use_engine`.
        memory: What the inferences of this goal have left behind for the next; None where nothing
            is to be left.
    """

    def __init__(
        self,
        *,
        config: Any,
        model: Any,
        processor: Any,
        seed: int = 0,
        vision_tokens: VisionTokens | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.processor = processor
        self.quantization = quantization_of(model)
        if vision_tokens is not None:
            use_tokens(model, vision_tokens, kind=config.to_dict()["type"])
        self._unpacked = dequantized if self.quantization else nullcontext
        self.engine: Engine = make_engine("eager", model)
        self.reset(seed)

    @classmethod
    def from_config(
        cls,
        config: Any,
        *,
        statistics: Statistics,
        tokenizer: Tokenizer | None = None,
        seed: int = 0,
    ) -> FastVLA:
        """A policy with fresh weights, drawn from `seed`.

        Args:
            tokenizer: For the instruction; None where the policy's parts have one.
        Raises:
            CheckpointError: the tokenizer has more entries than the config's vocabulary, or a part
                that the config names cannot be had.
        """
        family = POLICIES.load(config.to_dict()["type"])
        with drawn_from(seed):
            model = family.model(config)
        processor = family.processor(config, statistics=statistics, tokenizer=tokenizer)
        return cls(config=config, model=model, processor=processor, seed=seed)

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path,
        *,
        quantization: Quantization | None = None,
        device: str | torch.device = "cpu",
        contract: RobotContract | None = None,
        binding: RobotBinding | None = None,
        files: LocalFiles = NO_LOCAL_FILES,
        dtype: torch.dtype | None = None,
        vision_tokens: VisionTokens | None = None,
        engine: EngineChoice = "eager",
        token_table: TokenTablePlace = "device",
        seed: int = 0,
    ) -> FastVLA:
        """Load a policy for inference.

        Args:
            path_or_name: A folder, a shipped name ("nano"), or a Hub repository.
            quantization: Store the large linear layers in 4 ("nf4") or 8 ("int8") bits. None
                keeps the checkpoint as it is, quantised or not.
            device: Where to run.
            contract: The robot that is served; see `policy_differences` for what must agree with
                the one that was trained for. A checkpoint that names no robot is bound to it.
            binding: For a checkpoint of LeRobot or openpi that names no robot: which camera
                stands for which, and the time between two actions.
            files: Local folders for parts that the checkpoint names by their place on the Hub.
            dtype: Type of the weights at full precision; None takes the checkpoint's choice.
            vision_tokens: Which visual tokens are kept and what is reused; None takes the
                checkpoint's choice, which is all and nothing unless its config says otherwise.
            engine: What runs plain requests; see `use_engine`.
            token_table: "host" leaves the language model's token table in the CPU's memory and
                looks each prompt up there; `fastvla models show` tells what that saves.
            seed: Of the noise; see `reset`.
        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the others.
            ContractError: the policy was trained for another robot; lists the differences.
            QuantError: the weights cannot be quantised.
            PolicyError: the policy's visual tokens cannot be treated so, it cannot run on the
                engine, or it cannot leave its token table with the host.
            DependencyError: the engine lacks a package, a compiler or a GPU.
        """
        folder = find_checkpoint(path_or_name)
        family, config = load_config(folder, files=files)
        if contract is not None or binding is not None:
            source = str(folder / "config.json")
            config = bound_config(config, contract, binding or RobotBinding(), source=source)
        processor = family.load_processor(folder, config, files=files)
        model = load_model(family, config, folder, quantization=quantization)
        if token_table == "host":
            keep_on_host(model)
        model = model.to(device=device, dtype=dtype)
        parts: dict[str, Any] = {"config": config, "model": model, "processor": processor}
        policy = cls(**parts, seed=seed, vision_tokens=vision_tokens)
        if engine != "eager":
            policy.use_engine(engine)
        return policy

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def reset(self, seed: int = 0) -> None:
        """Start over: chunks count from 0, the noise comes from `seed`, nothing is remembered.

        The noise of an inference depends on the seed and the observation's stamp only: the same
        observation gives the same chunk, alone and in a batch.
        """
        self._seed = seed
        self._chunks = 0
        self.memory: TokenMemory | None = None

    def use_engine(self, choice: EngineChoice) -> None:
        """Run plain requests on another engine from now on; it is made ready first.

        A plan to continue (`prefix`) and `vision_tokens` that prune or remember go through the
        network itself, which stays in memory. The weights must not change after this;
        `reconfigured` and `with_weights` give a policy that is back at "eager".

        Args:
            choice: See `making.automatic` for "auto". What "compiled" compiled stays so.
        Raises:
            DependencyError: the engine lacks a package, a compiler or a GPU.
            PolicyError: the policy cannot run on it.
        """
        engine = make_engine(choice, self.model)
        self.model.eval()
        observation = self.processor.random_observation(0)
        batch = self.processor.observation_batch([observation], device=self.device)
        batch = with_words(self.model, batch)
        engine.prepare(batch, self._noise(observation)[None].to(self.device))
        self.engine = engine
        self.processor.upload = uploads(engine, self.device)

    def compile(self) -> None:
        """Compile the network's parts with Inductor; the next inference, and the first of each
        further batch size, takes up to a minute.

        Raises:
            DependencyError: there is no C++ compiler.
        """
        self.engine = make_engine("compiled", self.model)

    @property
    def vision_tokens(self) -> VisionTokens:
        """Which visual tokens are kept and what is reused."""
        return getattr(self.model, "vision_tokens", ALL_TOKENS)

    @property
    def conditionings(self) -> tuple[Conditioning, ...]:
        """The ways in which a chunk can be made to agree with a prefix; empty when in none."""
        return getattr(self.config, "conditionings", ())

    @property
    def history_s(self) -> tuple[float, ...]:
        """How long before an observation those are that the policy reads with it [s], oldest first.

        They belong into `Observation.earlier`.
        """
        steps = getattr(self.config, "past_steps", 0)
        return tuple(step * self.config.action_dt_s for step in range(steps, 0, -1))

    def infer(self, observation: Observation, *, prefix: ChunkPrefix | None = None) -> ActionChunk:
        """One chunk for one observation; see `infer_batch`.

        Unlike in a batch, the observation follows those before it since the last `reset`: what is
        remembered of them for `vision_tokens` is used, until another instruction comes.
        """
        if self.vision_tokens.remembers:
            if self.memory is None or self.memory.task != observation.task:
                self.memory = TokenMemory(observation.task)
            return self._infer([observation], [prefix], self.memory)[0]
        return self.infer_batch([observation], prefixes=[prefix])[0]

    def infer_batch(
        self,
        observations: Sequence[Observation],
        *,
        prefixes: Sequence[ChunkPrefix | None] | None = None,
    ) -> list[ActionChunk]:
        """Chunks of absolute targets, in the order of the observations.

        Args:
            prefixes: What each chunk has to agree with; None for nothing.
        Raises:
            ObservationError: an observation is not what the policy was trained on.
            PolicyError: the network gave a value that is not finite, or a prefix asks for what the
                policy cannot do.
        """
        return self._infer(observations, prefixes, None) if observations else []

    def _infer(
        self,
        observations: Sequence[Observation],
        prefixes: Sequence[ChunkPrefix | None] | None,
        memory: TokenMemory | None,
    ) -> list[ActionChunk]:
        batch = self.processor.observation_batch(observations, device=self.device)
        batch = with_words(self.model, batch)
        noise = torch.stack([self._noise(observation) for observation in observations])
        self.model.eval()
        remembered = {} if memory is None else {"memory": memory}
        if prefixes is None or not any(prefixes):
            if remembered or self.vision_tokens.active:
                with torch.inference_mode(), self._unpacked(self.model):
                    actions = self.model(batch, noise.to(self.device), **remembered)
            else:
                actions = self.engine(batch, noise.to(self.device))
        else:
            for prefix in filter(None, prefixes):
                self.require_conditioning(prefix.conditioning)
            continued = self.processor.flow_prefix(prefixes, observations, device=self.device)
            # Guidance differentiates through the network, which inference mode rules out.
            with torch.no_grad(), self._unpacked(self.model):
                actions = self.model(batch, noise.to(self.device), continued, **remembered)
        targets = self.processor.targets(actions, observations)
        return [self._chunk(*pair) for pair in zip(observations, targets, strict=True)]

    def reconfigured(self, **changes: Any) -> FastVLA:
        """The same weights under a config that differs in fields of training, to go on with it.

        Raises:
            CheckpointError: the policy's config has no such field, or refuses its value.
        """
        unknown = changes.keys() - {field.name for field in dataclasses.fields(self.config)}
        if unknown:
            raise CheckpointError(
                f"this policy ({self.config.to_dict()['type']}) has no '{min(unknown)}'",
                mend="leave it out of the recipe, or start from another policy",
            )
        config = dataclasses.replace(self.config, **changes)
        with drawn_from(0):
            model = POLICIES.load(config.to_dict()["type"]).model(config)
        # What the changes add to the network begins with fresh weights.
        model.load_state_dict({**model.state_dict(), **self.model.state_dict()})
        processor = copy.copy(self.processor)
        processor.config = config
        return FastVLA(config=config, model=model.to(self.device), processor=processor)

    def with_weights(self, state: Mapping[str, Tensor]) -> FastVLA:
        """The same policy with other weights, which it shares with `state`.

        Raises:
            CheckpointError: they are not those of its network.
        """
        with weightless():
            model = POLICIES.load(self.config.to_dict()["type"]).model(self.config)
        try:
            model.load_state_dict(dict(state), assign=True)
        except RuntimeError as error:
            raise CheckpointError(f"these weights are of another network: {error}") from error
        # What no state holds, such as the frequencies of a rotation, is shared too.
        own = dict(self.model.named_buffers())
        for name, buffer in list(model.named_buffers()):
            if buffer.is_meta:
                owner, _, child = name.rpartition(".")
                setattr(model.get_submodule(owner), child, own[name])
        # What a checkpoint held beyond the network is given back with it.
        if hasattr(self.model, "unused"):
            model.unused = self.model.unused
        return FastVLA(config=self.config, model=model.eval(), processor=self.processor)

    def require_conditioning(self, conditioning: Conditioning) -> None:
        """See that a chunk can be made to agree with a prefix in this way.

        Raises:
            PolicyError: they cannot; says what would be needed.
        """
        if conditioning not in self.conditionings:
            raise PolicyError(
                f"this policy ({self.config.to_dict()['type']}) cannot continue a plan by "
                f"'{conditioning}'; it can by: {', '.join(self.conditionings) or 'nothing'}",
                mend=_CONDITIONING_MENDS[conditioning],
            )

    def training_batch(
        self,
        *,
        images: Mapping[str, Tensor],
        image_mask: Tensor,
        state: Tensor,
        actions: Tensor,
        tasks: Sequence[str],
        **others: Any,
    ) -> dict[str, Tensor]:
        """The batch for `model.loss`, on the policy's device; see the processor.

        Args:
            others: What only some policies learn from (`also_reads` of their processors): the rest
                of it is left out.
        """
        read = getattr(self.processor, "also_reads", frozenset[str]())
        return self.processor.training_batch(
            **{name: value for name, value in others.items() if name in read},
            images=images,
            image_mask=image_mask,
            state=state,
            actions=actions,
            tasks=tasks,
            device=self.device,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json, model.safetensors, processor files and tokenizer, all or none."""
        with written_atomically(Path(folder)) as new:
            family = POLICIES.load(self.config.to_dict()["type"])
            family.save_config(new, self.config)
            family.save_weights(new, self.model)
            family.save_processor(new, self.processor)

    def _noise(self, observation: Observation) -> Tensor:
        text = f"{self._seed} {observation.stamp_ns}".encode()
        digest = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        generator = torch.Generator().manual_seed(digest >> 1)
        return torch.randn(self.config.noise_shape, generator=generator)

    def _chunk(self, observation: Observation, positions: Any) -> ActionChunk:
        chunk = ActionChunk(
            stamp_ns=observation.stamp_ns,
            chunk_id=self._chunks,
            names=self.config.action_names,
            dt_s=self.config.action_dt_s,
            positions=positions,
        )
        self._chunks += 1
        return chunk
