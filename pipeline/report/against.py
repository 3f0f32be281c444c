"""RLHF or DPO against the SFT model that it came from: who is preferred, how far it moved, what it gained."""

import statistics
from collections.abc import Sequence
from typing import Any

from pipeline.annotator import TIE
from pipeline.chat_format import END, stop_tokens
from pipeline.inference.decoding import Completion, Decoding, complete
from pipeline.inference.divergence import divergence, next_logprobs
from pipeline.inference.models import StageModel
from pipeline.report.behaviour import Row
from pipeline.report.figures import Figure, mean, mean_share, share

SAMPLES = 4  # of each prompt
TEMPERATURE = 0.8
SECTION = "against SFT"
METHOD = (
    "Against SFT, answers to the same prompt are compared by grades given to each alone, so that asking in both orders "
    "would only repeat a comparison: it is counted once. Grades that cannot be told apart count half for each side."
)


def against_sft(
    rows: Sequence[Row], sft_rows: Sequence[Row], samples: Sequence[Sequence[Row]], sft_samples: Sequence[Sequence[Row]]
) -> list[Figure]:
    """Comparisons of answers to the same prompts, greedy and sampled.

    The simulated annotator grades each answer alone, without seeing the other. Asked in both orders it would say
    the same twice: there is no order that could sway it, so each comparison is made and counted once, and no
    agreement of two orders is claimed. People and language models that see both answers do need both orders.
    Grades within TIE of each other cannot be told apart and count half for each side.
    """
    leads = [row.grade.overall - rival.grade.overall for row, rival in zip(rows, sft_rows, strict=True)]
    sampled = [
        [won(row.grade.overall - rival.grade.overall) for row, rival in zip(group, rivals, strict=True)]
        for group, rivals in zip(samples, sft_samples, strict=True)
    ]
    found = [
        mean_share("win rate against SFT", [[won(lead)] for lead in leads], SECTION),
        share("preferred to SFT", (won(lead) == 1 for lead in leads), SECTION),
        share("cannot be told from SFT", (won(lead) == 0.5 for lead in leads), SECTION),
        mean_share(f"win rate against SFT, {SAMPLES} samples at {TEMPERATURE}", sampled, SECTION),
        mean("grade gained", leads, section=SECTION),
    ]
    gains = [
        row.reward - rival.reward
        for row, rival in zip(rows, sft_rows, strict=True)
        if row.reward is not None and rival.reward is not None
    ]
    return found + ([mean("reward gained", gains, section=SECTION)] if gains else [])


def won(lead: float) -> float:
    return 0.5 if abs(lead) <= TIE else float(lead > 0)


def sample(model: StageModel, prompts: Sequence[str]) -> list[list[Completion]]:
    """SAMPLES completions of each prompt, the seeds 0 to SAMPLES - 1."""
    encoded = [model.encode(prompt) for prompt in prompts]
    stop = stop_tokens(model.tokenizer)
    rounds = [
        complete(model.model, encoded, Decoding(temperature=TEMPERATURE, seed=seed), stop) for seed in range(SAMPLES)
    ]
    return [list(group) for group in zip(*rounds, strict=True)]


def kl_from_sft(
    policy: StageModel, sft: StageModel, prompts: Sequence[str], samples: Sequence[Sequence[Completion]]
) -> list[Figure]:
    """KL(policy || SFT) in nats an answer and a token, on the policy's own samples, at their temperature."""
    end = policy.tokenizer.convert_tokens_to_ids(END)
    sums, lengths = [], []
    for prompt, group in zip(prompts, samples, strict=True):
        written = [completion.tokens + [end] * completion.stopped for completion in group]
        ours, theirs = (
            next_logprobs(stage.model, policy.encode(prompt), written, TEMPERATURE) for stage in (policy, sft)
        )
        sums.append(statistics.fmean(divergence(ours, theirs, written)))
        lengths.append(max(1.0, statistics.fmean(map(len, written))))
    return [
        mean("KL from SFT", sums, "nats an answer", SECTION),
        mean(
            "KL from SFT a token", [nats / length for nats, length in zip(sums, lengths, strict=True)], "nats", SECTION
        ),
    ]


def curve(metrics: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """The held-out checks of an RLHF run by step: what the proxy says, what the annotator says, how far it moved."""
    names = {
        "held_out_reward": "reward",
        "held_out_grade": "grade",
        "held_out_kl": "kl",
        "held_out_win_rate": "win_rate",
        "held_out_length": "length",
    }
    return [
        {"step": record["step"]} | {short: record[name] for name, short in names.items() if name in record}
        for record in metrics
        if "held_out_reward" in record
    ]
