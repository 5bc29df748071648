"""The report's forms: golden texts, HTML in a real browser, JSON, SARIF, GitHub annotations."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import browser
import pytest
import reports

from fanin.checks.finding import Finding
from fanin.errors import ArgumentError, OutputError, ReportFailed
from fanin.report import Report
from fanin.report.github import to_github
from fanin.report.html import page, write
from fanin.report.numbers import sparkline
from fanin.report.pairs import pairs
from fanin.report.sarif import to_sarif
from fanin.report.tree import lines
from fanin.signals import Signals

GOLDEN = Path(__file__).parent / "golden"


def golden(name: str, text: str) -> None:
    """The text is the one kept in tests/golden; FANIN_UPDATE_GOLDEN=1 keeps the new one."""
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("FANIN_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; after a wanted change: FANIN_UPDATE_GOLDEN=1 make test"


@pytest.mark.parametrize("width", [80, 120, 160])
def test_text_of_a_transformer(width):
    text = reports.transformer().to_text(width=width)
    assert max(map(len, text.splitlines())) <= width
    golden(f"transformer_{width}", text)


def test_text_of_a_stack():
    golden("stack", reports.stack().to_text(width=120))
    golden("stack_predicted", reports.stack(measured=False).to_text(width=100))


def test_text_of_a_broken_model():
    golden("broken", reports.broken().to_text(width=100))
    assert "no findings" in Report().to_text()


def test_color_only_when_asked():
    assert "\x1b[" not in reports.broken().to_text()
    assert "\x1b[" in reports.broken().to_text(color=True)


def test_blocks_fold_and_nothing_that_matters_is_hidden():
    report = reports.transformer()
    folded = lines(report)
    assert len(folded) < 25 and any(line.repeats == 12 for line in folded)
    shown = {pair.name for line in folded for pair in line.pairs}
    hidden = {pair.name.rpartition("/")[2] for pair in pairs(report)} - {name.rpartition("/")[2] for name in shown}
    assert hidden == {"split", "tanh"}
    assert {pair.name for line in lines(report, detail=True) for pair in line.pairs} == {p.name for p in pairs(report)}
    assert "1 no rule" in report.to_text(width=160)


def test_a_finding_about_a_parameter_stands_at_its_module():
    finding = Finding("FAN301", "error", "2.weight", "all alike")
    text = Report((finding,), *(reports.stack(2).predicted, None)).to_text()
    assert next(line for line in text.splitlines() if line.startswith("✗")).split()[1] == "2"


def test_gradients_of_a_loss_are_compared_in_its_units():
    predicted, seen = reports.stack(3).predicted, reports.stack(3).measured
    assert predicted and seen
    rows = [replace(row, grad_rms=(row.grad_rms or 0) * 1e-3) for row in seen.rows]
    report = Report((), predicted, Signals(rows, facts={"cotangent": "loss"}))
    for pair in pairs(report):
        assert pair.predicted and pair.measured
        assert pair.predicted.grad_rms == pytest.approx(pair.measured.grad_rms, rel=0.1)
    assert "scaled to the loss's gradient at 6" in report.to_text()
    assert "scaled" not in reports.stack().to_text()


def test_ok_is_about_errors_and_findings_are_ordered():
    report = reports.transformer()
    assert not report.ok and report.findings[0].severity == "error" and report.findings[-1].severity == "warning"
    assert reports.stack().ok
    assert len(report.at_least("warning")) == 6 and len(report.at_least("error")) == 5


def test_raise_if_lists_what_was_found():
    with pytest.raises(ReportFailed, match=r"5 findings at or above error in hf:gpt2:\n  FAN101 h.6.mlp.c_fc"):
        reports.transformer().raise_if("error")
    reports.stack().raise_if("info")
    with pytest.raises(ArgumentError, match="no severity 'fatal'"):
        reports.stack().raise_if("fatal")  # type: ignore[arg-type]


def test_json_of_numbers_that_json_lacks():
    data = json.loads(reports.broken().to_json())
    assert [row["rms"] for row in data["measured"]["rows"]][:4] == [1.0, 0.0, "inf", "nan"]
    assert data["ok"] is False and data["findings"][0]["measured"] == "nan"


def test_sarif():
    report = Report(reports.transformer().findings, target="pkg/net.py:build")
    run = json.loads(to_sarif(report))["runs"][0]
    assert {result["level"] for result in run["results"]} == {"error", "warning"}
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {"FAN101", "FAN203"}
    location = run["results"][0]["locations"][0]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "pkg/net.py"
    assert location["logicalLocations"][0]["fullyQualifiedName"] == "h.6.mlp.c_fc"


def test_github_annotations_are_one_line_each():
    text = to_github(reports.transformer())
    assert len(text.splitlines()) == 6 and text.startswith("::error title=FAN101 h.6.mlp.c_fc::")
    assert "::error file=net.py,title=" in to_github(Report(reports.broken().findings, target="net.py:f"))


def test_sparkline_shows_every_kind_of_value():
    assert sparkline([1.0] * 500, 40) == "▅" * 40
    assert "!" in sparkline([1.0] * 499 + [float("nan")], 40)
    assert sparkline([None, 0.0]) == "·_"


def test_html_is_whole_or_not_there(tmp_path, monkeypatch):
    path = reports.stack().to_html(tmp_path / "report.html")
    assert path.read_text().rstrip().endswith("</html>") and [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OutputError, match="cannot be written"):
        reports.stack().to_html(tmp_path / "absent" / "report.html")
    before = path.read_text()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        reports.broken().to_html(path)
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_html_escapes_what_users_name():
    text = page([reports.broken()])
    assert "<i>net</i>" not in text and "</script><b>" not in text
    assert "iframe" in reports.broken()._repr_html_()


def test_html_stays_small():
    assert len(page([reports.transformer(416)])) < 3_000_000  # 5,000 tensors


@pytest.fixture(scope="module")
def chromium() -> str:
    binary = browser.find()
    if binary is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium; .ci/run installs it")
        pytest.skip("no Chromium here: apt-get install chromium")
    return binary


INK = """(selector => {
    const c = document.querySelector(selector), seen = new Set();
    const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
    for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) seen.add(`${d[i]},${d[i + 1]},${d[i + 2]}`);
    return seen.has('217,113,28') && seen.has('59,111,212');
})"""
HOVER = """for (const kind of ['mouseenter', 'mousemove']) document.querySelector('.u-over')
    .dispatchEvent(new MouseEvent(kind, {bubbles: true, clientX: 400, clientY: 700}))"""
TRAINING = {
    "title": "training",
    "text": "",
    "curves": [{"label": "a", "epoch": [0, 1, 2], "accuracy": [0.1, 0.5, 0.9], "loss": [2.3, 1.0, float("nan")]}],
}


@pytest.mark.browser
def test_curves_are_drawn_in_a_browser(chromium, tmp_path):
    report = reports.transformer()
    report.to_html(tmp_path / "report.html")
    with browser.opened(chromium, tmp_path / "report.html") as shown:
        points = "Number(document.querySelector('[data-chart=m_rms]').dataset.points)"
        outputs = [row for row in report.signals.rows if "/" not in row.name]
        assert shown.evaluate(points) == len(outputs)
        assert shown.evaluate("Number(document.querySelector('[data-chart=m_grad]').dataset.line)") == len(outputs)
        assert shown.evaluate(f"{INK}('[data-chart=m_rms] canvas')"), "points and line are not both drawn"
        assert shown.complaints == []
        assert all(url.startswith(("file:", "data:")) for url in shown.requests), shown.requests


@pytest.mark.browser
def test_the_page_answers(chromium, tmp_path):
    reports.transformer().to_html(tmp_path / "report.html")
    with browser.opened(chromium, tmp_path / "report.html") as shown:
        shown.evaluate("document.querySelector('[data-op=gelu]').click()")
        shown.settle()
        assert shown.evaluate("Number(document.querySelector('[data-chart=m_rms]').dataset.points)") == 12
        assert shown.evaluate("document.querySelectorAll('tbody tr').length") == 12
        shown.evaluate("document.querySelector('.finding a').click()")  # clears the filter, opens and marks the row
        assert shown.evaluate("document.querySelector('tr.flash td').textContent").startswith("c_fc")
        shown.evaluate("document.getElementById('theme').click()")
        assert shown.evaluate("document.documentElement.dataset.theme") == "dark"
        shown.evaluate("window.scrollTo(0, 0)")
        shown.evaluate(HOVER)
        shown.settle()
        assert "rms predicted" in shown.evaluate("document.querySelector('.tip').textContent")
        assert shown.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["broken", "predicted", "steep", "empty"])
def test_odd_reports_open_without_complaint(chromium, tmp_path, kind):
    made = {"broken": reports.broken, "predicted": lambda: reports.stack(measured=False), "empty": Report}
    report = made.get(kind, lambda: reports.stack(400, 0.2))()  # 0.2^400 is beyond what a float can say
    write(tmp_path / "report.html", page([report, report], training=TRAINING))
    with browser.opened(chromium, tmp_path / "report.html") as shown:
        assert shown.evaluate("document.documentElement.dataset.ready") == "true"
        assert shown.evaluate("Number(document.querySelector('[data-chart=training-loss]').dataset.points)") == 2
        shown.evaluate("document.querySelectorAll('.tabs button')[1].click()")
        shown.settle()
        assert shown.complaints == []


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 1100, 900, 700, 420])
def test_figures_of_training_fit_the_window(chromium, tmp_path, width):
    report = reports.transformer()
    write(tmp_path / "report.html", page([report, report], training=TRAINING))
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    with browser.opened(chromium, tmp_path / "report.html") as shown:
        shown.call("Emulation.setDeviceMetricsOverride", **metrics)
        shown.settle()
        right = "Math.max(...[...document.querySelectorAll('.pair canvas')].map(c => c.getBoundingClientRect().right))"
        assert shown.evaluate("document.querySelectorAll('.pair canvas').length") == 2
        assert shown.evaluate(right) <= width


@pytest.mark.browser
def test_five_thousand_tensors_stay_usable(chromium, tmp_path):
    reports.transformer(416).to_html(tmp_path / "report.html")
    click = "document.querySelector('[data-op=linear]').click()"
    with browser.opened(chromium, tmp_path / "report.html") as shown:
        took = shown.evaluate(f"(() => {{ const t = performance.now(); {click}; return performance.now() - t; }})()")
        assert took < 2000 and shown.complaints == []  # milliseconds; about 60 on an idle core
