"""Next-token distributions of random families against direct forward passes, one token at a time."""

import math
from typing import Any

import pytest
import torch

from pipeline.chat_format import CONTROL_TOKENS, END, encode_text
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import StageModel, load_stage
from pipeline.inference.tokens import (
    LONGEST_WORD,
    TOP,
    Category,
    Prediction,
    Reading,
    Token,
    answer_tokens,
    fill,
    find_blank,
    next_logprobs,
    read,
    room,
    token,
)
from tests.families import random_family

PROMPT = "What is the capital of Zażółć 😀?"
GREEDY = Decoding(max_new_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageModel]:
    family = random_family(tmp_path_factory.mktemp("families") / "random", ("base", "sft", "rlhf"))
    return {stage: load_stage(family.checkpoint(stage)) for stage in ("base", "sft", "rlhf")}


def direct(model: StageModel, context: list[int]) -> list[float]:
    """The log-probability of every token after a context."""
    with torch.inference_mode():
        logits = model.model(input_ids=torch.tensor([context])).logits[0, -1]
    return logits.double().log_softmax(-1).tolist()


@pytest.mark.parametrize("stage", ["base", "sft", "rlhf"])
def test_predictions_are_those_of_the_model_token_by_token(models: dict[str, StageModel], stage: str) -> None:
    answer = list(answer_tokens(models[stage], PROMPT, Decoding(max_new_tokens=12, temperature=1.0, seed=3)))
    reading = read(models, stage, PROMPT, answer)
    assert [token.id for token in reading.tokens] == answer
    assert list(reading.predictions) == ["base", "sft", "rlhf"]
    for name, predictions in reading.predictions.items():
        context = models[name].encode(PROMPT)
        for prediction, taken in zip(predictions, answer, strict=True):
            logprobs = direct(models[name], context)
            assert sum(map(math.exp, logprobs)) == pytest.approx(1)
            assert prediction.logprob == pytest.approx(logprobs[taken], abs=1e-4)
            assert prediction.rank == 1 + sum(value > logprobs[taken] + 1e-6 for value in logprobs)
            best = sorted(range(len(logprobs)), key=lambda number: -logprobs[number])[:TOP]
            assert [candidate.token.id for candidate in prediction.top] == best
            assert [candidate.logprob for candidate in prediction.top] == pytest.approx(
                [logprobs[number] for number in best], abs=1e-4
            )
            context = [*context, taken]


def test_rows_of_different_length_do_not_disturb_each_other(models: dict[str, StageModel]) -> None:
    prefix, rows = [70, 71, 72], [[80], [81, 82, 83], [84, 85]]
    together = next_logprobs(models["base"].model, prefix, rows)
    assert together.shape[:2] == (3, 3)
    for row, logprobs in zip(rows, together, strict=True):
        for position in range(len(row)):
            expected = direct(models["base"], prefix + row[:position])
            assert logprobs[position].exp().sum().item() == pytest.approx(1, abs=1e-5)
            assert logprobs[position].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_greedy_answer_takes_every_first_choice(models: dict[str, StageModel]) -> None:
    answer = list(answer_tokens(models["sft"], PROMPT, GREEDY))
    assert models["sft"].text(answer) == models["sft"].answers([PROMPT], GREEDY)[0].text
    assert {prediction.rank for prediction in read(models, "sft", PROMPT, answer).predictions["sft"]} == {1}


def test_the_token_that_ends_an_answer_is_part_of_it(
    models: dict[str, StageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = answer_tokens(models["sft"], PROMPT, GREEDY)
    monkeypatch.setattr("pipeline.inference.models.stop_tokens", lambda tokenizer: [first])
    assert list(answer_tokens(models["sft"], PROMPT, GREEDY)) == [first]


def ranked(*ranks: int) -> list[Prediction]:
    return [Prediction(-float(rank), rank, []) for rank in ranks]


def test_categories_and_log_ratios() -> None:
    tokens = [Token(number, "x") for number in range(5)]
    predictions = {"base": ranked(4, 1, 1, 1, 1), "sft": ranked(1, 2, 3, 4, 400), "rlhf": ranked(1, 1, 1, 1, 1)}

    def categories(stage: str) -> list[Category | None]:
        return [Reading(stage, "", tokens, predictions).category(position) for position in range(5)]

    assert categories("rlhf") == ["unshifted", "marginal", "marginal", "shifted", "shifted"]
    assert categories("sft") == ["shifted", *["unshifted"] * 4]
    assert categories("base") == [None] * 5
    rlhf, base = (Reading(stage, "", tokens, predictions) for stage in ("rlhf", "base"))
    assert (rlhf.before, rlhf.log_ratio(3)) == ("sft", -1.0 - -4.0)
    assert (base.before, base.log_ratio(3)) == (None, None)


def test_tokens_are_legible(tiny_tokenizer: Any) -> None:
    names = [token(tiny_tokenizer, number) for number in tiny_tokenizer.convert_tokens_to_ids(CONTROL_TOKENS)]
    assert {name.kind for name in names} == {"control"}
    assert not any("<|" in name.text for name in names)
    assert token(tiny_tokenizer, tiny_tokenizer.convert_tokens_to_ids(END)).text == "end of answer"
    # The same letters, typed by a person, are ordinary text.
    typed = [token(tiny_tokenizer, number) for number in encode_text(tiny_tokenizer, END + " Paris\n")]
    assert {name.kind for name in typed} == {"text"}
    assert "".join(name.text for name in typed) == END + " Paris\n"
    parts = [token(tiny_tokenizer, number) for number in encode_text(tiny_tokenizer, "😀")]
    assert {name.kind for name in parts} == {"bytes"}
    assert bytes.fromhex(" ".join(part.text for part in parts)).decode() == "😀"


def test_an_answer_of_half_characters_is_read(models: dict[str, StageModel]) -> None:
    answer = encode_text(models["rlhf"].tokenizer, "a😀é")[:-1]
    reading = read(models, "rlhf", PROMPT, answer)
    assert [token.kind for token in reading.tokens] == ["text", *["bytes"] * (len(answer) - 1)]


def test_the_longest_answer_fits_every_stage(models: dict[str, StageModel]) -> None:
    prompt = "z" * 200
    left = room(models, prompt)
    assert left == 256 - len(models["sft"].encode(prompt))
    answer = list(answer_tokens(models["base"], prompt, Decoding(max_new_tokens=left, temperature=1.0)))
    assert len(answer) == left
    assert len(read(models, "base", prompt, answer).predictions["rlhf"]) == left


def words_by_hand(model: StageModel, left: str, right: str, spaced: bool, count: int) -> dict[str, tuple[float, float]]:
    """p(word | left) and p(word | left) p(right | left, word) of each candidate, from single forward passes."""
    tokenizer = model.tokenizer
    texts = {number: tokenizer.decode([number]) for number in range(len(tokenizer)) if number >= len(CONTROL_TOKENS)}
    inner = [number for number, text in texts.items() if text.isalnum() or "\ufffd" in text]
    begin = [number for number, text in texts.items() if (text[1:].isalnum() or text == " ") and text[0] == " "]
    begin = begin if spaced else [number for number in inner if "\ufffd" not in texts[number]]
    before, after = encode_text(tokenizer, left), encode_text(tokenizer, right)
    first = direct(model, before)
    words: dict[str, tuple[float, float]] = {}
    for start in sorted(begin, key=lambda number: -first[number])[:count]:
        word = [start]
        while len(word) < LONGEST_WORD:
            following = direct(model, before + word)
            likeliest = max(range(len(following)), key=lambda number: following[number])
            if likeliest not in inner:
                break
            word.append(likeliest)
        while "\ufffd" in tokenizer.decode(word):
            word.pop()
        text = tokenizer.decode(word).strip()
        if text:
            row = word + after
            steps = [direct(model, before + row[:place])[row[place]] for place in range(len(row))]
            alone, fitting = words.get(text, (0.0, 0.0))
            words[text] = (alone + math.exp(sum(steps[: len(word)])), fitting + math.exp(sum(steps)))
    return words


@pytest.mark.parametrize(
    ("text", "left", "right", "spaced"),
    [
        ("The capital of France is ___.", "The capital of France is", ".", True),
        ("Oranges are rich in ______", "Oranges are rich in", "", True),
        ('He said "____" to the bank', 'He said "', '" to the bank', False),
    ],
)
@pytest.mark.parametrize("stage", ["base", "rlhf"])
def test_a_blank_is_filled_as_by_hand(
    models: dict[str, StageModel], stage: str, text: str, left: str, right: str, spaced: bool
) -> None:
    expected = words_by_hand(models[stage], left, right, spaced, 6)
    fillings = fill(models[stage], text, count=6)
    assert {filling.word for filling in fillings} == set(expected)
    whole = sum(fitting for _, fitting in expected.values())
    for filling in fillings:
        alone, fitting = expected[filling.word]
        assert filling.alone == pytest.approx(alone, rel=1e-3)
        assert filling.fitting == pytest.approx(fitting / whole, rel=1e-3)
    assert sum(filling.fitting for filling in fillings) == pytest.approx(1)
    assert [filling.fitting for filling in fillings] == sorted((f.fitting for f in fillings), reverse=True)


def test_what_follows_the_blank_decides(models: dict[str, StageModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two words as likely on the left, one of which the right side needs."""
    tokenizer = models["base"].tokenizer
    good, bad = encode_text(tokenizer, " a")[0], encode_text(tokenizer, " b")[0]
    [stop] = encode_text(tokenizer, ".")

    def prepared(model: Any, prefix: list[int], rows: list[list[int]]) -> torch.Tensor:
        logprobs = torch.full((len(rows), max(map(len, rows)), len(tokenizer)), -20.0)
        logprobs[:, 0, [good, bad]] = math.log(0.4)
        for number, row in enumerate(rows):
            if row[1:] == [stop]:
                logprobs[number, 1, stop] = math.log(0.9 if row[0] == good else 0.1)
            elif len(row) > 1:
                logprobs[number, 1:, stop] = -0.1
        return logprobs

    monkeypatch.setattr("pipeline.inference.tokens.next_logprobs", prepared)
    fillings = fill(models["base"], "This is ___.", count=2)
    assert [filling.word for filling in fillings] == ["a", "b"]
    assert [filling.alone for filling in fillings] == pytest.approx([0.4, 0.4])
    assert [filling.fitting for filling in fillings] == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the sentence is empty"),
        ("The capital of France is __.", "there is no blank"),
        ("___ is the capital of France.", "nothing stands before the blank"),
        (" \n ___ is", "nothing stands before the blank"),
        ("The ___ of France is ___.", "more than one blank"),
        ("a" * 3_000 + " ___", "3,004 characters"),
        ("z" * 300 + " ___.", "the sentence has 301 tokens; at most 250 fit"),
    ],
)
def test_a_sentence_that_cannot_be_used_is_one_clear_line(
    models: dict[str, StageModel], text: str, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as error:
        fill(models["base"], text)
    assert "\n" not in str(error.value)


def test_a_space_before_the_blank_belongs_to_the_word() -> None:
    gap = find_blank("It is  ____, yes")
    assert (gap.left, gap.right, gap.spaced) == ("It is", ", yes", True)
    gap = find_blank("It is \n___")
    assert (gap.left, gap.right, gap.spaced) == ("It is \n", "", False)
