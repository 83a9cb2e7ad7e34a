"""Where a training run goes on: the last whole checkpoint of the same run, and nothing else.

What was cut off while it was written has no state file, which Trainer writes last; it is removed. A folder says whose
run it holds, and another one's is refused. Knows folders; knows nothing of models or data.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

from genrec.errors import TrainingError

_RUN = "run.json"
_STATE = "trainer_state.json"
_LEAST_FREE = 64 << 20  # bytes; with less, a checkpoint that could not be written did not find room


def last_checkpoint(folder: Path, run: dict[str, Any]) -> str | None:
    """Find where to go on, and say whose run the folder holds from now on.

    Args:
        folder: Holds the checkpoints; made if need be.
        run: What decides the run's course, as JSON would give it back.

    Returns:
        The last whole checkpoint; None where there is none.

    Raises:
        TrainingError: If the folder holds another run's checkpoints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    whole: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / _STATE).read_text(encoding="utf-8"))
            whole[int(path.name.rsplit("-")[-1])] = path
        except (OSError, ValueError):
            if _is_first_process():
                shutil.rmtree(path, ignore_errors=True)
    if whole:
        try:
            before = json.loads((folder / _RUN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = {}
        changed = [
            f"{key}: {before.get(key)} there, {value} now" for key, value in run.items() if before.get(key) != value
        ]
        if changed:
            raise TrainingError(
                f"the checkpoints in {folder} are of another run ({'; '.join(changed[:4])})",
                hint="Train as before to go on; or give another --name, or remove that folder, to begin anew.",
            )
        return str(whole[max(whole)])
    if _is_first_process():
        (folder / _RUN).write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    return None


def explained(error: Exception, folder: Path, step_tokens: int) -> Exception:
    """An error of a training run as people can act on it; the same error where there is nothing to add."""
    text = str(error).strip().lower()
    if isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text:
        return TrainingError(
            f"not enough memory for steps of {step_tokens} tokens: {(text or 'no more').splitlines()[0][:200]}",
            hint=f"Lower step_tokens, to {step_tokens // 2} say, and double accumulate to make up for it; or set "
            "last_layers. The last checkpoint stays.",
        )
    no_room = "no space left" in text or getattr(error, "errno", None) == errno.ENOSPC
    if no_room or shutil.disk_usage(folder).free < _LEAST_FREE:
        return TrainingError(
            f"no room left on the disk for a checkpoint in {folder}",
            hint="Make room and run the same command: it goes on from the last whole checkpoint.",
        )
    return error


def _is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"
