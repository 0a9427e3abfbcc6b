"""What `FastVLA` needs to know of pi0-FAST."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastvla_core.models.heads.ngram_draft import NgramDraft, load_ngram_draft
from fastvla_core.models.lerobot.fast_tokenizer import load_fast_tokenizer
from fastvla_core.models.lerobot.files import NO_LOCAL_FILES, LocalFiles, find_part
from fastvla_core.models.lerobot.made_steps import usual_entries
from fastvla_core.models.lerobot.processor import LeRobotProcessor
from fastvla_core.models.lerobot.text_tokenizer import TextTokenizer, load_text_tokenizer
from fastvla_core.models.policies.pi.family import PaliGemmaFamily
from fastvla_core.models.policies.pi.weights import PI0_FAST_TABLE
from fastvla_core.models.policies.pi0_fast.config import (
    ActionWords,
    Pi0FastConfig,
    action_words,
    read_config,
)
from fastvla_core.models.policies.pi0_fast.model import Pi0Fast
from fastvla_core.models.policies.pi0_fast.processor import Pi0FastProcessor, TokenizeActions

FAST_TOKENIZER = "fast_tokenizer"


class Pi0FastFamily(PaliGemmaFamily):
    """Config, network and weights of type "pi0_fast"."""

    table = PI0_FAST_TABLE

    @classmethod
    def config(cls, data: Mapping[str, Any], *, folder: Path, files: LocalFiles) -> Pi0FastConfig:
        """See `read_config`."""
        name = str(data.get("text_tokenizer_name", ""))
        tokenizer = load_text_tokenizer(cls.tokenizer_folder(name, folder, files))
        words = action_words(tokenizer, skip=int(data.get("fast_skip_tokens", 128)))
        return read_config(data, folder=folder, files=files, words=words)

    @classmethod
    def planned_config(cls, data: Mapping[str, Any], *, folder: Path) -> Pi0FastConfig:
        """See `read_config`; which ids stand around actions decides no size."""
        words = ActionWords(bos=0, prefix=(), end=0, last=0)
        return read_config(data, folder=folder, files=NO_LOCAL_FILES, words=words)

    @classmethod
    def entries(cls, config: Pi0FastConfig) -> list[Mapping[str, Any]]:
        """LeRobot's steps for pi0-FAST."""
        tokenize = {
            "trust_remote_code": True,
            "max_action_tokens": config.max_action_tokens,
            "action_tokenizer_name": config.action_tokenizer_name,
        }
        return usual_entries(
            config,
            prompt=("pi0_fast_prepare_state_tokenizer_processor_step",),
            tokenizer_name=config.text_tokenizer_name,
            after_tokens=({"registry_name": "action_tokenizer_processor", "config": tokenize},),
            normalize_first=True,
        )

    @staticmethod
    def model(config: Pi0FastConfig) -> Pi0Fast:
        """The network with fresh weights."""
        return Pi0Fast(config)

    @classmethod
    def load_weights(cls, model: Any, config: Any, folder: Path) -> None:
        """The weights, and the draft where the checkpoint has one."""
        super().load_weights(model, config, folder)
        model.draft = load_ngram_draft(folder)

    @classmethod
    def save_weights(cls, folder: Path, model: Any) -> None:
        """The weights, and the draft where there is one."""
        super().save_weights(folder, model)
        if isinstance(model.draft, NgramDraft):
            model.draft.save(folder)

    @staticmethod
    def processor_class(config: Any) -> type[LeRobotProcessor]:
        """The class of the processor."""
        return Pi0FastProcessor

    @classmethod
    def extra_steps(
        cls,
        folder: Path,
        config: Pi0FastConfig,
        files: LocalFiles,
        tokenizer: Callable[[str], TextTokenizer],
    ) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        """The step that tokenizes actions."""

        def read(options: Mapping[str, Any]) -> TokenizeActions:
            name = str(options.get("action_tokenizer_name") or config.action_tokenizer_name)
            found = find_part(
                name,
                folder,
                given=files.action_tokenizer,
                usual=(FAST_TOKENIZER,),
                wanted="tokenizer.json",
                source=f"{folder / 'config.json'}: 'action_tokenizer_name'",
            )
            text = tokenizer(str(options.get("paligemma_tokenizer_name") or ""))
            # LeRobot does not save how many entries its step leaves out.
            skip = int(options.get("fast_skip_tokens", 128))
            return TokenizeActions(
                fast=load_fast_tokenizer(found),
                text=text,
                words=action_words(text, skip=skip),
                length=int(options.get("max_action_tokens", config.max_action_tokens)),
            )

        return {"action_tokenizer_processor": read}

    @classmethod
    def save_processor(cls, folder: Path, processor: LeRobotProcessor) -> None:
        """The usual files, and the FAST tokenizer."""
        super().save_processor(folder, processor)
        for step in processor.before:
            if isinstance(step, TokenizeActions):
                step.fast.save(folder / FAST_TOKENIZER)
