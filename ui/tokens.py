"""The tab that looks inside an answer: at every token, what each stage would have said."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.tokens import Reading, answer_tokens, fill, read, room
from ui.answering import SECONDS_BETWEEN_VIEWS, LoadedFamily
from ui.columns import LOOKS, problem
from ui.controls import Controls
from ui.distributions import answer, fillings, idle, no_predictions, predictions, writing
from ui.limits import in_time

LONGEST = 64  # tokens of an answer
EXAMPLE = "How can I rob a bank?"
BLANK_EXAMPLE = "The capital of France is ___."
BLANKS = (
    "Models read from left to right. Each stage first takes the words that it finds likely after the left side; "
    "then the whole sentence decides between them. The bars are shares among those words. "
    "All stages read the sentence as plain text here, not as a question in a chat."
)
UNREAD = (
    "The stages of this family cannot read each other's tokens: their models are on servers, or cut text differently."
)
# One token is in the tab order, as in any list box; the arrow keys go on from there.
CHOOSING = """
const tokens = () => [...element.querySelectorAll("[role=option]")];
const chosen = () => element.querySelector("[aria-selected=true]");
const describe = (token) => { element.querySelector(".detail").textContent = token.dataset.detail; };
const choose = (token, scroll) => {
  for (const other of tokens()) {
    other.setAttribute("aria-selected", other === token);
    other.tabIndex = other === token ? 0 : -1;
  }
  token.focus({preventScroll: !scroll});
  trigger("select");
};
const at = (event) => event.target.closest("[role=option]");
element.addEventListener("click", (event) => at(event) && choose(at(event), false));
element.addEventListener("focusin", (event) => at(event) && describe(at(event)));
element.addEventListener("mouseover", (event) => at(event) && describe(at(event)));
element.addEventListener("mouseout", (event) => at(event) && describe(chosen()));
element.addEventListener("keydown", (event) => {
  if (!at(event)) return;
  const all = tokens();
  const here = all.indexOf(at(event));
  const places = {
    ArrowLeft: here - 1, ArrowUp: here - 1, ArrowRight: here + 1, ArrowDown: here + 1, Home: 0, End: all.length - 1
  };
  if (!(event.key in places)) return;
  event.preventDefault();
  if (all[places[event.key]]) choose(all[places[event.key]], true);
});
"""
# Read when the event is handled, not when it happened: gradio leaves out events that others overtake.
CHOSEN = """(reading, position) => [
  reading,
  [...document.querySelectorAll("#token-answer [role=option]")].findIndex((token) => token.ariaSelected === "true"),
]"""


def tokens_tab(family: LoadedFamily, tab: gr.Tab, compared: gr.Textbox) -> Controls | None:
    """Lay out the tab inside the current `gr.Blocks`; `compared` is the prompt of the Compare tab."""
    if not family.readers:
        gr.HTML(f"<p>{UNREAD}</p>", elem_id="no-tokens")
        return None
    reading = gr.State(None)
    position = gr.Number(0, precision=0, visible=False)
    taken = gr.State("")  # the prompt that the tab has set by itself
    with gr.Row(elem_id="token-asking"):
        prompt = gr.Textbox(
            EXAMPLE,
            label="Prompt",
            show_label=False,
            container=False,
            lines=1,
            max_lines=4,
            elem_id="token-prompt",
        )
        send = gr.Button("Send", variant="primary", elem_id="token-send")
    with gr.Row(elem_id="token-options"):
        stage = gr.Radio(
            [(LOOKS[stage].name, stage) for stage in family.readers],
            value=list(family.readers)[-1],
            label="Answer of",
            elem_id="token-stage",
        )
        number: dict[str, Any] = {"minimum": 0, "elem_classes": "token-number"}
        temperature = gr.Number(0, maximum=2, step=0.1, label="Temperature (0: the likeliest)", **number)
        seed = gr.Number(0, precision=0, maximum=2**31, label="Seed (of temperatures above 0)", **number)
    notice = gr.HTML(elem_id="token-notice")
    text = gr.HTML(idle("The answer will stand here."), elem_id="token-answer", js_on_load=CHOOSING)
    lists = gr.HTML(no_predictions(family.readers), elem_id="token-lists")

    gr.HTML(f"<h2>Fill in the blank</h2><p>{BLANKS}</p>", elem_id="blank-head")
    with gr.Row(elem_id="blank-asking"):
        sentence = gr.Textbox(
            BLANK_EXAMPLE, label="Sentence with a blank", show_label=False, container=False, elem_id="blank-sentence"
        )
        complete = gr.Button("Fill in", elem_id="blank-fill")
    blank_notice = gr.HTML(elem_id="blank-notice")
    blanks = gr.HTML(fillings({stage: [] for stage in family.readers}), elem_id="blank-lists")

    def look(prompt: str, stage: str, temperature: float | None, seed: int | None) -> Iterator[tuple[Any, ...]]:
        try:
            for step in steps(family, prompt, stage, Decoding(LONGEST, temperature or 0, seed=int(seed or 0))):
                if isinstance(step, Reading):
                    yield step, "", answer(step), predictions(step)
                else:
                    yield gr.skip(), "", writing(stage, step), no_predictions(family.readers)
        except InputError as error:
            yield gr.skip(), problem(str(error)), gr.skip(), gr.skip()

    def blank(sentence: str) -> tuple[Any, str]:
        try:
            family.limits.admit(len(family.readers))
            return fillings({stage: fill(model, sentence) for stage, model in family.readers.items()}), ""
        except InputError as error:
            return gr.skip(), problem(str(error))

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    queued: dict[str, Any] = {"concurrency_limit": family.people_at_once, **quiet}
    looking: dict[str, Any] = {
        "fn": look,
        "inputs": [prompt, stage, temperature, seed],
        "outputs": [reading, notice, text, lists],
        "trigger_mode": "always_last",
        **queued,
    }
    gr.on([send.click, prompt.submit, stage.input, taken.change], **looking)
    text.select(predictions, [reading, position], lists, js=CHOSEN, queue=False, trigger_mode="always_last", **quiet)
    gr.on([complete.click, sentence.submit], blank, sentence, [blanks, blank_notice], **queued)
    tab.select(take, [compared, prompt, taken], [prompt, taken], concurrency_limit=None, **quiet)
    return Controls({"prompt": prompt}, looking)


def steps(family: LoadedFamily, prompt: str, stage: str, decoding: Decoding) -> Iterator[str | Reading]:
    """The text of an answer as it grows, then all that is known about its tokens.

    Raises InputError for a prompt that cannot be read.
    """
    family.admit(prompt, len(family.readers))
    model = family.readers[stage]
    # Every stage must be able to read the whole of it, and the chat format takes a few tokens more.
    decoding = replace(decoding, max_new_tokens=min(decoding.max_new_tokens, room(family.readers, prompt)))
    ids: list[int] = []
    shown = time.monotonic()
    for token in in_time(answer_tokens(model, prompt, decoding)):
        ids.append(token)
        if time.monotonic() - shown >= SECONDS_BETWEEN_VIEWS:
            shown = time.monotonic()
            yield model.text(ids)
    yield read(family.readers, stage, prompt, ids)


def take(compared: str, prompt: str, taken: str) -> tuple[Any, Any]:
    """The prompt of the Compare tab, as long as nobody has written one here; at first the example."""
    if prompt != (taken or EXAMPLE):
        return gr.skip(), gr.skip()
    prompt = compared if compared.strip() else prompt
    return prompt, prompt


def tokens_call(family: LoadedFamily) -> Callable[..., list[dict[str, Any]]]:
    """The same for programs."""

    def tokens(
        prompt: str,
        stage: str = "sft",
        temperature: float = 0.0,
        seed: int = 0,
        max_new_tokens: int = LONGEST,
    ) -> list[dict[str, Any]]:
        """One stage's answer, token by token, and what every stage would have said at each of them.

        Args:
            prompt: A question or the beginning of a text.
            stage: Whose answer: base, sft or rlhf.
            temperature: 0 always takes the likeliest token; higher values draw more freely.
            seed: Whole number. The same seed and settings give the same answer.
            max_new_tokens: Tokens of the answer, at most.

        Returns:
            one object a token, in order, up to the one that ends the answer: "id" (int), "token" (str), "kind"
            ("text"; "control" for a control token, named in words; "bytes" for a part of a character, in
            hexadecimal), "category" ("unshifted", "marginal" or "shifted" against the stage before; null for
            base) and "stages", which has for each stage "logprob" (float, natural logarithm), "rank" (int, 1 is
            its likeliest token) and "top", its ten likeliest tokens as objects "id", "token", "kind", "logprob"
        """
        if not family.readers:
            raise InputError(UNREAD)
        # In the list, where a value of any type can be looked for.
        if stage not in list(family.readers):
            raise InputError(f"there is no stage {stage!r:.60}; use one of {', '.join(family.readers)}")
        *_, last = steps(family, prompt, stage, Decoding(max_new_tokens, temperature, seed=seed))
        assert isinstance(last, Reading)
        return records(last)

    return tokens


def records(reading: Reading) -> list[dict[str, Any]]:
    """A reading as JSON can hold it: one object a token."""
    return [
        {
            "id": token.id,
            "token": token.text,
            "kind": token.kind,
            "category": reading.category(position),
            "stages": {
                stage: {
                    "logprob": predictions[position].logprob,
                    "rank": predictions[position].rank,
                    "top": [
                        {
                            "id": candidate.token.id,
                            "token": candidate.token.text,
                            "kind": candidate.token.kind,
                            "logprob": candidate.logprob,
                        }
                        for candidate in predictions[position].top
                    ],
                }
                for stage, predictions in reading.predictions.items()
            },
        }
        for position, token in enumerate(reading.tokens)
    ]
