"""The page in a real browser, headless: an image dropped on it, the views, a file that is refused."""

from __future__ import annotations

import base64
import shutil

import numpy as np
import pytest
from requests_to_serve import encoded, make_service, photo, serving

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = [pytest.mark.slow, pytest.mark.peer]

_DROP = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def page():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs chromium on the path")
    with serving(make_service()) as port, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        yield page
        browser.close()


def drop(page, name, content):
    page.evaluate(_DROP, [name, base64.b64encode(content).decode()])


def test_an_image_is_dropped_and_its_mask_overlay_legend_and_timings_appear(page, rng):
    image = np.full((40, 60, 3), 10, np.uint8)
    image[:, 30:] = photo(rng, (40, 30)) // 2 + 128
    drop(page, "halves.png", encoded(image))
    page.wait_for_selector("#result:not([hidden])")
    assert page.inner_text("#status").startswith("halves.png: 60 × 40 pixels")
    assert "dark" in page.inner_text("#classes")
    assert "50.0 %" in page.inner_text("#classes")
    assert "network" in page.inner_text("#timings")
    for view in ("mask", "image", "overlay"):
        page.click(f"[data-view={view}]")
        page.wait_for_function("document.getElementById('view').naturalWidth === 60")
        assert page.get_attribute(f"[data-view={view}]", "aria-pressed") == "true"


def test_a_file_that_is_refused_says_why(page):
    drop(page, "bad.png", b"no image at all")
    page.wait_for_selector("#status.error")
    assert "no image" in page.inner_text("#status")
