"""Text to token ids, with the two guarantees the rest of the project stands on.

1. Text from data is never read as a special token, so no title can open or close a chat turn.
2. A text's ids do not depend on what is joined around it: prompts, histories and item texts are encoded piece by piece
   and concatenated as ids, so training and serving see the same ids whatever the tokenizer would have merged.

Knows nothing of prompts or catalogues.
"""

from __future__ import annotations

import hashlib
import json
import re
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


_CHAT_OPTIONS: Mapping[str, Any] = {"enable_thinking": False, "date_string": "01 Jan 2025"}
"""What some chat templates ask for: no room for thoughts before the answer, and the same prompt every day."""


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
        except Exception as error:  # a damaged file raises errors of the library that reads it
            raise ModelError(
                f"{folder} holds no tokenizer that transformers can load: {error}",
                hint="Get a whole model with: genrec models get NAME; or write it again with save_pretrained().",
            ) from error
        if not self._hf.is_fast:
            raise ModelError(f"{folder} has only a slow tokenizer", hint="Save it with a fast one (tokenizer.json).")
        backend = self._hf.backend_tokenizer
        self._plain = type(backend).from_str(backend.to_str())  # a copy that no call with other options can change
        self._plain.no_truncation()
        self._plain.no_padding()
        self._plain.encode_special_tokens = True
        self.n_vocab = max(self._plain.get_vocab(with_added_tokens=True).values()) + 1
        added = {id_ for id_, token in self._hf.added_tokens_decoder.items() if token.content.strip()}
        model = json.loads(backend.to_str())["model"]
        writes_unknown = model.get("unk_token") is not None or model.get("unk_id") is not None
        unknown = {self._hf.unk_token_id} if writes_unknown else set()
        self._reserved = (added | set(self._hf.all_special_ids)) - unknown

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the tokenizer's own serialisation and its chat template."""
        state = json.dumps([self._plain.to_str(), self._hf.chat_template], sort_keys=True)
        return hashlib.sha256(state.encode()).hexdigest()[:16]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self._plain.encode_batch_fast(list(texts), add_special_tokens=False)
        return [
            ids if self._reserved.isdisjoint(ids := list(one.ids)) else self._spelled(text)
            for text, one in zip(texts, encoded, strict=True)
        ]

    def _spelled(self, text: str) -> list[int]:
        """Ids of a text that would be read as a special token: word by word, and such words character by character.

        Some tokenizers have their special tokens among their ordinary pieces, or added ones that are not called
        special; the setting that splits special tokens up passes over both.
        """
        words = re.findall(r"\s*\S+|\s+", text)
        if len(words) > 1:
            return [id_ for ids in self._ids(words) for id_ in ids]
        encoded = self._plain.encode_batch_fast(list(text), add_special_tokens=False)
        return [id_ for one in encoded for id_ in one.ids if id_ not in self._reserved]

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
        ids: list[int] = []
        before = ""
        for piece, is_text in self._framed(turns):
            if is_text:
                ids += self.encode([piece], after="\n" if before.endswith("\n") else "")[0]
            else:
                ids += self._literal(piece)
            before = piece
        return ids

    def _framed(self, turns: Sequence[tuple[str, str]]) -> list[tuple[str, bool]]:
        """The chat in pieces: what the chat template writes, and in its place each turn's text."""
        texts = [text for _, text in turns]
        one_turn = [("user", "\n\n".join(texts))]  # some models know no system turn
        reason = "it leaves out a turn"
        for given in (turns, one_turn):
            marks = {f"\x02{secrets.token_hex(16)}\x03": text for _, text in given}
            messages = [{"role": role, "content": mark} for (role, _), mark in zip(given, marks, strict=True)]
            try:
                frame = self._hf.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, **_CHAT_OPTIONS
                )
            except Exception as error:  # a template is code of the model's author
                reason = str(error)
                continue
            if all(mark in str(frame) for mark in marks):
                pieces = re.split(f"({'|'.join(marks)})", str(frame))
                return [(marks.get(piece, piece), piece in marks) for piece in pieces if piece]
        raise ModelError(f"the model's chat template cannot be used: {reason}")

    def _literal(self, text: str) -> list[int]:
        return list(self._hf(text, add_special_tokens=False, return_attention_mask=False)["input_ids"])
