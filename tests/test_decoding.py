"""Decoding: what a row's tokens depend on, and what they must not."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding, choose, complete, decode

CONTEXT = 64
VOCABULARY = 50
PROMPTS = [[1, 2, 3], [4] * 20, [5, 6], [7, 8, 9, 10, 11], [12]]
SAMPLED = Decoding(max_new_tokens=30, temperature=1.0, top_p=0.95, seed=3)
STOP = [1, 2]


def llama() -> Any:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def sliding_mistral() -> Any:
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        sliding_window=8,
        initializer_range=0.3,
    )
    return MistralForCausalLM(config)


def gpt2() -> Any:
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT)
    return GPT2LMHeadModel(config)


@pytest.fixture(params=[llama, sliding_mistral, gpt2])
def any_model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return request.param().eval()


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return llama().eval()


@pytest.fixture
def shapes(model: Any) -> list[tuple[int, int]]:
    """The (rows, tokens) of every call of the model, as they happen."""
    seen: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def generated(model: Any, prompt: list[int], count: int) -> list[int]:
    """The library's own greedy continuation."""
    tokens = model.generate(
        torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return tokens[0, len(prompt) :].tolist()


def test_greedy_is_what_the_library_generates(any_model: Any) -> None:
    completions = complete(any_model, PROMPTS, Decoding(max_new_tokens=30, temperature=0), stop=[])
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        assert completion.tokens == generated(any_model, prompt, 30)
        assert not completion.stopped


def test_a_row_does_not_depend_on_its_neighbours(any_model: Any) -> None:
    together = complete(any_model, PROMPTS, SAMPLED, STOP)
    alone = [complete(any_model, [prompt], SAMPLED, STOP)[0] for prompt in PROMPTS]
    assert together == alone
    assert len({len(completion.tokens) for completion in together}) > 1, "rows should end at different steps"
    assert any(completion.stopped for completion in together)


def test_sixty_four_rows_stay_independent(model: Any) -> None:
    prompts = [[3 + row % 40, 5, row % 7 + 3] * (1 + row % 5) for row in range(64)]
    together = complete(model, prompts, SAMPLED, STOP)
    backwards = complete(model, prompts[::-1], SAMPLED, STOP, batch_size=7)
    assert together == backwards[::-1]


def test_the_seed_and_the_prompt_decide(model: Any) -> None:
    first = complete(model, PROMPTS, SAMPLED, [])
    assert complete(model, PROMPTS, SAMPLED, []) == first
    other = complete(model, PROMPTS, Decoding(max_new_tokens=30, temperature=1.0, top_p=0.95, seed=4), [])
    assert all(a.tokens != b.tokens for a, b in zip(first, other, strict=True))


def test_one_prompt_is_sampled_with_many_seeds_at_once(any_model: Any) -> None:
    seeds = [5, 9, 5, 6]
    steps = list(decode(any_model, [PROMPTS[3]] * 4, SAMPLED, STOP, seeds))
    rows = [[step[row] for step in steps if step[row] is not None] for row in range(4)]
    alone = [list(decode(any_model, [PROMPTS[3]], replace(SAMPLED, seed=seed), STOP)) for seed in seeds]
    assert rows == [[token for [token] in run] for run in alone]
    assert rows[0] == rows[2]
    assert len({tuple(row) for row in rows}) == 3


def test_a_seed_too_few_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="as many seeds"):
        next(decode(model, PROMPTS, SAMPLED, STOP, [1, 2]))


def test_the_global_random_state_is_left_alone(model: Any) -> None:
    before = torch.get_rng_state()
    complete(model, PROMPTS, SAMPLED, STOP)
    assert torch.equal(torch.get_rng_state(), before)


def counts(logits: list[float], decoding: Decoding) -> list[int]:
    """How often each token is chosen by 1,000 evenly spread draws."""
    draws = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens = choose(torch.tensor([logits]).expand(1000, -1), decoding, draws)
    return tokens.bincount(minlength=len(logits)).tolist()


def test_sampling_follows_the_tempered_distribution() -> None:
    logits = torch.tensor([0.1, 0.5, 0.0, 0.4]).log()
    assert counts(logits.tolist(), Decoding(temperature=1.0)) == [100, 500, 0, 400]
    # Half the temperature squares the probabilities.
    squares = [0.01 / 0.42, 0.25 / 0.42, 0.0, 0.16 / 0.42]
    tempered = counts(logits.tolist(), Decoding(temperature=0.5))
    assert tempered == pytest.approx([1000 * share for share in squares], abs=1)


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(1.0, [100, 500, 0, 400]), (0.91, [100, 500, 0, 400]), (0.85, [0, 556, 0, 444]), (0.3, [0, 1000, 0, 0])],
)
def test_top_p_keeps_the_nucleus(top_p: float, expected: list[int]) -> None:
    logits = torch.tensor([0.1, 0.5, 0.0, 0.4]).log().tolist()
    assert counts(logits, Decoding(temperature=1.0, top_p=top_p)) == pytest.approx(expected, abs=1)


def test_the_last_draw_stays_inside_the_vocabulary() -> None:
    largest = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert choose(torch.zeros(1, 7), Decoding(temperature=1.0), largest).tolist() == [6]


def test_temperature_zero_takes_the_likeliest() -> None:
    assert counts([0.0, 0.1, -1.0], Decoding(temperature=0)) == [0, 1000, 0]


@pytest.mark.parametrize(("temperature", "top_p"), [(5e-324, 1.0), (1e-40, 0.9), (1.0, 5e-324), (1e-320, 1e-320)])
def test_settings_that_vanish_in_single_precision_take_the_likeliest(temperature: float, top_p: float) -> None:
    logits = torch.tensor([[-80.0, 0.0, 30.0, -1.0], [50.0, 0.0, 0.0, 49.0]])
    draws = torch.tensor([0.5, 0.999], dtype=torch.float64)
    assert choose(logits, Decoding(temperature=temperature, top_p=top_p), draws).tolist() == [2, 0]


@pytest.mark.parametrize("temperature", [100.5, 1e308, 10**400, float("inf"), float("nan"), -1e-9, True, "x" * 10_000])
def test_a_temperature_without_meaning_is_one_short_line(temperature: Any) -> None:
    with pytest.raises(InputError, match="it must be a number from 0 to 100") as error:
        Decoding(temperature=temperature)
    assert len(str(error.value)) < 200


def test_more_tokens_than_the_context_has_cost_nothing(model: Any) -> None:
    usual, endless = (Decoding(tokens, 1.0, seed=3) for tokens in (CONTEXT, 10**15))
    assert complete(model, PROMPTS, endless, STOP) == complete(model, PROMPTS, usual, STOP)


def test_one_list_a_step_and_none_for_ended_rows(model: Any) -> None:
    steps = list(decode(model, PROMPTS, SAMPLED, STOP))
    for row, completion in enumerate(complete(model, PROMPTS, SAMPLED, STOP)):
        news = [step[row] for step in steps]
        length = len(completion.tokens) + completion.stopped
        assert None not in news[:length]
        assert news[length:] == [None] * (len(steps) - length)
    assert any(token is not None for token in steps[-1]), "the last step should still have brought a token"


def test_the_context_is_never_exceeded(model: Any) -> None:
    prompts = [[7] * (CONTEXT - 4), [8] * CONTEXT, [9] * (CONTEXT + 6), [3, 4]]
    completions = complete(model, prompts, Decoding(max_new_tokens=10, temperature=0), stop=[])
    assert [len(completion.tokens) for completion in completions] == [4, 0, 0, 10]
    assert not any(completion.stopped for completion in completions)
    assert completions[3] == complete(model, prompts[3:], Decoding(max_new_tokens=10, temperature=0), [])[0]


def test_a_prompt_without_tokens_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        complete(model, [[1], []], SAMPLED, STOP)


def test_no_prompts_no_completions(model: Any) -> None:
    assert complete(model, [], SAMPLED, STOP) == []


def test_closing_stops_at_once(model: Any, shapes: list[tuple[int, int]]) -> None:
    model.train()
    steps = decode(model, PROMPTS, SAMPLED, [])
    next(steps)
    next(steps)
    assert not model.training
    steps.close()  # type: ignore[attr-defined]
    assert len(shapes) == 2
    assert model.training


def test_training_goes_on_after_decoding(model: Any) -> None:
    model.train()
    for _ in decode(model, PROMPTS, SAMPLED, STOP):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    assert model.training
    tokens = torch.tensor([[1, 2, 3]])
    model(input_ids=tokens, labels=tokens).loss.backward()
    assert all(weights.grad is not None for weights in model.parameters())


def test_ended_rows_are_dropped_from_the_batch(model: Any, shapes: list[tuple[int, int]]) -> None:
    prompts = [[3] * (CONTEXT - 2)] * 6 + [[3, 4], [5, 6]]
    complete(model, prompts, Decoding(max_new_tokens=20, temperature=0), stop=[])
    assert [rows for rows, _ in shapes] == [8] * 2 + [2] * 18
    assert [length for _, length in shapes[1:]] == [1] * 19, "after the prompt, the cache should do"


def test_prompts_of_similar_length_run_together(model: Any, shapes: list[tuple[int, int]]) -> None:
    prompts = [[3] * 20, [4], [5] * 19, [6, 7]]
    complete(model, prompts, Decoding(max_new_tokens=1, temperature=0), stop=[], batch_size=2)
    assert shapes == [(2, 2), (2, 20)]


def adapted(model: Any) -> Any:
    """The model inside LoRA adapters that change what it says."""
    from peft import LoraConfig, get_peft_model

    adapter = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, weights in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights)
    return adapter


def test_an_adapted_model_decodes_as_its_merged_weights_do(model: Any) -> None:
    greedy = Decoding(max_new_tokens=20, temperature=0)
    plain = complete(model, PROMPTS, greedy, [])
    adapter = adapted(model)
    completions = complete(adapter, PROMPTS, greedy, [])
    assert completions == complete(adapter.merge_and_unload(), PROMPTS, greedy, [])
    assert completions != plain


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_both_precisions_decode(model: Any, kind: torch.dtype) -> None:
    completions = complete(model.to(kind), PROMPTS, SAMPLED, [])
    assert [len(completion.tokens) for completion in completions] == [30] * len(PROMPTS)
    assert all(0 <= token < VOCABULARY for completion in completions for token in completion.tokens)
