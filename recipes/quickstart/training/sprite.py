"""Small pictures with transparency: a pen that draws them and the warp that puts them in a scene.

Anti-aliased drawing of opaque paint on a zeroed RGBA canvas leaves premultiplied colour, so a
sprite can be warped and composited (`source + (1 - alpha) * destination`) without dark edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from recipes.quickstart.training.words import RGB

Picture = NDArray[np.uint8]
Points = Sequence[tuple[float, float]]
Box = tuple[float, float, float, float]
_SHIFT = 4
_FRACTION = 1 << _SHIFT
_VISIBLE_ALPHA = 48


def shade(colour: RGB, factor: float) -> RGB:
    """A colour made darker (below 1) or lighter (above 1)."""
    red, green, blue = (int(min(255.0, max(0.0, channel * factor))) for channel in colour)
    return red, green, blue


def fixed_points(points: NDArray[np.float64]) -> Any:
    """Pixel coordinates (n, 2) as the fixed-point integers that OpenCV draws with."""
    return np.rint((points - 0.5) * _FRACTION).astype(np.int32)


def fill(picture: Picture, points: NDArray[np.float64], colour: Sequence[int]) -> None:
    """Fill a convex or simple polygon given by pixel coordinates (n, 2), anti-aliased."""
    cv2.fillPoly(picture, [fixed_points(points)], tuple(colour), cv2.LINE_AA, _SHIFT)


def stroke(
    picture: Picture, points: NDArray[np.float64], colour: Sequence[int], width: int
) -> None:
    """Draw an open line through pixel coordinates (n, 2), anti-aliased."""
    cv2.polylines(
        picture, [fixed_points(points)], False, tuple(colour), max(1, width), cv2.LINE_AA, _SHIFT
    )


class Pen:
    """Draws on an RGBA canvas in unit coordinates: (0, 0) is top left, (1, 1) bottom right."""

    def __init__(self, width: int, height: int) -> None:
        self.canvas: Picture = np.zeros((height, width, 4), np.uint8)
        self._scale = np.array([width, height], np.float64)
        self._unit = float(min(width, height))

    def polygon(self, points: Points, colour: RGB) -> None:
        fill(self.canvas, np.array(points, np.float64) * self._scale, (*colour, 255))

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: RGB) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def line(self, points: Points, colour: RGB, width: float) -> None:
        """A line whose width is a share of the canvas's shorter side."""
        pixels = round(width * self._unit)
        stroke(self.canvas, np.array(points, np.float64) * self._scale, (*colour, 255), pixels)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: RGB, arc: tuple[int, int] = (0, 360)
    ) -> None:
        """A filled ellipse, or the slice of one between two angles in degrees (clockwise)."""
        centre = fixed_points(np.array([x, y]) * self._scale)
        axes = np.rint(np.array([rx, ry]) * self._scale * _FRACTION).astype(int)
        cv2.ellipse(
            self.canvas,
            (int(centre[0]), int(centre[1])),
            (int(axes[0]), int(axes[1])),
            0,
            arc[0],
            arc[1],
            (*colour, 255),
            -1,
            cv2.LINE_AA,
            _SHIFT,
        )

    def rounded(self, box: Box, radius: float, colour: RGB) -> None:
        """A rectangle with rounded corners; the radius is a share of the canvas's shorter side."""
        rx, ry = radius * self._unit / self._scale
        x0, y0, x1, y1 = box
        self.polygon(
            [
                (x0 + rx, y0),
                (x1 - rx, y0),
                (x1 - 0.3 * rx, y0 + 0.3 * ry),
                (x1, y0 + ry),
                (x1, y1 - ry),
                (x1 - 0.3 * rx, y1 - 0.3 * ry),
                (x1 - rx, y1),
                (x0 + rx, y1),
                (x0 + 0.3 * rx, y1 - 0.3 * ry),
                (x0, y1 - ry),
                (x0, y0 + ry),
                (x0 + 0.3 * rx, y0 + 0.3 * ry),
            ],
            colour,
        )

    def shade_columns(self, dark: float, light: float, peak: float) -> None:
        """Light the canvas like an upright cylinder: brightest at `peak`, darkest at the edges."""
        x = np.linspace(0.0, 1.0, self.canvas.shape[1])
        gain = light - (light - dark) * np.clip(np.abs(x - peak) / max(peak, 1 - peak), 0, 1) ** 1.5
        lit = self.canvas[:, :, :3] * gain[None, :, None]
        # Premultiplied colour may not exceed its alpha.
        self.canvas[:, :, :3] = np.minimum(lit, self.canvas[:, :, 3:]).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a sprite goes: centre and size in pixels, turn in degrees, one-sided foreshortening."""

    x: float
    y: float
    width: float
    height: float
    turn: float = 0.0
    lean: float = 0.0

    def corners(self) -> NDArray[np.float32]:
        """The quadrilateral (4, 2) that the canvas's corners go to, clockwise from top left."""
        half_width, half_height = self.width / 2, self.height / 2
        left, right = half_height * (1 + self.lean), half_height * (1 - self.lean)
        quad = np.array(
            [(-half_width, -left), (half_width, -right), (half_width, right), (-half_width, left)]
        )
        angle = np.deg2rad(self.turn)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        corners: NDArray[np.float32] = (quad @ turn + (self.x, self.y)).astype(np.float32)
        return corners

    def box(self) -> Box:
        """The upright box around the corners, in pixels."""
        corners = self.corners()
        (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A soft shadow: its offset in pixels and how dark it is (0 to 1)."""

    x: float
    y: float
    strength: float


def put(picture: Picture, canvas: Picture, pose: Pose, shadow: Shadow | None = None) -> Box:
    """Warp a sprite (h, w, 4) into an RGB picture and return the box of its visible pixels.

    What lies outside the picture is cut off. A sprite with no visible pixel has an empty box at
    its centre.
    """
    margin = 2 if shadow is None else int(abs(shadow.x) + abs(shadow.y)) + 4
    bx0, by0, bx1, by1 = pose.box()
    height, width = picture.shape[:2]
    x0, y0 = max(0, int(bx0) - margin), max(0, int(by0) - margin)
    x1, y1 = min(width, int(bx1) + margin + 1), min(height, int(by1) + margin + 1)
    nothing = (pose.x, pose.y, pose.x, pose.y)
    if x1 <= x0 or y1 <= y0:
        return nothing
    rows, columns = canvas.shape[:2]
    source = np.array([(0, 0), (columns, 0), (columns, rows), (0, rows)], np.float32) - 0.5
    target = pose.corners() - np.array([x0 + 0.5, y0 + 0.5], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    patch = cv2.warpPerspective(canvas, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    alpha = np.ascontiguousarray(patch[:, :, 3])
    region = picture[y0:y1, x0:x1]
    if shadow is not None:
        move = np.array([[1, 0, shadow.x], [0, 1, shadow.y]], np.float32)
        dark = cv2.blur(cv2.warpAffine(alpha, move, (x1 - x0, y1 - y0)), (5, 5))
        _dim(region, cv2.convertScaleAbs(dark, alpha=shadow.strength))
    _dim(region, alpha)
    cv2.add(region, cv2.cvtColor(patch, cv2.COLOR_RGBA2RGB), dst=region)
    found_x, found_y, found_width, found_height = cv2.boundingRect(
        (alpha > _VISIBLE_ALPHA).astype(np.uint8)
    )
    if not found_width:
        return nothing
    left, top = float(x0 + found_x), float(y0 + found_y)
    return left, top, left + found_width, top + found_height


def _dim(region: Any, cover: Any) -> None:
    """Multiply an RGB region by (1 - cover), cover being (h, w) uint8 with 255 for one."""
    keep = cv2.cvtColor(cv2.bitwise_not(cover), cv2.COLOR_GRAY2RGB)
    cv2.multiply(region, keep, dst=region, scale=1 / 255)
