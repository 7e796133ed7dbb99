"""A run is pushed as a model: to a server that answers as the hub does, and to a folder."""

import base64
import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from fixtures.places import TESTS
from genbench import export
from genbench.cli import main
from genbench.commands import push
from genbench.sharing import hub

needs_hub = pytest.mark.skipif(
    not find_spec("huggingface_hub"), reason="the extra hub is not installed"
)
FILES = {"README.md", "config.yaml", "model.safetensors", "result.json"}


@pytest.fixture
def outputs(room, monkeypatch) -> Path:
    """Runs of a few steps; their weights are written in this process."""
    shutil.copytree(TESTS / "fixtures" / "old_runs", room / "outputs")
    monkeypatch.setattr(push, "run_verb", lambda arguments, *_: export.main([*arguments]))
    return room / "outputs"


def answer(path: str, body: bytes, address: str, seen):
    """What the hub answers to a POST, and what is kept of it."""
    if path == "/api/repos/create":
        seen["repositories"].append(json.loads(body))
        return {"url": f"{address}/me/vae"}
    if path.endswith("/preupload/main"):
        small = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
        return {"files": [{"path": one["path"]} | small for one in json.loads(body)["files"]]}
    if path == "/api/models/me/vae/commit/main":
        lines = [json.loads(line) for line in body.splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        seen["commits"].append({one["path"]: base64.b64decode(one["content"]) for one in files})
        url = f"{address}/me/vae/commit/0123"
        return {"commitUrl": url, "commitOid": "0123", "success": True}
    return {"errors": [], "warnings": []}


@pytest.fixture
def server(monkeypatch):
    """What huggingface_hub asks of the hub in a commit of small files; the commits and repositories made."""
    seen = {"repositories": [], "commits": [], "refuse": 0}

    class Hub(BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if seen["refuse"]:
                return self._answer({"error": "not today"}, seen["refuse"])
            return self._answer(answer(self.path, body, address, seen))

        def do_GET(self):  # noqa: N802
            self._answer({"id": "me/vae", "sha": "0", "siblings": []})

        def _answer(self, content, status=200):
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{web.server_port}"
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    import huggingface_hub

    real = huggingface_hub.HfApi
    monkeypatch.setattr(
        huggingface_hub, "HfApi", lambda **more: real(endpoint=address, token="hf_secret", **more)
    )
    yield seen
    web.shutdown()
    web.server_close()
    thread.join(5)


def hidden(repository) -> bool:
    """Whether it was made private, in the words of this huggingface_hub or of earlier ones."""
    return repository.get("visibility") == "private" or repository.get("private") is True


@needs_hub
def test_a_run_becomes_a_private_repository_with_card_weights_and_settings(outputs, server, capsys):
    assert main(["push", "vae", "hf://me/vae", "--licence", "cc-by-4.0"]) == 0
    assert "me/vae: http://127.0.0.1" in capsys.readouterr().out
    (repository,), (commit,) = server["repositories"], server["commits"]
    assert (repository["name"], repository["organization"]) == ("vae", "me")
    assert hidden(repository)
    assert set(commit) == FILES
    front = yaml.safe_load(commit["README.md"].decode().split("---")[1])
    assert (front["license"], front["library_name"]) == ("cc-by-4.0", "genbench")
    from safetensors.torch import load

    content = load(commit["model.safetensors"])
    config = yaml.safe_load(commit["config.yaml"])
    from hydra.utils import instantiate

    lacking, unknown = instantiate(config["model"]).load_state_dict(content, strict=False)
    assert not unknown and not lacking
    assert main(["push", "hf://me/vae", "vae", "--public"]) == 0
    assert not hidden(server["repositories"][1])


@needs_hub
@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_hub_that_refuses_is_a_sentence_without_the_token(outputs, server, capsys, status):
    server["refuse"] = status
    assert main(["push", "vae", "hf://me/vae"]) == 2
    told = capsys.readouterr().err
    assert "cannot push to hf://me/vae: " in told and "nothing of yours is lost" in told
    assert "hf_secret" not in told and not server["commits"]


def test_what_would_be_pushed_is_written_to_a_folder_without_what_is_of_this_machine(
    outputs, capsys
):
    assert main(["push", "vae-gan", "hf://me/x", "--out", "model"]) == 0
    assert {path.name for path in Path("model").iterdir()} == FILES
    config = yaml.safe_load(Path("model/config.yaml").read_text())
    assert not {"paths", "logger"} & set(config) and "cache" not in config["dataset"]
    result = json.loads(Path("model/result.json").read_text())
    assert "host" not in result["environment"] and result["scores"]
    assert main(["push", "vae-gan", "hf://me/x", "--out", "model"]) == 2
    assert "model exists, and nothing is overwritten" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vae", "hf://me"], "hf://me is no repository of the hub: give hf://user/name"),
        (["vae", "hf://me/x/y"], "hf://me/x/y is no repository of the hub"),
        (["hf://me/x"], "push one run as a model"),
        (["vae", "gan", "hf://me/x"], "push one run as a model"),
        (["vae-killed", "hf://me/x"], "a model is of a finished run"),
        (["team", "vae", "--licence", "mit"], "are for hf://user/name alone"),
    ],
)
def test_what_cannot_be_pushed_is_a_sentence(outputs, capsys, arguments, words):
    assert main(["push", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_finished_run_whose_weights_are_not_here_is_a_sentence(outputs, capsys):
    (outputs / "vae/checkpoints/final.ckpt").unlink()
    assert main(["push", "vae", "hf://me/x", "--out", "model"]) == 2
    assert "vae has no checkpoint 'final'" in capsys.readouterr().err
    assert not Path("model").exists()


def test_without_the_extra_the_command_says_what_to_install(outputs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert main(["push", "vae", "hf://me/x"]) == 2
    assert "pip install 'genbench[hub]'" in capsys.readouterr().err
    assert hub.repository_of("hf://me/x/") == "me/x"
