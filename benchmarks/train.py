"""Does `auto` train whatever any other initialization trains, and as well? The study auto-vs-peers, as a benchmark.

    python benchmarks/train.py [--json] [--size xs|s|l] [--store FILE]

Ten small tasks, a learning-rate grid an arm, chosen on seeds of their own, then paired seeds. Resumable: what the store
holds is not run again. For every task: the arms' final training loss and how many runs trained, and the verdict of
`auto` against each peer (Holm's correction over all comparisons). `worse` lists the losses that are beyond chance,
`not_trained` the tasks that a peer trains and `auto` does not.
"""

from __future__ import annotations

import argparse
import math
import sys

from as_json import add_json, finish, lines

import fanin.study as st

TRAINS = 0.5
"""An arm trains a task if more than this share of its runs ends below 95 % of the loss of a constant output."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="s", choices=("xs", "s", "l"))
    parser.add_argument("--store", default=None)
    add_json(parser)
    given = parser.parse_args()

    def tell(progress: st.Progress) -> None:
        left = f", {progress.left:.0f} s left" if progress.left is not None else ""
        print(f"\r{progress.done}/{progress.total}{left}   ", end="", file=sys.stderr, flush=True)

    results = st.run("auto-vs-peers", size=given.size, store=given.store, progress=tell)
    print(file=sys.stderr)
    rows = [row(results, condition) for condition in results.conditions]
    told = [c for c in st.analyse(results).comparisons if c.p_holm < results.study.compare.alpha]
    worse = [f"{c.task}: {c.arm} ({c.reason})" for c in told if c.direction < 0]  # a small loss is a loss, too
    report = {
        "tasks": rows,
        "worse": worse,
        "better": [f"{c.task}: {c.arm}" for c in told if c.direction > 0],
        "not_trained": [r["task"] for r in rows if not r["trains"]["auto"] and any(r["trains"].values())],
    }
    with lines(given.json):
        for r in rows:
            print(r["task"], {arm: (loss, r["trained"][arm]) for arm, loss in r["loss"].items()})
        for key in ("worse", "better", "not_trained"):
            print(f"{key}: {len(report[key])}", *report[key], sep="\n  ")
    finish(given.json, report)


def row(results: st.Results, condition: tuple) -> dict:
    """Mean final training loss (null where a run diverged) and the share of runs that trained, an arm each."""
    loss, trained = {}, {}
    for arm in results.study.arms:
        trials = results.compared(condition, arm.name)
        values = list(results.outcomes(condition, arm.name, "train_loss").values())
        mean = sum(values) / len(values)
        loss[arm.name] = mean if math.isfinite(mean) else None
        trained[arm.name] = sum(t.outcome.status == "trained" for t in trials) / len(trials)
    name = dict(condition)["case"]
    trains = {arm: share > TRAINS for arm, share in trained.items()}
    return {"task": name, "loss": loss, "trained": trained, "trains": trains}


if __name__ == "__main__":
    main()
