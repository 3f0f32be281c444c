"""The time line: real adapters over a model of random weights."""

import threading
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pipeline.checkpoint import Family
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import StageModel, load_stage
from pipeline.inference.snapshots import TimeLine
from tests.families import SNAPSHOTS, STEPS, add_past, random_family

GREEDY = Decoding(max_new_tokens=64, temperature=0)
PROMPT = "What is the capital of France?"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    family = random_family(tmp_path_factory.mktemp("families") / "past")
    add_past(family)
    return family


@pytest.fixture
def time_line(family: Family) -> TimeLine:
    return TimeLine(family, load_stage(family.checkpoint("sft")), load_stage(family.checkpoint("rlhf")))


def direct(family: Family, tokenizer: object, step: int) -> str:
    """The answer of SFT with the adapter of a step, put together with peft alone."""
    sft = AutoModelForCausalLM.from_pretrained(family.path / "sft", dtype="float32")
    policy = PeftModel.from_pretrained(sft, family.path / "rlhf" / "snapshots" / f"step-{step:04d}").eval()
    return StageModel("rlhf", policy, tokenizer).answers([PROMPT], GREEDY)[0].text


def test_it_goes_from_sft_over_the_snapshots_to_rlhf(family: Family, time_line: TimeLine) -> None:
    assert time_line.steps == [0, *SNAPSHOTS]
    answers = [time_line.model(step).answers([PROMPT], GREEDY)[0].text for step in time_line.steps]
    assert answers[0] == load_stage(family.checkpoint("sft")).answers([PROMPT], GREEDY)[0].text
    assert answers[-1] == load_stage(family.checkpoint("rlhf")).answers([PROMPT], GREEDY)[0].text
    tokenizer = time_line.model(0).tokenizer
    assert answers[1:-1] == [direct(family, tokenizer, step) for step in SNAPSHOTS[:-1]]
    assert len(set(answers)) == len(answers)


def test_snapshots_share_the_weights_of_sft_and_leave_it_alone(time_line: TimeLine) -> None:
    sft = time_line.model(0).model
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in sft.named_parameters()}
    snapshot = time_line.model(SNAPSHOTS[0]).model
    time_line.model(SNAPSHOTS[0]).answers([PROMPT], GREEDY)
    assert type(sft).__name__ == "LlamaForCausalLM"
    for name, weight in sft.named_parameters():
        place, value = before.pop(name)
        assert weight.requires_grad
        assert weight.data_ptr() == place
        assert torch.equal(weight, value)
    assert not before
    shared = {weight.data_ptr() for weight in sft.parameters()}
    own = [name for name, weight in snapshot.named_parameters() if weight.data_ptr() not in shared]
    assert own
    assert all("lora_" in name for name in own)


def test_all_steps_may_answer_at_the_same_time(time_line: TimeLine) -> None:
    alone = {step: time_line.model(step).answers([PROMPT], GREEDY)[0].text for step in time_line.steps}
    fresh = TimeLine(time_line.family, time_line.models[0], time_line.models[time_line.last])
    together: dict[int, str] = {}

    def answer(step: int) -> None:
        together[step] = fresh.model(step).answers([PROMPT], GREEDY)[0].text

    threads = [threading.Thread(target=answer, args=(step,)) for step in fresh.steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_a_step_that_was_not_kept_is_a_message(time_line: TimeLine) -> None:
    with pytest.raises(InputError, match="no snapshot of step 15"):
        time_line.model(15)


def test_an_altered_snapshot_is_refused(tmp_path: Path) -> None:
    family = random_family(tmp_path / "past")
    add_past(family)
    time_line = TimeLine(family, load_stage(family.checkpoint("sft")), load_stage(family.checkpoint("rlhf")))
    weights = family.path / "rlhf" / "snapshots" / f"step-{SNAPSHOTS[0]:04d}" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(InputError, match="truncated or altered"):
        time_line.model(SNAPSHOTS[0])


def test_without_snapshots_there_are_the_two_ends(tmp_path: Path) -> None:
    family = random_family(tmp_path / "bare", ("sft", "rlhf"))
    add_past(family, [])
    time_line = TimeLine(family, load_stage(family.checkpoint("sft")), load_stage(family.checkpoint("rlhf")))
    assert time_line.steps == [0, STEPS]
