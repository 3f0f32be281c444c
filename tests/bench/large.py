"""What three columns of a model with 1.5 billion parameters take in 4 bits: `python -m tests.bench.large`.

The weights are random, of the shape of OLMo 2 1B; they are saved once, loaded once for each column, and write at the
same time, as on the page. Needs 3 GB of disk and as much memory for the saving.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from tests.bench.figures import Measured, table

SHAPE = {
    "vocab_size": 100352,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
COLUMNS = ("base", "sft", "rlhf")
PROMPT = "What is the capital of France?"


def save(folder: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.published import chat_tokenizer

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("olmo2", **SHAPE), dtype=torch.bfloat16)
    model.generation_config.eos_token_id = [0]
    model.save_pretrained(folder, max_shard_size="500MB")
    chat_tokenizer().save_pretrained(folder)


def serve(folder: str, bits: int, tokens: int, told: "multiprocessing.Queue[dict[str, float]]") -> None:
    """Load and answer in a process of its own, whose memory is then that of the page's models."""
    from transformers import AutoModelForCausalLM

    from pipeline.inference.decoding import Decoding
    from pipeline.inference.models import load, side_by_side
    from pipeline.inference.published import PublishedStage, rounded

    start = time.monotonic()
    models = {}
    for stage in COLUMNS:
        model, tokenizer = load(AutoModelForCausalLM, Path(folder), **rounded(Path(folder), bits))  # type: ignore[arg-type]
        models[stage] = PublishedStage(stage, model, tokenizer)
    loaded = time.monotonic()
    last = dict.fromkeys(COLUMNS, 0)
    for stage, answer in side_by_side(models, PROMPT, Decoding(tokens, temperature=0)):
        last[stage] = answer.tokens if answer else last[stage]
    told.put(
        {
            "parameters": model.num_parameters(),
            "loading": loaded - start,
            "tokens per second": sum(last.values()) / (time.monotonic() - loaded),
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        }
    )


def measure(bits: int, tokens: int) -> list[Measured]:
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        saving = processes.Process(target=save, args=(folder,))
        saving.start()
        saving.join()
        told: multiprocessing.Queue[dict[str, float]] = processes.Queue()
        serving = processes.Process(target=serve, args=(folder, bits, tokens, told))
        serving.start()
        found = told.get()
        serving.join()
    return [
        Measured("parameters of each of three models", found["parameters"]),
        Measured("bits", bits),
        Measured("peak of the process's memory", found["peak"], "GB", at_most=4 if bits == 4 else None),
        Measured("loading the three", found["loading"], "s"),
        Measured("three columns together", found["tokens per second"], "tokens/s"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a large family.")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4)
    parser.add_argument("--tokens", type=int, default=16, help="that each column writes")
    options = parser.parse_args()
    print(table("A large family", measure(options.bits, options.tokens)))


if __name__ == "__main__":
    main()
