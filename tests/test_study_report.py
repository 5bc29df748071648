"""What a study's report says: in text, JSON, tables, figures and on its page; nothing is trained here."""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ElementTree

import browser
import numpy as np
import pytest
import studies

import fanin
from fanin.errors import ArgumentError, FaninError, MissingDependency, OutputError, StudyError
from fanin.study import analyse, export, figures, plan_power, read, report, written
from fanin.study.analysis import label
from fanin.study.outcome import Outcome
from fanin.study.remarks import cause
from fanin.study.report.canvas import ARMS, INK, STATUS
from fanin.study.report.phase import axes_of
from fanin.study.store import Store

TRACE = 'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    g()\nValueError: shapes <3> and 4\n'

GOLDEN = """\
toy  96 trials · 3 arms · 10 seeds · 48 s of training
Does he or lecun beat glorot under tanh, and does batch normalization change that?

Of 4 comparisons with glorot by test loss: 2 worse and 2 equivalent. he: worse in 2 of 2 conditions. lecun: equivalent
in 2 of 2 conditions. he is worse than glorot on norm=none: test loss higher by 0.123 on average over 10 pairs (95 %
interval 0.119 to 0.13; 41 % of the baseline); p = 0.002, 0.0078 after Holm's correction over 4 comparisons. he is worse
than glorot on norm=batch: test loss higher by 0.0141 on average over 10 pairs (95 % interval 0.0117 to 0.0171; 5.7 % of
the baseline); p = 0.002, 0.0078 after Holm's correction over 4 comparisons. Over 2 conditions: he is worse than glorot:
test loss higher by 0.0602 on average over 10 pairs (95 % interval 0.0572 to 0.0651; 22 % of the baseline); p = 0.002,
0.0039 after Holm's correction over 2 comparisons. Over 2 conditions: lecun and glorot are equivalent within 5 %: test
loss higher by 0.00238 on average over 10 pairs (95 % interval 0.000342 to 0.00527; 0.87 % of the baseline); two
one-sided tests give p = 0.00098, 0.002 after Holm's correction over 2 comparisons. Chance that a run is better than one
of glorot's, over all conditions: he 6 % (0 to 11), lecun 40 % (26 to 47). Lower is better; a difference within 5 % does
not matter; the risk of any false difference among all comparisons is at most 5 %, and so is that of any false
equivalence.

! The chosen learning rate is the highest of its grid for lecun on norm=none (0.3); lecun on norm=batch (0.3): a better
  one may lie beyond. Add higher rates; what is stored is kept.
! The chosen learning rate is the lowest of its grid for he on norm=none (0.03); he on norm=batch (0.03): a better one
  may lie beyond. Add lower rates; what is stored is kept.

against glorot  pairs  test loss  interval                            p  p equal
norm=none:
he                 10     +0.123  +0.119 to +0.13         +41 %  0.0078        1  worse
lecun              10   +0.00305  +8.08e-4 to +0.00623     +1 %   0.043   0.0039  equivalent
norm=batch:
he                 10    +0.0141  +0.0117 to +0.0171     +5.7 %  0.0078        1  worse
lecun              10   +0.00181  -5.09e-5 to +0.00444  +0.73 %    0.11   0.0039  equivalent

over all conditions  verdict         difference of IQM  chance to beat glorot
he                   worse       23.2 % (21.7 to 24.9)        5.5 % (0 to 11)
lecun                equivalent  1.38 % (0.37 to 2.32)      40 % (26.5 to 47)

arm      rate                    mean                     IQM
norm=none:
glorot    0.1  0.298 (0.292 to 0.305)   0.298 (0.29 to 0.305)
he      <0.03  0.421 (0.412 to 0.435)  0.417 (0.409 to 0.433)
lecun    >0.3  0.301 (0.293 to 0.309)  0.302 (0.292 to 0.309)
norm=batch:
glorot    0.1  0.248 (0.243 to 0.254)  0.248 (0.242 to 0.254)
he      <0.03  0.262 (0.257 to 0.272)    0.26 (0.255 to 0.27)
lecun    >0.3   0.25 (0.244 to 0.256)  0.251 (0.243 to 0.257)
"""


def troubled(arm, levels, cell) -> Outcome:
    """he diverges at the highest rate and once beside; lecun stalls twice and raises once."""
    if arm == "he" and levels.get("norm") == "none" and (cell.rate > 0.2 or cell.init_seed == 3):
        return studies.outcome(9.0, "diverged")
    if arm == "lecun" and cell.init_seed in (1, 4):
        return studies.outcome(2.2, "stalled")
    if arm == "lecun" and cell.init_seed == 5:
        return studies.outcome(2.2, "failed", error=TRACE)
    return studies.usual(arm, levels, cell)


def lost(arm, levels, cell) -> Outcome:
    """Every run of he diverges."""
    return studies.outcome(9.0, "diverged") if arm == "he" else studies.usual(arm, levels, cell)


def everything_lost(arm, levels, cell) -> Outcome:
    return studies.outcome(9.0, "diverged")


def scaled(arm, levels, cell) -> Outcome:
    """Deep networks stall unless the scale is 1."""
    loss = 0.3 + 0.05 * levels["depth"] * abs(math.log(float(arm))) + 0.001 * (cell.init_seed % 7)
    return studies.outcome(min(2.28, loss), "stalled" if loss > 1.2 else "trained")


SCALES = {
    "arms": {name: {"recipe": "lecun", "scale": float(name)} for name in ("0.5", "1", "2")},
    "factors": {"depth": [2, 8, 30], "norm": ["none", "batch"]},
    "task": {"model": "dense", "data": "digits", "width": 32, "activation": "tanh"},
    "compare": {"baseline": "1"},
}


@pytest.fixture(scope="module")
def usual():
    return studies.results()


@pytest.fixture
def stored(tmp_path, usual):
    """A store that holds the usual results."""
    return studies.store(usual, tmp_path / "toy.sqlite")


# --- what is said ---------------------------------------------------------------------------------------------------


def test_the_text_is_as_written_here(usual):
    said = report(usual, width=120)
    assert said == GOLDEN


def test_colours_are_asked_for(usual):
    assert "\x1b[" not in report(usual) and "\x1b[" in report(usual, color=True)


def test_a_path_and_its_results_say_the_same(stored, usual):
    from_path = report(stored, width=120)
    assert from_path.replace("toy (s)", "toy") == GOLDEN


def test_json_holds_every_number(usual):
    found = json.loads(report(usual, "json"))
    assert found["verdict"] == analyse(usual).verdict and found["missing"] == 0
    assert [(c["factor.norm"], c["arm"], c["verdict"]) for c in found["comparisons"]] == [
        ("none", "he", "worse"),
        ("none", "lecun", "equivalent"),
        ("batch", "he", "worse"),
        ("batch", "lecun", "equivalent"),
    ]
    assert read(found["manifest"]["study"]) == usual.study


def test_a_difference_is_found_by_the_test_that_the_statistics_make(usual):
    """The report's numbers are those of ``statistics.compare``, arm by arm and seed by seed."""
    from fanin.study.statistics import as_family, compare

    again = []
    for condition in usual.conditions:
        base = usual.outcomes(condition, "glorot", "test_loss")
        for arm in ("he", "lecun"):
            runs = usual.outcomes(condition, arm, "test_loss")
            again.append(compare(runs, base, margin="5%", arm=arm, baseline="glorot", task=label(condition)))
    assert [c.p_holm for c in analyse(usual).comparisons] == [c.p_holm for c in as_family(again)]


def test_five_pairs_are_refused():
    found = analyse(studies.results(seeds={"choose": 2, "compare": 5}, factors={}, rates=[0.1]))
    assert {c.verdict for c in found.comparisons} == {"cannot be shown"}
    assert "5 pairs cannot show a difference in 2 of 2 comparisons" in found.warnings[0]
    assert "7 pairs can" in found.warnings[0]
    assert "better" not in found.verdict.replace("Lower is better", "").replace("is better than one of", "")


def test_an_unfinished_study_says_so():
    found = analyse(studies.results(done=0.5))
    assert found.missing == 30
    assert found.warnings[0].startswith("Not finished: 30 trials of 96 have not been run.")
    assert {c.n for c in found.comparisons} == {5}


def test_a_study_that_has_just_begun_concludes_nothing():
    found = analyse(studies.results(done=0.1))
    assert found.comparisons == () and "nothing can be said yet" in found.verdict
    for form in ("text", "json", "html"):
        assert "nothing can be said yet" in report(studies.results(done=0.1), form)


def test_one_arm_is_compared_with_nothing():
    found = studies.results(arms={"he": {"recipe": "he"}})
    assert "one arm" in report(found) and "One arm" in str(plan_power(found.study))


def test_what_went_wrong_is_counted_and_told():
    found = analyse(studies.results(troubled))
    none = found.results.conditions[0]
    assert found.of(none, "he").counts["diverged"] == 1
    assert found.of(none, "lecun").counts == {"trained": 7, "stalled": 2, "diverged": 0, "failed": 1}
    assert found.of(none, "lecun").mean is None
    said = " ".join(found.warnings)
    assert "2 trials failed, counted as diverged: ValueError: shapes <3> and 4" in said
    assert "1 run diverged: he on norm=none (1 of 10)" in said and "4 runs stalled" in said
    assert found.comparison(none, "he").n == 10, "a diverged run is dropped"


def test_an_arm_that_always_diverges_is_worse():
    found = analyse(studies.results(lost))
    assert [c.verdict for c in found.comparisons if c.arm == "he"] == ["worse", "worse"]
    assert {o.arm: o.difference for o in found.overall}["he"] is None
    assert "he 0 % (" in found.verdict


def test_where_everything_diverges_nothing_is_said():
    found = analyse(studies.results(everything_lost))
    assert {c.verdict for c in found.comparisons} == {"undecided"}
    assert "every run of both diverged" in found.verdict


def test_equal_arms_are_not_told_apart():
    """The control: with the same law for every arm nothing is found to differ, and it is found to be equal."""

    def same(arm, levels, cell):
        own = np.random.default_rng([cell.init_seed, *map(ord, arm)]).normal()
        return studies.outcome(0.3 * (1 + 0.01 * own))

    found = analyse(studies.results(same, seeds={"choose": 1, "compare": 12}))
    assert {c.verdict for c in found.comparisons} == {"equivalent"}


def test_several_data_orders_are_one_pair():
    found = analyse(studies.results(seeds={"choose": 1, "compare": 8, "data": 3}))
    assert {c.n for c in found.comparisons} == {8}


def test_looks_are_allowed_for():
    seeds = {"choose": 1, "compare": 12, "looks": [8]}
    early = analyse(studies.results(seeds=seeds, done=0.5))
    assert {c.p for c in early.comparisons} == {1.0}, "a difference is told before the first look"
    assert any("planned look" in warning for warning in early.warnings)
    whole = analyse(studies.results(seeds=seeds))
    assert whole.comparison(whole.results.conditions[0], "he").verdict == "worse"


def test_the_cause_is_the_last_line_of_a_traceback():
    assert cause(TRACE) == "ValueError: shapes <3> and 4"
    assert cause("no recipe 'hee'; did you mean 'he'?") == "no recipe 'hee'; did you mean 'he'?"
    assert cause(None) == "no message"


def test_a_null_in_the_store_is_an_outcome_that_diverged():
    assert math.isnan(Outcome.read(Outcome("trained", {"test_loss": math.inf}).text()).value("test_loss"))


# --- before the run -------------------------------------------------------------------------------------------------


def test_power_says_what_cannot_be_shown():
    few = plan_power(read({**studies.DOCUMENT, "seeds": {"compare": 5}}))
    assert few.smallest_p == 4 * 2 / 2**5 > few.alpha and math.isinf(few.effect) and few.needed == 8
    assert "cannot show a single difference" in str(few)
    many = plan_power(read({**studies.DOCUMENT, "seeds": {"choose": 2, "compare": 16}}))
    assert many.trials == 36 + 96 and many.effect < 1.1 and "with 4 comparisons corrected for" in str(many)


def test_power_is_that_of_the_analysis():
    """The effect that is promised is found in about four of five simulated studies."""
    plan = plan_power(
        read({**studies.DOCUMENT, "factors": {}, "arms": dict(list(studies.DOCUMENT["arms"].items())[:2])})
    )
    stream = np.random.default_rng(0)
    from fanin.study.statistics import sign_flip

    found = [sign_flip(stream.normal(plan.effect, 1.0, plan.pairs)).p <= plan.alpha for _ in range(600)]
    standard_error = math.sqrt(0.8 * 0.2 / 600)
    assert abs(np.mean(found) - 0.8) < 4 * standard_error


# --- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [studies.usual, troubled, lost, everything_lost])
def test_figures_are_files(make, tmp_path):
    files = figures(studies.results(make), tmp_path / "new", kinds=("svg", "png"), dpi=40)
    names = {file.name for file in files}
    assert {"differences.svg", "differences.png", "curves.svg", "rates.svg"} <= names
    assert ("statuses.svg" in names) == (make is not studies.usual)
    for file in files:
        if file.suffix == ".svg":
            assert ElementTree.parse(file).getroot().tag.endswith("svg")
        else:
            assert file.read_bytes().startswith(b"\x89PNG")


def test_figures_are_the_same_each_time(usual, tmp_path):
    first, second = (figures(usual, tmp_path / name) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_figures_refuse_what_they_cannot_write(usual, tmp_path):
    with pytest.raises(ArgumentError, match="gif"):
        figures(usual, tmp_path, kinds=("gif",))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        figures(usual, tmp_path / "file")


def test_two_numeric_axes_make_a_phase_diagram(tmp_path):
    found = studies.results(scaled, **SCALES)
    assert axes_of(found.study) == ("scale", "depth")
    assert axes_of(studies.results().study) is None
    text = next(file for file in figures(found, tmp_path) if file.name == "phase.svg").read_text()
    assert ">scale<" in text and ">depth<" in text and ">norm=batch<" in text
    assert text.count("stroke-dasharray") == 1, "theory's line is drawn without normalization alone"


def test_theory_may_be_ones_own(tmp_path):
    from fanin.study.report.canvas import saved, type_set
    from fanin.study.report.phase import phase

    with type_set("phase"):
        drawing = phase(analyse(studies.results(scaled, **SCALES)), lambda levels, arm: {"depth": 10.0, "scale": 99.0})
    assert drawing is not None
    assert saved(drawing, "svg").decode().count("stroke-dasharray") == 2  # a depth in each panel; 99 is off the axis


def test_what_was_observed_is_drawn_by_layer(tmp_path):
    def seen(arm, levels, cell):
        values = {"slope": [0.1, 0.2, None], "one": 3.0, "many": [[1.0], [2.0]]}
        made = studies.usual(arm, levels, cell)
        return Outcome(made.status, made.numbers, made.steps, made.curve, {"start": values, "end": values})

    found = studies.results(seen)
    text = next(file for file in figures(found, tmp_path) if file.name == "observed.svg").read_text()
    assert "slope before training" in text and "slope after training" in text and "many" not in text


def test_without_matplotlib_the_text_still_comes(usual, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert report(usual, width=120) == GOLDEN
    with pytest.raises(MissingDependency, match="fanin\\[study\\]"):
        report(usual, "html")


# --- export ---------------------------------------------------------------------------------------------------------


def test_an_export_goes_round(stored, usual, tmp_path):
    files = {file.name: file for file in export(stored, tmp_path / "out", parquet=False)}
    assert set(files) == {"trials.csv", "comparisons.csv", "choices.csv", "arms.csv", "manifest.json"}
    rows = list(csv.DictReader(files["trials.csv"].open()))
    assert len(rows) == len(usual.trials) == 96
    compared = [
        row for row in rows if row["purpose"] == "compare" and (row["factor.norm"], row["arm"]) == ("none", "he")
    ]
    found = {int(row["init_seed"]): float(row["test_loss"]) for row in compared}
    assert found == usual.outcomes(usual.conditions[0], "he", "test_loss")
    chosen = [row for row in csv.DictReader(files["choices.csv"].open()) if row["chosen"] == "True"]
    assert len(chosen) == 6 and {row["rate"] for row in chosen if row["arm"] == "lecun"} == {"0.3"}
    assert json.loads(rows[0]["curve"])[0] == pytest.approx(usual.trials[0].outcome.curve[0])


def test_a_manifest_runs_the_same_study(stored, usual, tmp_path):
    export(stored, tmp_path, parquet=False)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert read(tmp_path / "manifest.json") == usual.study
    assert manifest["size"] == "s" and manifest["environment"]["torch"] == "2.0" and manifest["finished"]
    assert len(manifest["keys"]) == 96 and manifest["seeds"]["compare"] == list(range(10))


def test_parquet_holds_the_same(stored, usual, tmp_path):
    arrow = pytest.importorskip("pyarrow.parquet")
    export(stored, tmp_path, parquet=True)
    table = arrow.read_table(tmp_path / "trials.parquet").to_pylist()
    assert [row["test_loss"] for row in table] == [trial.outcome.numbers["test_loss"] for trial in usual.trials]


def test_parquet_says_what_it_lacks(stored, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match="parquet"):
        export(stored, tmp_path, parquet=True)
    assert not any(file.suffix == ".parquet" for file in export(stored, tmp_path))


def test_levels_of_several_kinds_fit_into_a_column(tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow

    from fanin.study.report.tables import _parquet

    path = _parquet(pyarrow, tmp_path / "a.parquet", [{"a": True, "b": 1}, {"a": "x", "b": 2.5}, {"a": 3, "b": None}])
    assert pyarrow.parquet.read_table(path).to_pylist()[2] == {"a": "3", "b": None}


def test_export_into_a_file_is_refused(stored, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        export(stored, tmp_path / "file")


def test_stored_trials_that_are_not_used_are_told(stored, usual):
    with Store(stored) as store:
        store.tell("study", written(read({**studies.DOCUMENT, "seeds": {"choose": 2, "compare": 8}})))
    assert "84 trials" in report(stored) and "12 stored trials not used" in report(stored)


@pytest.mark.parametrize("wrong", ["pdf", "TEXT", ""])
def test_formats_are_known(usual, wrong):
    with pytest.raises(ArgumentError, match="text, json, html"):
        report(usual, wrong)


def test_what_is_no_store_is_told(tmp_path):
    (tmp_path / "a.sqlite").write_text("no database at all, but long enough to be read as one" * 20)
    for path in (tmp_path / "a.sqlite", tmp_path / "none.sqlite"):
        with pytest.raises(StudyError):
            report(path)


def test_a_manifest_that_is_none_is_told(tmp_path):
    for text in ("[1, 2]", "no json", '{"study": {"name": "a"}}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(FaninError):
            read(tmp_path / "a.json")


def test_the_study_is_reached_from_fanin():
    assert fanin.study.report is report and "study" in fanin.__all__


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_in_the_colours_of_its_themes(usual):
    page = report(usual, "html")
    assert "http://" not in page.replace("http://www.w3.org", "") and "src=" not in page
    figure = page[page.index("<figure") : page.rindex("</figure>")]
    assert not [color for color in (*ARMS, *INK.values(), *STATUS.values()) if color in figure], "a colour stays light"
    assert len(set(usual.study.name)) and figure.count("<svg") == 3


def test_ids_of_a_page_are_unique():
    import re

    page = report(studies.results(troubled), "html")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


def test_names_of_a_user_are_text():
    page = report(studies.results(troubled, arms={"glorot": {"recipe": "glorot"}, "<b>he": {"recipe": "he"}}), "html")
    assert "<b>he" not in page and "&lt;b&gt;he" in page


@pytest.fixture(scope="module")
def chromium() -> str:
    found = browser.find()
    if found is None:
        pytest.skip("no Chromium here")
    return found


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["usual", "troubled", "scaled", "begun"])
def test_the_page_opens_without_complaint(chromium, tmp_path, kind):
    made = {
        "usual": lambda: studies.results(),
        "troubled": lambda: studies.results(troubled),
        "scaled": lambda: studies.results(scaled, **SCALES),
        "begun": lambda: studies.results(done=0.1),
    }[kind]()
    (tmp_path / "study.html").write_text(report(made, "html"), encoding="utf-8")
    with browser.opened(chromium, tmp_path / "study.html") as shown:
        assert shown.evaluate("document.documentElement.dataset.ready") == "true"
        count = shown.evaluate("document.querySelectorAll('figure svg').length")
        assert count == {"usual": 3, "troubled": 4, "scaled": 6, "begun": 2}[kind]
        wide = "[...document.querySelectorAll('figure svg')].every(s => s.getBoundingClientRect().width > 300)"
        assert shown.evaluate(wide)
        inside = """[...document.querySelectorAll('figure svg')].every(s => [...s.querySelectorAll('text')].every(
            t => t.getBoundingClientRect().right <= s.getBoundingClientRect().right + 2))"""
        assert shown.evaluate(inside), "a label leaves its figure"
        ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
        light = shown.evaluate(ink)
        shown.evaluate("document.getElementById('theme').click()")
        assert shown.evaluate(ink) != light, "figures do not follow the theme"
        assert shown.complaints == []
        assert all(url.startswith(("file:", "data:")) for url in shown.requests), shown.requests
