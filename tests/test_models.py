"""Names of models: to folders, or to advice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genrec.errors import ModelError
from genrec.models import fetch, model_folder


def test_a_local_folder_is_used_as_it_is(tiny_model: Path) -> None:
    assert model_folder(str(tiny_model)) == tiny_model
    assert fetch(str(tiny_model)) == tiny_model


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ([], "config.json, weights (*.safetensors), a tokenizer (tokenizer.json)"),
        (["config.json", "tokenizer.json"], "weights (*.safetensors)"),
        (["config.json", "model.safetensors"], "a tokenizer (tokenizer.json)"),
        (
            ["config.json", "tokenizer.json", "a.safetensors", "model.safetensors.index.json"],
            "b.safetensors",
        ),
    ],
)
def test_a_folder_that_is_not_a_models_says_what_it_lacks(tmp_path: Path, files: list[str], missing: str) -> None:
    for name in files:
        (tmp_path / name).write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(ModelError) as error:
        model_folder(str(tmp_path))
    assert str(error.value).endswith(f"lacks {missing}")


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 1}', "{}"])
def test_an_index_that_cannot_be_read_is_named(tmp_path: Path, index: str) -> None:
    for name in ("config.json", "tokenizer.json", "a.safetensors"):
        (tmp_path / name).touch()
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=r"lacks an index that can be read \(model\.safetensors\.index\.json\)"):
        model_folder(str(tmp_path))


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as error:
        model_folder("smollm2-135m")
    assert error.value.hint == "genrec models get smollm2-135m"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelError) as error:
        model_folder("nobody/nothing-at-all")
    assert error.value.hint == "genrec models get nobody/nothing-at-all"


@pytest.mark.parametrize("name", ["smolm2-135m", "/no/such/folder", "a b/c", "../x", "a/b/c"])
def test_a_name_that_can_be_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="is neither an alias, nor a folder, nor a Hugging Face id"):
        model_folder(name)


def test_a_hub_id_that_was_fetched_is_found_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = tmp_path / "models--nobody--tiny"  # the layout of the hub's own client
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    snapshot = home / "snapshots" / commit
    snapshot.mkdir(parents=True)
    with pytest.raises(ModelError, match=r"lacks config\.json"):
        model_folder("nobody/tiny")
    for file in tiny_model.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert model_folder("nobody/tiny") == snapshot
