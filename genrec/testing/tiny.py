"""A language model small enough to be made in a second: real architecture, real tokenizer, random weights."""

from __future__ import annotations

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "You write down what one household buys, one line a visit, the moment first, then the items.",
    "Monday morning, winter | milk; bread; butter; eggs; cheese; yoghurt; orange juice; coffee; tea; sugar; flour;",
    "Friday evening, summer, store 31 | beer; steaks; charcoal; ice cream; soft drinks; potato chips; salad; buns;",
    "Wednesday night, autumn, before Thanksgiving | turkey; cranberries; pie crust; potatoes; gravy; candy; wine;",
    "Saturday noon, spring, phone | The Matrix; Heat; Toy Story; Pulp Fiction; Fargo; Twelve Monkeys; Casablanca;",
    "user age income household size kids 0 1 2 3 4 5 6 7 8 9 3 days after, 2 h after the last, holiday, weekend",
]


def make_tiny_model(folder: Path, *, seed: int = 7) -> Path:
    """Save a Hugging Face model folder: a Llama of two layers with a byte-level BPE tokenizer and a ChatML template.

    Args:
        folder: Where to put it; made if missing.
        seed: Of the random weights; the same seed gives the same model.

    Returns:
        The folder.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=special[1], eos_token=special[2], pad_token=special[2], unk_token=special[0]
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        initializer_range=0.2,  # wide, so that the next token's distribution is far from uniform
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
