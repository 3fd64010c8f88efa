"""Pages in a real browser without a window: Chromium, by its own command line."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
LEAST_FONT_PIXELS = 9
LEAST_CONTRAST = 4.5  # WCAG 2.2, success criterion 1.4.3
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_CONSOLE = re.compile(r":CONSOLE[:(]\d+\)?\] (.*)")
# What a frame shows is read from the page around it, so that the page itself is as written.
_MEASURE = """
const channels = text => (text.match(/[\\d.]+/g) || []).map(Number);
function luminance(rgb) {
  const [r, g, b] = rgb.map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function background(view, element) {
  const layers = [];
  for (let e = element; e; e = e.parentElement) {
    const style = view.getComputedStyle(e);
    const page = e.tagName === "svg" && e.querySelector(".page");
    layers.push(channels(page ? view.getComputedStyle(page).fill : style.backgroundColor));
  }
  let found = [255, 255, 255];
  for (const [r, g, b, a = 1] of layers.reverse().filter(layer => layer.length))
    found = [r, g, b].map((v, i) => v * a + found[i] * (1 - a));
  return found;
}
function look(frame) {
  const view = frame.contentWindow, root = frame.contentDocument.documentElement;
  const result = {width: view.innerWidth, needed: root.scrollWidth, texts: 0, small: [],
    faint: [], cut: [], dark: view.matchMedia("(prefers-color-scheme: dark)").matches};
  for (const element of root.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.data).join("");
    const box = element.getBoundingClientRect();
    if (!text.trim() || element.tagName === "style" || !element.checkVisibility() || !box.width)
      continue;
    const style = view.getComputedStyle(element), svg = element.ownerSVGElement;
    let size = parseFloat(style.fontSize), colour = style.color;
    if (svg) {
      const outer = svg.getBoundingClientRect();
      size *= outer.width / svg.viewBox.baseVal.width, colour = style.fill;
      if (box.left < outer.left - 1 || box.right > outer.right + 1) result.cut.push(text);
    }
    const [dark, light] = [luminance(channels(colour)), luminance(background(view, element))]
      .sort((a, b) => a - b);
    result.texts += 1;
    if (size < LEAST_FONT) result.small.push([text, size]);
    if ((light + 0.05) / (dark + 0.05) < LEAST_CONTRAST) result.faint.push(text);
  }
  return result;
}
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(look);
  document.body.replaceChildren();
  document.body.textContent = JSON.stringify(found);
};
"""


@dataclass(frozen=True, slots=True)
class Look:
    """How a page is shown at one width in one colour scheme.

    `needed` is the width that the page takes, `texts` the number of visible texts; `small`, `faint`
    and `cut` are texts that are hard to read, or outside of their picture.
    """

    width: int
    needed: int
    dark: bool
    texts: int
    small: list[Any]
    faint: list[str]
    cut: list[str]


def find_browser() -> str:
    """The browser's program; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("needs a browser: install Debian's chromium package")
    return found


def look_at(pages: Mapping[str, str], folder: Path) -> tuple[dict[str, list[Look]], list[str]]:
    """Each page by its name, at each width in each scheme; and all lines of the console."""
    wrapper = folder / "wrapper.html"
    script = _MEASURE.replace("LEAST_FONT", str(LEAST_FONT_PIXELS))
    script = script.replace("LEAST_CONTRAST", str(LEAST_CONTRAST))
    frames = [frame(page, width, scheme) for page in pages.values() for width, scheme in _views()]
    wrapper.write_text(
        f"<!DOCTYPE html><meta charset='utf-8'><body>{''.join(frames)}<script>{script}</script>",
        encoding="utf-8",
    )
    output, errors = run_browser(folder, "--dump-dom", wrapper.as_uri())
    body = re.search(r"<body>(.*?)</body>", output, re.DOTALL)
    assert body, f"{output}\n{errors}"
    looks = [Look(**one) for one in json.loads(html.unescape(body[1]))]
    size = len(_views())
    parts = [looks[start : start + size] for start in range(0, len(looks), size)]
    return dict(zip(pages, parts, strict=True)), _CONSOLE.findall(errors)


def check_readable(pages: Mapping[str, str], folder: Path) -> None:
    """No message on the console; readable at every width, light and dark."""
    looks, console = look_at(pages, folder)
    assert console == []
    for name, views in looks.items():
        assert [(view.width, view.dark) for view in views] == [
            (width, scheme == "dark") for width, scheme in _views()
        ]
        for view in views:
            where = f"{name} at {view.width}, {'dark' if view.dark else 'light'}"
            assert view.texts > 0, where
            assert view.needed <= view.width, f"{where}: scrolls to the side"
            assert (view.small, view.faint, view.cut) == ([], [], []), where


def frame(page: str, width: int, scheme: str, height: int = 900) -> str:
    """A page inside of another, as wide as a screen, in a colour scheme."""
    return (
        f'<iframe style="color-scheme: {scheme}; border: 0" width="{width}" height="{height}" '
        f'srcdoc="{html.escape(page)}"></iframe>'
    )


def run_browser(folder: Path, *options: str) -> tuple[str, str]:
    """Output and log of the browser, which keeps its profile below `folder`."""
    command = [find_browser(), "--headless", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr",
    ]
    if os.getuid() == 0:
        command.append("--no-sandbox")  # which root cannot use
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout, done.stderr


def _views() -> list[tuple[int, str]]:
    return [(width, scheme) for width in WIDTHS for scheme in SCHEMES]
