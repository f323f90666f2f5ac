"""A page in headless Chromium: its image, its width, what it printed and what it asked for."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-default-apps", "--disable-domain-reliability", "--virtual-time-budget=8000",
)  # fmt: skip


@dataclass(frozen=True)
class Visit:
    """What a browser saw.

    Attributes:
        console: lines of errors and warnings.
        requests: addresses that the page asked for, other than data: URIs; not what Chromium asks for itself.
        width, height: of the page's contents in CSS pixels.
        broken: images that did not load.
        png: an image of the whole page.
    """

    console: list[str]
    requests: list[str]
    width: int
    height: int
    broken: int
    png: Path


def visit(page: Path, width: int, folder: Path) -> Visit:
    """Open `page` in a window of `width` CSS pixels (a frame of that width: a window has a least width)."""
    frame = folder / f"frame-{width}.html"
    source = html.escape(page.read_text(encoding="utf-8"), quote=True)
    frame.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><link rel="icon" href="data:,"><body style="margin:0">'
        f'<iframe id="f" style="border:0;width:{width}px;height:900px" srcdoc="{source}"></iframe>'
        "<script>document.getElementById('f').onload = e => {"
        "const d = e.target.contentDocument, r = d.documentElement;"
        "const broken = [...d.images].filter(i => !i.complete || !i.naturalWidth).length;"
        "const seen = [r.scrollWidth, r.scrollHeight, broken].join(' ');"
        "e.target.style.height = r.scrollHeight + 'px';"
        "document.body.dataset.seen = seen; }</script>",
        encoding="utf-8",
    )
    log = folder / f"net-{width}.json"
    run = _run(frame, folder, f"--window-size={max(width, 520)},900", f"--log-net-log={log}", "--dump-dom")
    found = re.search(r'data-seen="(\d+) (\d+) (\d+)"', run.stdout)
    assert found, run.stderr[-2000:]
    inner, height, broken = map(int, found.groups())
    png = folder / f"page-{width}.png"
    _run(frame, folder, f"--window-size={max(width, 520)},{min(height, 15000)}", f"--screenshot={png}")
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return Visit(console, _requests(log), inner, height, broken, png)


def _run(page: Path, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    profile = folder / "profile"
    shutil.rmtree(profile, ignore_errors=True)
    command = [
        CHROMIUM,
        *FLAGS,
        "--enable-logging=stderr",
        f"--user-data-dir={profile}",
        *flags,
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _requests(log: Path) -> list[str]:
    """Addresses that the page asked for, in Chromium's own log of its network stack.

    Every request names its initiator: the origin of a page, "null" for that of a file. What Chromium asks for itself
    (updates, the time, accounts) has none, which the log writes as "not an origin".
    """
    events = json.loads(log.read_text(encoding="utf-8"))["events"]
    asked = [e["params"] for e in events if "initiator" in e.get("params", {})]
    urls = {p["url"] for p in asked if p["initiator"] != "not an origin"}
    return sorted(url for url in urls if not url.startswith(("data:", "about:")))
