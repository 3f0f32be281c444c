"""Best of n: the same rows as alone, ranked; and edits of an answer with their rewards."""

import math

import pytest

from pipeline.checkpoint import Family
from pipeline.errors import InputError
from pipeline.inference.best_of import SEEDS_APART, Drawing, divergence_bound, draw
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer, RewardModel, StageModel, load_reward, load_stage
from pipeline.inference.what_if import EDITS, Exchange, rewards
from tests.families import random_family

PROMPT = "What is the capital of France?"
DECODING = Decoding(max_new_tokens=12, temperature=1.0, seed=3)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return random_family(tmp_path_factory.mktemp("families") / "random", ("sft", "reward"))


@pytest.fixture(scope="module")
def sft(family: Family) -> StageModel:
    return load_stage(family.checkpoint("sft"))


@pytest.fixture(scope="module")
def reward(family: Family) -> RewardModel:
    return load_reward(family.checkpoint("reward"))


def last(sft: StageModel, reward: RewardModel, decoding: Decoding, count: int) -> Drawing:
    *_, drawing = draw(sft, reward, PROMPT, decoding, count)
    return drawing


def answers(drawing: Drawing) -> set[Answer]:
    return {sample.answer for sample in drawing.samples}


def test_each_row_is_what_the_model_says_alone_with_its_seed(sft: StageModel, reward: RewardModel) -> None:
    alone = [
        sft.answers([PROMPT], Decoding(max_new_tokens=12, temperature=1.0, seed=3 * SEEDS_APART + number))[0]
        for number in range(6)
    ]
    assert len(set(alone)) == 6
    assert answers(last(sft, reward, DECODING, 6)) == set(alone)


def test_more_rows_add_answers_and_another_seed_brings_others(sft: StageModel, reward: RewardModel) -> None:
    six = last(sft, reward, DECODING, 6)
    assert six == last(sft, reward, DECODING, 6)
    assert answers(six) < answers(last(sft, reward, DECODING, 8))
    other = last(sft, reward, Decoding(max_new_tokens=12, temperature=1.0, seed=4), 8)
    assert not answers(six) & answers(other)


def test_samples_stand_best_first_with_the_reward_model_s_scores(sft: StageModel, reward: RewardModel) -> None:
    drawing = last(sft, reward, DECODING, 6)
    found = [sample.reward for sample in drawing.samples]
    assert found == sorted(found, reverse=True)
    assert found[0] > found[-1]
    pairs = [(PROMPT, sample.answer.text) for sample in drawing.samples]
    assert found == pytest.approx(reward.scores(pairs, [sample.answer.stopped for sample in drawing.samples]), abs=1e-5)
    assert drawing.mean == pytest.approx(sum(found) / 6)


def test_identical_answers_are_one_sample(sft: StageModel, reward: RewardModel) -> None:
    drawing = last(sft, reward, Decoding(max_new_tokens=12, temperature=0), 5)
    [sample] = drawing.samples
    assert sample.times == 5
    assert drawing.mean == pytest.approx(sample.reward)


def test_every_step_says_how_far_it_is(sft: StageModel, reward: RewardModel) -> None:
    *steps, end = draw(sft, reward, PROMPT, DECODING, 4)
    assert [step.tokens for step in steps] == list(range(1, len(steps) + 1))
    assert not any(step.samples for step in steps)
    assert (end.ended, sum(sample.times for sample in end.samples)) == (4, 4)


def test_the_bound_of_the_divergence() -> None:
    assert divergence_bound(1) == 0
    assert divergence_bound(16) == pytest.approx(math.log(16) - 15 / 16)


def test_what_an_edit_makes_of_an_answer() -> None:
    exchange = Exchange(PROMPT, "It is Paris.")
    edited = {name: edit(exchange) for name, edit in EDITS.items()}
    assert edited["Twice as long"].answer == "It is Paris. It is Paris."
    assert edited["Begin with Sorry"].answer == "Sorry. It is Paris."
    assert edited["Begin with No"].answer == "No. It is Paris."
    assert edited["Leave out the end"] == Exchange(PROMPT, "It is", finished=False)
    assert edited["SHOUT it"].answer == "IT IS PARIS."
    assert all(one.prompt == PROMPT and one != exchange for one in edited.values())


def test_an_unfinished_answer_is_scored_as_such(reward: RewardModel) -> None:
    whole, cut = rewards(reward, [Exchange(PROMPT, "It is Paris."), Exchange(PROMPT, "It is Paris.", finished=False)])
    expected = reward.scores([(PROMPT, "It is Paris.")] * 2, [True, False])
    assert [whole, cut] == pytest.approx(expected)
    assert whole != pytest.approx(cut)


@pytest.mark.parametrize(
    ("exchange", "message"),
    [(Exchange("  ", "Paris"), "empty"), (Exchange(PROMPT, "Paris " * 200), "tokens together")],
)
def test_what_the_reward_model_cannot_read_whole_is_refused(
    reward: RewardModel, exchange: Exchange, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rewards(reward, [Exchange(PROMPT, "fine"), exchange])
