"""The page as a static site: the models of a family run in the visitor's browser, and nothing has to serve them.

Imported late: it needs torch.
"""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from pipeline.checkpoint import Family, sha256, writing
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import LONGEST_PROMPT, SHORTEST_ROOM, context_length, load
from pipeline.publish.graph import HEAD, has_graph, llama_graph
from pipeline.publish.hub import clear_errors, upload
from pipeline.recipe import REPOSITORY

STAGES = ("base", "sft", "rlhf", "reward")
SITE = Path(__file__).parent / "site"
# As they are; the style sheets are those of the page of `app.py`.
COPIED = (
    *(SITE / name for name in ("index.html", "scheme.js", "site.css")),
    *(REPOSITORY / "assets" / name for name in ("style/frame.css", "style/compare.css", "icon.svg")),
    REPOSITORY / "LICENSE",
)
PROGRAMS = ("*.js", "package.json", "package-lock.json", ".npmrc")
# onnxruntime for a processor, and for a graphics card: a visitor loads one of them.
RUNTIMES = {"wasm": "ort-wasm-simd-threaded.wasm", "webgpu": "ort-wasm-simd-threaded.asyncify.wasm"}
SERVICE_WORKER = "offline.js"
# What the service worker keeps at once; the others are kept as they are loaded.
SMALL = (".html", ".js", ".css", ".svg", ".json")
LARGE = (".onnx", ".wasm")
TOKENIZER = "tokenizer.json"
USUAL_SCALE = (-4.0, 4.0)  # of a reward checkpoint that does not name its own
LONGEST_REASON = 300  # characters of what npm says
CARD = """\
---
title: Stagewise in your browser
emoji: 📈
colorFrom: gray
colorTo: yellow
sdk: static
app_file: index.html
short_description: A language model at every stage of its training
license: apache-2.0
tags: [rlhf, education, reward-model, webgpu, onnx]
---

# Stagewise in your browser

One prompt, answered side by side by the stages of the {name} family, one small language model: base, SFT and RLHF;
the reward model scores the answers. All four run in the visitor's browser. Serve this folder with any static server,
such as `python -m http.server`, or a static Space. `python -m pipeline publish web` made it.

These are research models for teaching: their answers are not advice, and base and SFT can say wrong or unpleasant
things.
"""


def publish_web(family: Family, out: Path, bits: int) -> int:
    """Write the site into the folder `out`, whole or not at all. Returns how many bytes a visitor loads.

    Raises InputError for an output that is in use, for missing or damaged stages, for models that have no graph,
    and if node or npm is missing or fails.
    """
    check_output(out)
    check_tools()
    models = read_models(family)
    with writing(out.absolute()) as folder:
        for stage, model in models.items():
            (folder / f"{stage}.onnx").write_bytes(llama_graph(model, bits).SerializeToString())
        for file in COPIED:
            shutil.copy(file, folder)
        build(folder)
        (folder / "README.md").write_text(CARD.format(name=family.name), encoding="utf-8")
        describe(folder, family, models)
        loaded = [file for file in folder.iterdir() if file.name not in (RUNTIMES["webgpu"], "README.md", "LICENSE")]
        return sum(file.stat().st_size for file in loaded)


def site_files(site: Path) -> dict[str, Path]:
    """What a static Space needs, by its name there."""
    return {file.name: file for file in site.iterdir()}


def upload_web(site: Path, repo: str, private: bool) -> str:
    """Make a site the only files of a static Space. Returns its address. Raises InputError for what the Hub refuses."""
    with clear_errors(repo):
        return upload(repo, "space", site_files(site), "The page as a static site", private, space_sdk="static")


def check_output(out: Path) -> None:
    """Raise InputError for an output that holds something: before the work, and not after it."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} is there already and not an empty folder; name a new one")


def check_tools() -> None:
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise InputError(f"no command {tool!r}: install Node.js 18 or later, which has both node and npm")


def read_models(family: Family) -> dict[str, Any]:
    """The models of the four stages, each verified, with the weights that were trained."""
    missing = [stage for stage in STAGES if not family.has(stage)]
    if missing:
        raise InputError(f"{family.path} has no finished {missing[0]} stage; the page needs {', '.join(STAGES)}")
    checkpoints = {stage: family.checkpoint(stage) for stage in STAGES}
    if len({checkpoint.record["files"].get(TOKENIZER) for checkpoint in checkpoints.values()}) > 1:
        raise InputError(f"the stages of {family.path} differ in {TOKENIZER}; the page needs one for all")
    models = {}
    for stage, checkpoint in checkpoints.items():
        kind = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
        model, _ = load(kind, checkpoint.path, torch.float32)
        if not has_graph(model):
            raise InputError(
                f"{checkpoint.path} cannot run in a browser: only plain Llamas can, with heads that are a multiple of "
                f"{HEAD} wide; train the family anew with such a shape"
            )
        models[stage] = model.cpu()
    return models


def build(folder: Path) -> None:
    """Bundle the page's programs with what they need from npm, and put onnxruntime beside them."""
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        for file in (file for pattern in PROGRAMS for file in SITE.glob(pattern)):
            shutil.copy(file, place)
        npm(place, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
        npm(place, "run", "build", "--", f"--outdir={folder}")
        for runtime in RUNTIMES.values():
            shutil.copy(place / "node_modules" / "onnxruntime-web" / "dist" / runtime, folder)


def npm(place: Path, *words: str) -> None:
    result = subprocess.run(["npm", *words], cwd=place, capture_output=True, text=True)
    if result.returncode != 0:
        said = " ".join((result.stderr or result.stdout).split())
        raise InputError(f"npm {words[0]} failed, see whether its registry can be reached: {said[:LONGEST_REASON]}")


def describe(folder: Path, family: Family, models: dict[str, Any]) -> None:
    """Write what the page must know of the family, and the service worker, which knows the files of this version."""
    shutil.copy(family.path / "base" / TOKENIZER, folder)
    files = {file.name: file for file in sorted(folder.iterdir())}
    reward = family.checkpoint("reward").figures
    context = min(context_length(model) for model in models.values())
    settings = {
        "name": family.name,
        "parameters": models["base"].num_parameters(),
        "context": context,
        "limit": Decoding.max_new_tokens,
        "promptLimit": min(LONGEST_PROMPT, 2 * context),
        "shortestRoom": SHORTEST_ROOM,
        "scale": reward.get("scale", USUAL_SCALE),
        "offset": reward.get("offset", 0.0),
        "presets": yaml.safe_load((REPOSITORY / "assets" / "prompts.yaml").read_text(encoding="utf-8")),
        "runtimes": RUNTIMES,
        "files": {name: file.stat().st_size for name, file in files.items() if file.suffix in LARGE},
    }
    told = json.dumps([settings, {name: sha256(file) for name, file in files.items()}])
    version = hashlib.sha256(told.encode()).hexdigest()[:16]
    (folder / "family.json").write_text(json.dumps(settings | {"version": version}), encoding="utf-8")
    small = ["./", *(file.name for file in sorted(folder.iterdir()) if file.suffix in SMALL)]
    head = f"const VERSION = {json.dumps(version)};\nconst SMALL = {json.dumps(small)};\n"
    program = (SITE / SERVICE_WORKER).read_text(encoding="utf-8")
    (folder / SERVICE_WORKER).write_text(head + program, encoding="utf-8")
