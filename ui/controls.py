"""What one tab needs to know to drive another."""

from dataclasses import dataclass, field
from typing import Any

from gradio.components import Component


@dataclass(frozen=True)
class Controls:
    """A tab that can be driven from elsewhere: its components by name, and the event that runs it once they are filled
    (the arguments of a listener; empty if opening the tab is all there is to it)."""

    fields: dict[str, Component] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
