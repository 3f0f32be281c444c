"""The tokenizer: text becomes numbers.

Byte pair encoding learns, from the documents that the base stage will read, which runs of bytes stand
together so often that they deserve a number of their own: about four thousand words and pieces of words.
Any text can be written with it, since every single byte has a number too. It knows nothing else: that
"Paris" and "France" belong together is for the base stage to learn. The control tokens of the chat format
get their numbers here, so that every later stage has the same vocabulary.
"""

import shutil
from itertools import islice

from pipeline import processes
from pipeline.chat_format import CONTROL_TOKENS, END, PADDING, TEMPLATE
from pipeline.checkpoint import Checkpoint, Family, write_record, writing
from pipeline.corpus.cards import load_corpus
from pipeline.corpus.cleaning import clean
from pipeline.corpus.documents import documents
from pipeline.recipe import Recipe
from pipeline.training import Clock


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """The tokenizer, which the main process learns while others that may train with it wait."""
    if processes.is_main():
        learn(recipe, family)
    processes.wait()
    return family.checkpoint("tokenizer")


def learn(recipe: Recipe, family: Family) -> None:
    """Learn the vocabulary (Sennrich et al. 2016, arXiv:1508.07909; byte-level as in GPT-2)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    work = family.work("tokenizer")
    clock = Clock(work)
    corpus = load_corpus(recipe.corpus)
    settings = recipe.tokenizer
    assert settings is not None
    texts = [
        document.text
        for document in islice(documents(recipe, corpus, clean(recipe, family, corpus)), settings.documents)
    ]

    tokenizer = Tokenizer(models.BPE())
    # Single digits, so that every number is written in the same way.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary_size,
        special_tokens=CONTROL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PADDING,
        extra_special_tokens=[token for token in CONTROL_TOKENS if token not in (END, PADDING)],
        chat_template=TEMPLATE,
        model_max_length=recipe.context,
        clean_up_tokenization_spaces=False,
    )

    sample = texts[:500]
    tokens = sum(len(ids) for ids in fast(sample, add_special_tokens=False)["input_ids"])
    figures = {
        "vocabulary": len(fast),
        "documents": len(texts),
        "characters_per_token": round(sum(map(len, sample)) / tokens, 2),
    }
    with writing(family.path / "tokenizer") as folder:
        fast.save_pretrained(folder)
        write_record(
            folder,
            "tokenizer",
            recipe,
            corpus=corpus.sha256,
            parent=None,
            steps=len(fast),
            seconds=clock.seconds,
            figures=figures,
        )
    shutil.rmtree(work)
