"""A panel in Voila: a notebook served as a page of its own, where no cell is shown and nobody presses Shift+Enter."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("voila")
from playwright.sync_api import expect

from .servers import stop

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
CELLS = ("from fake_stages import *\nfrom kit.ui import panel",
         "panel(bake, 'voila.onnx', options=BakeOptions(steps=12))")


@pytest.fixture
def page(tmp_path, chromium):
    """The page that Voila makes of the cells, open in Chromium."""
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    shutil.copy(HERE.parent / "ui" / "fake_stages.py", work)
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, work / "page.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "server.log"
    server = subprocess.Popen(
        [sys.executable, "-m", "voila", "page.ipynb", "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"],
        stdout=log.open("w"), stderr=subprocess.STDOUT, cwd=work, start_new_session=True,
        env={**os.environ, "JUPYTER_CONFIG_DIR": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
             "IPYTHONDIR": str(home / "ipython"),
             "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")]))})
    try:
        _wait_for(port, server, log)
        opened = chromium.new_page(viewport={"width": 1200, "height": 900})
        opened.goto(f"http://127.0.0.1:{port}/", timeout=60_000)
        yield opened
        opened.close()
    finally:
        stop(server)


def _wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            break
        try:
            # Only a connection: asking for the page would run the notebook.
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"voila does not answer: {log.read_text()[-2000:]}")


def test_a_panel_runs_and_can_be_cancelled_in_voila(page):
    panel = page.locator(".jupyter-widgets.kit-panel")
    run, cancel = (panel.get_by_role("button", name=name, exact=True) for name in ("Run", "Cancel"))
    status = panel.get_by_role("status")
    expect(run).to_be_enabled(timeout=60_000)
    expect(cancel).to_be_disabled()
    expect(panel.locator("pre.kit-call")).to_have_text("bake('voila.onnx', BakeOptions(steps=12))")

    run.click()
    expect(status).to_contain_text(re.compile(r"baking \d+/12"), timeout=30_000)
    expect(panel.get_by_role("progressbar")).to_have_count(1)
    expect(panel.get_by_role("region", name="Result of bake")).to_contain_text("Baked in 12 steps by minmax",
                                                                               timeout=30_000)
    expect(status).to_contain_text("Done")

    panel.get_by_label("Steps", exact=True).fill("150")
    panel.get_by_label("Steps", exact=True).press("Tab")
    run.click()
    expect(status).to_contain_text(re.compile(r"baking \d+/150, about \d+ s left"), timeout=30_000)
    if folder := os.environ.get("KIT_SHOTS"):
        page.screenshot(path=Path(folder) / "panel_voila.png")
    cancel.click()
    expect(status).to_have_text("Cancelled. Nothing was written.", timeout=15_000)
    expect(run).to_be_enabled()
