"""The card of a cache: one page, all in one file, saying what was lost."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from fastvla_core.cli import main
from training.cache import build_cache


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for key, value in attrs if key == "src"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_shows_cameras_ranges_and_losses(write_episode, tmp_path, contract, capsys):
    for k in range(3):
        write_episode(
            f"bags/e{k}",
            frames=20,
            instruction="pick <the> cube",
            leave_out=lambda s, i, k=k: k == 1 and s == "front" and i in (5, 6, 7),
        )
    (tmp_path / "bags" / "e2" / "e2_0.mcap").write_bytes(b"hello")
    build_cache([tmp_path / "bags"], tmp_path / "cache", contract=contract, workers=1)
    assert main(["data", "card", str(tmp_path / "cache")]) == 0
    path = tmp_path / "cache" / "card.html"
    assert capsys.readouterr().out.strip() == str(path)
    text = path.read_text()
    page = _Page()
    page.feed(text)
    assert page.open == []
    assert all(source.startswith("data:image/") for source in page.sources)
    # Six pictures per camera and two plots.
    assert len(page.sources) == 14
    assert "pick &lt;the&gt; cube" in text
    assert "front stale" in text
    assert "neither an mcap nor a sqlite3 recording" in text
    for joint in contract.state_names:
        assert f"state: {joint}" in text
        assert f"action: {joint}" in text
    assert re.search(r"<td>steps</td><td>37 at 10 Hz</td>", text)
    # Making it does not make the cache another one.
    build_cache([tmp_path / "bags"], tmp_path / "cache", contract=contract, workers=1)
    assert main(["data", "verify", str(tmp_path / "cache")]) == 0
