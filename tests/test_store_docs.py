"""What docs/store.md shows is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs/store.md").read_text(encoding="utf-8")


def test_the_python_shown_does_what_the_page_says(tmp_path: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, again, history = done.stdout.splitlines()
    assert first == "Appended(n_new=1, n_known=0, n_corrected=0)"
    assert again == "Appended(n_new=0, n_known=1, n_corrected=0)"  # the same data again adds nothing
    assert history.count("Event(") == 1
    assert "item_id='tea'" in history
