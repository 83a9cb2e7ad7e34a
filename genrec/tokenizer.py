"""Text to token ids, with the two guarantees the rest of the project stands on.

1. Text from data is never read as a special token, so no title can open or close a chat turn.
2. A text's ids do not depend on what is joined around it: prompts, histories and item texts are encoded piece by piece
   and concatenated as ids, so training and serving see the same ids whatever the tokenizer would have merged.

Knows nothing of prompts or catalogues.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genrec.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokenizer(Protocol):
    """What prompts and catalogues need of a tokenizer; `HfTokenizer` is the real one."""

    n_vocab: int
    """Number of token ids, at least one more than the largest."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides token ids; equal fingerprints mean equal ids."""
        ...

    def encode(self, texts: Sequence[str], *, after: str = "") -> list[list[int]]:
        """Token ids of each text as they are when it follows `after`; no special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        ...

    def chat(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation up to the point where the assistant's answer begins."""
        ...


class ByteTokenizer:
    """One id a byte: for looking at prompts where no model is, and for tests."""

    n_vocab = 256
    fingerprint = "utf-8"

    def encode(self, texts: Sequence[str], *, after: str = "") -> list[list[int]]:
        """UTF-8 bytes of each text."""
        return [list(text.encode(errors="replace")) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of UTF-8 bytes."""
        return bytes(ids).decode(errors="replace")

    def chat(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """The texts, one paragraph each."""
        return [byte for _, text in turns for byte in f"{text}\n\n".encode(errors="replace")]


class HfTokenizer:
    """The tokenizer of a Hugging Face model folder.

    Args:
        folder: A local model folder.

    Raises:
        ModelError: If the folder holds no tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        try:
            self._hf: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder} holds no tokenizer that transformers can load: {error}") from error
        if not self._hf.is_fast:
            raise ModelError(f"{folder} has only a slow tokenizer", hint="Save it with a fast one (tokenizer.json).")
        self.n_vocab = len(self._hf)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the tokenizer's own serialisation and its chat template."""
        state = json.dumps([self._hf.backend_tokenizer.to_str(), self._hf.chat_template], sort_keys=True)
        return hashlib.sha256(state.encode()).hexdigest()[:16]

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self._hf.all_special_ids)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._hf(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        )
        return [list(ids) for ids in encoded["input_ids"]]

    def encode(self, texts: Sequence[str], *, after: str = "") -> list[list[int]]:
        """Token ids of each text as they are when it follows `after`.

        A tokenizer may write the first word of a string differently from the same word inside a line (a "dummy
        prefix" space, for one). So each text is encoded behind its predecessor and the predecessor's ids are cut off.
        Where a tokenizer merges across the seam, the text is encoded alone instead.

        Args:
            texts: Any text; special-token strings in it are encoded as ordinary characters.
            after: What stands before each text where it will be used.

        Returns:
            One list of ids for each text.
        """
        if not after:
            return self._ids(texts)
        [head] = self._ids([after])
        joined = self._ids([after + text for text in texts])
        if all(ids[: len(head)] == head for ids in joined):
            return [ids[len(head) :] for ids in joined]
        alone = self._ids(texts)
        return [
            ids[len(head) :] if ids[: len(head)] == head else single for ids, single in zip(joined, alone, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return str(self._hf.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def chat(self, turns: Sequence[tuple[str, str]]) -> list[int]:
        """Token ids of a conversation up to the point where the assistant's answer begins.

        The model's chat template is rendered over placeholders and its own text encoded with special tokens; the turns'
        text is encoded without and put in their place, so no content can forge a turn.

        Args:
            turns: ``(role, text)`` pairs; a model without a chat template gets the texts, one paragraph each.
        """
        turns = [(role, text.strip()) for role, text in turns if text.strip()]
        if not self._hf.chat_template:
            bos = [self._hf.bos_token_id] if self._hf.bos_token_id is not None else []
            return bos + [i for _, text in turns for i in self._ids([text + "\n\n"])[0]]
        marks = [f"\x02{secrets.token_hex(16)}\x03" for _ in turns]
        messages: list[Mapping[str, Any]] = [
            {"role": role, "content": mark} for (role, _), mark in zip(turns, marks, strict=True)
        ]
        frame = str(self._hf.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        ids: list[int] = []
        for mark, (role, text) in zip(marks, turns, strict=True):
            before, found, frame = frame.partition(mark)
            if not found:
                raise ModelError(f"the model's chat template has no place for a {role} turn")
            ids += self._literal(before) + self._ids([text])[0]
        return ids + self._literal(frame)

    def _literal(self, text: str) -> list[int]:
        return list(self._hf(text, add_special_tokens=False, return_attention_mask=False)["input_ids"])
