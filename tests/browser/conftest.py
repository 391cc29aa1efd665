"""A real JupyterLab in Chromium. Everything is skipped, with the reason, where there is no Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .servers import stop

HERE = Path(__file__).parent
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
SETTINGS = {
    # The news toast has role="alert" too, and asks the network.
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "apputils-extension/themes": {"theme": os.environ.get("KIT_THEME", "JupyterLab Light")},
    # Cells out of view would be taken out of the page, and the others would move.
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@pytest.fixture(scope="session")
def chromium():
    """A browser process for all tests."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on the PATH: the browser tests need one (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A JupyterLab server with its own configuration; gives its address and the folder it serves."""
    pytest.importorskip("jupyterlab")
    home, work = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("work")
    for name, values in SETTINGS.items():
        path = home / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    shutil.copy(HERE.parent / "ui" / "fake_stages.py", work)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kit_home = str(HERE.parent.parent)
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
         "--ServerApp.port_retries=0", "--ServerApp.disable_check_xsrf=True",
         "--IdentityProvider.token=", "--ServerApp.password=",
         f"--ServerApp.root_dir={work}", "--LabApp.collaborative=False"],
        stdout=(home / "server.log").open("w"), stderr=subprocess.STDOUT, cwd=work, start_new_session=True,
        env={**os.environ, "JUPYTER_CONFIG_DIR": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
             "JUPYTERLAB_SETTINGS_DIR": str(home / "lab" / "user-settings"),
             "JUPYTERLAB_WORKSPACES_DIR": str(home / "lab" / "workspaces"), "IPYTHONDIR": str(home / "ipython"),
             "PYTHONPATH": os.pathsep.join(filter(None, [kit_home, os.environ.get("PYTHONPATH", "")]))})
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(address, server, home / "server.log")
        yield address, work
    finally:
        stop(server)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            raise RuntimeError(f"jupyter lab ended: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(f"{address}/api/status", timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"jupyter lab did not answer: {log.read_text()[-2000:]}")


class Notebook:
    """One notebook open in JupyterLab: run its cells, wait for them, find things in its widgets."""

    def __init__(self, page, name: str) -> None:
        self.page, self.name = page, name
        self.cells = page.locator(".jp-Notebook .jp-CodeCell")

    @property
    def widgets(self):
        """Where panels are: JupyterLab's own messages have roles such as alert too."""
        return self.page.locator(".jp-OutputArea .jupyter-widgets.kit-panel")

    def run(self, *cells: int) -> None:
        """Run cells by Shift+Enter, without waiting for them to finish.

        A key pressed while JupyterLab still arranges the page or connects the kernel is lost, so it is pressed again
        until the cell's prompt changes.
        """
        for at in cells:
            prompt = self.cells.nth(at).locator(".jp-InputPrompt").first
            before = prompt.inner_text()
            for _ in range(10):
                self.select(at)
                self.page.keyboard.press("Shift+Enter")
                for _ in range(10):
                    self.page.wait_for_timeout(100)
                    if prompt.inner_text() != before:
                        break
                else:
                    continue
                break

    def run_all(self) -> None:
        """From the menu, as a person would."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()

    def select(self, at: int) -> None:
        """Make a cell the current one, in command mode."""
        from playwright.sync_api import expect

        self.cells.nth(at).locator(".jp-InputPrompt").click()
        expect(self.cells.nth(at)).to_have_class(re.compile("jp-mod-active"))

    def finished(self, at: int, timeout: float = 60_000) -> None:
        """Wait until a cell has run."""
        from playwright.sync_api import expect

        expect(self.cells.nth(at).locator(".jp-InputPrompt").first).to_have_text(re.compile(r"\[\d+\]:"),
                                                                                 timeout=timeout)

    def output(self, at: int):
        """The output area of a cell."""
        return self.cells.nth(at).locator(".jp-OutputArea-output")

    def restart(self) -> None:
        """Restart the kernel and clear what is shown."""
        self.page.get_by_role("menuitem", name="Kernel", exact=True).click()
        self.page.locator('.lm-Menu-item[data-command="kernelmenu:restart-and-clear"]').click()
        self.page.locator(".jp-Dialog .jp-mod-accept").click()

    def shot(self, name: str) -> None:
        """Keep a picture where KIT_SHOTS says; nothing without it."""
        if folder := os.environ.get("KIT_SHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def notebook(lab, chromium, request):
    """Makes a notebook of cells and opens it: ``notebook(["1 + 1"])``."""
    import nbformat

    address, work = lab
    pages = []

    def make(cells: list[str]) -> Notebook:
        name = f"{request.node.name.split('[')[0]}.ipynb"
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(made, work / name)
        page = chromium.new_page(viewport={"width": 1500, "height": 1000})
        pages.append(page)
        page.goto(f"{address}/lab/tree/{name}?reset")
        opened = Notebook(page, name)
        opened.cells.first.wait_for(timeout=60_000)
        page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=60_000)
        for _ in range(300):  # a cell run before the kernel has answered is dropped by JupyterLab
            try:
                kernels = json.load(urllib.request.urlopen(f"{address}/api/kernels"))
            except urllib.error.HTTPError:  # 500 while the kernel of the test before is on its way out
                kernels = []
            if kernels and all(k["execution_state"] == "idle" and k["connections"] for k in kernels):
                break
            page.wait_for_timeout(100)
        page.wait_for_timeout(500)
        return opened

    yield make
    for page in pages:
        page.close()
    for session in json.load(urllib.request.urlopen(f"{address}/api/sessions")):
        urllib.request.urlopen(urllib.request.Request(f"{address}/api/sessions/{session['id']}", method="DELETE"))
