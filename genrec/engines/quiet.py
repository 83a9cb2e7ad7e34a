"""Keeping what libraries write to standard error while an engine starts: it is shown only when the start fails.

Loggers, C++ libraries and the processes that an engine starts all write there, before any setting could stop them.
Works on the file descriptor; knows nothing of engines.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

N_SHOWN = 30
"""Lines shown of what was written, the last ones."""


@contextmanager
def quiet_start() -> Iterator[None]:
    """Send standard error to a file while the block runs, for good in processes that are started in it.

    If the block fails, the end of the file is shown; not if it is interrupted. Does nothing when
    ``VLLM_LOGGING_LEVEL`` asks for more than errors.
    """
    if os.environ.get("VLLM_LOGGING_LEVEL", "ERROR") != "ERROR":
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception:
            sys.stderr.flush()
            os.dup2(kept, 2)
            file.seek(0)
            lines = file.read().decode(errors="replace").splitlines()[-N_SHOWN:]
            os.write(2, "".join(f"{line}\n" for line in lines).encode())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
