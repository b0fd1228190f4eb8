"""Sharing: a run becomes a folder with a card, goes to a hub and comes back; a local server stands for the hub."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from train_runs import tiny

import eisnn
from eisnn.cli import main
from eisnn.interop import evaluate, load_trained
from eisnn.interop.hub import publish
from eisnn.interop.shared import locate, network_names
from eisnn.train import Run, fit
from eisnn.train.checkpoint import CheckpointError
from eisnn.train.run import RunError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "run"
    fit(tiny(images, epochs=2), folder, quiet=True)
    return folder


def test_every_network_of_the_package_loads_offline_with_what_is_known_of_it() -> None:
    assert {"demo", "demo-bn", "demo-plus", "nmnist-demo", "cifar10-vgg8-plus-quarter"} <= set(network_names())
    for name in network_names():
        model = eisnn.load(name)
        assert not model.training
        assert model.about.name == name
        assert len(model.about.classes) == 10
        side = model.about.config.data.image_size
        frames = torch.ones(6, 2, 2, 17, 17) if name == "nmnist-demo" else torch.rand(2, 3, side, side)
        assert model(frames).shape == (2, 10)
        assert eisnn.dale_violations(model) == {}
        assert model.about.accuracy == Run(model.about.file.parent).metrics()[-1]["test_accuracy"]
    assert sum(file.stat().st_size for file in locate("demo").parent.rglob("*.*")) < 10e6


def test_the_accuracy_on_the_card_is_that_of_the_weights() -> None:
    trained = load_trained("demo-plus")
    size = trained.config.data.image_size
    batch = next(eisnn.data.Loader(trained.dataset.test, 1000, size=size).epoch())
    with torch.no_grad():
        right = (trained.model.eval()(batch.images).argmax(1) == batch.labels).float().mean()
    assert abs(100 * float(right) - eisnn.load("demo-plus").about.accuracy) < 0.3  # of 1,000 images, on any machine


def test_the_network_of_recordings_has_the_accuracy_of_its_card() -> None:
    recordings = Path(__file__).parents[3] / "shared/data/nmnist-1100.npz"
    if not recordings.exists():
        pytest.skip(f"needs {recordings}")
    measured = evaluate("nmnist-demo", data_path=str(recordings))["accuracy"]
    assert abs(measured - eisnn.load("nmnist-demo").about.accuracy) <= 2  # of 100 recordings, on any machine


def test_a_published_folder_gives_the_same_answers(run: Path, tmp_path: Path) -> None:
    folder = publish(run, "me/tiny", out=tmp_path / "published", dry_run=True, license="mit")
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "config.json", "metrics.jsonl", "model.safetensors",
    ]  # fmt: skip
    text = "".join(file.read_text() for file in folder.iterdir() if file.suffix != ".safetensors")
    assert str(tmp_path) not in text  # nothing of this machine
    assert str(Path(load_trained(run).config.data.data_path or "")) not in text
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, theirs = load_trained(run).model.eval(), eisnn.load(folder)
    assert torch.equal(ours(x), theirs(x))
    card = (folder / "README.md").read_text()
    assert f"{theirs.about.accuracy:.2f} %" in card
    front = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    (index,) = json.loads(front["model-index"])
    assert index["results"][0]["metrics"][0]["value"] == round(theirs.about.accuracy / 100, 5)
    assert json.loads(front["license"]) == "mit"


def test_a_folder_that_holds_the_same_is_taken_and_another_is_not(run: Path, tmp_path: Path) -> None:
    folder = publish(run, "me/tiny", out=tmp_path / "of mine", dry_run=True)
    for _ in range(8):  # the header of the weights has several orders
        assert publish(run, "me/tiny", out=folder, dry_run=True) == folder
    (folder / "README.md").write_text("mine")
    (folder / "notes").mkdir()
    said = rf"differs in README\.md, notes from .* `hf upload me/tiny '{folder}' \.` uploads .*: rm -r '{folder}'$"
    with pytest.raises(RunError, match=said):
        publish(run, "me/tiny", out=folder, dry_run=True)
    assert (folder / "README.md").read_text() == "mine"
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"differs in README\.md, model\.safetensors, notes from"):
        publish(run, "me/tiny", out=folder, dry_run=True)
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "letter").touch()
    with pytest.raises(RunError, match=r"differs in .*letter.* would be written; name another folder \(--out\)"):
        publish(run, "me/tiny", out=tmp_path / "documents", dry_run=True)


def test_wrong_names_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected OWNER/NAME"):
        publish(run, "tiny", dry_run=True)
    with pytest.raises(RunError, match="holds no run"):
        publish(tmp_path, "me/tiny", dry_run=True)
    with pytest.raises(CheckpointError, match="did you mean 'demo-plus'"):
        eisnn.load("demo-pluss")
    with pytest.raises(CheckpointError, match="give a folder or file, one of the networks in the package"):
        eisnn.load("nothing-like-it")
    with pytest.raises(TypeError, match="a trained network has a name or a path, got None"):
        eisnn.load(None)


def test_a_network_of_the_package_is_published_under_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = publish("demo-plus", "me/demo-plus", dry_run=True)
    assert folder.resolve() == tmp_path / "demo-plus-published"
    same = zip(eisnn.load(folder).parameters(), eisnn.load("demo-plus").parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in same)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as one repository needs; `broken` names a file that breaks off in the middle."""

    files: dict[str, bytes]
    broken: str

    def log_message(self, *_: object) -> None:
        pass

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def answer(self, body: bytes, code: int = 200, **headers: str) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def told(self, value: object, code: int = 200, **headers: str) -> None:
        self.answer(json.dumps(value).encode(), code, Content_Type="application/json", **headers)

    def do_GET(self) -> None:
        if not self.path.split("?")[0].startswith(("/api/models/me/tiny", "/me/tiny/resolve/")):
            self.told({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif "/tree/" in self.path:
            self.told(
                [
                    {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                    for name, body in self.files.items()
                ]
            )
        elif self.path.startswith("/api"):
            self.told({"id": "me/tiny", "sha": self.sha, "siblings": [{"rfilename": name} for name in self.files]})
        else:
            name = self.path.split("?")[0].rsplit("/", 1)[1]
            if name not in self.files:
                self.told({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
                return
            body = self.files[name]
            etag = f'"{hashlib.sha1(body).hexdigest()}"'
            if name == self.broken and self.command == "GET":
                self.answer(body[: len(body) // 2], X_Repo_Commit=self.sha, ETag=etag)
                return
            self.answer(body, X_Repo_Commit=self.sha, ETag=etag)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/repos/create":
            self.told({"url": f"http://{self.headers['Host']}/me/tiny", "name": "me/tiny"})
        elif self.path == "/api/validate-yaml":
            self.told({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.told({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.told({"commitUrl": f"http://{self.headers['Host']}/me/tiny/commit/{self.sha}", "commitOid": self.sha})
        else:
            self.told({"error": self.path}, 404)


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.files, Hub.broken = {}, ""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def by_a_new_user(server: ThreadingHTTPServer, home: Path, *lines: str) -> str:
    """What a program prints that knows this hub only, and has loaded nothing from it yet."""
    own = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_none",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(["import eisnn, torch", *lines])],
        env=os.environ | own, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_network_goes_to_the_hub_and_comes_back(run: Path, tmp_path: Path, hub: ThreadingHTTPServer) -> None:
    pytest.importorskip("huggingface_hub")
    said = by_a_new_user(
        hub,
        tmp_path / "home",
        f"print(eisnn.publish({str(run)!r}, 'me/tiny', out={str(tmp_path / 'out')!r}))",
        "model = eisnn.load('hf:me/tiny')",
        "x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))",
        f"print(torch.equal(model(x), eisnn.load({str(run)!r})(x)), model.about.name)",
        "try: eisnn.load('hf:me/other')",
        "except ValueError as error: print('said:', error)",
        "try: eisnn.load('hf:no name')",
        "except ValueError as error: print('said:', error)",
    )
    assert "True hf:me/tiny" in said
    assert "said: hf:me/other could not be loaded" in said
    assert "said: hf:no name names no network on the hub, expected hf:OWNER/NAME" in said
    assert "Traceback" not in said


def test_an_upload_that_failed_is_said_in_one_line_and_the_same_command_tries_again(
    run: Path,
    tmp_path: Path,
    hub: ThreadingHTTPServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    command = ["publish", str(run), "me/tiny", "--out", str(folder := tmp_path / "out")]
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody answers there
    assert main(command) == 2
    said = f"eisnn: me/tiny could not be uploaded to http://127.0.0.1:9: .*; it is in {folder}, and the same command"
    assert re.fullmatch(f"{said} tries again\n", capsys.readouterr().err)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
    assert main(command) == 0
    assert Hub.files == {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ValueError, match="Repo id must"):
        publish(run, "me/no name", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_download_that_breaks_off_or_holds_something_else_is_said(
    run: Path, tmp_path: Path, hub: ThreadingHTTPServer
) -> None:
    pytest.importorskip("huggingface_hub")
    folder = publish(run, "me/tiny", out=tmp_path / "out", dry_run=True)
    Hub.files |= {file.name: file.read_bytes() for file in folder.iterdir()}
    Hub.broken = "model.safetensors"
    load = ["try: print(type(eisnn.load('hf:me/tiny')))", "except ValueError as error: print('said:', error)"]
    assert "said: " in (said := by_a_new_user(hub, tmp_path / "home", *load))
    assert "Traceback" not in said
    Hub.broken = ""
    del Hub.files["model.safetensors"]
    said = by_a_new_user(hub, tmp_path / "elsewhere", *load)
    assert "said: hf:me/tiny holds no network of eisnn: there is no model.safetensors in it" in said
