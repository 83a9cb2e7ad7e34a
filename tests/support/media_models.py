"""Models of pictures and sounds with random weights, in whole folders, as a user would name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = ["a", "photo", "of", "this", "is", "oat", "milk", "bread", "tea", "dark", "chocolate", "red", "green", "."]
SIDE = 32
"""Pixels of a side of what the models see."""


def _tokenizer(length: int) -> Any:
    """One token a word, with beginning and end."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=length,
    )


def _save(folder: Path, config: Any, cls: Any, *also: Any) -> Path:
    """Random weights, the same each time, with what reads the model's input."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        cls(config).save_pretrained(folder)
    for one in also:
        one.save_pretrained(folder)
    return folder


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
SEES: dict[str, Any] = SMALL | {"image_size": SIDE, "patch_size": 8, "initializer_range": 0.5}


def make_clip(folder: Path) -> Path:
    """A model that compares pictures with texts."""
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    text = SMALL | {"vocab_size": 4 + len(WORDS), "max_position_embeddings": 16, "initializer_range": 0.5}
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = CLIPConfig(text_config=text | ids, vision_config=SEES, projection_dim=24)
    sees = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    return _save(folder, config, CLIPModel, CLIPProcessor(sees, _tokenizer(16)))


def make_captioner(folder: Path) -> Path:
    """A model that says what a picture shows and is asked nothing."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    text = SMALL | {"vocab_size": 4 + len(WORDS), "encoder_hidden_size": 32, "max_position_embeddings": 64}
    ids = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(text_config=text | ids | {"initializer_range": 0.5}, vision_config=SEES, projection_dim=24)
    sees = BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return _save(folder, config, BlipForConditionalGeneration, BlipProcessor(sees, _tokenizer(64)))


def make_chatting_captioner(folder: Path, tokenizer: Any) -> Path:
    """A model that reads an instruction beside the picture.

    Args:
        folder: Where to put it.
        tokenizer: One with a chat template.
    """
    from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = SMALL | {"model_type": "llama", "vocab_size": len(tokenizer), "max_position_embeddings": 256}
    config = LlavaConfig(
        vision_config=SEES | {"model_type": "clip_vision_model"},
        text_config=text | {"num_key_value_heads": 2, "initializer_range": 0.5},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
        "{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    sees = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        sees,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return _save(folder, config, LlavaForConditionalGeneration, processor)


def make_listener(folder: Path, rate: int = 4000) -> Path:
    """A model that tells three kinds of sound."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(
        **SMALL,
        vocab_size=8,
        conv_dim=(16, 16),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=16,
        initializer_range=0.5,
        num_labels=3,
        id2label={0: "speech", 1: "music", 2: "rain"},
        label2id={"speech": 0, "music": 1, "rain": 2},
    )
    return _save(folder, config, Wav2Vec2ForSequenceClassification, Wav2Vec2FeatureExtractor(sampling_rate=rate))
