"""Published models: fetched from a hub made here, each answers as its own chat template and end tokens want it."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from pipeline.__main__ import main
from pipeline.checkpoint import read_json_lines, write_json_lines
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.published import PublishedStage, load_published, load_published_reward
from pipeline.inference.tokens import answer_tokens, fill, read
from pipeline.published import Place, bundled, find_family, read_family
from pipeline.recipe import REPOSITORY
from tests.hub import Hub
from tests.published import FINISH, REVISION, family_file, hub_here, save_answering, save_reward, upload

KINDS = ["llama", "qwen3", "olmo2", "gpt_neox"]
GREEDY = Decoding(max_new_tokens=20, temperature=0)
PROMPT = "What is the capital of France?"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with a model of each architecture, and a reward model."""
    folder = tmp_path_factory.mktemp("models")
    with hub_here(tmp_path_factory.mktemp("cache")) as hub:
        for seed, kind in enumerate(KINDS):
            save_answering(folder / kind, kind, seed)
            upload(hub, f"lab/{kind}", folder / kind)
        save_answering(folder / "plain", "llama", 7, template=None)
        upload(hub, "lab/plain", folder / "plain")
        save_reward(folder / "judge", "qwen3")
        upload(hub, "lab/judge", folder / "judge")
        yield hub


def at(repo: str, **more: Any) -> Place:
    return Place(repo=f"lab/{repo}", revision=REVISION, **more)


def generated(stage: PublishedStage, tokens: list[int]) -> list[int]:
    """The library's own greedy continuation, with the end token if it came to one."""
    found = stage.model.generate(torch.tensor([tokens]), max_new_tokens=GREEDY.max_new_tokens, do_sample=False)
    return found[0, len(tokens) :].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["base", "sft"])
def test_greedy_answers_are_the_librarys_own(hub: Hub, kind: str, name: str) -> None:
    stage = load_published(at(kind), name)
    messages = [{"role": "user", "content": PROMPT}]
    if name == "sft":
        tokens = stage.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    else:
        tokens = stage.tokenizer(PROMPT)["input_ids"]
    assert stage.encode(PROMPT) == tokens
    expected = generated(stage, tokens)
    assert list(answer_tokens(stage, PROMPT, GREEDY)) == expected
    # An end that the model does come to, as its generation configuration names it.
    stage.model.generation_config.eos_token_id = [expected[5]]
    ended = generated(stage, tokens)
    assert len(ended) <= 6
    text = stage.text(ended[:-1])
    for answers in ([*stage.stream(PROMPT, GREEDY)], [*stage.shared().stream(PROMPT, GREEDY)]):
        assert (answers[-1].text, answers[-1].stopped) == (text, True)
    assert stage.answers([PROMPT], GREEDY) == [answers[-1]]


@pytest.mark.parametrize(("bits", "linear", "apart"), [(4, "Linear4bit", 0.6), (8, "Linear8bitLt", 0.1)])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_rounded_if_the_family_says_so(
    hub: Hub, kind: str, bits: Literal[4, 8], linear: str, apart: float
) -> None:
    whole, rounded = load_published(at(kind), "sft"), load_published(at(kind), "sft", bits)
    kinds = [type(module).__name__ for module in rounded.model.modules() if isinstance(module, torch.nn.Linear)]
    assert set(kinds) == {linear}
    assert rounded.model.get_memory_footprint() < 0.5 * whole.model.get_memory_footprint()
    tokens = torch.tensor([whole.encode(PROMPT)])
    with torch.inference_mode():
        expected, found = (stage.model(tokens).logits[0].float() for stage in (whole, rounded))
    assert (found - expected).norm() < apart * expected.norm()
    alone, shared = ([*stage.stream(PROMPT, GREEDY)][-1] for stage in (rounded, rounded.shared()))
    assert alone.tokens > 0
    assert shared.tokens > 0


def test_the_template_gets_its_arguments(hub: Hub) -> None:
    silent, aloud = (load_published(at("llama", template={"aloud": value}), "sft") for value in (False, True))
    assert silent.given("Hi").endswith(f"Hi{FINISH}\n<|im_start|>assistant\nSilently: ")
    assert aloud.given("Hi").endswith("assistant\n")
    assert silent.encode("Hi")[: len(aloud.encode("Hi"))] == aloud.encode("Hi")


def test_base_sees_a_template_only_if_asked_and_only_if_it_has_one(hub: Hub) -> None:
    base = load_published(at("plain"), "base")
    assert base.given(PROMPT) == PROMPT
    asked = PublishedStage("base", base.model, base.tokenizer, chat_format=True)
    with pytest.raises(InputError, match="no chat template"):
        asked.encode(PROMPT)
    with pytest.raises(InputError, match="lab/plain has no chat template"):
        load_published(at("plain"), "sft")


def test_a_typed_control_token_is_refused_in_a_chat_and_plain_text_without(hub: Hub) -> None:
    sft, base = (load_published(at("qwen3"), name) for name in ("sft", "base"))
    with pytest.raises(InputError, match="control token"):
        sft.encode(f"Hi{FINISH}")
    assert base.tokenizer.convert_tokens_to_ids(FINISH) not in base.encode(f"Hi{FINISH}")


def test_rewards_are_read_at_the_end_of_the_exchange(hub: Hub) -> None:
    judge = load_published_reward(at("judge"))
    pairs = [("Why?", "Because."), (PROMPT, "Paris is the capital of France, and always was."), ("Why?", "")]
    alone = [judge.scores([pair])[0] for pair in pairs]
    assert judge.scores(pairs) == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) == 3
    cut = judge.encode("Why?", "Because.", finished=False)
    whole = judge.encode("Why?", "Because.")
    assert whole[: len(cut)] == cut
    assert judge.tokenizer.decode(whole[len(cut) :]).startswith(FINISH)


def test_tokens_of_published_models_are_read(hub: Hub) -> None:
    models = {name: load_published(at("llama"), name) for name in ("base", "sft")}
    answer = [*answer_tokens(models["sft"], PROMPT, GREEDY)][:3] + models["sft"].stop[-1:]
    reading = read(models, "sft", PROMPT, answer)
    assert reading.before == "base"
    assert (reading.tokens[-1].text, reading.tokens[-1].kind) == (FINISH, "control")
    assert fill(models["base"], "The capital of France is ___.")


@pytest.mark.parametrize(
    ("repo", "said"),
    [("lab/none", "no such repository, or it is private"), ("not a name", "is no name of a repository")],
)
def test_a_missing_model_is_one_clear_line(hub: Hub, repo: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_published(Place(repo=repo, revision=REVISION), "sft")


def test_a_model_behind_terms_says_what_to_do(hub: Hub, tmp_path: Path) -> None:
    upload(hub, "lab/gated", tmp_path).settings["gated"] = True
    with pytest.raises(InputError, match="wants its terms accepted"):
        load_published(at("gated"), "sft")


def test_only_safetensors_are_fetched_and_only_known_code_runs(hub: Hub, tmp_path: Path) -> None:
    save_answering(tmp_path / "model", "llama", 0)
    repository = upload(hub, "lab/mixed", tmp_path / "model")
    repository.files |= {"pytorch_model.bin": b"x", "modeling.py": b"x", "onnx/model.safetensors": b"x"}
    load_published(at("mixed"), "sft")
    fetched = {request.rpartition("/")[2] for request in hub.requests if "/lab/mixed/resolve/" in request}
    assert "model.safetensors" in fetched
    assert not fetched & {"pytorch_model.bin", "modeling.py"}
    assert "onnx" not in " ".join(hub.requests)
    files = dict(repository.files)
    custom = files["config.json"].replace(b'"llama"', b'"custom"')
    custom = custom.replace(b"{", b'{"auto_map": {"AutoConfig": "modeling.Config"}, ', 1)
    upload(hub, "lab/custom", tmp_path / "model").files["config.json"] = custom
    with pytest.raises(InputError, match="lab/custom cannot be loaded"):
        load_published(at("custom"), "sft")
    damaged = upload(hub, "lab/damaged", tmp_path / "model")
    damaged.files["model.safetensors"] = b"\xff" * 8 + files["model.safetensors"]
    with pytest.raises(InputError, match="no safetensors file"):
        load_published(at("damaged"), "sft")


def test_a_language_model_is_no_reward_model(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="another kind of model"):
        load_published_reward(at("llama"))
    save_reward(tmp_path / "classes", "llama", labels=3)
    upload(hub, "lab/classes", tmp_path / "classes")
    with pytest.raises(InputError, match="gives 3 numbers"):
        load_published_reward(at("classes"))


def test_the_command_line_fetches_once_and_leaves_out_what_has_no_safetensors(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {"base": "llama", "sft": "pickled", "dpo": "olmo2", "reward": "judge"}
    named = {stage: {"repo": f"lab/{repo}", "revision": REVISION} for stage, repo in stages.items()}
    family = str(family_file(tmp_path / "lab.yaml", named))
    upload(hub, "lab/pickled", tmp_path).files = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    write_json_lines(prompts, [{"id": 1, "prompt": PROMPT, "response": "Paris."}])
    greedy = ["--family", family, "--temperature", "0", "--max-new-tokens", "8"]

    assert main(["compare", *greedy, "--prompts", str(prompts), "--out", str(out)]) == 0
    assert "sft is left out: lab/pickled has no safetensors" in capsys.readouterr().err
    [record] = read_json_lines(out)
    assert list(record["answers"]) == ["base", "dpo"]
    expected = load_published(at("olmo2"), "dpo").answers([PROMPT], Decoding(8, 0))[0]
    answer = record["answers"]["dpo"]
    assert (answer["text"], answer["tokens"], answer["stopped"]) == (expected.text, expected.tokens, expected.stopped)
    judge = load_published_reward(at("judge"))
    assert answer["reward"] == pytest.approx(judge.scores([(PROMPT, expected.text)], [expected.stopped])[0], abs=1e-4)

    asked = len(hub.requests)
    monkeypatch.setattr("sys.stdin", StringIO(f"{PROMPT}\n"))
    assert main(["chat", *greedy]) == 0
    said = capsys.readouterr().out
    assert "Talk to the dpo stage" in said
    assert expected.text.strip() in said
    assert main(["score", "--family", family, "--in", str(prompts), "--out", str(out)]) == 0
    assert read_json_lines(out)[0]["reward"] == pytest.approx(judge.scores([(PROMPT, "Paris.")])[0], abs=1e-4)
    assert len(hub.requests) == asked
    assert main(["report", "--family", family]) == 2
    assert "was trained elsewhere" in capsys.readouterr().err
    assert main(["chat", "--family", family, "--stage", "rlhf"]) == 2
    assert "has no rlhf model; it has base, sft, dpo, reward" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({}, "no stage that answers"),
        ({"sft": {"repo": "a/b"}}, "wants a 'revision'"),
        ({"sft": {"repo": "a/b", "revision": "main", "endpoint": "http://x/v1"}}, "exactly one of"),
        ({"sft": {"endpoint": "http://x/v1"}}, "wants a 'model'"),
        ({"sft": {"endpoint": "ftp://x", "model": "m"}}, "key 'stages.sft.endpoint'"),
        ({"sft": {"repo": "a/b", "revison": "main"}}, "unknown key 'stages.sft.revison'"),
        ({"rl": {"repo": "a/b", "revision": "main"}}, "key 'stages.rl"),
        (
            {"reward": {"endpoint": "http://x/v1", "model": "m"}, "sft": {"endpoint": "http://x/v1", "model": "m"}},
            "Hub",
        ),
    ],
)
def test_a_family_file_that_cannot_be_used_is_one_clear_line(
    tmp_path: Path, stages: dict[str, dict[str, Any]], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_family(family_file(tmp_path / "bad.yaml", stages))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_token_in_a_family_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    stages = {"sft": {"endpoint": "http://x/v1", "model": "m", "token": "hf_secret"}}
    with pytest.raises(InputError, match="never the token") as caught:
        read_family(family_file(tmp_path / "bad.yaml", stages))
    assert "secret" not in str(caught.value)


def test_the_readmes_family_file_is_one(tmp_path: Path) -> None:
    _, example = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("```yaml\n")
    (tmp_path / "ours.yaml").write_text(example.split("```")[0], encoding="utf-8")
    assert read_family(tmp_path / "ours.yaml").answering == ["base", "rlhf"]


def test_the_bundled_families_name_models_and_revisions() -> None:
    assert bundled() == ["olmo2-1b", "qwen3-0.6b", "smollm2-135m", "smollm2-360m"]
    for name in bundled():
        family = find_family(name)
        assert family.name == name
    with pytest.raises(InputError, match="no family file"):
        find_family("nowhere.yaml")
