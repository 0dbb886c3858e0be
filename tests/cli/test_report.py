"""`maqd report`: the page of a run and of a file, with the numbers that other commands give."""

import io
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from maqd.cli import main
from maqd.graph import Activation, container
from maqd.models import Architecture, ModelConfig
from maqd.runtime import NumpyEngine
from maqd.settings.quantization import QuantConfig
from maqd.settings.training import ComputeConfig, TrainConfig
from maqd.training.progress import Output
from maqd.training.runs import open_run
from maqd.training.train import train

VOID = {"meta", "br", "img"}


class Page(HTMLParser):
    """Headings, table rows and captions of a page; checks that its elements close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open:
            return
        if self.open[-1] == "h2":
            self.headings.append(data)
        if self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "digits"
    config = TrainConfig(
        run=str(path),
        epochs=3,
        model=ModelConfig(architecture=Architecture.DIGITS, width=0.25),
        compute=ComputeConfig(threads=1),
    )
    train(config, output=Output(silent=True))
    container.save(open_run(path).graph, path.parent / "digits.maqd")
    return path


def test_the_page_of_a_run_holds_what_was_measured(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(run), "-o", str(out), "--samples", "120", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = out.read_text()
    assert found["bytes"] == len(text.encode()) < 1_500_000
    assert not re.search(r"https?:|src=(?!\"data:)|href=|<script|@import|url\(", text)
    page = Page(text)
    assert page.headings == [
        *["Training", "Answers", "Worst mistakes", "Layers", "Network", "Sparsity", "Sums and thresholds", "Weights"],
        *["Standardized weights", "Energy, three models"],
    ]
    opened = open_run(run)
    assert str(opened.header.evaluation) in text
    graph, engine = opened.graph, NumpyEngine(opened.graph)
    batches = list(opened.test_batches(120))
    images = np.concatenate([inputs[0] for inputs, _ in batches])
    labels = np.concatenate([targets for _, targets in batches if targets is not None])
    answers = engine.run(images).argmax(1)
    assert f"{(answers == labels).sum()} of 120 test samples right." in text
    ratios = {
        name: np.count_nonzero(codes) / codes.size
        for name, codes in engine.layers(images)
        if isinstance(graph[name], Activation)
    }
    rows = {row[0]: row for row in page.rows[1:] if len(row) == 12}
    assert list(rows) == [node.name for node in graph.nodes]
    assert {name: rows[name][6] for name in ratios} == {name: f"{ratio:.3f}" for name, ratio in ratios.items()}
    assert text.count('class="mark"') > len(ratios)
    assert text.count("<circle") == len(graph.nodes)
    logits = engine.run(images).astype(int)
    leads = sorted((row[answer] - row[label] for row, answer, label in zip(logits, answers, labels, strict=True)))
    shown = re.findall(r"taken for \d, by (\d+)</figcaption>", text)
    assert shown == [str(lead) for lead in leads[::-1][:12] if lead > 0]


def test_a_file_alone_gives_a_smaller_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    for _ in range(2):  # a page may be replaced
        assert main(["report", str(run.parent / "digits.maqd"), "-o", str(out), "--samples", "60"]) == 0
        assert "60 random samples" in capsys.readouterr().out
    headings = Page(out.read_text()).headings
    assert "Training" not in headings
    assert "Answers" not in headings
    assert "Sums and thresholds" in headings


def test_runs_and_files_beside_each_other(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    quiet = Output(silent=True)
    path = tmp_path / "float"
    none = QuantConfig(weight_states=None, act_states=None)
    config = TrainConfig(run=str(path), epochs=1, model=ModelConfig(width=0.25, quant=none))
    train(config, output=quiet)
    sources = [str(run), str(run.parent / "digits.maqd"), str(path)]
    assert main(["report", "--compare", *sources, "-o", str(out), "--samples", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["networks"] == ["digits", "digits.maqd", "float"]
    page = Page(out.read_text())
    assert page.headings == ["Networks", "Training", "Sparsity"]
    first, file, floats = page.rows[1:]
    assert first[1] == str(open_run(run).header.evaluation)
    assert file[1] == "–"
    assert first[2:7] == file[2:7]
    assert floats[1:4] == [str(open_run(path).header.evaluation), "float", "float"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--compare", "{file}"], "--compare needs at least two"),
        (["{file}", "{file}"], "got 2; pass --compare"),
        (["--compare", "{file}", "{file}", "--checkpoint", "best"], "--checkpoint belongs to a RUN"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    run: Path, given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run.parent / "digits.maqd"
    assert main(["report", *(word.format(file=file) for word in given)]) == 2
    assert said in capsys.readouterr().err


def test_names_that_utf8_cannot_hold_do_not_end_a_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tmp_path / os.fsdecode(b"\xff.maqd")
    shutil.copy(run.parent / "digits.maqd", graph)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(["report", str(graph), "-o", str(tmp_path / os.fsdecode(b"\xff.html")), "--samples", "2"]) == 0
    assert main(["info", str(graph)]) == 0
