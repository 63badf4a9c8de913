"""What a notebook shows: source code, token colours, tables, plots with one palette. Everything a person or a model wrote is escaped."""

from __future__ import annotations

import html
import inspect

from .bilingual import tr

# Okabe-Ito: distinguishable with every common kind of colour blindness
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"]


def show_source(thing) -> None:
    """Show the source of a function or class as it really runs, so that text and code cannot drift apart."""
    from IPython.display import Markdown, display

    display(Markdown(f"```python\n{inspect.getsource(thing).rstrip()}\n```"))


def show_tokens(row, tokenizer) -> None:
    """One encoded row token by token: grey is masked, green is learnt, the end token has a frame. A count stands below."""
    from IPython.display import HTML, display

    learnt = sum(label != -100 for label in row.labels)
    parts = []
    for token, label in zip(row.input_ids, row.labels):
        text = html.escape(tokenizer.decode([token])).replace("\n", "↵\n")
        style = (
            "background:#d7f0e4;color:#00392b" if label != -100 else "background:#e4e4e4;color:#444"
        )
        if token == tokenizer.eos_token_id and label != -100:
            style += ";outline:2px solid #D55E00"
        parts.append(
            f'<span style="{style};border-radius:3px;padding:0 1px;margin:0 1px">{text}</span>'
        )
    note = tr(
        f"{len(row) - learnt} dari {len(row)} token ditutup topeng (abu-abu), {learnt} dipelajari (hijau); token penutup dipelajari: "
        f"{'ya' if row.labels[-1] == tokenizer.eos_token_id else 'TIDAK'}",
        f"{len(row) - learnt} of {len(row)} tokens are masked (grey), {learnt} are learnt (green); end token learnt: "
        f"{'yes' if row.labels[-1] == tokenizer.eos_token_id else 'NO'}",
    )
    display(
        HTML(
            f'<div style="white-space:pre-wrap;line-height:1.7;font-family:monospace;font-size:13px">{"".join(parts)}</div><p>{note}</p>'
        )
    )


def show_side_by_side(titles: list[str], texts: list[str]) -> None:
    """Texts in columns, escaped, line breaks kept."""
    from IPython.display import HTML, display

    cells = "".join(
        f'<td style="vertical-align:top;text-align:left;white-space:pre-wrap;overflow-wrap:anywhere;width:{100 // len(texts)}%"><b>{html.escape(t)}</b>\n\n{html.escape(x)}</td>'
        for t, x in zip(titles, texts)
    )
    display(HTML(f'<table style="width:100%;table-layout:fixed"><tr>{cells}</tr></table>'))


def figure_html(figure, alt_id: str, alt_en: str):
    """A matplotlib figure as HTML: one PNG with alternative text in the display language. Closes the figure."""
    import base64
    import io

    import matplotlib.pyplot as plt
    from IPython.display import HTML

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return HTML(
        f'<img style="max-width:100%" src="data:image/png;base64,{data}" alt="{html.escape(tr(alt_id, alt_en))}">'
    )


def show_figure(figure, alt_id: str, alt_en: str) -> None:
    from IPython.display import display

    display(figure_html(figure, alt_id, alt_en))


class Live:
    """One output that is replaced in place: a line or a figure during a long cell. At most one update a second."""

    def __init__(self, every: float = 1.0):
        from IPython.display import HTML, display

        self.every, self.last, self.handle = every, 0.0, display(HTML("…"), display_id=True)

    def show(self, content, force: bool = False) -> None:
        import time

        from IPython.display import HTML

        if force or time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.handle.update(HTML(content) if isinstance(content, str) else content)
