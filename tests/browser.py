"""Headless Chromium over the WebDriver protocol, with nothing but the standard library."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import Request, urlopen

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
#: What the protocol calls an element.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """One window; ``url`` is that of its session."""

    def __init__(self, url):
        self.url = url

    def call(self, method, path, **body):
        data = json.dumps(body).encode() if method == "POST" else None
        request = Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from error

    def open(self, path):
        self.call("POST", "/url", url=path.as_uri())

    def run(self, script, *args):
        """What a script returns, or what the promise that it returns gives."""
        return self.call("POST", "/execute/sync", script=script, args=list(args))

    def click(self, selector):
        """As with the mouse, in the middle of the element."""
        found = self.call("POST", "/element", using="css selector", value=selector)
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found)
        self.call("POST", f"/element/{found[ELEMENT]}/click")

    def console(self):
        """Messages since the last call, errors and broken policies among them."""
        return [e for e in self.call("POST", "/se/log", type="browser") if e["level"] != "INFO"]

    def pdf(self):
        return base64.b64decode(self.call("POST", "/print", background=True))


@contextmanager
def browser(width=1280, height=900):
    """A browser of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        server = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            found = (re.search(r"on port (\d+)\.", line) for line in server.stdout)
            port = next(match for match in found if match)[1]
            flags = [*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
            wanted = {
                "goog:chromeOptions": {"binary": CHROMIUM, "args": flags},
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            window = Browser(f"http://127.0.0.1:{port}/session")
            session = window.call("POST", "", capabilities={"alwaysMatch": wanted})
            window.url += "/" + session["sessionId"]
            try:
                yield window
            finally:
                window.call("DELETE", "")
        finally:
            server.terminate()
            server.wait(10)
            server.stdout.close()
