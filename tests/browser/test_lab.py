"""The notebooks in a real browser: JupyterLab in Chromium, driven by playwright.

`make test-browser` runs it, on a copy of the notebooks, at the profile in FUSIONREID_PROFILE, or
demo. Screenshots are left in a folder, which is printed.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from fusionreid import paths

# Read here, as the tests' environment is without it.
PROFILE = os.environ.get("FUSIONREID_PROFILE") or "demo"
SIZE = {"width": 1280, "height": 1000}
ERROR = '.jp-OutputArea [data-mime-type="application/vnd.jupyter.error"]'
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
MISSING = [
    text
    for text, there in {
        "FUSIONREID_BROWSER=1, as this is opt-in (make test-browser sets it)": os.environ.get(
            "FUSIONREID_BROWSER"
        ),
        "the package playwright (pip install -e '.[browser]')": find_spec("playwright"),
        "the package jupyterlab": find_spec("jupyterlab"),
        "Chromium (Debian: apt install chromium)": CHROMIUM,
    }.items()
    if not there
]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"missing: {'; '.join(MISSING)}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def lab(folder):
    """The address of a JupyterLab over copies of the notebooks; all goes to a temporary folder."""
    shutil.copytree(paths.NOTEBOOKS, folder / "notebooks", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(paths.ROOT / "README.md", folder)
    (folder / "figures").mkdir()
    # Drawn by hand; notebook 01 shows it.
    shutil.copy(paths.FIGURES / "01_architecture.svg", folder / "figures")
    settings = {
        "apputils-extension/notification": {"fetchNews": "false"},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, setting in settings.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "FUSIONREID_ROOT": str(folder),
        "FUSIONREID_DATA": str(paths.DATA),
        "FUSIONREID_RUNS": str(folder / "runs"),
        "FUSIONREID_PROFILE": PROFILE,
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder / 'notebooks'}",
    ]
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            assert server.poll() is None, (folder / "lab.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screenshots")
    print(f"\nscreenshots: {folder}")
    return folder


@pytest.fixture
def page(browser, shots, request):
    """An empty page; what it shows at the end of a test, or when it failed, is kept too."""
    page = browser.new_page(viewport=SIZE)
    page.broken = []
    page.shots = shots
    page.on("pageerror", lambda error: page.broken.append(str(error)))
    yield page
    page.screenshot(path=shots / f"{request.node.name}.png")
    page.close()


def run_all(page, lab, name, first=None):
    """Opens a notebook, runs all of its cells, and returns how many seconds they took.

    Prints when `first`, a selector, was there.
    """
    page.goto(f"{lab}/lab/tree/{name}.ipynb?reset", timeout=120_000)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=120_000)
    page.get_by_text("| Idle").wait_for(timeout=120_000)  # else it asks for a kernel
    page.keyboard.press("Control+B")  # folds the file browser away
    start = time.monotonic()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    # Prompts of an earlier run are numbers too: wait until one cell runs, then until none does.
    cells = "[...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')]"
    prompts = f"{cells}.map(prompt => prompt.textContent)"
    page.wait_for_function(f"() => {prompts}.some(text => text.includes('*'))", timeout=20_000)
    if first:
        page.locator(first).first.wait_for(timeout=900_000)
        print(f"\n{name}: the first picture after {time.monotonic() - start:.0f} s", flush=True)
    page.wait_for_function(f"() => {prompts}.every(text => /\\d/.test(text))", timeout=900_000)
    assert page.locator(ERROR).all_inner_texts() == []
    return time.monotonic() - start


def widget(page, kind, name):
    """The first widget of a kind with a description, of those that are shown."""
    label = page.locator("label, .widget-label", has_text=re.compile(rf"^\s*{re.escape(name)}\s*$"))
    return page.locator(f".widget-{kind}:visible").filter(has=label).first


CLOCK = """() => {
  const each = window.clock = {start: 0, end: 0};
  document.addEventListener("pointerup", () => (each.start = performance.now()), true);
  new MutationObserver(() => requestAnimationFrame(() => (each.end = performance.now())))
    .observe(document.querySelector(".jp-Notebook"), {subtree: true, childList: true});
}"""
QUIET = "() => clock.end > clock.start && performance.now() - clock.end > 2000"


class Map:
    """A plane of notebook 13 in the browser; its places are from the table beside its picture.

    `number` counts the planes from the left, `feature` is the title of one.
    """

    EDGE, WIDTH, HEIGHT = 16, 540, 480  # of plane.js

    def __init__(self, page, folder, number, feature):
        from fusionreid.data.datasets import open_data
        from fusionreid.paper.experiments import setting

        self.page, self.canvas = page, page.locator("canvas[role=application]").nth(number)
        self.list = page.locator(".jp-CodeCell", has=self.canvas).locator(".widget-gridbox")
        dataset = open_data(setting(PROFILE, "synthetic").data, paths.DATA)
        self.records, self.queries = [*dataset.query, *dataset.gallery], len(dataset.query)
        table = pd.read_csv(next(folder.rglob("13_plane.csv"))).query("feature == @feature")
        assert len(table) == len(self.records), "some images are left out"
        size = np.array([self.WIDTH, self.HEIGHT]) - 2 * self.EDGE
        self.all_shown = self.EDGE + size * np.column_stack([table["x"], 1 - table["y"]])

    @property
    def view(self):
        """How many times as large the plane is, and where its corner lies."""
        scale, left, top = map(float, self.canvas.get_attribute("data-view").split())
        return scale, np.array([left, top])

    @property
    def places(self):
        """(N, 2) where the images are now, in pixels of the canvas."""
        scale, corner = self.view
        return corner + scale * self.all_shown

    def drag(self, start, end, button="left"):
        self.pointer(*start)
        self.page.mouse.down(button=button)
        self.pointer(*end)
        self.page.mouse.up(button=button)

    def pointer(self, x, y):
        box = self.canvas.bounding_box()
        self.page.mouse.move(box["x"] + x, box["y"] + y)

    def lasso(self, corners):
        """Draws a lasso by the mouse.

        Returns the milliseconds from its release until the list and the maps are all new.
        """
        self.pointer(*corners[0])
        self.page.mouse.down()
        for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
            for share in (0.25, 0.5, 0.75, 1):
                self.pointer(*(np.array(start) * (1 - share) + np.array(end) * share))
        self.page.mouse.up()
        self.page.wait_for_function(QUIET)
        return self.page.evaluate("clock.end - clock.start")

    def holds(self, corners):
        """Asserts that the list shows only gallery images between the corners; returns how many.

        The browser rounds where the pointer is. An image within a pixel of the lasso may be in it,
        or not.
        """
        from matplotlib.path import Path as Polygon

        shifts = np.array(list(itertools.product((-1, 0, 1), repeat=2)))
        gallery_places = self.places[self.queries :]
        inside = [Polygon(corners + shift).contains_points(gallery_places) for shift in shifts]
        surely, perhaps = np.all(inside, axis=0), np.any(inside, axis=0)
        caption = self.page.locator(
            ".widget-html:visible", has_text=re.compile("person")
        ).first.inner_text()
        own = tuple(map(int, re.search(r"person (-?\d+), camera (\d+)", caption).groups()))
        gallery = self.records[self.queries :]
        left_out = np.array([(each.identity, each.camera + 1) == own for each in gallery])
        text = self.page.locator(
            ".widget-html", has_text=re.compile(r"\d+ of \d+ gallery images")
        ).inner_text()
        count, total = map(int, re.findall(r"\d+", text))
        assert surely.sum() <= count <= perhaps.sum() and total == len(gallery)
        shown = self.list.locator("img:visible").evaluate_all(
            "all => all.map(each => each.src.split(',')[1])"
        )
        assert min(20, (surely & ~left_out).sum()) <= len(shown) <= min(20, count) and shown
        listed = [gallery[place].path for place in np.flatnonzero(perhaps & ~left_out)]
        assert set(shown) <= {base64.b64encode(path.read_bytes()).decode() for path in listed}
        return count


@pytest.mark.parametrize("name", ["00_data", "01_model"])
def test_a_notebook_runs(page, lab, shots, name):
    seconds = run_all(page, lab, name)
    page.screenshot(path=shots / f"{name}.png")
    print(f"\n{name}: {seconds:.0f} s")
    assert not page.broken


def test_every_widget_of_the_explorer_changes_what_is_shown(page, lab, folder, shots):
    seconds = run_all(page, lab, "13_explore", first=".widget-gridbox img")
    print(f"13_explore: {seconds:.0f} s")
    assert page.locator(".jp-OutputArea .jupyter-widgets-disconnected").count() == 0
    outputs = page.locator(".jp-OutputArea-output:has(.widget-gridbox, .widget-dropdown)")
    times = {}
    outputs.first.scroll_into_view_if_needed()
    page.screenshot(path=shots / "13-start.png")

    def shown():
        widgets = page.locator(".widget-html, .widget-button")
        html = widgets.evaluate_all("all => all.map(widget => widget.outerHTML)")
        return hashlib.sha256("".join(html).encode()).hexdigest()

    def drawn():
        return canvas.evaluate("each => each.toDataURL()")

    def marks():
        return page.locator(".widget-button:visible").all_inner_texts()

    def changes(name, move, wanted=True, shown=shown):
        before, start = shown(), time.monotonic()
        move()
        while not (changed := shown() != before) and time.monotonic() - start < (
            10 if wanted else 2
        ):
            pass
        if changed:
            times[name] = 1000 * (time.monotonic() - start)
            print(f"{name}: {times[name]:.0f} ms", flush=True)
        last = before
        while (now := shown()) != last:  # until the rest is drawn too
            last = now
            page.wait_for_timeout(500)
        assert changed or not wanted, f"{name}: nothing changed"
        assert page.locator(ERROR).count() == 0 and not page.broken
        page.screenshot(path=shots / f"13-{name.replace(' ', '-')}.png")

    def slide(name, key="ArrowRight", handle=0):
        return lambda: widget(page, "hslider", name).locator(".noUi-handle").nth(handle).press(key)

    def choose(name, index):
        return lambda: widget(page, "dropdown", name).locator("select").select_option(index=index)

    def tick(name):
        return lambda: widget(page, "checkbox", name).locator("input").click()

    changes("query", slide("query"))
    changes("feature", choose("feature", 5))
    changes("camera embedding", tick("camera embedding"))
    changes("re-ranking", tick("re-ranking"))
    changes("its weight", slide("its weight"))
    changes("camera", choose("camera", 2))
    choose("camera", 0)()
    page.wait_for_timeout(2000)
    for name in ("only wrong",):
        for _ in range(8):  # of some queries the first twenty are so anyway
            before = marks()
            changes(name, tick(name), wanted=False)
            changed = marks() != before
            assert name != "only wrong" or not any("✓" in mark for mark in marks())
            tick(name)()
            page.wait_for_timeout(1500)
            if changed:
                break
            slide("query", "PageUp")()
            page.wait_for_timeout(1500)
        else:
            pytest.fail(f"{name}: nothing changed")
    changes("choose a result", page.locator(".widget-button:visible").nth(3).click)
    button = page.locator(".widget-button:visible").nth(5)
    button.focus()
    changes("choose by keyboard", lambda: page.keyboard.press("Enter"))
    changes("Grad-CAM", choose("Grad-CAM", 1))
    changes("attention", choose("attention", 3))
    changes("head", choose("head", 2))

    plane = Map(page, folder, 0, "CNN")
    beside = Map(page, folder, 1, "Transformer")
    canvas = plane.canvas
    page.evaluate(CLOCK)
    widget(page, "dropdown", "colour").scroll_into_view_if_needed()
    canvas.scroll_into_view_if_needed()
    legend = page.locator(".plane-legend")
    assert legend.inner_text() == "one colour for each identity"
    names = widget(page, "dropdown", "colour").locator("option").all_inner_texts()
    swatches = legend.locator("span[style*=background]")
    for name in ("camera", "sleeves", "top"):
        changes(f"colour {name}", choose("colour", names.index(name)), shown=drawn)
        assert (swatches.count() == 1) == (name == "sleeves")  # a bar for a measure
    before = beside.canvas.evaluate("each => each.toDataURL()")
    changes("hover", lambda: plane.pointer(*plane.places[-1]), shown=drawn)
    linked = beside.canvas.evaluate("each => each.toDataURL()")
    assert linked != before, "no mark in the other plane"
    middle = np.median(plane.places, axis=0)
    shape = np.array([(-1, -1), (1, -0.8), (0.6, 1), (-0.9, 0.7)])
    sizes = {"small lasso": (60, 35), "middle lasso": (120, 70), "large lasso": (220, 130)}
    for name, size in sizes.items():
        corners = middle + shape * size
        times[name] = plane.lasso(corners)
        print(
            f"{name}: {times[name]:.0f} ms until all is new, {plane.holds(corners)} images",
            flush=True,
        )
        page.screenshot(path=shots / f"13-{name.replace(' ', '-')}.png")
    before = plane.list.inner_html()
    changes("Escape lets go", lambda: page.keyboard.press("Escape"))
    assert plane.list.inner_html() != before
    plane.pointer(*middle)
    # Three corners; Enter then sets the fourth.
    for moves in (["ArrowRight"] * 9, ["Shift+ArrowDown"] * 2, ["ArrowLeft"] * 9):
        for key in ("Space", *moves):
            page.keyboard.press(key)
    page.screenshot(path=shots / "13-keys.png")
    changes("lasso by keys", lambda: page.keyboard.press("Enter"))
    plane.holds(middle + [(0, 0), (54, 0), (54, 96), (0, 96)])
    changes("a click lets go", lambda: canvas.click(position={"x": 5, "y": 5}))
    look_closer(page, plane, beside, middle, changes, drawn)

    changes("another plane", choose("left", 2), shown=drawn)
    choose("left", 0)()
    page.wait_for_timeout(1000)
    take_picture(page, plane, changes, shown)
    # The bar on a free machine is 300 ms; what takes ten times as long hangs.
    print(f"median of {len(times)} changes: {sorted(times.values())[len(times) // 2]:.0f} ms")
    assert max(times.values()) < 3000


def look_closer(page, plane, beside, middle, changes, drawn):
    """Zoom and pan by mouse and by keys; a lasso of what is then seen, also in the other plane."""

    def zoom():
        plane.pointer(*middle)
        page.mouse.wheel(0, -100)

    under = (middle - plane.view[1]) / plane.view[0]
    changes("zoom", zoom, shown=drawn)
    page.mouse.wheel(0, -100)
    page.wait_for_timeout(300)
    scale, corner = plane.view
    assert scale == pytest.approx(1.5625)
    np.testing.assert_allclose(corner + scale * under, middle, atol=1)
    assert beside.view[0] == 1
    corners = middle + np.array([(-80, -60), (80, -60), (80, 60), (-80, 60)])
    plane.lasso(corners)
    print(f"lasso when zoomed: {plane.holds(corners)} images")
    page.screenshot(path=page.shots / "13-lasso-when-zoomed.png")
    chosen = plane.list.inner_html()
    for button in ("left", "middle", "right"):
        before = plane.view[1]
        if button == "left":
            page.keyboard.down("Shift")
        plane.drag(middle, middle + (30, 20), button)
        page.keyboard.up("Shift")
        np.testing.assert_allclose(plane.view[1], before + (30, 20), atol=1)
    assert plane.list.inner_html() == chosen, "a drag that moves the plane let go of the lasso"
    before = plane.view[1]
    page.keyboard.press("Alt+ArrowRight")
    np.testing.assert_allclose(plane.view[1], before - (48, 0), atol=1)
    page.keyboard.press("-")
    assert plane.view[0] == pytest.approx(1.25)
    page.keyboard.press("+")
    assert plane.view[0] == pytest.approx(1.5625)
    for _ in range(2):  # JupyterLab would restart the kernel
        page.keyboard.press("0")
    assert plane.view[0] == 1 and page.locator(".jp-Dialog").count() == 0
    changes("Escape when zoomed", lambda: page.keyboard.press("Escape"))
    corners = np.median(beside.places, axis=0) + np.array([(-90, -60), (90, -60), (0, 70)])
    beside.lasso(corners)
    print(f"lasso in the other plane: {beside.holds(corners)} images", flush=True)
    page.screenshot(path=page.shots / "13-other-plane.png")
    changes("letting go of it", lambda: page.keyboard.press("Escape"))


def take_picture(page, plane, changes, shown):
    """A picture of one's own by the button, a file that is none, and a picture that is dropped."""

    def upload(name, content):
        with page.expect_file_chooser() as chooser:
            page.locator(".widget-upload").last.click()
        return lambda: chooser.value.set_files(
            {"name": name, "mimeType": "image/png", "buffer": content}
        )

    picture = plane.records[-1].path
    changes("own picture", upload("mine.jpg", picture.read_bytes()))
    assert page.locator(".widget-html", has_text="no camera").count()
    before = shown()
    upload("notes.png", b"no picture")()
    page.locator(".widget-label", has_text="notes.png: expected an image").first.wait_for()
    page.screenshot(path=page.shots / "13-no-picture.png")
    assert shown() == before and page.locator(ERROR).count() == 0
    back = widget(page, "checkbox", "own picture").locator("input")
    changes("back to the query", back.click)

    def drop(name, content):
        """Drops a file on the second plane, of some bytes or of so many zeros."""
        page.locator("canvas").nth(1).evaluate(
            """(canvas, [name, bytes]) => {
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([new Uint8Array(bytes)], name));
                canvas.dispatchEvent(new DragEvent("drop", { dataTransfer }));
            }""",
            [name, content],
        )

    changes("a dropped picture", lambda: drop("dropped.jpg", [*picture.read_bytes()]))
    page.locator(".widget-label", has_text="dropped.jpg").first.wait_for()
    drop("large.jpg", 11_000_000)
    page.locator(".widget-label", has_text="large.jpg: expected at most").first.wait_for()
    changes("back to the query again", back.click)
