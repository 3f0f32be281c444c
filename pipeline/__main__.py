"""The command line: one subcommand a step."""

import argparse
import errno
import json
import os
import sys
import warnings
from collections import Counter
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.checkpoint import ANSWERING, STAGES, Family, open_family, write_json_lines
from pipeline.corpus.cards import load_corpus
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.published import PublishedFamily, find_family, trained
from pipeline.recipe import REPOSITORY, Recipe, load_recipe
from pipeline.run import PURPOSE, run_all, run_stage, sole_run, stages_until

# What a failed write is called. Libraries wrap the system's error in their own kinds and keep its text; torch
# says only where in the file it failed.
DISK_FULL = (
    *map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)),
    "PytorchStreamWriter failed writing",
    "unexpected pos",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand. Returns the exit code: 0, 2 for input that cannot be used, 130 when interrupted."""
    options = parser().parse_args(arguments)
    quieten()
    try:
        options.run(options)
    except InputError as error:
        print(f"stagewise: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stagewise: interrupted; the same command goes on from the last save", file=sys.stderr)
        return 130
    except Exception as error:
        if not any(sign in str(error) for sign in DISK_FULL):
            raise
        reason = " ".join(str(error).split())
        print(f"stagewise: error: disk full ({reason}); make room and run the same command again", file=sys.stderr)
        return 2
    return 0


def quieten() -> None:
    """Let the libraries' own bars and advice not hide ours. Has an effect only before they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)


def parser() -> argparse.ArgumentParser:
    """The subcommands and their options; each leaves its function in `run`."""
    training = argparse.ArgumentParser(add_help=False)
    training.add_argument("--recipe", metavar="NAME", help="a bundled recipe, or a .yaml file")
    training.add_argument("--out", type=Path, metavar="DIR", help="the family's folder (default: checkpoints/NAME)")
    training.add_argument("--authored-only", action="store_true", help="leave out the recipe's real text")
    family = argparse.ArgumentParser(add_help=False)
    where = "a folder, hub:OWNER/NAME, a published family or its .yaml (default: %(default)s)"
    family.add_argument("--family", default="checkpoints/tiny", metavar="DIR", help=where)
    decoding = argparse.ArgumentParser(add_help=False)
    decoding.add_argument("--seed", type=int, default=0, metavar="N")
    decoding.add_argument("--temperature", type=at_least_zero, default=0.7, metavar="T", help="0 is greedy")
    decoding.add_argument("--max-new-tokens", type=positive, default=96, metavar="N")

    whole = argparse.ArgumentParser(prog="stagewise", description="One language model, caught at every stage.")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    corpus = commands.add_parser("corpus", help="check, clean or build the training text")
    steps = corpus.add_subparsers(required=True, metavar="STEP")
    step = steps.add_parser("check", help="check the authored text; name file, line and field of what is wrong")
    step.add_argument("--recipe", default="tiny", metavar="NAME", help="whose corpus (default: %(default)s)")
    step.add_argument("files", nargs="*", type=Path, metavar="FILE", help="check these card files alone")
    step.set_defaults(run=check_corpus)
    step = steps.add_parser("convert", help="turn cards in the guide's line format into JSON Lines")
    step.add_argument("out", type=Path, metavar="OUT.jsonl")
    step.add_argument("files", nargs="+", type=Path, metavar="FILE")
    step.set_defaults(run=convert_cards)
    step = steps.add_parser("clean", parents=[training], help="filter the real text and show what was removed")
    step.set_defaults(run=clean_corpus)
    step = steps.add_parser("build", parents=[training], help="write out what the stages will be trained on")
    step.set_defaults(run=build_corpus)

    command = commands.add_parser("run", parents=[training], help="train every stage; goes on where it stopped")
    command.add_argument("--until", choices=STAGES, metavar="STAGE", help=f"last stage: {', '.join(STAGES)}")
    command.add_argument("--dry-run", action="store_true", help="say what it would download and take, and stop")
    command.set_defaults(run=run)
    for stage in STAGES:
        command = commands.add_parser(stage, parents=[training], help=f"this stage alone: {PURPOSE[stage]}")
        command.set_defaults(run=run_one, stage=stage)
        if stage in ("reward", "rlhf"):
            room = command.add_argument_group("people in the loop: an adapter on a trained family, in --out DIR")
            room.add_argument("--family", default="checkpoints/tiny", metavar="DIR", help="default: %(default)s")
        if stage == "reward":
            room.add_argument("--labels", type=Path, metavar="FILE.jsonl", help="retrain on these votes")
        if stage == "rlhf":
            room.add_argument("--reward", type=Path, metavar="DIR", help="move the policy by this reward adapter")
            room.add_argument("--steps", type=positive, default=30, metavar="N", help="default: %(default)s")
            room.add_argument("--start", choices=("sft", "rlhf"), default="sft", help="default: %(default)s")
            room.add_argument("--kl", type=at_least_zero, default=0.05, metavar="X", help="0 lets go (default: 0.05)")
            room.add_argument("--prompts", type=Path, metavar="FILE.jsonl", help="train on these; else the presets")

    command = commands.add_parser("compare", parents=[family, decoding], help="answer prompts with every stage")
    command.add_argument("--prompts", type=Path, required=True, metavar="FILE.jsonl")
    command.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl")
    command.set_defaults(run=compare)
    command = commands.add_parser("score", parents=[family], help="score answers with the reward model")
    command.add_argument("--in", type=Path, required=True, metavar="FILE.jsonl", dest="answers")
    command.add_argument("--out", type=Path, required=True, metavar="OUT.jsonl")
    command.set_defaults(run=score)
    command = commands.add_parser("report", parents=[family], help="measure every stage on held-out prompts")
    command.add_argument(
        "--prompts", type=positive, default=20, metavar="N", help="of each kind and split (default: 20)"
    )
    command.add_argument(
        "--eight-bits", action="store_true", help="write nothing; print what `publish web --bits 8` changes"
    )
    command.set_defaults(run=report)
    publish = commands.add_parser("publish", help="upload to the Hugging Face Hub, or write a static site")
    kinds = publish.add_subparsers(required=True, metavar="WHAT")
    target = argparse.ArgumentParser(add_help=False)
    target.add_argument("--repo", required=True, metavar="OWNER/NAME")
    target.add_argument("--private", action="store_true", help="if the repository is made now")
    kind = kinds.add_parser("models", parents=[family, target], help="the checkpoints, one folder a stage")
    kind.set_defaults(run=publish_family)
    kind = kinds.add_parser("corpus", parents=[target], help="the authored topic cards and prompts, as a dataset")
    kind.set_defaults(run=publish_corpus)
    kind = kinds.add_parser("rankings", parents=[family, target], help="a family's ranked answers, as a dataset")
    kind.set_defaults(run=publish_rankings)
    kind = kinds.add_parser("votes", help="what the people in a room ranked, without their names, as a dataset")
    kind.add_argument("--repo", required=True, metavar="OWNER/NAME")
    kind.add_argument("--rooms", type=Path, required=True, metavar="DIR", help="where `app.py --rooms` keeps them")
    kind.add_argument("--room", required=True, metavar="NAME")
    kind.add_argument("--public", action="store_true", help="else it is private if it is made now")
    kind.set_defaults(run=publish_votes)
    kind = kinds.add_parser("space", parents=[family, target], help="the page with its family, as a Space")
    kind.add_argument("--hardware", metavar="NAME", help="such as zero-a10g; else what the Space has")
    kind.add_argument("--dry-run", action="store_true", help="list what would be uploaded, and how large it is")
    kind.set_defaults(run=publish_page)
    kind = kinds.add_parser("web", parents=[family], help="the page as a static site: the models run in the browser")
    place = kind.add_mutually_exclusive_group(required=True)
    place.add_argument("--out", type=Path, metavar="DIR", help="write it into a new or an empty folder")
    place.add_argument("--repo", metavar="OWNER/NAME", help="or make it a static Space")
    kind.add_argument("--private", action="store_true", help="if the Space is made now")
    kind.add_argument("--dry-run", action="store_true", help="list what the Space would get, and how large it is")
    kind.add_argument("--bits", type=int, choices=(8, 32), default=8, help="of a weight (default: %(default)s)")
    kind.set_defaults(run=publish_static)

    command = commands.add_parser("chat", parents=[family, decoding], help="talk to one stage")
    command.add_argument("--stage", choices=ANSWERING, metavar="STAGE", help="default: the last of the family")
    command.set_defaults(run=chat)
    return whole


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def at_least_zero(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


def chosen(options: argparse.Namespace) -> tuple[Recipe, Family]:
    """The recipe and the family that a training command names."""
    if options.recipe is None:
        raise InputError("name what to train with --recipe, such as --recipe nano")
    recipe = load_recipe(options.recipe)
    if options.authored_only:
        recipe = authored_only(recipe)
    if not recipe.repositories:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return recipe, Family(options.out or Path("checkpoints") / recipe.name)


def authored_only(recipe: Recipe) -> Recipe:
    """The same recipe without its real text."""
    corpus = recipe.corpus.model_copy(update={"sources": []})
    sft = recipe.sft.model_copy(update={"instructions": []})
    ranking = recipe.ranking.model_copy(update={"preferences": []})
    return recipe.model_copy(update={"corpus": corpus, "sft": sft, "ranking": ranking})


def opened(options: argparse.Namespace) -> Family | PublishedFamily:
    """The family that a command uses; nothing of one in a folder comes from the network."""
    if Path(options.family).is_dir():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return find_family(options.family)


def check_corpus(options: argparse.Namespace) -> None:
    from pipeline.corpus.authoring import check

    if options.files:
        print(check(options.files))
        return
    settings = load_recipe(options.recipe).corpus
    corpus = load_corpus(settings)
    print(check(sorted((REPOSITORY / settings.cards / "cards").glob("*.jsonl"))))
    kinds = Counter(question.kind for card in corpus.cards for question in card.qa)
    print(f"{len(corpus.countries)} countries, {len(corpus.prompts)} listed prompts")
    print(f"{kinds.total()} questions: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))


def convert_cards(options: argparse.Namespace) -> None:
    from pipeline.corpus.authoring import build

    print(build(options.out, options.files))


def clean_corpus(options: argparse.Namespace) -> None:
    from pipeline.corpus.cleaning import clean

    recipe, family = chosen(options)
    with sole_run(family):
        clean(recipe, family, load_corpus(recipe.corpus))
    report = family.path / "corpus" / "cleaning.json"
    for name, counts in json.loads(report.read_text(encoding="utf-8")).items():
        print(f"{name}: {counts['kept']} of {counts['rows']} rows kept")
        for what, count in counts["removed"].items():
            print(f"  {count:7} removed: {what}")
    print(f"examples of what was removed: {report.with_name('removed.jsonl')}")


def build_corpus(options: argparse.Namespace) -> None:
    from pipeline.corpus.cleaning import clean
    from pipeline.corpus.conversations import demonstrations
    from pipeline.corpus.documents import documents
    from pipeline.corpus.ranking_prompts import ranking_prompts

    recipe, family = chosen(options)
    corpus = load_corpus(recipe.corpus)
    folder = family.work("corpus")
    with sole_run(family):
        texts = documents(recipe, corpus, clean(recipe, family, corpus))
        count = recipe.tokenizer.documents if recipe.tokenizer else 0
        built = {
            "documents": [asdict(document) for document in islice(texts, count)],
            "demonstrations": [asdict(demonstration) for demonstration in demonstrations(corpus, recipe, 0)],
            "ranking-prompts": [
                {"id": prompt.id, "prompt": prompt.prompt, "kind": prompt.kind}
                for prompt in ranking_prompts(corpus, recipe)
            ],
        }
        for name, records in built.items():
            write_json_lines(folder / f"{name}.jsonl", records)
            print(f"{folder / name}.jsonl: {len(records)} lines")


def run(options: argparse.Namespace) -> None:
    recipe, family = chosen(options)
    if options.dry_run:
        from pipeline.plan import plan

        for line in plan(recipe, stages_until(recipe, options.until)):
            print(line)
        return
    run_all(recipe, family, options.until)


def run_one(options: argparse.Namespace) -> None:
    if getattr(options, "labels", None) or getattr(options, "reward", None):
        run_room(options)
        return
    recipe, family = chosen(options)
    run_stage(options.stage, recipe, family)


def run_room(options: argparse.Namespace) -> None:
    """Train one of a room's adapters."""
    from pipeline.rooms.command import move_policy, retrain_reward

    if options.recipe is not None:
        raise InputError("--recipe trains a family; with votes or a room's reward, name the family with --family")
    if options.out is None:
        raise InputError("name the folder for the adapter with --out DIR")
    family, room = trained(opened(options)), Family(options.out)
    with sole_run(room):
        if options.stage == "reward":
            retrain_reward(family, options.labels, room)
        else:
            move_policy(family, options.reward, options.prompts, room, options.start, options.steps, options.kl)


def compare(options: argparse.Namespace) -> None:
    from pipeline.inference.compare import compare

    compare(opened(options), options.prompts, options.out, chosen_decoding(options))


def score(options: argparse.Namespace) -> None:
    from pipeline.inference.compare import score

    score(opened(options), options.answers, options.out)


def report(options: argparse.Namespace) -> None:
    if options.eight_bits:
        from pipeline.publish.rounding import differences

        print(differences(trained(opened(options)), options.prompts))
        return
    from pipeline.report.card import write_report

    print(write_report(trained(opened(options)), options.prompts))


def publish_family(options: argparse.Namespace) -> None:
    from pipeline.publish.models import publish_models

    print(f"uploaded: {publish_models(open_family(options.family), options.repo, options.private)}")


def publish_corpus(options: argparse.Namespace) -> None:
    from pipeline.publish.datasets import corpus_files, publish_dataset

    print(f"uploaded: {publish_dataset(corpus_files(), options.repo, options.private)}")


def publish_rankings(options: argparse.Namespace) -> None:
    from pipeline.publish.datasets import publish_dataset, ranking_files

    files = ranking_files(open_family(options.family))
    print(f"uploaded: {publish_dataset(files, options.repo, options.private)}")


def publish_votes(options: argparse.Namespace) -> None:
    from pipeline.publish.datasets import publish_dataset, vote_files
    from pipeline.rooms.labels import VOTES, Labels, room_name

    file = options.rooms / VOTES
    if not file.is_file():
        raise InputError(f"there are no votes at {file}; name the folder of `app.py --rooms`")
    labels = Labels(file).of(room_name(options.room))
    files = vote_files(labels, seed=0)
    print(f"uploaded: {publish_dataset(files, options.repo, private=not options.public)}")


def publish_page(options: argparse.Namespace) -> None:
    from huggingface_hub import SpaceHardware

    from pipeline.publish.space import listing, publish_space, space_files

    known = [hardware.value for hardware in SpaceHardware]
    if options.hardware not in (None, *known):
        raise InputError(f"there is no hardware {options.hardware!r}; use one of {', '.join(known)}")
    files = space_files(open_family(options.family))
    hardware = SpaceHardware(options.hardware) if options.hardware else None
    if options.dry_run:
        print(listing(files))
    else:
        print(f"running: {publish_space(files, options.repo, options.private, hardware)}")


def publish_static(options: argparse.Namespace) -> None:
    from pipeline.publish.space import listing
    from pipeline.publish.web import publish_web, site_files, upload_web

    family = trained(opened(options))
    if options.repo:
        with TemporaryDirectory() as temporary:
            site = Path(temporary) / "site"
            publish_web(family, site, options.bits)
            if options.dry_run:
                print(listing(site_files(site)))
            else:
                print(f"uploaded: {upload_web(site, options.repo, options.private)}")
        return
    if options.private or options.dry_run:
        raise InputError("--private and --dry-run are about a Space: name it with --repo")
    loaded = publish_web(family, options.out, options.bits)
    print(f"written: a visitor loads {loaded / 1e6:.1f} MB; look at it with")
    print(f"python -m http.server --bind 127.0.0.1 --directory {options.out}")


def chat(options: argparse.Namespace) -> None:
    from pipeline.inference.stages import answering_model

    family = opened(options)
    stage = options.stage or (family.answering[-1] if isinstance(family, PublishedFamily) else "rlhf")
    model = answering_model(family, stage)
    print(f"Talk to the {stage} stage. It sees one prompt at a time. Ctrl-D ends.")
    while True:
        try:
            prompt = input("> ")
        except EOFError:
            print()
            return
        try:
            shown, stopped = "", False
            for answer in model.stream(prompt, chosen_decoding(options)):
                print(answer.text[len(shown) :], end="", flush=True)
                shown, stopped = answer.text, answer.stopped
            print("" if stopped else " [cut at the limit]")
        except InputError as error:
            print(error)


def chosen_decoding(options: argparse.Namespace) -> Decoding:
    return Decoding(options.max_new_tokens, options.temperature, seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
