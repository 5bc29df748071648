"""Write the results of studies into their pages: `python docs/make_studies.py STORE [STORE ...]`.

Each page docs/studies/NAME.md keeps what is written by hand; what stands between the two marks is replaced by the
report's text, and figures and tables go into docs/studies/NAME/.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import fanin.study as st

FOLDER = Path(__file__).parent / "studies"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
LARGEST = 500_000
"""Bytes of a drawing beyond which a page shows it as pixels; of pixels beyond which it leaves the figure out."""
SHOWN = {
    "differences": "Paired differences to the baseline with 95 % intervals; the band is the margin.",
    "phase": "The outcome over two axes of the study.",
    "collapse": "The outcome of every scale against the learning rate, and against learning rate / scale².",
    "rates": "Mean outcome by learning rate and arm; the chosen rate is marked.",
    "observed": "What was observed a layer, before and after training.",
    "curves": "Training loss of all seeds, median and interquartile band.",
    "statuses": "Runs that trained, stalled or diverged.",
}


def main(stores: list[str]) -> None:
    for store in stores:
        write(Path(store))


def write(store: Path) -> None:
    results = st.load(store)
    name = results.study.name
    place, page = FOLDER / name, FOLDER / f"{name}.md"
    shutil.rmtree(place, ignore_errors=True)
    st.export(store, place, parquet=False)
    (place / "trials.csv").unlink(missing_ok=True)  # large; the store and the manifest make it again
    drawn = {path.stem: path for path in st.figures(store, place, kinds=("png", "svg"), dpi=100)}  # the last kind wins
    for kind in list(drawn):
        vector, pixels = place / f"{kind}.svg", place / f"{kind}.png"
        chosen = next((path for path in (vector, pixels) if path.stat().st_size < LARGEST), None)
        for path in {vector, pixels} - {chosen}:
            path.unlink()
        drawn[kind] = chosen
    parts = [BEGIN, "", "```text", st.report(store, "text", width=96).rstrip(), "```", ""]
    for kind, path in drawn.items():
        if path is None:
            parts += [
                f"(The figure *{kind}* has too many panels for a page: `fanin study report STORE --format html`.)",
                "",
            ]
            continue
        told = next((text for key, text in SHOWN.items() if key in kind), kind)
        parts += [f"![{told}]({name}/{path.name})", "", f"*{told}*", ""]
    parts += [f"Tables and the manifest: [comparisons]({name}/comparisons.csv), [learning rates]({name}/choices.csv),"]
    parts += [f"[arms]({name}/arms.csv), [manifest]({name}/manifest.json).", END]
    text = page.read_text() if page.exists() else f"# {name}\n\n{results.study.question}\n\n{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    page.write_text(head + "\n".join(parts) + rest.partition(END)[2])


if __name__ == "__main__":
    main(sys.argv[1:])
