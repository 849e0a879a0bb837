"""The zoo's tokenizer: one token a word, built from the list of words without any training."""

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from optmerge.zoo.language import words

PAD, BEGIN, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
LONGEST_TEXT = 128
SPECIAL = (PAD, BEGIN, END, UNKNOWN)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that cuts text at word borders and joins words by nothing."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *words()))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # The first alternative that matches wins, hence the longest first: "12" is one number and not two.
    longest_first = sorted(words(), key=lambda word: (-len(word), word))
    pattern = "|".join(re.escape(word).replace("\\ ", " ") for word in longest_first)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=LONGEST_TEXT,
        clean_up_tokenization_spaces=False,
    )
