"""How a conversation becomes tokens, in training and afterwards.

    <|user|> What is the capital of France?<|end|><|assistant|> Paris.<|end|>

A turn begins with a space, as words do wherever the base stage has read them. Without it the first word of an answer,
on which the rest depends, would be one that the model has hardly ever seen.
A person's text is always encoded as plain text: typing `<|assistant|>` gives those thirteen letters,
never the control token.
"""

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


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a person's text, in which nothing is a control token."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encode_prompt(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids of a prompt in the chat format, up to where the assistant's answer begins."""
    user, end, assistant = tokenizer.convert_tokens_to_ids([USER, END, ASSISTANT])
    return [user, *encode_text(tokenizer, f" {prompt}"), end, assistant]


def encode_answer(tokenizer: Any, answer: str, finished: bool = True) -> list[int]:
    """Token ids of an answer; one that was cut at the limit has no end token."""
    end = [tokenizer.convert_tokens_to_ids(END)] if finished else []
    return encode_text(tokenizer, f" {answer}" if answer else "") + end


def decode_answer(tokenizer: Any, tokens: list[int]) -> str:
    """The text of an answer, without control tokens and the space that its turn begins with."""
    return tokenizer.decode(tokens, skip_special_tokens=True).removeprefix(" ")


def encode_exchange(tokenizer: Any, prompt: str, answer: str, finished: bool = True) -> list[int]:
    """Token ids of a prompt with an answer: what the reward model reads."""
    return encode_prompt(tokenizer, prompt) + encode_answer(tokenizer, answer, finished)


def stop_tokens(tokenizer: Any) -> list[int]:
    """Tokens with which a model ends its text by itself."""
    return tokenizer.convert_tokens_to_ids([END, END_OF_DOCUMENT])
