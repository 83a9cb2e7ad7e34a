"""What frozen layers make of rows that come again, on disk: computed once for each row, not once an epoch.

Below the layers that learn, a row's hidden states follow from its token ids alone. All rows are planned before the
first step, so only those that come again are kept, in a file without a name, which goes with the process; a run that
goes on after a stop computes them anew. Knows rows and a file; knows nothing of models.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from genrec.finetune.packing import Packed


class Frozen:
    """Hidden states of rows, for as long as a run lasts.

    On disk they take as many bytes as the rows that come again have token ids, times the width of a hidden state, times
    2 (4 in float32), but half of what was free at most: rows that find no room are computed each time.

    Args:
        rows: Token ids of each row to come, in all epochs.
        folder: Where the file is; `close` removes it.
        n_processes: How many share the disk.
    """

    def __init__(self, rows: Iterable[np.ndarray], folder: Path, *, n_processes: int = 1) -> None:
        counts = Counter(_key(ids) for ids in rows)
        self.again = {key for key, n in counts.items() if n > 1}
        """Rows that come more than once."""
        self._places: dict[bytes, tuple[int, tuple[int, ...]]] = {}  # first byte and shape
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `close`)
        self._room = shutil.disk_usage(folder).free // (2 * n_processes)
        self._like = torch.empty(0)  # of the type and on the device of what was computed

    def below(self, packed: Packed, compute: Callable[[Packed], torch.Tensor]) -> torch.Tensor:
        """What the frozen layers make of a step.

        Args:
            packed: The step.
            compute: The frozen layers: from a step to shape ``(n, n_hidden)``.

        Returns:
            Shape ``(n, n_hidden)``.
        """
        bounds = np.cumsum(packed.lengths)[:-1]
        ids, places = (np.split(each, bounds) for each in (packed.token_ids, packed.position_ids))
        keys = [_key(np.concatenate([ids[0], own])) for own in ids[1:]]
        new = [i for i, key in enumerate(keys, 1) if key not in self._places]
        states: dict[bytes, torch.Tensor] = {}
        if new:
            part = replace(
                packed,
                token_ids=np.concatenate([ids[i] for i in (0, *new)]),
                position_ids=np.concatenate([places[i] for i in (0, *new)]),
                lengths=tuple(packed.lengths[i] for i in (0, *new)),
            )
            shared, *own = compute(part).split(part.lengths)
            self._like = shared[:0]
            states = {keys[i - 1]: torch.cat([shared, rest]) for i, rest in zip(new, own, strict=True)}
            for key in states.keys() & self.again:
                self._keep(key, states[key])
        rows = [states[key] if key in states else self._kept(key) for key in keys]
        n_shared = packed.lengths[0]
        return torch.cat([rows[0][:n_shared], *(row[n_shared:] for row in rows)])

    def close(self) -> None:
        """Give the disk back."""
        self._file.close()

    def _keep(self, key: bytes, states: torch.Tensor) -> None:
        data = states.cpu().view(torch.uint8).numpy().tobytes()
        at = self._file.seek(0, 2)
        if at + len(data) <= self._room:
            self._file.write(data)
            self._places[key] = at, tuple(states.shape)

    def _kept(self, key: bytes) -> torch.Tensor:
        at, shape = self._places[key]
        self._file.seek(at)
        data = bytearray(self._file.read(int(np.prod(shape)) * self._like.element_size()))
        return torch.frombuffer(data, dtype=self._like.dtype).view(shape).to(self._like.device)


def _key(token_ids: np.ndarray) -> bytes:
    return hashlib.blake2b(token_ids.astype(np.int64).tobytes(), digest_size=16).digest()
