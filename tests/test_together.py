"""Many rows of one model together: each is what `decode` gives for it alone, whoever comes, goes or fails."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import pipeline.inference.together
from pipeline.checkpoint import Family
from pipeline.inference.cache import PlacesCache
from pipeline.inference.decoding import Decoding, decode
from pipeline.inference.llama import is_plain_llama
from pipeline.inference.models import StageModel, load_stage
from pipeline.inference.together import Row, Together, Waiting, can_share
from tests.families import random_family

VOCABULARY = 50
CONTEXT = 64
STOP = [1, 2]
PATIENCE = 120


def llama() -> Any:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def gpt2() -> Any:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT, initializer_range=0.3
    )
    return GPT2LMHeadModel(config)


@pytest.fixture(params=[llama, gpt2])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return request.param().eval()


def settings(number: int) -> Decoding:
    """Other lengths, temperatures and seeds for each row."""
    return Decoding(8 + number % 5 * 7, (0.0, 0.8, 1.2)[number % 3], (1.0, 0.9)[number % 2], seed=number)


def prompt(number: int) -> list[int]:
    return [3 + (number * 7 + place) % 40 for place in range(1 + number * 5 % 23)]


def alone(model: Any, number: int) -> list[int | None]:
    return [token for [token] in decode(model, [prompt(number)], settings(number), STOP)]


def tokens(stream: Iterator[int | Waiting]) -> list[int]:
    return [news for news in stream if not isinstance(news, Waiting)]


def all_at_once(together: Together, numbers: range) -> list[list[int]]:
    start = Barrier(len(numbers))

    def ask(number: int) -> list[int]:
        start.wait(PATIENCE)
        return tokens(together.stream(prompt(number), settings(number), STOP))

    with ThreadPoolExecutor(len(numbers)) as threads:
        return list(threads.map(ask, numbers))


@pytest.fixture
def gate(model: Any) -> Iterator[Event]:
    """Lets the model go on only while it is set."""
    gate = Event()
    hook = model.register_forward_pre_hook(lambda *_: gate.wait(PATIENCE) and None)
    yield gate
    gate.set()
    hook.remove()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every step, as they happen."""
    seen: list[int] = []
    step = Together.step

    def counted(together: Together, going: list[Row], cache: PlacesCache) -> None:
        seen.append(len(going))
        step(together, going, cache)

    monkeypatch.setattr(Together, "step", counted)
    return seen


def test_twenty_at_once_each_get_their_own(model: Any, steps: list[int]) -> None:
    together = all_at_once(Together(model), range(20))
    assert max(steps) > 5, "rows should have shared steps"
    assert together == [alone(model, number) for number in range(20)]
    assert len({tuple(row) for row in together}) == 20


def test_who_comes_later_joins_those_who_write(model: Any) -> None:
    together = Together(model)
    first = together.stream(prompt(4), settings(4), [])
    begun = [next(first) for _ in range(3)]
    second = tokens(together.stream(prompt(9), settings(9), []))
    rest = tokens(first)
    assert [*begun, *rest] == [token for [token] in decode(model, [prompt(4)], settings(4), [])]
    assert second == [token for [token] in decode(model, [prompt(9)], settings(9), [])]


def test_who_finds_no_place_waits_and_hears_where(model: Any, gate: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.inference.together, "SECONDS_BETWEEN_WORDS", 0)
    together = Together(model, rows=1)
    heard: dict[int, list[int | Waiting]] = {}
    threads = []
    for number in range(3):
        thread = Thread(
            target=lambda n: heard.update({n: list(together.stream(prompt(n), settings(n), STOP))}), args=(number,)
        )
        thread.start()
        threads.append(thread)
        # The first is at work, behind the gate; all others wait for it.
        while not (together.working and len(together.waiting) == number):
            assert thread.is_alive()
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    for number, news in heard.items():
        assert tokens(iter(news)) == alone(model, number)
    places = [[one.place for one in heard[number] if isinstance(one, Waiting)] for number in range(3)]
    assert places[0] == []
    assert set(places[1]) == {1}
    assert set(places[2]) == {1, 2}
    assert places[2] == sorted(places[2], reverse=True)


def test_closing_takes_the_row_out_and_leaves_the_others(model: Any) -> None:
    together = Together(model)
    long = Decoding(40, 0.9, seed=5)
    others = [together.stream(prompt(number), long, []) for number in range(3)]
    begun = [next(stream) for stream in others]
    others[0].close()  # type: ignore[attr-defined]
    rests = [tokens(stream) for stream in others]
    assert rests[0] == []
    for number in (1, 2):
        assert [begun[number], *rests[number]] == [t for [t] in decode(model, [prompt(number)], long, [])]
    ended(together)


def ended(together: Together) -> None:
    """Wait until the thread has nothing left to do."""
    stop = Event()
    for _ in range(PATIENCE * 100):
        if not together.working:
            return
        stop.wait(0.01)
    raise AssertionError("still working")


def test_nothing_is_computed_for_nobody(model: Any, steps: list[int]) -> None:
    together = Together(model)
    stream = together.stream(prompt(1), Decoding(60, 0.9), [])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    ended(together)
    assert len(steps) < 50
    assert tokens(together.stream(prompt(2), settings(2), STOP)) == alone(model, 2), "and the next is answered"


def test_an_error_is_raised_to_those_in_the_step_and_the_next_is_answered(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Together(model)
    stream = together.stream(prompt(3), settings(3), [])
    next(stream)

    def fail(*_: object) -> None:
        raise RuntimeError("the weights are tired")

    with monkeypatch.context() as tired:
        tired.setattr(pipeline.inference.together, "write", fail)
        with pytest.raises(RuntimeError, match="tired"):
            tokens(stream)
        with pytest.raises(RuntimeError, match="tired"):
            tokens(together.stream(prompt(1), settings(1), STOP))
    assert tokens(together.stream(prompt(1), settings(1), STOP)) == alone(model, 1)


def test_an_error_in_reading_a_prompt_spares_those_who_write(model: Any) -> None:
    together = Together(model)
    stream = together.stream(prompt(4), settings(4), [])
    begun = next(stream)

    with pytest.raises(IndexError):
        tokens(together.stream([VOCABULARY + 7], settings(1), STOP))
    assert [begun, *tokens(stream)] == [token for [token] in decode(model, [prompt(4)], settings(4), [])]


def test_the_context_is_never_exceeded(model: Any) -> None:
    together = Together(model)
    greedy = Decoding(10, temperature=0)
    assert [
        len(tokens(together.stream([7] * length, greedy, []))) for length in (CONTEXT - 4, CONTEXT, CONTEXT + 6, 2)
    ] == [4, 0, 0, 10]
    with pytest.raises(ValueError, match="at least one token"):
        tokens(together.stream([], greedy, []))


def test_a_llamas_own_step_is_only_taken_where_it_computes_the_same() -> None:
    plain = llama()
    assert is_plain_llama(plain)
    assert Together(plain).quick
    other = gpt2()
    assert not is_plain_llama(other)
    assert Together(other).quick is None
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    for change in ({"attention_bias": True}, {"mlp_bias": True}, {"hidden_act": "gelu"}):
        assert not is_plain_llama(LlamaForCausalLM(LlamaConfig(**config.to_dict() | change)))
    assert not is_plain_llama(get_peft_model(llama(), LoraConfig(target_modules="all-linear")))


def test_a_llamas_weights_are_stored_anew_but_stay_the_same() -> None:
    torch.manual_seed(0)
    model = llama().eval()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    ids = torch.tensor([prompt(7)])
    logits = model(input_ids=ids).logits
    Together(model)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name]), name
    torch.testing.assert_close(model(input_ids=ids).logits, logits)


def test_layers_that_forget_cannot_share() -> None:
    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    assert can_share(MistralForCausalLM(MistralConfig(sliding_window=None, **shape)))
    assert not can_share(MistralForCausalLM(MistralConfig(sliding_window=8, **shape)))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> StageModel:
    family: Family = random_family(Path(tmp_path_factory.mktemp("families")) / "random", ("base", "sft"))
    return load_stage(family.checkpoint("sft"))


def test_a_shared_stage_streams_what_it_streams_alone(stage: StageModel) -> None:
    shared = stage.shared()
    assert shared.together is not None
    decoding = Decoding(16, 0.9, seed=2)
    assert list(shared.stream("Zażółć gęślą jaźń", decoding)) == list(stage.stream("Zażółć gęślą jaźń", decoding))
