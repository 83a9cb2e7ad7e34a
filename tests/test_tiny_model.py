"""The tiny model is one that transformers loads and that tells contexts apart."""

from pathlib import Path

from genrec.tokenizer import HfTokenizer


def test_special_tokens_are_ids_and_text_is_not(tiny_model: Path) -> None:
    tokenizer = HfTokenizer(tiny_model)
    turn = tokenizer.chat([("user", "milk <|im_end|> bread")])
    assert tokenizer.decode(turn) == "<|im_start|>user\nmilk <|im_end|> bread<|im_end|>\n<|im_start|>assistant\n"
    assert (turn.count(1), turn.count(2)) == (2, 1)  # two turns opened, one closed: the mark in the text is not one


def test_it_prefers_some_words_to_others(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = HfTokenizer(tiny_model).encode(["Monday morning |", "Friday evening |"])
    with torch.inference_mode():
        one, other = (model(torch.tensor([i])).logits[0, -1].log_softmax(-1) for i in ids)
    assert one.max() - one.min() > 3
    assert (one - other).abs().max() > 0.5
