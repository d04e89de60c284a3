"""Driving the report's page in a headless Chromium: opening it, pressing keys, and asking what it shows."""

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# No sandbox, since continuous integration runs as root; WebGL in software.
ARGUMENTS = [
    "--no-sandbox",
    "--enable-unsafe-swiftshader",
    "--use-angle=swiftshader",
    "--disable-background-networking",
]


SOLID_FOLLOWS = """() => getComputedStyle(document.querySelector('#solid .legendtext')).fill ===
  getComputedStyle(document.body).color"""
# The contrast, as WCAG 2.2 defines it, of each text that is shown, to the colour that lies behind it. Inverting a plot
# changes its text and its white together, and what lies below text in the matrix is not of the page's elements.
CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = (rgb) => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * linear(rgb[i] / 255), 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = channels(getComputedStyle(element).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest("script, option, .heatmaplayer")) continue;
    const style = getComputedStyle(element), colour = element.closest("svg") ? style.fill : style.color;
    const own = luminance(channels(colour)), other = luminance(behind(element));
    found.push({ text, contrast: (Math.max(own, other) + 0.05) / (Math.min(own, other) + 0.05) });
  }
  return found;
}"""


def opened(browser: Browser, file: Path, width: int = 1280) -> Page:
    """A page that has drawn itself; the messages of its console are in `said`, and what it asked for in `asked`."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_function("document.getElementById('prediction').dataset.shown")
    page.wait_for_selector("#solid canvas")
    return page


def colours(page, selector: str) -> set[tuple[int, ...]]:
    """Of the pixels on the screen."""
    shot = np.asarray(Image.open(BytesIO(page.locator(selector).screenshot())).convert("RGB"))
    return set(map(tuple, shot.reshape(-1, 3).tolist()))


def shown(page, words: str = "") -> tuple[str, str]:
    """What the two slices show, once the second shows these words."""
    asked = "words => document.getElementById('prediction').dataset.shown.includes(words)"
    page.wait_for_function(asked, arg=words)
    page.evaluate("drawPlanes()")
    return tuple(page.locator(f"#{canvas}").get_attribute("data-shown") for canvas in ("truth", "prediction"))


def press(page, *keys: str) -> None:
    page.locator("#views").focus()
    for key in keys:
        page.keyboard.press(key)
