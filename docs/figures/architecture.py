"""Draw architecture.svg: from a structure to barriers and explanations.

    python docs/figures/architecture.py

Nothing but the standard library is needed. Atoms are drawn from a fixed seed.
"""
# ruff: noqa: E501

from __future__ import annotations

import math
import random
from pathlib import Path

CU, ZR, INK, SOFT, LINE, HOT = "#d95f02", "#0072b2", "#263238", "#607d8b", "#b0bec5", "#5e2a84"
PANEL = 200  # width of a panel
LEFT = [20, 252, 484, 716, 948]  # of each panel
TOP, HEIGHT = 50, 236
CUTOFF = 70.0  # of the drawn graph

Point = tuple[float, float]


def text(x: float, y: float, words: str, size: float = 14, style: str = "") -> str:
    """Centred words."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="middle" {style}>{words}</text>'


def circle(at: Point, radius: float, style: str) -> str:
    return f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:.1f}" {style}/>'


def line(a: Point, b: Point, style: str) -> str:
    return f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" {style}/>'


def box(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" {style}/>'


def arrow(*points: Point) -> str:
    """A line through points that ends in a head."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{SOFT}" stroke-width="2.2" marker-end="url(#head)"/>'


def panel(index: int, title: str, *caption: str) -> str:
    """The frame of a panel in the upper row, its title and what stands below it."""
    x = LEFT[index]
    frame = box(x, TOP, PANEL, HEIGHT, f'fill="#fafcfd" stroke="{LINE}"')
    heading = text(x + PANEL / 2, TOP - 14, title, 17, 'font-weight="600"')
    lines = [
        text(x + PANEL / 2, TOP + HEIGHT - 12 - 17 * (len(caption) - 1 - i), words, 14)
        for i, words in enumerate(caption)
    ]
    return "\n".join([frame, heading, *lines])


def atoms(seed: int, count: int, size: float, apart: float) -> list[Point]:
    """Points in a square around the origin, none close to another; the first is its centre."""
    draw = random.Random(seed)
    points: list[Point] = [(0.0, 0.0)]
    while len(points) < count:
        new = (draw.uniform(-size, size), draw.uniform(-size, size))
        if all(math.dist(new, p) > apart for p in points):
            points.append(new)
    return points


def drawn(points: list[Point], centre: Point, colours: list[str], radius: float = 8) -> str:
    """Atoms around a centre, Zr a little larger."""
    moved = [(x + centre[0], y + centre[1]) for x, y in points]
    return "\n".join(
        circle(p, radius * (1.25 if c == ZR else 1), f'fill="{c}" stroke="#fff" stroke-width="1.2"')
        for p, c in zip(moved, colours, strict=True)
    )


def shifted(point: Point, by: Point) -> Point:
    return point[0] + by[0], point[1] + by[1]


GLASS = atoms(3, 24, 76, 25)
COLOURS = [ZR if i % 3 == 0 else CU for i in range(len(GLASS))]
PAIRS = [
    (i, j)
    for i in range(len(GLASS))
    for j in range(i)
    if math.dist(GLASS[i], GLASS[j]) < CUTOFF * 0.72
]


def structure() -> str:
    centre = (LEFT[0] + PANEL / 2, TOP + 98)
    cell = box(
        centre[0] - 86,
        centre[1] - 86,
        172,
        172,
        f'fill="none" stroke="{SOFT}" stroke-dasharray="5 4"',
    )
    return "\n".join(
        [
            panel(0, "Structure", "positions, elements,", "periodic cell"),
            cell,
            drawn(GLASS, centre, COLOURS),
        ]
    )


def graph(index: int = 1) -> str:
    centre = (LEFT[index] + PANEL / 2, TOP + 98)
    edges = [
        line(
            shifted(GLASS[i], centre),
            shifted(GLASS[j], centre),
            f'stroke="{LINE}" stroke-width="1.4"',
        )
        for i, j in PAIRS
    ]
    reach = circle(
        centre, CUTOFF, f'fill="{ZR}" fill-opacity="0.06" stroke="{ZR}" stroke-dasharray="4 4"'
    )
    own = [
        line(shifted(p, centre), centre, f'stroke="{INK}" stroke-width="1.8"')
        for p in GLASS[1:]
        if math.hypot(*p) < CUTOFF
    ]
    return "\n".join(
        [panel(index, "Radius graph", "an edge joins every pair", "closer than 5 Å"), *edges, reach, *own,
         drawn(GLASS, centre, COLOURS, 7)]
    )  # fmt: skip


def symmetrisation() -> str:
    x, vector = LEFT[2], (30.0, -16.0)
    parts = [
        panel(2, "Edges, symmetrised", "average over rotations and", "reflections, or edge lengths")
    ]
    for k, (turn, mirror) in enumerate(
        ((0.0, 1), (1.9, 1), (3.7, 1), (0.7, -1), (2.6, -1), (4.9, -1))
    ):
        a = math.atan2(vector[1], vector[0] * mirror) + turn
        at = (x + 42 + 58 * (k % 3), TOP + 46 + 66 * (k // 3))
        tip = (at[0] + 21 * math.cos(a), at[1] + 21 * math.sin(a))
        parts += [
            circle(at, 25, f'fill="#fff" stroke="{LINE}"'),
            f'<line x1="{at[0]:.1f}" y1="{at[1]:.1f}" x2="{tip[0]:.1f}" y2="{tip[1]:.1f}" '
            f'stroke="{CU if mirror > 0 else ZR}" stroke-width="2.6" marker-end="url(#tip)"/>',
        ]
    mean = x + PANEL / 2
    formula = 'e<tspan dy="4" font-size="11">ij</tspan><tspan dy="-4"> = mean</tspan><tspan dy="4" font-size="11">T</tspan><tspan dy="-4"> φ(T v</tspan><tspan dy="4" font-size="11">ij</tspan><tspan dy="-4">)</tspan>'
    parts.append(text(mean, TOP + 178, formula, 16, 'font-style="italic"'))
    return "\n".join(parts)


def layers() -> str:
    x = LEFT[3]
    parts = [
        panel(3, "Message passing", "attention on edges (EGAT)", "5 Å further with each layer")
    ]
    middle = (x + 100, TOP + 106)
    hub = [
        (x + 42, TOP + 42),
        (x + 158, TOP + 46),
        (x + 36, TOP + 142),
        (x + 160, TOP + 148),
        (x + 104, TOP + 28),
    ]
    widths = [5.5, 1.5, 2.5, 4.2, 1.5]
    for point, width, colour in zip(hub, widths, (CU, ZR, CU, CU, ZR), strict=True):
        parts.append(
            line(point, middle, f'stroke="{HOT}" stroke-opacity="0.55" stroke-width="{width}"')
        )
        parts.append(circle(point, 10, f'fill="{colour}" stroke="#fff"'))
    parts.append(circle(middle, 15, f'fill="{ZR}" stroke="#fff" stroke-width="2"'))
    parts.append(text(x + 100, TOP + 180, "h′ = Σ α W h", 15, 'font-style="italic"'))
    parts.append(text(x + 62, TOP + 88, "α", 16, f'font-style="italic" fill="{HOT}"'))
    return "\n".join(parts)


def barriers() -> str:
    x = LEFT[4]
    points = [(px, TOP + 150 - height) for px, height in _landscape(x)]
    curve = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
    low = (x + 48, TOP + 150 - 18.0)
    top = x + 104
    return "\n".join(
        [
            panel(4, "Barrier of each atom", "mean over saddle points,", "eV, with an error bar"),
            f'<polyline points="{curve}" fill="none" stroke="{INK}" stroke-width="2.6"/>',
            circle((low[0], low[1] - 6), 8, f'fill="{ZR}" stroke="#fff"'),
            line((x + 30, low[1] + 4), (top + 22, low[1] + 4), f'stroke="{SOFT}" stroke-dasharray="3 3"'),
            f'<line x1="{top}" y1="{low[1] + 2:.1f}" x2="{top}" y2="{TOP + 58}" stroke="{CU}" '
            'stroke-width="2.6" marker-end="url(#tip)"/>',
            text(top + 24, TOP + 116, "ΔE", 16, f'font-style="italic" fill="{CU}"'),
        ]
    )  # fmt: skip


def _landscape(x: float) -> list[Point]:
    """Two minima and the saddle between them."""
    steps = [i / 60 for i in range(61)]
    return [
        (x + 16 + 168 * s, 60 + 46 * math.sin(2 * math.pi * (1.5 * s - 0.54)) + 12 * (s - 0.5) ** 2)
        for s in steps
    ]


def lower() -> str:
    """Descriptors, the ridge regression and the explanation, with the arrows that join them."""
    y, height = 352, 122
    style = f'fill="#fff" stroke="{SOFT}"'
    descriptors = [
        box(252, y, 200, height, style),
        text(352, y + 27, "Descriptors of each atom", 15, 'font-weight="600"'),
        text(352, y + 53, "radial densities,"), text(352, y + 72, "power spectrum;"),
        text(352, y + 91, "energy, stiffness, cage"), text(352, y + 109, "where a potential is given"),
    ]  # fmt: skip
    ridge = [
        box(600, y + 14, 200, height - 28, style),
        text(700, y + 43, "Ridge regression", 15, 'font-weight="600"'),
        text(700, y + 66, "fitted to the same labels,"), text(700, y + 85, "a share of the prediction"),
    ]  # fmt: skip
    centre, chosen = (1048.0, 421.0), {1, 4, 6, 9, 12, 17, 20}
    near = [(i, j) for i, j in PAIRS if min(math.hypot(*GLASS[i]), math.hypot(*GLASS[j])) < 48]
    small = [(0.76 * px, 0.76 * py) for px, py in GLASS]
    edges = [
        line(shifted(small[i], centre), shifted(small[j], centre),
             f'stroke="{HOT}" stroke-width="3.4"' if k in chosen else f'stroke="{LINE}" stroke-width="1"')
        for k, (i, j) in enumerate(near)
    ]  # fmt: skip
    explanation = [
        box(948, y, 200, height + 16, style), *edges, drawn(small, centre, COLOURS, 5),
        text(1048, y + height + 40, "The edges it rests on", 15, 'font-weight="600"'),
    ]  # fmt: skip
    down = TOP + HEIGHT
    arrows = [
        arrow((120, down), (120, y + 60), (249, y + 60)),
        arrow((452, y + 36), (526, y + 36), (526, 318), (816, 318), (816, down + 4)),
        arrow((452, y + 60), (597, y + 60)),
        arrow((800, y + 60), (880, y + 60), (880, 318), (986, 318), (986, down + 4)),
        arrow((1110, down), (1110, y - 4)),
    ]
    notes = [
        text(640, 311, "input of the nodes", 13.5, f'fill="{SOFT}"'),
        text(925, 311, "weighted mean", 13.5, f'fill="{SOFT}"'),
    ]
    return "\n".join([*arrows, *descriptors, *ridge, *explanation, *notes])


def svg() -> str:
    """The whole picture."""
    middle = TOP + 98
    between = [arrow((LEFT[i] + PANEL, middle), (LEFT[i + 1] - 4, middle)) for i in range(4)]
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 10 10" refX="{ref}" refY="5" markerWidth="{size}" '
        f'markerHeight="{size}" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" '
        f'fill="{fill}"/></marker>'
        for name, ref, size, fill in (("head", 8, 6, SOFT), ("tip", 6, 3.6, "context-stroke"))
    )
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1168 530" '
            f'font-family="Helvetica, Arial, sans-serif" fill="{INK}">',
            "<title>From a structure through a graph and a model to barriers and explanations</title>",
            f"<defs>{heads}</defs>",
            '<rect width="1168" height="530" fill="#fff"/>',
            *between, structure(), graph(), symmetrisation(), layers(), barriers(), lower(),
            "</svg>\n",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(svg(), encoding="utf-8")
