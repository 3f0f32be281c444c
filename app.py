"""Opens the page: `python app.py --family checkpoints/tiny`. Also the entry point of the Hugging Face Space."""

import argparse
import signal
import sys
from pathlib import Path

from pipeline.errors import InputError
from ui.starting import quick_start, share_memory_between_threads

SECONDS_ON_GPU = 30  # that the three answers to one prompt may take, a GPU's start included


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One prompt, every stage of training, side by side.")
    here = Path(__file__).parent
    parser.add_argument(
        "--family",
        default=here / "checkpoints" / "tiny",
        help="a folder, hub:OWNER/NAME, a published family or its .yaml",
    )
    parser.add_argument("--host", help="address to serve on; GRADIO_SERVER_NAME or 127.0.0.1 if not given")
    parser.add_argument("--port", type=int, help="port to serve on; GRADIO_SERVER_PORT or a free one from 7860 on")
    parser.add_argument("--rooms", type=Path, default=here / "rooms", help="where people's votes are kept")
    parser.add_argument("--open", action="store_true", help="open it in the browser, too")
    options = parser.parse_args(arguments)
    try:
        serve(options.family, options.host, options.port, options.rooms, options.open)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def stop_when_asked() -> None:
    """End as after Ctrl-C when a server ends us: what is left to be saved is saved."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def serve(family: str, host: str | None, port: int | None, rooms: Path, in_browser: bool) -> None:
    stop_when_asked()
    share_memory_between_threads()
    with quick_start():
        from pipeline.inference.models import gpu_is_lent

        if gpu_is_lent():
            # Before torch: it stands in for CUDA while no GPU is there. Every Gradio Space has it.
            import spaces
        from ui.answering import load
        from ui.page import launch

        loaded = load(family)
        if gpu_is_lent():
            loaded.lend(spaces.GPU(duration=SECONDS_ON_GPU))
    launch(loaded, host, port, rooms, inbrowser=in_browser)


if __name__ == "__main__":
    sys.exit(main())
