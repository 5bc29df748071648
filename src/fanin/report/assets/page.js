"use strict";
// Reads the JSON in #data and builds the page: findings, curves against depth, table by module tree.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const main = document.getElementById("main"), root = document.documentElement;
  const plots = new Set();
  const css = name => getComputedStyle(root).getPropertyValue(name).trim();
  const palette = ["#d9711c", "#3b6fd4", "#23824a", "#a24fc0", "#c62f2f", "#2a7f9e"];

  function el(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== undefined && value !== null) node.setAttribute(key, value);
    }
    node.append(...children.filter(c => c !== null && c !== undefined));
    return node;
  }
  const number = v => v === undefined || v === null ? NaN : typeof v === "string" ? Number(v.replace("inf", "Infinity")) : v;
  function short(v) {
    if (v === undefined || v === null) return "–";
    if (typeof v === "string") return v;
    if (v === 0) return "0";
    const a = Math.abs(v);
    return a >= 1e-3 && a < 1e3 ? String(+v.toPrecision(3)) : v.toExponential(2).replace("e+", "e");
  }
  function offBy(predicted, measured) {
    const ratio = number(measured) / number(predicted);
    if (!isFinite(ratio) || ratio <= 0) return ["–", false];
    const far = Math.max(ratio, 1 / ratio) > 1.1;
    return [ratio >= .5 && ratio <= 2 ? `${ratio >= 1 ? "+" : "−"}${Math.abs(100 * (ratio - 1)).toFixed(1)} %` : `×${short(ratio)}`, far];
  }

  // ---- charts -----------------------------------------------------------------------------------------------------
  const positive = v => { const x = number(v); return isFinite(x) && x > 0 ? x : null; };
  const axis = (label, extra) => ({
    stroke: () => css("--muted"), grid: { stroke: () => css("--grid"), width: 1 }, ticks: { stroke: () => css("--grid"), width: 1 },
    font: "12px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", label, size: 32, labelSize: label ? 20 : 0, labelGap: 0, ...extra });
  const power = v => { const e = Math.round(Math.log10(v)); return e >= -2 && e <= 3 ? String(+v.toPrecision(1)) : `1e${e}`; };
  function powers(u, index, low, high) {  // at most eight lines, all at whole powers of ten
    const first = Math.ceil(Math.log10(low) - 1e-6), last = Math.floor(Math.log10(high) + 1e-6), step = Math.max(1, Math.ceil((last - first) / 7));
    const found = [];
    for (let e = last; e >= first; e -= step) found.unshift(10 ** e);
    return found;
  }

  function logRange(u, low, high) {
    if (low === null || !(low > 0)) return [.1, 10];
    if (high / low < 30) { const mid = Math.sqrt(low * high); low = Math.min(low, mid / 6); high = Math.max(high, mid * 6); }
    return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high))];
  }
  function sized(plot, box) {
    plots.add(plot);
    new ResizeObserver(() => { if (box.clientWidth) plot.setSize({ width: box.clientWidth, height: plot.height }); }).observe(box);
    return plot;
  }

  const DENSE = 600;  // with more tensors a line is a filled zigzag: predictions become points, too

  // One chart of a quantity against depth; `kind` has the keys of its predicted line, band and measured points.
  function depthChart(rows, kind, sync, select) {
    const box = el("div"), tip = el("div", { class: "tip" });
    const has = key => rows.some(row => row[key] !== undefined);
    const heading = el("h3", {}, kind.title,
      has(kind.predicted) ? el("span", { class: "key" }, el("i", { style: "background:var(--predicted)" }), "predicted") : null,
      has(kind.low) ? el("span", { class: "key" }, el("i", { class: "band" }), "95 % of single networks") : null,
      has(kind.measured) ? el("span", { class: "key" }, el("i", { class: "dots", style: "background:var(--measured)" }), "measured") : null);
    const card = el("div", { class: "card chart", "data-chart": kind.measured }, heading, box, tip);
    let shown = [];
    const columns = () => [shown.map(r => r.index), ...[kind.low, kind.high, kind.predicted, kind.measured].map(k => shown.map(r => positive(r[k])))];
    const bad = row => [kind.measured, kind.predicted].some(k => row[k] !== undefined && !positive(row[k]));
    const dots = n => n > 1500 ? 2 : n > 300 ? 4 : 6;
    const options = {
      width: 900, height: 270, legend: { show: false }, padding: [10, 16, 0, 4],
      scales: { x: { time: false, range: (u, a, b) => a === b ? [a - 1, b + 1] : [a - (b - a) * .01, b + (b - a) * .01] }, y: { distr: 3, log: 10, range: logRange } },
      axes: [axis("depth (tensors in the order in which they are made)", { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000] }), axis("", { size: 58, splits: powers, filter: (u, splits) => splits, values: (u, splits) => splits.map(power) })],
      bands: [{ series: [2, 1], fill: () => css("--band") }],
      series: [{},
        { stroke: "transparent", points: { show: false }, spanGaps: false },
        { stroke: "transparent", points: { show: false }, spanGaps: false },
        { stroke: () => css("--predicted"), width: 1.6, spanGaps: false, paths: (...a) => shown.length > DENSE ? null : uPlot.paths.linear()(...a),
          points: { show: () => shown.length > DENSE, size: 3, width: 0, fill: () => css("--predicted") } },
        { paths: (...a) => has(kind.predicted) || shown.length > DENSE ? null : uPlot.paths.linear()(...a), stroke: () => css("--measured"), width: .7, points: { show: true, size: 6, width: 0, fill: () => css("--measured") } }],
      cursor: { sync: { key: sync }, drag: { x: true, y: false }, points: { size: 9 }, y: false },
      hooks: { setCursor: [hover], draw: [marks] },
    };
    function marks(u) {  // zeros, infinities and NaN have no place on a log axis: a triangle at its foot
      const { ctx, bbox } = u;
      ctx.save(); ctx.fillStyle = css("--error");
      for (const row of shown) if (bad(row)) {
        const x = u.valToPos(row.index, "x", true), y = bbox.top + bbox.height, s = 5 * devicePixelRatio;
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.beginPath(); ctx.moveTo(x, y - 2 * s); ctx.lineTo(x - s, y); ctx.lineTo(x + s, y); ctx.fill();
      }
      ctx.restore();
      card.dataset.points = u.data[4].filter(v => v !== null).length;
      card.dataset.line = u.data[3].filter(v => v !== null).length;
    }
    function hover(u) {
      const row = u.cursor.idx === null || u.cursor.idx === undefined ? null : shown[u.cursor.idx];
      if (!row || u.cursor.left < 0) { tip.style.display = "none"; return; }
      tip.replaceChildren(el("b", {}, row.name), `\n${row.op}  ${row.shape}\n${describe(row)}`);
      tip.style.display = "block";
      const x = u.cursor.left + box.offsetLeft + u.over.offsetLeft, right = x > box.clientWidth * .6;
      tip.style.left = `${right ? x - tip.offsetWidth - 16 : x + 20}px`;
      tip.style.top = `${heading.offsetHeight + 26}px`;
    }
    const plot = new uPlot(options, [[], [], [], [], []], box);
    plot.over.addEventListener("click", () => { const row = shown[plot.cursor.idx]; if (row) select(row); });
    card.show = list => {
      shown = list;
      const size = dots(list.length);
      plot.series[4].points.size = size;
      plot.setData(columns());
    };
    card.plot = plot;
    return [card, () => sized(plot, box)];
  }
  function describe(row) {
    const lines = [];
    for (const [word, p, m, low, high] of [["rms", "p_rms", "m_rms", "p_low", "p_high"], ["gradient rms", "p_grad", "m_grad", "p_gradLow", "p_gradHigh"]]) {
      if (row[p] !== undefined) lines.push(`${word} predicted ${short(row[p])}` + (row[low] !== undefined ? `  [${short(row[low])}, ${short(row[high])}]` : ""));
      if (row[m] !== undefined) lines.push(`${word} measured  ${short(row[m])}` + (row[p] !== undefined ? `  ${offBy(row[p], row[m])[0]}` : ""));
    }
    if (row.m_spread !== undefined) lines.push(`between samples ${short(row.m_spread)}`);
    if (row.norule) lines.push("no rule predicts this op");
    if (row.mean !== undefined) lines.push(`mean ${short(row.mean)}`);
    for (const [key, value] of Object.entries(row.extra || {})) lines.push(`${key.replaceAll("_", " ")} ${short(value)}`);
    if (row.note) lines.push(row.note);
    return lines.join("\n");
  }

  function trainingSection(training) {
    const kinds = [["accuracy", "accuracy on held-out data"], ["loss", "training loss"]].filter(([k]) => training.curves.some(c => c[k]));
    const keys = training.curves.map((c, i) => el("span", { class: "key" }, el("i", { style: `background:${palette[i % 6]}` }), c.label));
    const cards = kinds.map(([key, title]) => {
      const box = el("div"), card = el("div", { class: "card chart", "data-chart": `training-${key}` }, el("h3", {}, title), box);
      const epochs = [...new Set(training.curves.flatMap(c => c.epoch))].sort((a, b) => a - b);
      const columns = training.curves.map(c => { const at = new Map(c.epoch.map((e, i) => [e, number((c[key] || [])[i])])); return epochs.map(e => { const v = at.get(e); return Number.isFinite(v) ? v : null; }); });
      const plot = new uPlot({
        width: 500, height: 250, legend: { show: false }, padding: [10, 16, 0, 4], scales: { x: { time: false }, y: key === "accuracy" ? { range: [0, 1] } : {} },
        axes: [axis("epoch"), axis("", { size: 52, values: (u, s) => s.map(v => key === "accuracy" ? `${Math.round(100 * v)} %` : String(v)) })],
        series: [{}, ...training.curves.map((c, i) => ({ label: c.label, stroke: palette[i % 6], width: 2, points: { show: true, size: 6, fill: palette[i % 6] } }))],
        hooks: { draw: [u => { card.dataset.points = u.data.slice(1).flat().filter(v => v !== null).length; }] },
      }, [epochs, ...columns], box);
      card.later = () => sized(plot, box);
      return card;
    });
    main.append(el("section", { id: "training" }, el("h2", {}, training.title), training.text ? el("p", {}, training.text) : null,
      el("div", { class: "controls" }, ...keys), el("div", { class: "pair" }, ...cards)));
    cards.forEach(card => card.later());
  }

  // ---- findings ---------------------------------------------------------------------------------------------------
  function findingsSection(report, prefix, goto) {
    if (!report.findings.length) return [el("p", { class: "card" }, "No findings: the signal and the gradient start right.")];
    const groups = new Map(), nodes = [];
    for (const finding of report.findings) {
      const key = finding.severity + finding.code;
      groups.set(key, [...(groups.get(key) || []), finding]);
    }
    for (const same of groups.values()) {
      same.slice(0, 4).forEach((finding, i) => nodes.push(findingCard(finding, `${prefix}${finding.code}-${i + 1}`, goto)));
      if (same.length > 4) {
        const more = el("p", { class: "more" }, `and ${same.length - 4} more ${same[0].code}  `, el("button", { type: "button", onclick: () => more.replaceWith(
          ...same.slice(4).map((f, i) => findingCard(f, `${prefix}${f.code}-${i + 5}`, goto))) }, "show"));
        nodes.push(more);
      }
    }
    return nodes;
  }
  function findingCard(finding, id, goto) {
    const lines = [["seen", finding.message], ["expected", finding.expected && `${short(finding.expected[0])} to ${short(finding.expected[1])}, got ${short(finding.measured)}`],
      ["why", finding.cause], ["fix", finding.fix]].filter(([, text]) => text);
    return el("div", { class: `card finding ${finding.severity}`, id }, el("div", { class: "head" },
      el("span", { class: "sev" }, finding.severity), `${finding.code}  `, el("a", { onclick: () => goto(finding.row) }, finding.name || "the model")),
      ...lines.flatMap(([word, text]) => [el("span", { class: "word" }, word), el("span", {}, text)]));
  }

  // ---- table ------------------------------------------------------------------------------------------------------
  function treeOf(rows) {
    const top = { label: "", children: new Map(), rows: [] };
    for (const row of rows) {
      const [path, op] = row.name.split(/\/(.*)/s), parts = [...path.split(".").filter(Boolean), ...(op === undefined ? [] : ["/" + op])];
      let node = top; node.rows.push(row);
      for (const part of parts) {
        if (!node.children.has(part)) node.children.set(part, { label: part, children: new Map(), rows: [] });
        node = node.children.get(part); node.rows.push(row);
      }
      node.row = row;
    }
    return top;
  }
  const SEVERITY = ["info", "warning", "error"];
  function columnsOf(rows) {
    const has = key => rows.some(row => row[key] !== undefined), columns = [];
    for (const [word, p, m] of [["rms", "p_rms", "m_rms"], ["gradient", "p_grad", "m_grad"]]) {
      if (has(p)) columns.push([`${word} predicted`, p]);
      if (has(m)) columns.push([`${word} measured`, m]);
      if (has(p) && has(m)) columns.push(["off by", [p, m]]);
    }
    return columns;
  }
  function range(rows, key) {
    const values = rows.map(r => positive(r[key])).filter(v => v !== null);
    if (!values.length) return "";
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    return short(low) === short(high) ? short(low) : `${short(low)} … ${short(high)}`;
  }
  function tableSection(rows, worst) {
    const columns = columnsOf(rows), body = el("tbody"), lines = new Map();
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...["tensor", "op", "shape", ...columns.map(c => c[0])].map(t => el("th", {}, t)))), body);
    const dot = list => { const s = list.reduce((a, r) => Math.max(a, worst.get(r.name) ?? -1), -1); return s < 0 ? null : el("span", { class: `dot ${SEVERITY[s]}` }, "●"); };
    const indent = depth => `padding-left:${12 + 18 * depth}px`;
    function cell(row, key) {
      if (Array.isArray(key)) { const [text, far] = offBy(row[key[0]], row[key[1]]); return el("td", { class: far ? "off" : null }, text); }
      if (key === "p_rms" && row.norule) return el("td", { class: "none" }, "no rule");
      return el("td", {}, (row.rough && key.startsWith("p_") && row[key] !== undefined ? "~" : "") + short(row[key]));
    }
    const leaf = (row, label, depth) => {
      const line = el("tr", { title: row.note || null }, el("td", { style: indent(depth) }, el("span", { class: "toggle" }), label, dot([row])), el("td", {}, row.op), el("td", {}, row.shape), ...columns.map(([, key]) => cell(row, key)));
      lines.set(row.name, line); return line;
    };
    function group(node, depth, label) {
      let open = null;
      const mark = el("span", { class: "toggle" }, "▸");
      const line = el("tr", { class: "group" }, el("td", { style: indent(depth) }, mark, label, dot(node.rows)), el("td", {}, `${node.rows.length} tensors`), el("td"),
        ...columns.map(([, key]) => el("td", {}, Array.isArray(key) ? "" : range(node.rows, key))));
      node.toggle = wanted => {
        if (wanted === (open !== null)) return;
        mark.textContent = wanted ? "▾" : "▸";
        if (wanted) { open = children(node, depth + 1); line.after(...open); } else { open.forEach(remove); open = null; }
      };
      line.addEventListener("click", () => node.toggle(open === null));
      line.node = node;
      return line;
    }
    function remove(line) { if (line.node) line.node.toggle(false); line.remove(); }
    function children(node, depth) {
      return [...node.children.values()].map(child => {
        let label = child.label, inner = child;
        while (!inner.row && inner.children.size === 1) { inner = inner.children.values().next().value; label += inner.label.startsWith("/") ? inner.label : "." + inner.label; }
        if (inner.children.size && inner.row) inner.children = new Map([["", { label: "", children: new Map(), row: inner.row, rows: [inner.row] }], ...inner.children]), inner.row = null;
        if (inner.children.size) return group(inner, depth, label);
        return leaf(inner.row, label || "(output)", depth);
      });
    }
    const tree = treeOf(rows);
    function openTo(limit) {  // level by level while the table stays readable
      let level = [...body.rows].filter(l => l.node).map(l => l.node);
      while (level.length && body.rows.length + level.reduce((n, node) => n + node.children.size, 0) <= limit) {
        level.forEach(node => node.toggle(true));
        level = [...body.rows].filter(l => l.node && l.querySelector(".toggle").textContent === "▸").map(l => l.node);
      }
    }
    function showTree() { lines.clear(); body.replaceChildren(...children(treeOf(rows), 0)); openTo(70); }
    function showFlat(list, most = 300) {
      lines.clear(); body.replaceChildren(...list.slice(0, most).map(row => leaf(row, row.name, 0)));
      if (list.length > most) body.append(el("tr", { class: "group", onclick: () => showFlat(list, most * 4) }, el("td", { colspan: 3 }, `${list.length - most} more: show`)));
    }
    function reveal(row) {
      if (!lines.get(row.name)?.isConnected) {
        for (let found = true; found;) {
          found = [...body.rows].find(l => l.node && l.node.rows.includes(row) && l.querySelector(".toggle").textContent === "▸");
          if (found) found.node.toggle(true);
        }
      }
      const line = lines.get(row.name);
      if (!line) return;
      line.scrollIntoView({ block: "center" }); line.classList.add("flash"); setTimeout(() => line.classList.remove("flash"), 1600);
    }
    const all = el("button", { type: "button", onclick: () => openTo(6000) }, "open all"), none = el("button", { type: "button", onclick: showTree }, "fold");
    void tree; showTree();
    return [el("section", {}, el("h2", {}, "Tensors"), el("div", { class: "controls" }, all, none), el("div", { class: "card scroll" }, table)), { showTree, showFlat, reveal }];
  }

  const MOVES = new Set("view reshape transpose permute contiguous clone alias to expand unsqueeze squeeze split chunk slice select flatten detach".split(" "));

  // ---- a report ---------------------------------------------------------------------------------------------------
  function reportSection(report, position) {
    const rows = report.rows; rows.forEach((row, i) => { row.index = i; });
    const byName = new Map(rows.map(row => [row.name, row])), worst = new Map();
    for (const f of report.findings) worst.set(f.row, Math.max(worst.get(f.row) ?? -1, SEVERITY.indexOf(f.severity)));
    const [table, control] = tableSection(rows, worst);
    const goto = name => { const row = byName.get(name); if (row) { clear(); control.reveal(row); } };
    const kinds = [{ title: "Signal rms", predicted: "p_rms", low: "p_low", high: "p_high", measured: "m_rms" },
      { title: "Signal between samples: what differs from the mean over the batch", predicted: "p_spread", low: "-", high: "-", measured: "m_spread" },
      { title: "Gradient rms", predicted: "p_grad", low: "p_gradLow", high: "p_gradHigh", measured: "m_grad" }]
      .filter(kind => rows.some(row => row[kind.predicted] !== undefined || row[kind.measured] !== undefined));
    const charts = kinds.map(kind => depthChart(rows, kind, `depth${position}`, row => goto(row.name)));
    const counts = new Map(); rows.forEach(row => counts.set(row.op, (counts.get(row.op) || 0) + 1));
    const input = el("input", { type: "search", placeholder: "filter by name or op", "aria-label": "filter by name or op", oninput: refresh });
    const outputs = rows.filter(row => !row.name.includes("/")).length;
    let op = null, every = rows.length <= 80 || outputs < 10;
    const scope = rows.length === outputs ? null : el("button", { type: "button", class: "chip", onclick: () => { every = !every; refresh(); } });
    const chips = [...counts].filter(([name]) => !MOVES.has(name)).sort((a, b) => b[1] - a[1]).slice(0, 12).map(([name, n]) => el("button", { type: "button", class: "chip", "data-op": name, onclick: () => { op = op === name ? null : name; refresh(); } }, name, el("span", {}, n)));
    function refresh() {
      const text = input.value.toLowerCase();
      const wide = every || op !== null || text, drawn = row => wide || !row.name.includes("/");
      const list = rows.filter(row => (op === null || row.op === op) && (!text || row.name.toLowerCase().includes(text) || row.op.toLowerCase().includes(text)));
      chips.forEach(chip => chip.classList.toggle("on", chip.dataset.op === op));
      if (scope) { scope.textContent = every ? "every operation" : "outputs of modules"; scope.classList.toggle("on", !every); }
      charts.forEach(([card]) => card.show(list.filter(drawn)));
      if (list.length === rows.length) control.showTree(); else control.showFlat(list);
    }
    function clear() { if (op !== null || input.value) { op = null; input.value = ""; refresh(); } }
    const errors = report.findings.filter(f => f.severity === "error").length, others = report.findings.length - errors;
    const verdict = report.ok ? ["good", "starts right", others ? `${others} lesser finding${others > 1 ? "s" : ""}` : "no findings"] : ["bad", `${errors} error${errors > 1 ? "s" : ""}`, others ? `and ${others} lesser` : "to mend"];
    const tiles = [[verdict[1], verdict[2], verdict[0]], [rows.length, "tensors"], ...report.tiles.map(([word, value]) => [value, word])];
    const section = el("section", { class: "report" },
      el("div", { class: "tiles" }, ...tiles.map(([value, word, kind]) => el("div", { class: `tile ${kind || ""}` }, el("b", {}, value), el("span", {}, word)))),
      el("h2", {}, "Findings"), ...findingsSection(report, data.reports.length > 1 ? `r${position + 1}-` : "", goto),
      ...(rows.length ? [el("h2", {}, "Signal and gradient against depth"), el("div", { class: "controls" }, input, scope, ...chips), ...charts.map(([card]) => card),
        el("p", { class: "hint" }, "Drag to zoom, double-click to go back, click a point for its row. A triangle at the foot: zero or not finite."), table] : []),
      el("footer", {}, ...[...report.notes, Object.entries(report.versions).map(([k, v]) => `${k} ${v}`).join(", ")].filter(Boolean).map(n => el("div", {}, n))));
    main.append(section);
    charts.forEach(([, later]) => later());
    refresh();
    return section;
  }

  // ---- the page ---------------------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let theme = null;
  function paint() { root.dataset.theme = theme || (dark.matches ? "dark" : "light"); plots.forEach(plot => plot.redraw(false)); }
  document.getElementById("theme").addEventListener("click", () => { theme = root.dataset.theme === "dark" ? "light" : "dark"; paint(); });
  dark.addEventListener("change", paint);
  paint();
  if (data.training) trainingSection(data.training);
  const tabs = el("div", { class: "tabs" });
  if (data.reports.length > 1) main.append(tabs);
  const sections = data.reports.map(reportSection);
  function choose(position) {
    sections.forEach((section, i) => { section.hidden = i !== position; });
    [...tabs.children].forEach((tab, i) => tab.classList.toggle("on", i === position));
  }
  data.reports.forEach((report, i) => tabs.append(el("button", { type: "button", onclick: () => choose(i) }, report.target)));
  choose(0);
  requestAnimationFrame(() => requestAnimationFrame(() => { root.dataset.ready = "true"; if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView(); }));
})();
