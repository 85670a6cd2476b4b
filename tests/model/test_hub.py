"""Models of the hub: fetched over HTTP from a stand-in that answers as the hub does."""

import hashlib
import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from running import asr

from asr.errors import InputError
from asr.model.pretrained import load_model

pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
    """The hub's interface on a free port, with one repository: the model, and a pickle."""
    folder = tmp_path / "published"
    shutil.copytree(model / "model", folder)
    (folder / "evil.pkl").write_bytes(b"cos\nsystem\n")
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(with_body=False)

        def do_GET(self):
            self.answer(with_body=True)

        def answer(self, with_body):
            asked.append(self.path)
            info = re.fullmatch(r"/api/models/someone/small(/revision/[^/?]+)?(\?.*)?", self.path)
            file = re.fullmatch(r"/someone/small/resolve/[^/]+/(.+)", self.path)
            tree = re.fullmatch(r"/api/models/someone/small/tree/[^/?]+(\?.*)?", self.path)
            if tree:
                files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
                listed = [
                    {"type": "file", "oid": "0" * 40, "size": p.stat().st_size}
                    | {"path": str(p.relative_to(folder))}
                    for p in files
                ]
                self.send(json.dumps(listed).encode(), "application/json", with_body)
            elif info and (info[1] or "").split("/")[-1] in ("", "main", "v1", COMMIT):
                files = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
                siblings = [{"rfilename": name} for name in files]
                body = {"id": "someone/small", "sha": COMMIT, "siblings": siblings}
                body |= {"private": False, "tags": [], "downloads": 0, "likes": 0}
                self.send(json.dumps(body).encode(), "application/json", with_body)
            elif file and (folder / file[1]).is_file():
                data = (folder / file[1]).read_bytes()
                self.send(data, "application/octet-stream", with_body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def send(self, body, kind, with_body):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["hf:someone/small", "hf:someone/small@v1"])
def test_a_model_of_the_hub_transcribes(hub, name, model, said, monkeypatch, capsys):
    audio = said[0].audio
    status, heard, err = asr(monkeypatch, capsys, "transcribe", "--model", name, audio)
    assert status == 0, err
    assert heard == asr(monkeypatch, capsys, "transcribe", "--model", model, audio)[1]
    assert any("weights.safetensors" in path for path in hub)
    assert not any("evil" in path for path in hub)


def test_what_was_fetched_is_not_fetched_again(hub):
    load_model("hf:someone/small")
    before = sum("resolve" in path for path in hub)
    load_model("hf:someone/small")
    assert sum("resolve" in path for path in hub) == before


@pytest.mark.parametrize("name", ["hf:someone/missing", "hf:small", "hf:a/b/c"])
def test_no_such_model_is_one_line(hub, name):
    with pytest.raises(InputError) as raised:
        load_model(name)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_card_has_what_results_say(model):
    text = (model / "model/README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    known = yaml.safe_load(head)
    results = json.loads((model / "results.json").read_text())
    per = results["sets"]["test"]["greedy"]["PER"]
    metrics = [m for entry in known["model-index"][0]["results"] for m in entry["metrics"]]
    (greedy,) = (m for m in metrics if m["name"].startswith("PER, greedy"))
    assert greedy["value"] == round(100 * per["error_rate"], 2)
    assert per["policy"] in body
    assert re.search(r"\| test \| greedy \| PER \| [\d.]+ \| [\d.]+ to [\d.]+ \|", body)
