"""The page as a whole: its frame, its look, and the calls that programs can make."""

from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.recipe import REPOSITORY
from ui.answering import USUAL_TEMPERATURE, LoadedFamily, Request
from ui.compare import CONTROL_ENTER, compare_tab
from ui.sharing import sharing

FONTS = ["-apple-system", "BlinkMacSystemFont", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
STYLES = REPOSITORY / "assets" / "style"
NOTICE = (
    "These are small research models, trained to show what each stage of training does. Their answers are not "
    "advice, and often wrong. Base and SFT can also say unpleasant things: nothing on this page is filtered."
)


def page(family: LoadedFamily) -> gr.Blocks:
    with gr.Blocks(title="Stagewise", analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(masthead(family), apply_default_css=False)
        # Gradio draws a tab when it is first opened: the first paint waits for Compare alone.
        with gr.Tabs(elem_id="tabs"), gr.Tab("Compare", id="compare"):
            sharing(blocks, family, compare_tab(family))
        gr.HTML(f"<p>{NOTICE}</p>", elem_id="small-print")
        add_calls(family)
    return blocks.queue(max_size=128)


def masthead(family: LoadedFamily) -> str:
    return (
        '<div class="masthead"><h1>Stagewise</h1><p>One small language model, caught at every stage of its training</p>'
        f'<p class="family">{escape(family.name)} family, {family.parameters / 1e6:.1f} million parameters</p></div>'
    )


def add_calls(family: LoadedFamily) -> None:
    """What the page does, for programs: `client.predict("Hello", api_name="/compare")`."""

    def compare(
        prompt: str,
        seed: int = Decoding.seed,
        temperature: float = USUAL_TEMPERATURE,
        top_p: float = Decoding.top_p,
        max_new_tokens: int = Decoding.max_new_tokens,
    ) -> dict[str, dict[str, Any]]:
        """Every stage's answer to a prompt: its text, tokens, reward, and whether it stopped by itself."""
        request = Request(0, prompt, Decoding(max_new_tokens, temperature, top_p, seed))
        return {stage: answer(stage, request) for stage in family.models}

    def answer(stage: str, request: Request) -> dict[str, Any]:
        *_, last = family.views(stage, request)
        if last.state == "failed":
            raise gr.Error(last.error)
        return {"text": last.text, "tokens": last.tokens, "stopped": last.state == "stopped", "reward": last.reward}

    def score(prompt: str, response: str, finished: bool = True) -> float:
        """The reward model's score of any answer to a prompt; `finished` unless it was cut at the limit."""
        if family.reward is None:
            raise gr.Error("this family has no reward model yet")
        try:
            return family.reward.scores([(prompt, response)], [finished])[0]
        except InputError as error:
            raise gr.Error(str(error)) from error

    gr.api(compare, api_name="compare")
    gr.api(score, api_name="score")


def launch(family: LoadedFamily, host: str | None, port: int | None, **more: Any) -> gr.Blocks:
    """Serve the page. Without host and port, gradio's own environment variables and defaults hold."""
    import torch

    # Each column decodes in a thread of its own; models this small gain nothing from more.
    torch.set_num_threads(1)
    blocks = page(family)
    # The frame's rules come first, so that a tab's own can refine them.
    styles: list[Path] = sorted(STYLES.glob("*.css"), key=lambda path: path.stem != "frame")
    blocks.launch(
        server_name=host,
        server_port=port,
        theme=gr.themes.Base(font=FONTS, font_mono=FONTS),
        css_paths=[*styles],
        head=CONTROL_ENTER,
        footer_links=[],
        ssr_mode=False,
        show_error=True,
        favicon_path=REPOSITORY / "assets" / "icon.svg",
        **more,
    )
    return blocks
