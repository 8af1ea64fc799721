"""The three pictures of docs/how_it_works.md, drawn as SVG from what is written here.

    python docs/pictures/diagrams.py

tests/test_docs.py checks that the files are what this draws, and that the rooms are
those of the packages.
"""

import pathlib
from html import escape

FOLDER = pathlib.Path(__file__).parent
LINE, INK, LIBRARY, PROGRAM, FILES = 17, "#1f2933", "#dbeafe", "#fef3c7", "#e5e7eb"
SIZE, SMALL = 14, 12

# Each room imports only from those above it.
ROOMS = {
    "cram_jax": (
        ("geometry", "points, rectangles, masks"),
        ("attention", "a map in, the same map gated out"),
        ("losses", "what is asked of masks"),
        ("heads", "maps to outputs"),
        ("backbones", "an image to the maps of all stages"),
        ("explain", "class activation maps"),
        ("drawing", "pictures"),
    ),
    "train": (
        ("config", "what a person typed, checked"),
        ("data", "from a file to a row of a batch"),
        ("tasks", "what a label means"),
        ("evidence", "where a layer looked"),
        ("learning", "gradients, devices"),
        ("run", "work directory, checkpoints, clock"),
        ("use", "a trained run from Python"),
        ("commands", "python -m train ..."),
    ),
}
IMAGE = (
    ("file", "photograph.jpg, any size", FILES),
    ("source", "an Example: pixels, label,\nrectangle in its pixels", PROGRAM),
    ("view", "crop, resize, mirror;\nthe truth moves along", PROGRAM),
    ("batch", "uint8 rows with weights,\nahead of the step", PROGRAM),
    ("first stages", "normalised, to a map\n[B, H, W, C]", LIBRARY),
    ("attention", "heat map, five numbers,\nmask, gated map", LIBRARY),
    ("last stages, head", "outputs; the task\nsays what they mean", LIBRARY),
    ("back", "the view's inverse: rectangle\nin pixels of the photograph", PROGRAM),
    ("picture, JSON", "drawn on the photograph", FILES),
)
RUN = (
    ("typed", "python -m train fit ...", FILES),
    ("config", "one frozen record,\nchecked when made", PROGRAM),
    ("work directory", "claimed: whose run it is,\nnobody else uses it", FILES),
    ("step s", "batch and keys depend on\nseed and s alone", PROGRAM),
    ("record", "metrics.jsonl, TensorBoard", FILES),
    ("evaluation", "test images once each;\npicture of where it looks", PROGRAM),
    ("checkpoint", "parameters, optimiser,\nstep, scores", FILES),
    ("end", "result.json, looking.gif", FILES),
    ("afterwards", "evaluate, predict, report,\nexport, load_run", PROGRAM),
)


def text(x, y, words, size=SIZE, bold=False):
    """One line of text."""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="middle"{weight}>'
        f"{escape(words)}</text>"
    )


def box(x, y, width, height, title, words, fill):
    """A box with its title and some lines below."""
    lines = words.split("\n")
    top = y + (height - LINE * (1 + len(lines))) / 2 + SIZE - 1
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}"'
        f' stroke="{INK}"/>',
        text(x + width / 2, top, title, bold=True),
        *(
            text(x + width / 2, top + LINE * (i + 1), line, SMALL)
            for i, line in enumerate(lines)
        ),
    ]


def arrow(*points):
    """A line through points, with a head at its end."""
    way = " ".join(f"{x},{y}" for x, y in points)
    return (
        f'<polyline points="{way}" fill="none" stroke="{INK}" stroke-width="1.5"'
        f' marker-end="url(#head)"/>'
    )


def sheet(width, height, title, parts):
    """A whole SVG file."""
    head = (
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8"'
        f' markerHeight="8" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{INK}"/>'
        "</marker>"
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' font-family="sans-serif" fill="{INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<defs>{head}</defs>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def rooms():
    """Both packages, room under room."""
    width, height, gap, parts = 270, 46, 8, []
    for column, (package, fill) in enumerate(
        (("cram_jax", LIBRARY), ("train", PROGRAM))
    ):
        x = 20 + column * (width + 60)
        parts.append(text(x + width / 2, 28, package, 16, bold=True))
        for row, (name, about) in enumerate(ROOMS[package]):
            y = 44 + row * (height + gap)
            parts += box(x, y, width, height, name, about, fill)
    bottom = 44 + len(ROOMS["train"]) * (height + gap)
    parts.append(arrow((350, 229), (292, 229)))
    parts.append(text(321, 221, "uses", SMALL))
    parts.append(
        text(320, bottom + 14, "A room uses those above it, never those below.", SMALL)
    )
    return sheet(640, bottom + 28, "The rooms of both packages", parts)


def rows_of_three(stops, title):
    """Stops from left to right, row after row, with arrows between."""
    width, height, across, down, parts = 200, 84, 20, 34, []
    for number, (name, about, fill) in enumerate(stops):
        row, column = divmod(number, 3)
        x, y = 15 + column * (width + across), 15 + row * (height + down)
        parts += box(x, y, width, height, name, about, fill)
        if number == len(stops) - 1:
            break
        if column < 2:
            middle = y + height / 2
            parts.append(arrow((x + width, middle), (x + width + across, middle)))
        else:
            below = y + height + down / 2
            end = (15 + width / 2, y + height + down)
            start = (x + width / 2, y + height)
            corners = ((start[0], below), (end[0], below))
            parts.append(arrow(start, *corners, end))
    rows = -(-len(stops) // 3)
    return sheet(670, 15 + rows * (height + down), title, parts)


def life_of_an_image():
    """From a file to a picture of it."""
    return rows_of_three(IMAGE, "The life of an image")


def life_of_a_run():
    """From a command to what is made of its network."""
    return rows_of_three(RUN, "The life of a run")


PICTURES = {
    "rooms.svg": rooms,
    "life_of_an_image.svg": life_of_an_image,
    "life_of_a_run.svg": life_of_a_run,
}


if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw())
