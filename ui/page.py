"""The page as a whole: its frame, its look, and how it is served."""

import os
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from pipeline.recipe import REPOSITORY
from pipeline.report.reading import read_report
from ui.answering import LoadedFamily
from ui.calls import add_calls
from ui.columns import icon
from ui.compare import CONTROL_ENTER, compare_tab
from ui.controls import Controls
from ui.gate import LARGEST_FILE, SERVER
from ui.lesson import lesson_tab
from ui.rank import rank_tab
from ui.report_card import report_card_tab
from ui.reward import reward_tab
from ui.rooms import Rooms, open_rooms
from ui.sharing import sharing
from ui.tokens import tokens_tab
from ui.training import training_tab

FONTS = ["-apple-system", "BlinkMacSystemFont", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"]
STYLES = REPOSITORY / "assets" / "style"
FRAME = STYLES / "frame.css"
SCRIPT = REPOSITORY / "assets" / "script" / "frame.js"
DESCRIPTION = "One small language model, caught at every stage of its training: base, SFT and RLHF, side by side."
NOTICE = (
    "These are small research models: their answers are not advice, "
    "and base and SFT can say wrong or unpleasant things."
)
# Gradio confines the rules of `css_paths` to the tabs, and drops those it does not know; the frame's hold for all.
HEAD = f'<meta name="description" content="{DESCRIPTION}"><style>{FRAME.read_text(encoding="utf-8")}</style>'
UPLOADS = (3600, 3600)  # seconds between two looks at them, and after which they are deleted
QUEUE = 512  # events that wait: a class of 30 that presses Send brings 150
SCREEN = '<path d="M3 5h18v11H3zM12 16v4M8 20h8"/>'


def page(family: LoadedFamily, rooms: Rooms) -> gr.Blocks:
    """The page with all its tabs. Raises InputError for a damaged report."""
    report = None if family.published else read_report(family.files)
    with gr.Blocks(title="Stagewise", analytics_enabled=False, fill_width=True, delete_cache=UPLOADS) as blocks:
        gr.HTML(masthead(family), apply_default_css=False, js_on_load=SCRIPT.read_text(encoding="utf-8"))
        # Gradio draws a tab when it is first opened: the first paint waits for Compare alone.
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            with gr.Tab("Compare", id="compare"):
                comparison = compare_tab(family, rooms)
                sharing(blocks, family, comparison)
            with gr.Tab("Tokens", id="tokens", elem_id="tokens") as tokens:
                looking = tokens_tab(family, tokens, comparison.prompt)
            with gr.Tab("Reward", id="reward") as rewards:
                drawing = reward_tab(family, rewards, comparison.prompt)
            with gr.Tab("Rank", id="rank", elem_id="rank-tab") as ranking:
                voting = rank_tab(family, rooms, blocks, ranking, tabs, comparison)
            with gr.Tab("Training", id="training") as training:
                walking = training_tab(family, training)
            with gr.Tab("Report card", id="report"):
                report_card_tab(family, report)
            with gr.Tab("Lesson", id="lesson"):
                controls = {"tokens": looking, "reward": drawing, "rank": voting, "training": walking}
                lesson_tab(family, report, tabs, {"compare": comparison.controls, **controls, "report": Controls()})
        add_calls(family)
    return blocks.queue(max_size=QUEUE)


def masthead(family: LoadedFamily) -> str:
    """The head of the page. `assets/script/frame.js` makes its parts work."""
    size = f", {family.parameters / 1e6:,.1f} million parameters" if family.parameters else ""
    return (
        '<a class="skip" href="#columns">Skip to the answers</a>'
        '<header class="masthead"><h1>Stagewise</h1>'
        '<p class="subject">One small language model, caught at every stage of its training</p>'
        f'<button id="present" type="button" aria-pressed="false">{icon(SCREEN)}Presentation</button></header>'
        f'<p class="caution"><span class="family">{escape(family.name)} family{size}.</span> {NOTICE}</p>'
        '<div class="unseen" role="log" aria-label="Answers"></div>'
    )


def launch(
    family: LoadedFamily, host: str | None, port: int | None, rooms: Path | None = None, **more: Any
) -> gr.Blocks:
    """Serve the page. Without host and port, gradio's own environment variables and defaults hold.

    People's votes are kept in the folder `rooms`; without one, they are forgotten with the page.
    """
    import torch

    # Each stage decodes in a thread of its own; models as small as ours gain nothing from more.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(family.columns)) if family.published else 1)
    # Gradio asks matplotlib at every call how it would draw; unset, the first answer waits until that is found out.
    os.environ.setdefault("MPLBACKEND", "agg")
    # After every answer gradio sums up the last 10,000 of them, for a page that nobody opens here.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1000")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000")
    blocks = page(family, open_rooms(family, rooms))
    styles: list[str | Path] = sorted(path for path in STYLES.glob("*.css") if path != FRAME)
    blocks.launch(
        server_name=host,
        server_port=port,
        # A column that fills holds a thread, and so does a call of a program.
        max_threads=max(40, 4 * family.people_at_once),
        theme=gr.themes.Base(font=FONTS, font_mono=FONTS),
        css_paths=styles,
        head=HEAD + CONTROL_ENTER,
        footer_links=["api"],
        ssr_mode=False,
        mcp_server=True,
        # Gradio would keep what is asked and answered in the browser: in class, that is everybody's.
        run_history=False,
        # What nobody foresaw is for the log: its words may name files.
        show_error=False,
        enable_monitoring=False,
        max_file_size=LARGEST_FILE,
        app_kwargs=dict(SERVER),
        favicon_path=REPOSITORY / "assets" / "icon.svg",
        **more,
    )
    return blocks
