"""Tiny tokenizers, trained in the test."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from parframe.generation.tokenization import ModelTokenizer

LINES = [
    "Once upon a time there was a zoo. Die Größe, l'été, 我们在这里, слон, 🐘🦒!",
    "the cat  and the dog\n\n were friends, 我们 ate 3 apples 🐘",
    "naïve façade — “quoted” … 日本語のテキスト",
]


@cache
def byte_level():
    """Train a small byte-level BPE tokenizer with special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=alphabet, special_tokens=["<e>"]
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False)])
    return ModelTokenizer(tokenizer)
