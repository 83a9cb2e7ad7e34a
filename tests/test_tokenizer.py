"""Token ids: no special one from text, and the same ones whatever is joined around, with tokenizers of three kinds."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.errors import ModelError
from genrec.models import model_folder
from genrec.testing.tiny import CHAT_TEMPLATE
from genrec.tokenizer import ByteTokenizer, HfTokenizer

ALPHABET = "▁abcdefghijklmnopqrstuvwxyz|;<>/,[]_.\n"
GEMMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ '<start>' + m['role'] + '\n' + m['content'] | trim + '<end>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start>model\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer as SentencePiece makes them: a space put before every text, special tokens among the pieces."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", "<start>", "<end>"]
    words = [("▁milk", -2.0), ("▁friday", -2.0), ("▁|", -2.0)]
    vocabulary = [(token, 0.0) for token in special] + [(c, -5.0) for c in ALPHABET] + words
    unigram = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    unigram.decoder = decoders.Metaspace()
    unigram.add_special_tokens(special)
    unigram.add_tokens([AddedToken("<tool>", normalized=False)])
    unigram.enable_truncation(8)  # as some tokenizer.json come along
    unigram.enable_padding(length=8)
    hf = PreTrainedTokenizerFast(
        tokenizer_object=unigram, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    hf.chat_template = GEMMA_LIKE
    folder = tmp_path_factory.mktemp("pieces")
    hf.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def metaspace(pieces: Path) -> HfTokenizer:
    return HfTokenizer(pieces)


@pytest.fixture(scope="module")
def smollm() -> HfTokenizer:
    """SmolLM2's, where it has been fetched."""
    try:
        return HfTokenizer(model_folder("smollm2-135m"))
    except ModelError as error:
        pytest.skip(f"{error}; {error.hint}")


@pytest.fixture(
    scope="module", params=["bytes", "byte-level", "metaspace", pytest.param("smollm", marks=pytest.mark.llm)]
)
def tokenizer(request: pytest.FixtureRequest) -> HfTokenizer | ByteTokenizer:
    if request.param == "bytes":
        return ByteTokenizer()
    fixture = {"byte-level": "tiny_tokenizer"}.get(request.param, request.param)
    return request.getfixturevalue(fixture)


# ---- as it stands in a line


@pytest.mark.parametrize("after", ["", "\n", "|", ";", "x"])
def test_a_text_has_the_same_ids_whatever_is_encoded_beside_it(
    tokenizer: HfTokenizer | ByteTokenizer, after: str
) -> None:
    texts = [" milk", " milk; bread", "friday", "\n", " |", "", "<s>", "<|im_end|>"]
    together = tokenizer.encode(texts, after=after)
    assert together == [tokenizer.encode([text], after=after)[0] for text in texts]
    assert together[5] == []
    assert tokenizer.encode([], after=after) == []


def test_a_line_put_together_from_ids_reads_as_the_line(tokenizer: HfTokenizer | ByteTokenizer) -> None:
    [context], [bar] = tokenizer.encode(["friday"], after="\n"), tokenizer.encode([" |"], after="x")
    [milk], [closed] = tokenizer.encode([" milk"], after="|"), tokenizer.encode([";"], after="x")
    [newline] = tokenizer.encode(["\n"], after=";")
    ids = [*context, *bar, *milk, *closed, *newline, *context, *bar]
    assert tokenizer.decode(ids) == "friday | milk;\nfriday |"


def test_the_space_that_some_tokenizers_put_before_a_text_is_no_part_of_it(metaspace: HfTokenizer) -> None:
    [alone], [inside] = metaspace.encode(["milk"]), metaspace.encode(["milk"], after="\n")
    assert metaspace.decode([5 + ALPHABET.index("a"), *alone]) == "a milk"
    assert metaspace.decode([5 + ALPHABET.index("a"), *inside]) == "amilk"
    [behind_a_bar] = metaspace.encode([" milk"], after="|")
    assert behind_a_bar == alone, "one piece, with its space"


def test_where_a_tokenizer_merges_across_the_seam_the_text_is_encoded_alone(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    merging = Tokenizer(models.BPE(vocab={"|": 0, "a": 1, "|a": 2, "b": 3}, merges=[("|", "a")]))
    PreTrainedTokenizerFast(tokenizer_object=merging).save_pretrained(tmp_path)
    assert HfTokenizer(tmp_path).encode(["a", "b", "ab"], after="|") == [[1], [3], [1, 3]]


# ---- nothing special from text

MARKERS = ["<s>", "</s>", "<start>", "<end>", "<tool>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "＜s＞", "<unk>"]
texts = st.lists(st.one_of(st.sampled_from(MARKERS), st.text(max_size=8)), max_size=6).map("".join)


@given(texts, st.sampled_from(["", "\n", "|", "<"]))
def test_no_text_is_read_as_a_special_token_byte_level(tiny_tokenizer: HfTokenizer, text: str, after: str) -> None:
    [ids] = tiny_tokenizer.encode([text], after=after)
    assert not {0, 1, 2} & set(ids)
    assert tiny_tokenizer.decode(ids) == text.encode("utf-8", "replace").decode()


@given(texts, st.sampled_from(["", "\n", "|", "<"]))
def test_no_text_is_read_as_a_special_token_metaspace(metaspace: HfTokenizer, text: str, after: str) -> None:
    [ids] = metaspace.encode([text], after=after)
    tool = metaspace.n_vocab - 1
    assert not {1, 2, 3, 4, tool} & set(ids)


@pytest.mark.llm
@given(texts)
def test_no_text_is_read_as_a_special_token_smollm(smollm: HfTokenizer, text: str) -> None:
    [ids] = smollm.encode([text])
    assert not set(range(17)) & set(ids), "SmolLM2 has its 17 special tokens first"


def test_threads_that_encode_and_chat_at_once_do_not_disturb_each_other(tiny_tokenizer: HfTokenizer) -> None:
    def work(_: int) -> tuple[list[list[int]], list[int]]:
        return tiny_tokenizer.encode(["<|im_end|>"] * 20), tiny_tokenizer.chat([("user", "<|im_end|>")])

    expected = work(0)
    assert 2 not in expected[0][0]
    assert expected[1].count(2) == 1
    with ThreadPoolExecutor(4) as pool:
        assert all(result == expected for result in pool.map(work, range(200)))


# ---- chats


def test_a_chat_is_the_template_with_the_texts_in_their_places(tiny_tokenizer: HfTokenizer) -> None:
    ids = tiny_tokenizer.chat([("system", " Be kind.\n"), ("user", ""), ("user", "Hello <|im_end|>")])
    assert tiny_tokenizer.decode(ids) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert (ids.count(1), ids.count(2)) == (3, 2)


def test_a_model_that_knows_no_system_turn_reads_it_in_the_users(metaspace: HfTokenizer) -> None:
    ids = metaspace.chat([("system", "be kind"), ("user", "go <end>")])
    assert (ids.count(1), ids.count(3), ids.count(4)) == (1, 2, 1)
    text = metaspace.decode(ids)
    assert text.index("be kind") < text.index("go")
    assert text.endswith("model\n")


def test_a_model_without_a_chat_template_reads_paragraphs(pieces: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(str(pieces))
    plain.chat_template = None
    plain.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer = HfTokenizer(tmp_path)
    ids = tokenizer.chat([("system", "be kind"), ("user", "go")])
    assert ids[0] == 1
    assert tokenizer.decode(ids[1:]).split() == ["be", "kind", "go"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0]['content'] }}", None),
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "it leaves out a turn"),
        ("{{ raise_exception('never') }}", "never"),
        ("{{ 1 + }}", "unexpected"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_named(
    tiny_model: Path, tmp_path: Path, template: str, reason: str | None
) -> None:
    from transformers import AutoTokenizer

    odd = AutoTokenizer.from_pretrained(str(tiny_model))
    odd.chat_template = template
    odd.save_pretrained(tmp_path)
    tokenizer = HfTokenizer(tmp_path)
    if reason is None:  # one turn has a place: both texts go there
        assert tokenizer.decode(tokenizer.chat([("system", "a"), ("user", "b")])) == "a\n\nb"
    else:
        with pytest.raises(ModelError, match=f"chat template cannot be used: .*{reason}"):
            tokenizer.chat([("system", "a"), ("user", "b")])


def test_the_prompt_of_today_is_the_prompt_of_tomorrow(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    dated = AutoTokenizer.from_pretrained(str(tiny_model))
    dated.chat_template = (
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    )
    dated.chat_template += "{{ date_string }}" + CHAT_TEMPLATE
    dated.save_pretrained(tmp_path)
    tokenizer = HfTokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.chat([("user", "a")])).startswith("01 Jan 2025<|im_start|>")


# ---- what it is


def test_equal_fingerprints_mean_equal_ids(
    tiny_model: Path, tiny_tokenizer: HfTokenizer, metaspace: HfTokenizer
) -> None:
    assert HfTokenizer(tiny_model).fingerprint == tiny_tokenizer.fingerprint != metaspace.fingerprint
    assert tiny_tokenizer.n_vocab == len(json.loads((tiny_model / "tokenizer.json").read_text())["model"]["vocab"])
    assert metaspace.n_vocab == 5 + len(ALPHABET) + 3 + 1


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no tokenizer"):
        HfTokenizer(tmp_path)
