"""What is loaded when: the light commands load none of the heavy packages."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "vllm", "huggingface_hub", "tokenizers", "sklearn", "pandas", "numpy", "pyarrow"}
MODEL = {"torch", "transformers", "vllm", "tokenizers", "sentence_transformers"}


def loaded(code: str) -> set[str]:
    """Top-level modules loaded in a new process by the code."""
    report = f"import json, sys\n{code}\nprint('\\n' + json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout.splitlines()[-1]))


def command(*args: str) -> str:
    return f"from genrec.cli import main\nmain({list(args)!r}, prog_name='genrec', standalone_mode=False)"


@pytest.mark.parametrize("code", ["import genrec", command("--help"), command("--version")])
def test_help_loads_nothing_heavy(code: str) -> None:
    assert loaded(code) & HEAVY == set()


def test_help_loads_only_what_is_listed_here() -> None:
    ours = loaded(command("--help")) - set(sys.stdlib_module_names) - loaded("")
    assert ours == {"genrec", "click", "pluggy"}


@pytest.mark.parametrize(
    "args",
    [
        ("plugins", "list"),
        ("models", "list"),
        ("prompts", "list"),
        ("doctor", "--help"),
        ("demo", "--help"),
        ("import", "--help"),
        ("recommend", "--help"),
        ("user", "--help"),
    ],
)
def test_light_commands_load_no_model(args: tuple[str, ...]) -> None:
    assert loaded(command(*args)) & MODEL == set()
