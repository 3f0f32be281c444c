"""Best of n: several answers to one prompt, and the reward model to choose among them. Nothing is trained."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.inference.decoding import Decoding, decode, ended
from pipeline.inference.models import Answer, RewardModel, StageModel

# Seeds of one drawing follow each other; those of the next seed must be others.
SEEDS_APART = 1000


@dataclass(frozen=True)
class Sample:
    """An answer, its reward, and how many of the rows said just this."""

    answer: Answer
    reward: float
    times: int


@dataclass(frozen=True)
class Drawing:
    """n answers of one stage to a prompt on their way: tokens of the longest, rows that have ended, and the samples.

    `samples` stand best first, and together count n; there are none before the last step.
    """

    stage: str
    prompt: str
    count: int
    tokens: int = 0
    ended: int = 0
    samples: tuple[Sample, ...] = ()

    @property
    def mean(self) -> float:
        """Mean reward of the n answers."""
        return sum(sample.reward * sample.times for sample in self.samples) / self.count


def draw(model: StageModel, reward: RewardModel, prompt: str, decoding: Decoding, count: int) -> Iterator[Drawing]:
    """Sample `count` answers to one prompt in one batch and rank them by reward, a drawing a step.

    Best-of-n sampling as in Stiennon et al. 2020 (arXiv:2009.01325). Row i is what the model says alone with
    the seed `SEEDS_APART * decoding.seed + i`: a larger count adds answers and changes none.
    Raises InputError for an empty or too long prompt.
    """
    stop = model.stop
    seeds = [SEEDS_APART * decoding.seed + number for number in range(count)]
    written: list[list[int]] = [[] for _ in seeds]
    drawing = Drawing(model.stage, prompt, count)
    for step, news in enumerate(decode(model.model, [model.encode(prompt)] * count, decoding, stop, seeds), 1):
        for tokens, token in zip(written, news, strict=True):
            if token is not None:
                tokens.append(token)
        drawing = replace(drawing, tokens=step, ended=news.count(None))
        yield drawing
    answers = Counter(model.answer(ended(tokens, stop)) for tokens in written)
    rewards = reward.scores([(prompt, answer.text) for answer in answers], [answer.stopped for answer in answers])
    samples = [Sample(answer, value, answers[answer]) for answer, value in zip(answers, rewards, strict=True)]
    samples.sort(key=lambda sample: sample.reward, reverse=True)
    yield replace(drawing, ended=count, samples=tuple(samples))


def divergence_bound(count: int) -> float:
    """How far best of n can stray from the model it draws from: at most log n - (n - 1)/n nats of KL divergence.

    Stiennon et al. 2020 (arXiv:2009.01325) give the formula, Beirami et al. 2024 (arXiv:2401.01879) show that
    it is an upper bound.
    """
    return math.log(count) - (count - 1) / count
