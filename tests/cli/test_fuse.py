"""Weights of model and prior from the command line: fitted, kept with what they belong to, and answered with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from genrec.cli import main
from genrec.workspace import open_workspace
from tests.support.cli import genrec
from tests.support.people import shop


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Path:
    """Sixty people who take the items in turn, which the prior knows and a model with random weights does not."""
    return shop(tmp_path / "shop", 60, model=str(tiny_model), engine="transformers", dtype="float32", prior="sequence")


def test_an_untuned_model_gets_weights_of_its_own(workspace: Path) -> None:
    found = json.loads(genrec("fuse", "--cases", "30", "--json", workspace=workspace))
    assert found["adapter"] == "fusion-1"
    metrics = found["metrics"]
    assert metrics["both"]["nats"] <= metrics["prior"]["nats"] + 0.05 < metrics["model"]["nats"]
    assert found["gamma"] < 0.5 < found["beta"], "a model with random weights is hardly listened to"
    genrec("adapters", "use", "fusion-1", workspace=workspace)
    with open_workspace(workspace) as opened:
        scoring = opened.recommender().scoring
        assert (scoring.name, scoring.gamma, scoring.beta) == ("fused", found["gamma"], found["beta"])
        assert opened.adapted(opened.adapter, "vllm")[1] is None, "there are no weights to load"
    refused = CliRunner().invoke(main, ["train", "--since", "fusion-1", "-w", str(workspace)])
    assert "is the model as it is" in refused.output
    again = json.loads(genrec("fuse", "--cases", "30", "--json", workspace=workspace))
    assert again["adapter"] == "fusion-1", "what is in use is fitted anew"


def test_an_adapter_keeps_its_weights_on_its_card(workspace: Path) -> None:
    quick = ["--rank", "4", "--epochs", "1", "--set", "max_steps=2", "--cases", "10", "--engine", "transformers"]
    genrec("train", "--name", "early", *quick, "--keep", workspace=workspace)
    genrec("adapters", "use", "early", workspace=workspace)
    found = json.loads(genrec("fuse", "--cases", "30", "--json", workspace=workspace))
    card = json.loads(genrec("adapters", "show", "early", workspace=workspace))
    assert (card["gamma"], card["beta"]) == (found["gamma"], found["beta"])
    assert card["method"] == "lora"
    assert (workspace / "adapters" / "early" / "adapter_model.safetensors").is_file()
    refused = CliRunner().invoke(main, ["fuse", "--held-out", "0.4", "-w", str(workspace)])
    assert refused.exit_code == 3
    assert "would seem" in refused.output
