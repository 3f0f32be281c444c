"""Sharing a comparison: a link that opens it, what this browser asked before, and files to keep.

The link stands for the request and not for the answers: the same seed gives the same answers. The
files hold what the columns show; nothing is generated a second time for them.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from pipeline.checkpoint import RECORD, WEIGHTS, Family
from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY
from ui.answering import COLUMNS, LoadedFamily, Request, State, View
from ui.columns import ENDINGS, LOOKS, problem, signed
from ui.compare import CHAT, RAW, Comparison

SCRIPTS = REPOSITORY / "assets" / "script"
FINAL: tuple[State, ...] = ("stopped", "cut", "halted", "failed")
MODELS = (*COLUMNS, "reward")
BASE_SEES_BY_LINK = {"raw": RAW, "chat": CHAT}
LONGEST_SLUG = 40  # characters
BAR = (
    '<div role="group" aria-label="Share this comparison">'
    '<button type="button" data-act="share" disabled>Share</button><span class="save">Save as</span>'
    '<button type="button" data-act="markdown" disabled>Markdown</button>'
    '<button type="button" data-act="json" disabled>JSON</button>'
    '<button type="button" data-act="picture" disabled>Picture</button></div>'
    '<div class="reply" popover><p role="status"></p>'
    '<input type="text" readonly aria-label="Link to this comparison"></div>'
)
# What was stored by another version, or by hand, must not break the page. (Gradio takes a list for one
# value an output, hence the second brackets.)
READABLE = "(stored) => [Array.isArray(stored) ? stored.filter((entry) => typeof entry?.link === 'string') : []]"
REMEMBERING = """(past, bar) => [
    [{link: bar.link, time: new Date().toISOString()}, ...past.filter((entry) => entry.link !== bar.link)].slice(0, 50)
]"""
FORGETTING = "() => [[]]"


def sharing(blocks: gr.Blocks, family: LoadedFamily, comparison: Comparison) -> None:
    """Add Share, the files and the history to the Compare tab, and open the link that the page came with."""
    shown = comparison.shown
    with comparison.folds:
        with gr.Accordion("History", open=False, elem_id="history"):
            past = gr.HTML([], html_template="<ol></ol>", js_on_load=script("history.js"), apply_default_css=False)
            clear = gr.Button("Clear history", size="sm", elem_id="clear")
        bar = gr.HTML(
            None, html_template=BAR, js_on_load=script("sharing.js"), apply_default_css=False, elem_id="sharing"
        )
    history = gr.BrowserState([], storage_key="stagewise-history", secret="stagewise")
    # Changes when a link asks something; its value means nothing.
    opened = gr.State(0)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "multiple"}
    # One after the other: an older view of a comparison must not come last.
    in_turn: dict[str, Any] = {"concurrency_id": "sharing", "concurrency_limit": 1, **quiet}
    models = described(family)
    numbers = count(1)

    def offer(request: Request | None, stages: list[str]) -> dict[str, Any] | None:
        return None if request is None else offered(request, stages, family, models)

    def visit(query: Mapping[str, str]) -> list[Any]:
        try:
            link = read_link(query, comparison.settings, family)
        except InputError as error:
            return [gr.skip()] * (len(filling) - 2) + [problem(f"The link cannot be opened: {error}"), gr.skip()]
        fields = [link.get(name, gr.skip()) for name in ("prompt", *comparison.settings, "base")]
        stages = link.get("stages", list(family.columns))
        return [*fields, stages, only(stages, family.columns), next(numbers) if "prompt" in link else gr.skip()]

    def arrive(request: gr.Request) -> list[Any]:
        return visit(request.query_params)

    def revisit(event: gr.EventData) -> list[Any]:
        return visit(event.query)

    def show(stages: list[str]) -> list[Any]:
        # Without any column the page would only puzzle.
        return [gr.update(visible=stage in stages or not stages) for stage in family.columns] * 2

    filling = [
        comparison.prompt,
        *comparison.settings.values(),
        comparison.base_sees,
        shown,
        comparison.notice,
        opened,
    ]
    blocks.load(arrive, None, filling, **quiet)
    past.select(revisit, None, filling, **quiet)
    opened.change(**comparison.asking)
    # Who guesses has all columns before them.
    comparison.guessing.change(lambda: list(family.columns), None, shown, **quiet)
    drawn = [*comparison.places, *comparison.lanes]
    shown.change(show, shown, drawn, **in_turn).then(offer, [comparison.request, shown], bar, **in_turn)
    asked = comparison.request.change(offer, [comparison.request, shown], bar, **in_turn)
    asked.then(None, [past, bar], history, js=REMEMBERING, **quiet)
    for full in comparison.filled:
        full.then(offer, [comparison.request, shown], bar, **in_turn)
    history.change(None, history, past, js=READABLE, **quiet)
    clear.click(None, None, history, js=FORGETTING, **quiet)


def script(name: str) -> str:
    return (SCRIPTS / name).read_text(encoding="utf-8")


def only(stages: Sequence[str], columns: Sequence[str]) -> str:
    """What to say when a link hides columns."""
    if len(stages) == len(columns):
        return ""
    names = " and ".join(LOOKS[stage].name for stage in stages)
    return f"<p>This link shows {names} only. Settings has the other columns.</p>"


def link(request: Request, stages: Sequence[str], columns: Sequence[str] = COLUMNS) -> str:
    """The query string that opens this comparison, with its `?`; it names the stages unless all columns are shown."""
    decoding = request.decoding
    query = {
        "prompt": request.prompt,
        "seed": decoding.seed,
        "temperature": f"{decoding.temperature:g}",
        "top_p": f"{decoding.top_p:g}",
        "length": decoding.max_new_tokens,
    }
    if request.chat_format:
        query["base"] = "chat"
    if len(stages) < len(columns):
        query["stages"] = ",".join(stages)
    return "?" + urlencode(query, errors="replace")


def read_link(
    query: Mapping[str, str], settings: Mapping[str, gr.Slider | gr.Number], family: LoadedFamily
) -> dict[str, Any]:
    """The prompt, the settings and the stages that a link names, each of them only if it is there.

    Raises InputError for a stage that is no column, a setting that is no number or out of its range,
    and a prompt that is empty or too long.
    """
    values: dict[str, Any] = {
        name: number(name, query[name], setting) for name, setting in settings.items() if name in query
    }
    if "base" in query:
        if query["base"] not in BASE_SEES_BY_LINK:
            raise InputError(f"base is {query['base'][:20]!r}, but must be {' or '.join(BASE_SEES_BY_LINK)}")
        values["base"] = BASE_SEES_BY_LINK[query["base"]]
    if "stages" in query:
        named = query["stages"].split(",")
        for stage in named:
            if stage not in family.columns:
                raise InputError(f"there is no stage {stage[:20]!r}, only {', '.join(family.columns)}")
        values["stages"] = [stage for stage in family.columns if stage in named]
    if "prompt" in query:
        family.check(query["prompt"])
        values["prompt"] = query["prompt"]
    return values


def number(name: str, text: str, setting: gr.Slider | gr.Number) -> float | int:
    """A setting's value in the range of its component, whole if the component's own value is."""
    low, high = setting.minimum, setting.maximum
    assert low is not None
    assert high is not None
    whole = isinstance(setting.value, int)
    try:
        value = (int if whole else float)(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} is {text[:20]!r}, but must be {kind} from {low:g} to {high:g}")
    return value


def described(family: LoadedFamily) -> dict[str, dict[str, Any]]:
    """Where each model of a family comes from."""
    if family.published:
        return {stage: place.record for stage, place in family.published.stages.items()}
    return trained(family.files)


def trained(files: Family) -> dict[str, dict[str, Any]]:
    """What made each model of a family: the recipe's name and hash, and the hash of its weights."""
    records = {
        stage: json.loads((files.path / stage / RECORD).read_text(encoding="utf-8"))
        for stage in MODELS
        if files.has(stage)
    }
    return {
        stage: {
            "recipe": record["recipe"]["name"],
            "recipe_sha256": record["recipe"]["sha256"],
            "weights_sha256": record["files"].get(WEIGHTS),
        }
        for stage, record in records.items()
    }


def offered(
    request: Request, stages: Sequence[str], family: LoadedFamily, models: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """What the browser makes the link and, once every column is full and has its name, the files of."""
    stages = [stage for stage in family.columns if stage in stages or not stages]
    offer = {"link": link(request, stages, family.columns)}
    views = [request.latest.get(stage) for stage in stages if stage in family.models]
    full = [view for view in views if view is not None and view.state in FINAL]
    if not full or len(full) < len(views) or request.hidden:
        return offer
    record = as_record(request, full, family.name, models)
    return offer | {
        "name": f"stagewise-{slug(request.prompt)}-seed-{request.decoding.seed}",
        "markdown": as_markdown(record, full),
        "json": json.dumps(record, ensure_ascii=False, indent=2) + "\n",
        "picture": as_picture(record, full, family.scale),
    }


def slug(prompt: str) -> str:
    """The first words of a prompt, fit for a file's name."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))
    return words[:LONGEST_SLUG].strip("-_") or "prompt"


def as_record(
    request: Request, views: Sequence[View], family: str, models: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """A comparison as JSON; what the API `compare` has, too, has its name there.

    {"prompt", "seed", "temperature", "top_p", "max_new_tokens",
     "chat_format": whether base, too, was given the prompt in the chat format,
     "family": its name,
     "models": {stage: {"recipe": name, "recipe_sha256", "weights_sha256"}}, the reward model among them;
               of a published family {stage: {"repo", "revision"}} or {stage: {"endpoint", "model"}},
     "date": in UTC, ISO 8601,
     "answers": {stage: {"text", "tokens", "stopped": by itself, "reward": number or null,
                         "ended": "stopped" | "cut" at the limit | "halted" by a person | "failed",
                         "error": only if it failed}}}
    """
    decoding = request.decoding
    return {
        "prompt": request.prompt,
        "seed": decoding.seed,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_new_tokens": decoding.max_new_tokens,
        "chat_format": request.chat_format,
        "family": family,
        "models": models,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "answers": {
            view.stage: {
                "text": view.text,
                "tokens": view.tokens,
                "stopped": view.state == "stopped",
                "reward": view.reward,
                "ended": view.state,
            }
            | ({"error": view.error} if view.error else {})
            for view in views
        },
    }


def as_markdown(record: Mapping[str, Any], views: Sequence[View]) -> str:
    """A comparison as Markdown, in which every text from outside is fenced."""
    parts = [
        "# One prompt, every stage of training",
        fenced(record["prompt"]),
        settings_line(record) + ".",
        f"Family {span(record['family'])}, {record['date'][:10]}.",
    ]
    for view in views:
        look = LOOKS[view.stage]
        parts += [f"## {look.name}, {look.after}", fenced(view.text)]
        if view.error:
            parts.append(fenced(view.error))
        parts.append(f"{outcome(view)}.")
    lines = [f"- {stage}: {origin(model)}" for stage, model in record["models"].items()]
    parts += ["## The models", "\n".join(lines)]
    if any("recipe" in model for model in record["models"].values()):
        parts.append("SHA-256 of each model's weights, and of the recipe that made it.")
    return "\n\n".join(parts) + "\n"


def origin(model: Mapping[str, Any]) -> str:
    """Where a model comes from, in a line of Markdown."""
    if "recipe" in model:
        weights, recipe = span(str(model["weights_sha256"])), span(model["recipe"])
        return f"weights {weights}, recipe {recipe} {span(model['recipe_sha256'])}"
    return ", ".join(f"{what} {span(str(value))}" for what, value in model.items())


def settings_line(record: Mapping[str, Any]) -> str:
    return (
        f"Seed {record['seed']}, temperature {record['temperature']:g}, top-p {record['top_p']:g}, "
        f"at most {record['max_new_tokens']} tokens"
    )


def outcome(view: View) -> str:
    tokens = f"{view.tokens} token{'s' * (view.tokens != 1)}"
    score = "no reward" if view.reward is None else f"reward {signed(view.reward)}"
    return f"{ENDINGS[view.state][0]}, {tokens}, {score}"


def fenced(text: str) -> str:
    """Text as a block of code, whose fence is longer than any row of backticks in it."""
    fence = "`" * max(3, 1 + longest_row(text))
    return f"{fence}text\n{text}\n{fence}"


def span(text: str) -> str:
    """A few words as code in a line."""
    mark = "`" * (1 + longest_row(text))
    return f"{mark} {text} {mark}" if "`" in text else f"{mark}{text}{mark}"


def longest_row(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def as_picture(record: Mapping[str, Any], views: Sequence[View], scale: tuple[float, float]) -> dict[str, Any]:
    """What `sharing.js` draws: the words of the picture, and the rewards on the family's scale."""
    return {
        "prompt": record["prompt"],
        "note": f"{settings_line(record)}. {record['family']} family, {record['date'][:10]}.",
        "scale": list(scale),
        "columns": [
            {
                "stage": view.stage,
                "name": LOOKS[view.stage].name,
                "after": LOOKS[view.stage].after,
                "text": view.text or view.error or "It wrote nothing.",
                "ended": ENDINGS[view.state][0],
                "tokens": view.tokens,
                "reward": view.reward,
                "score": "\N{EN DASH}" if view.reward is None else signed(view.reward),
            }
            for view in views
        ],
    }
