"""The server: a real browser drops an image on its page; wrong, large and foreign requests are refused."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fastzsl.serve
from fastzsl.data.formats.folder import read_class_table
from fastzsl.errors import UserError
from fastzsl.features.backbones import load_backbone
from fastzsl.methods.attended.method import Attended
from fastzsl.methods.attended.pooled import Pooled
from fastzsl.methods.method import new_model
from fastzsl.prediction.classes import OwnClasses
from fastzsl.prediction.recogniser import Recogniser
from fastzsl.server.app import build_app

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LARGEST = 200_000

DRIVER = """
const until = async (seen) => { while (!seen()) await new Promise((r) => setTimeout(r, 20)); };
(async () => {
  await until(() => document.body.dataset.ready);
  const canvas = document.createElement("canvas");
  canvas.width = 60; canvas.height = 40;
  canvas.getContext("2d").fillRect(10, 10, 20, 20);
  const blob = await new Promise((r) => canvas.toBlob(r, "image/png"));
  const carried = new DataTransfer();
  carried.items.add(new File([blob], "drawn.png", { type: "image/png" }));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, cancelable: true }));
  await until(() => !document.getElementById("go").disabled);
  document.getElementById("new").value = "<b>cube</b>: red=1, round=0, weight=2";
  document.getElementById("go").click();
  await until(() => document.body.dataset.done || document.getElementById("error").textContent);
})();
"""


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    table = tmp_path_factory.mktemp("run") / "classes.csv"
    table.write_text("class,split,red,round,weight\nball,seen,1,1,0.5\nbox,seen,0,0,1\nring,unseen,0,1,0.1\n")
    own = OwnClasses(read_class_table(table), 0.25)
    backbone = load_backbone("timm/test_resnet", "random")
    model = new_model(Attended(hidden=8, backend="eager"), backbone.feature_dim, 3, 0)
    model.fit_scaling(torch.rand(8, backbone.feature_dim), own.embeddings[:2])  # type: ignore[operator]
    return Recogniser(model, backbone, own, torch.device("cpu"))


@pytest.fixture(scope="module")
def address(recogniser: Recogniser) -> Iterator[str]:
    """The address of a server of the run, with one more page that drives the real one."""
    reason = "needs pip install 'fastzsl[serve]'"
    uvicorn = pytest.importorskip("uvicorn", reason=reason)
    pytest.importorskip("starlette", reason=reason)
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Mount, Route

    from fastzsl.server.app import HEADERS

    page = Path(fastzsl.serve.__file__).parent / "server" / "page.html"

    def driven(request: Any) -> Response:
        text = page.read_text("utf-8").replace("</html>", '<script src="/driver.js" defer></script></html>')
        return Response(text, headers=HEADERS, media_type="text/html")

    def driver(request: Any) -> Response:
        return Response(DRIVER, media_type="text/javascript")

    app = build_app(recogniser, ["127.0.0.1"], LARGEST)
    both = Starlette(routes=[Route("/driven", driven), Route("/driver.js", driver), Mount("/", app)])
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(both, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def png(width: int = 40, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


def ask(
    url: str, body: bytes | None = None, kind: str = "application/json", **headers: str
) -> tuple[int, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": kind, **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def asked(address: str, **options: Any) -> tuple[int, Any]:
    body = {"image": base64.b64encode(png()).decode(), **options}
    status, answer = ask(f"{address}/predict", json.dumps(body).encode())
    return status, json.loads(answer)


def test_the_endpoint_answers_as_predict_does(address: str, recogniser: Recogniser) -> None:
    status, body = ask(f"{address}/predict?classes=unseen&top=3", png(), "image/png")
    assert status == 200
    found = json.loads(body)["predictions"]
    (expected,) = recogniser.predict(png(), "unseen")
    assert [row["class"] for row in found] == ["ring"]
    assert found[0]["score"] == pytest.approx(expected.scores[0].item(), abs=1e-6)
    new = {"cube": {"red": 1, "round": 0, "weight": 2}}
    status, answer = asked(address, new=new, beside="seen", heatmap=True, top=3)
    assert status == 200
    assert {row["class"]: row["kind"] for row in answer["predictions"]} == {
        "cube": "new", "ball": "seen", "box": "seen",
    }  # fmt: skip
    kind, _, data = answer["predictions"][0]["heatmap"].partition(",")
    assert kind == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (40, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "/etc/passwd"}, "wanted one of all, unseen, seen"),
        ({"image": "/etc/passwd"}, "image is not base64"),
        ({"image": base64.b64encode(b"/etc/passwd").decode()}, "not readable"),
        ({"image": base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n").decode()}, "not readable"),
        ({"image": ""}, "no image"),
        ({"top": 0}, "top is 0"),
        ({"top": "5"}, "top is 5"),
        ({"heatmap": 1}, "wanted true or false"),
        ({"beside": "seen"}, "beside needs new classes"),
        ({"beside": "both", "new": {"a": "b"}}, "wanted seen or all"),
        ({"new": ["a"]}, "wanted an object"),
        ({"new": {"a": {"red": "1"}}}, "wanted a text, or an object of attributes and numbers"),
        ({"new": {"a": {"red": float("nan")}}}, "wanted a text, or an object of attributes and numbers"),
        ({"new": {"a": {"redd": 1, "round": 0, "weight": 1}}}, 'did you mean "red"?'),
        ({"new": {"a": "a red thing"}}, "not described by texts"),
        ({"new": {"a": "x" * 3000}}, "more than 2000 letters"),
        ({"new": {" ": "a"}}, "without a name"),
        ({"new": {str(i): "a" for i in range(300)}}, "at most 200 classes"),
        ({"new": {"a": "b", "c": {"red": 1}}}, "one way for all"),
        ({"path": "/etc/passwd"}, "unknown option path"),
    ],
)
def test_wrong_requests_are_told_in_one_line(address: str, options: dict[str, Any], message: str) -> None:
    status, answer = asked(address, **options)
    assert status == 400
    assert message in answer["error"]
    assert "\n" not in answer["error"]


def test_the_page_is_told_what_the_run_has(address: str, recogniser: Recogniser) -> None:
    about = json.loads(ask(f"{address}/about")[1])
    assert about == {
        "classes": ["ball", "box", "ring"], "attributes": ["red", "round", "weight"], "texts": False,
        "attention": True,
    }  # fmt: skip
    pooled = new_model(Pooled(hidden=8), recogniser.backbone.feature_dim, 3, 0)
    own = Recogniser(pooled, recogniser.backbone, recogniser.own, torch.device("cpu"))
    assert not own.has_attention


def test_other_bodies_paths_and_hosts_are_refused(address: str) -> None:
    for body, kind in ((b"{", "application/json"), (b"[1]", "application/json"), (b"a=1", "text/plain")):
        assert ask(f"{address}/predict", body, kind)[0] == 400
    assert ask(f"{address}/predict", b"x" * (LARGEST + 1), "image/png")[0] == 413
    for path in (
        "/etc/passwd",
        "/../../etc/passwd",
        "/%2e%2e/app.py",
        "/app.py",
        "/request.py",
        "//etc/passwd",
    ):
        assert ask(address + path)[0] in (400, 404)
    assert ask(f"{address}/predict")[0] == 405
    assert ask(f"{address}/about", Host="evil.example")[0] == 400
    assert ask(f"{address}/about")[0] == 200


def test_a_browser_drops_an_image_and_sees_scores_and_heatmaps(address: str, tmp_path: Path) -> None:
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=20000",
             "--enable-logging=stderr", "--window-size=900,900", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    run = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", f"{address}/driven"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    page = run.stdout
    assert 'data-done="yes"' in page, (page[-1500:], run.stderr[-1500:])
    results = page.partition('<ol id="results">')[2].partition("</ol>")[0]
    names = [html.unescape(name) for name in re.findall(r"<div>(.*?) -?\d+\.\d+ <span", results)]
    assert sorted(names) == ["<b>cube</b>", "ball", "box", "ring"]
    assert results.count('src="data:image/png;base64,') == 4
    assert "gamma 0.2500 is added" in page
    assert not [line for line in run.stderr.splitlines() if "CONSOLE" in line and "Error" in line]


def test_wrong_flags(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn", reason="needs pip install 'fastzsl[serve]'")
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    number = str(taken.getsockname()[1])
    for words, message in (
        ([str(tmp_path / "none"), "--port", "0"], "no folder"),
        ([str(tmp_path), "--port", "70000"], "wanted 0 to 65535"),
        ([str(tmp_path), "--max-mib", "0"], "wanted 1 to 1024"),
        ([str(tmp_path), "--port", number], "cannot listen at 127.0.0.1"),
        ([str(tmp_path), "--host", "192.0.2.7"], "cannot listen at 192.0.2.7"),
    ):
        with pytest.raises(SystemExit) as caught:
            fastzsl.serve.main(words)
        assert caught.value.code == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]
    taken.close()
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    with pytest.raises(UserError, match=r"pip install 'fastzsl\[serve\]'"):
        build_app(None, [], 1)  # type: ignore[arg-type]
