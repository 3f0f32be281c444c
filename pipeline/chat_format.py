"""How a conversation becomes tokens, in training and afterwards.

    <|user|> What is the capital of France?<|end|><|assistant|> Paris.<|end|>

A turn begins with a space, as words do wherever the base stage has read them. Without it the first word of an answer,
on which the rest depends, would be one that the model has hardly ever seen.
A person's text is always encoded as plain text: typing `<|assistant|>` gives those thirteen letters,
never the control token.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

END_OF_DOCUMENT = "<|endoftext|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
END = "<|end|>"
PADDING = "<|padding|>"
CONTROL_TOKENS = [END_OF_DOCUMENT, USER, ASSISTANT, END, PADDING]

# The end token stands inside the generation block: otherwise stopping would not be trained.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}" + USER + "{{ ' ' + message['content'] }}" + END + "{% else %}" + ASSISTANT +
    "{% generation %}{{ ' ' + message['content'] + '" + END + "' }}{% endgeneration %}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)  # fmt: skip


# New to every base model: SFT is where they get a meaning.
FORMAT_TOKENS = [USER, ASSISTANT, END]


def add_control_tokens(tokenizer: Any) -> list[int]:
    """Teach the tokenizer of a pretrained model the chat format. Returns the ids of the tokens that it lacked.

    The format is the same in every family, whatever template the model came with. A template is text: what a
    person types could become one of its control tokens, it may add a system message or room for thinking, and it
    does not mark what is trained. And where the makers have shown it to their base model, that answers already,
    while here SFT is to be seen teaching it.
    """
    from tokenizers import AddedToken

    known = tokenizer.get_vocab()
    lacking = [token for token in CONTROL_TOKENS if token not in known]
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in lacking], special_tokens=True)
    tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template = END, PADDING, TEMPLATE
    return tokenizer.convert_tokens_to_ids(lacking)


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a person's text, in which nothing is a control token."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encode_prompt(tokenizer: Any, prompt: str, earlier: Sequence[str] = ()) -> list[int]:
    """Token ids of a prompt in the chat format, up to where the assistant's answer begins.

    `earlier` is what the user and the assistant have said before it, in turn.
    """
    user, end, assistant = tokenizer.convert_tokens_to_ids([USER, END, ASSISTANT])
    turns = zip(cycle((user, assistant)), (*earlier, prompt), strict=False)
    said = [(speaker, encode_text(tokenizer, f" {text}")) for speaker, text in turns]
    return [token for speaker, tokens in said for token in (speaker, *tokens, end)] + [assistant]


def encode_answer(tokenizer: Any, answer: str, finished: bool = True) -> list[int]:
    """Token ids of an answer; one that was cut at the limit has no end token."""
    end = [tokenizer.convert_tokens_to_ids(END)] if finished else []
    return encode_text(tokenizer, f" {answer}" if answer else "") + end


def decode_answer(tokenizer: Any, tokens: list[int]) -> str:
    """The text of an answer, without control tokens and the space that its turn begins with."""
    return tokenizer.decode(tokens, skip_special_tokens=True).removeprefix(" ")


def encode_exchange(
    tokenizer: Any, prompt: str, answer: str, finished: bool = True, earlier: Sequence[str] = ()
) -> list[int]:
    """Token ids of a prompt with an answer: what the reward model reads."""
    return encode_prompt(tokenizer, prompt, earlier) + encode_answer(tokenizer, answer, finished)


def stop_tokens(tokenizer: Any) -> list[int]:
    """Tokens with which a model ends its text by itself."""
    return tokenizer.convert_tokens_to_ids([END, END_OF_DOCUMENT])
