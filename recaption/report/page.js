"use strict";
// Everything shown comes from the JSON below, as text: nothing here makes HTML of a string.
const data = JSON.parse(document.getElementById("data").textContent);
const STATES = ["captioned", "filtered", "rejected", "failed"];
const CHUNK = 48;
const $ = (id) => document.getElementById(id);
const whole = (n) => Math.round(n).toLocaleString("en");
const short = (n) => Number(n.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
const share = (n, of) => (of ? `${((100 * n) / of).toFixed(n && n / of < 0.1 ? 1 : 0)} %` : "–");
const plural = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c !== null));
  return node;
}

function drawn(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function duration(seconds) {
  if (seconds < 120) return `${seconds < 10 ? short(seconds) : whole(seconds)} s`;
  if (seconds < 7200) return `${whole(seconds / 60)} min`;
  return `${short(seconds / 3600)} h`;
}

// ---- summary ----------------------------------------------------------------------------------

function states(samples) {
  const total = STATES.reduce((sum, name) => sum + samples[name], 0);
  const bar = el("div", { class: "states", "aria-hidden": "true" });
  const legend = el("ul", { class: "legend" });
  for (const name of STATES.filter((s) => samples[s])) {
    const part = el("i", { class: name });
    part.style.flexGrow = samples[name] / total;
    bar.append(part);
    legend.append(el("li", {}, el("i", { class: name, "aria-hidden": "true" }), `${whole(samples[name])} ${name}`));
  }
  return [bar, legend];
}

function summary(column, place) {
  const run = data.runs[column.run];
  const total = STATES.reduce((sum, name) => sum + run.samples[name], 0);
  const lines = [];
  const { published, selected, failed } = run.shards;
  const all = run.shards.total > selected ? ` (${whole(run.shards.total)} in all)` : "";
  lines.push(["Shards", `${whole(published)} of ${whole(selected)}${all}`]);
  if (failed) lines.push(["Shards failed", whole(failed)]);
  if (run.throughput) {
    lines.push(["Images/s at work", short(run.throughput.overall)]);
    lines.push(["Time at work", duration(run.throughput.working)]);
  }
  lines.push(["Captions flagged", `${whole(column.flagged)} · ${share(column.flagged, run.basis.captioned)}`]);
  for (const metric of data.histograms) {
    const one = metric.columns[place];
    if (one.n) lines.push([`${metric.title}, median`, short(one.median)]);
  }
  lines.push(["Model", run.model + (run.revision ? ` @ ${run.revision.slice(0, 12)}` : "")]);
  if (run.engine !== "vllm") lines.push(["Engine", run.engine]);
  return el("article", { class: "panel" },
    el("h3", {}, column.label),
    el("p", { class: "big" }, whole(total), el("small", {}, total === 1 ? " sample" : " samples")),
    ...states(run.samples),
    el("dl", {}, ...lines.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
    el("details", data.columns.length < 3 ? { open: "" } : {}, el("summary", {}, `Prompt ${column.prompt}`),
      column.system ? el("p", { class: "muted" }, column.system) : null,
      el("p", {}, column.text)),
    el("details", {}, el("summary", {}, "Where it is"),
      el("p", {}, el("code", {}, run.directory)),
      el("p", { class: "muted" }, "fingerprint ", el("code", {}, run.fingerprint.slice(0, 16))),
      run.parent ? el("p", { class: "muted" }, `made from ${run.parent}`) : null));
}

function basis() {
  const all = data.runs.every((run) => run.basis.exact && !run.basis.unreadable.length);
  const same = all && new Set(data.runs.map((run) => run.basis.rows)).size === 1;
  return (same ? data.runs.slice(0, 1) : data.runs).map((run, n) => {
    const of = data.runs.length > 1 && !same ? `${labelOf(n)}: ` : "";
    const unread = run.basis.unreadable.length ? ` Sidecars that cannot be read: ${run.basis.unreadable.join(", ")}.` : "";
    if (run.basis.exact) return `${of}every one of ${plural(run.basis.rows, "sample")}.${unread}`;
    return `${of}${plural(run.basis.rows, "sample")} of ${whole(run.basis.shards)} of ${whole(run.shards.published)} `
      + `published shards, drawn by a hash of their names (--shards all reads every one).${unread}`;
  }).join(" ");
}

const labelOf = (run) => data.columns.filter((c) => c.run === run).map((c) => c.label).join(", ");

// ---- charts -----------------------------------------------------------------------------------

const W = 320, H = 100; // of the drawing, which is stretched to its panel

function chart(title, label, ends, ...parts) {
  return el("figure", {}, el("figcaption", {}, el("b", {}, title), el("span", { class: "muted" }, label)),
    drawn("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${label}` }, ...parts),
    el("div", { class: "ends", "aria-hidden": "true" }, ...ends.map((end) => el("span", {}, end))));
}

function throughput(run) {
  const t = run.throughput;
  if (!t) return chart("Throughput", "no progress in the tasks' logs yet", []);
  const top = Math.max(...data.runs.flatMap((r) => (r.throughput ? r.throughput.rates : [])), 1e-9);
  const most = Math.max(...t.rates);
  const y = (rate) => (H - (rate / top) * (H - 4)).toFixed(2);
  let line = `M0 ${y(t.rates[0])}`;
  t.rates.forEach((rate, i) => { line += ` V${y(rate)} H${(((i + 1) * W) / t.rates.length).toFixed(2)}`; });
  const span = t.seconds * t.rates.length;
  const since = new Date(t.start * 1000).toISOString().slice(0, 16).replace("T", " ");
  return chart("Throughput", `${short(t.overall)} images/s at work, ${short(most)} at most`, [`${since} UTC`, `+ ${duration(span)}`],
    drawn("path", { class: "area", d: `${line} V${H} H0 Z` }), drawn("path", { class: "stroke", d: line }));
}

function histogram(metric, place, top) {
  const one = metric.columns[place];
  const title = metric.title.replaceAll("_", " ");
  if (!one.n) return chart(title, "none", []);
  const { edges } = metric;
  const scored = metric.unit === "score";
  const open = metric.columns.some((c) => c.over);
  const bars = open ? [...one.bars, one.over] : one.bars;
  const width = W / bars.length;
  const parts = bars.map((count, i) => {
    const height = count ? Math.max(1.5, (count / one.n / top) * (H - 4)) : 0;
    const last = open && i === bars.length - 1;
    const to = scored ? edges[i + 1] : edges[i + 1] - 1;
    const range = last ? `${edges[i]} and more` : to === edges[i] ? `${to}` : `${edges[i]} to ${to}`;
    return drawn("rect", { class: "bar", x: (i * width + width * 0.06).toFixed(2), width: (width * 0.88).toFixed(2), y: (H - height).toFixed(2), height: height.toFixed(2) },
      drawn("title", {}, `${range}: ${whole(count)} (${share(count, one.n)})`));
  });
  const end = edges[edges.length - 1];
  const at = Math.min(W, ((one.median - edges[0] + (scored ? 0 : 0.5)) / (end - edges[0])) * width * one.bars.length);
  parts.push(drawn("line", { class: "mark", x1: at, x2: at, y1: 0, y2: H }));
  const text = `median ${short(one.median)} · 90 % in ${short(one.p5)}–${short(one.p95)}`;
  return chart(title, text, [short(edges[0]), open ? `${short(end)} and more` : short(end)], ...parts);
}

function shapes() {
  const tops = data.histograms.map((metric) => Math.max(...metric.columns.map((c) => Math.max(...c.bars, c.over) / (c.n || 1))));
  return data.columns.map((column, place) => el("article", { class: "panel" }, headOf(column),
    throughput(data.runs[column.run]), ...data.histograms.map((metric, i) => histogram(metric, place, tops[i]))));
}

const headOf = (column) => (data.columns.length > 1 ? el("h3", {}, column.label) : null);

// ---- flags and failures -----------------------------------------------------------------------

function flags(column, place) {
  const { captioned } = data.runs[column.run].basis;
  const rows = Object.entries(column.flags).map(([flag, count]) => el("tr", {},
    el("th", { scope: "row" }, el("button", { type: "button", class: "link", onclick: () => show({ flag: `=${flag}`, column: String(place) }) }, flag)),
    el("td", { class: "n" }, whole(count)), el("td", { class: "n" }, share(count, captioned))));
  return el("article", { class: "panel" }, headOf(column),
    rows.length ? el("table", {}, el("tbody", {}, ...rows)) : el("p", { class: "muted" }, "No caption has a flag."));
}

function reasons(run, n) {
  if (!run.reasons.length) return null;
  const rows = run.reasons.map((r) => el("tr", {}, el("td", { class: "reason" }, r.what === "shard" ? `shard: ${r.reason}` : r.reason, el("code", {}, r.example)),
    el("td", { class: "n" }, whole(r.count))));
  return el("article", { class: "panel" }, el("h3", {}, `Why samples or shards failed${data.runs.length > 1 ? `: ${labelOf(n)}` : ""}`),
    el("table", {}, el("tbody", {}, ...rows)));
}

// ---- gallery ----------------------------------------------------------------------------------

const form = $("filters");
const cards = $("cards");
const MEASURES = [["length", "caption length"], ["tokens", "tokens"], ...data.scores.map((name) => [`s:${name}`, name.replaceAll("_", " ")])];
let shown = [];
let rendered = 0;

for (const item of data.gallery) {
  item.search = item.cells.map((c) => (c ? `${c.caption}\n${c.reason}`.toLowerCase() : ""));
  item.common = `${item.key}\n${item.shard}\n${item.old}\n${item.why}`.toLowerCase();
}

function measured(cell, name) {
  if (name.startsWith("s:")) return cell.scores[name.slice(2)];
  return cell.status === "captioned" ? cell[name] : undefined;
}

function matching(item, f) {
  const within = (cell) => {
    if (!cell || (f.status && cell.status !== f.status)) return false;
    if (f.flag === "any" && !cell.flags.length) return false;
    if (f.flag === "none" && (cell.flags.length || cell.status !== "captioned")) return false;
    if (f.flag.startsWith("=") && !cell.flags.includes(f.flag.slice(1))) return false;
    if (f.low === null && f.high === null) return true;
    const value = measured(cell, f.measure);
    return value !== undefined && (f.low === null || value >= f.low) && (f.high === null || value <= f.high);
  };
  const here = item.cells.map((cell, i) => (f.column === "" || i === f.column) && within(cell));
  if (!here.includes(true)) return false;
  return !f.text || item.common.includes(f.text) || here.some((is, i) => is && item.search[i].includes(f.text));
}

function settings() {
  const number = (field) => (field.value.trim() === "" || Number.isNaN(field.valueAsNumber) ? null : field.valueAsNumber);
  const { text, flag, status, column, measure, low, high, order } = form.elements;
  return {
    text: text.value.trim().toLowerCase(), flag: flag.value, status: status.value, measure: measure.value,
    column: column.value === "" ? "" : Number(column.value), low: number(low), high: number(high), order: order.value,
  };
}

function ordered(items, f) {
  if (f.order === "bad") return items;
  if (f.order === "key") return [...items].sort((a, b) => (a.shard === b.shard ? (a.key < b.key ? -1 : 1) : a.shard < b.shard ? -1 : 1));
  const sign = f.order[0] === "-" ? -1 : 1;
  const value = (item) => {
    const all = item.cells.filter((c, i) => c && (f.column === "" || f.column === i)).map((c) => measured(c, f.order.slice(1))).filter((v) => v !== undefined);
    return all.length ? Math.min(...all.map((v) => sign * v)) : Infinity;
  };
  const keyed = items.map((item) => [value(item), item]);
  return keyed.sort((a, b) => (a[0] === b[0] ? 0 : a[0] - b[0])).map(([, item]) => item);
}

function caption(text, none) {
  if (!text) return [el("p", { class: "text none" }, none)];
  const p = el("p", { class: "text", dir: "auto" }, text);
  if (text.length < 420 && text.split("\n").length < 10) return [p];
  p.classList.add("cut");
  const toggle = el("button", { type: "button", class: "link", onclick: () => { toggle.textContent = p.classList.toggle("cut") ? "Show all" : "Show less"; } }, "Show all");
  return [p, toggle];
}

function cellOf(cell, place) {
  const head = data.columns.length > 1 ? el("h4", {}, data.columns[place].label) : null;
  if (!cell) return el("div", { class: "cell" }, head, el("p", { class: "text none" }, "not in this run yet"));
  const chips = el("ul", { class: "chips" });
  if (cell.status !== "captioned") chips.append(el("li", { class: "state" }, cell.reason ? `${cell.status}: ${cell.reason}` : cell.status));
  for (const flag of cell.flags) chips.append(el("li", { class: "flag" }, flag));
  if (cell.status === "captioned") chips.append(el("li", {}, `${whole(cell.length)} characters`), el("li", {}, plural(cell.tokens || 0, "token")));
  for (const [name, score] of Object.entries(cell.scores)) chips.append(el("li", {}, `${name.replace(/_score$/, "")} ${short(score)}`));
  return el("div", { class: "cell" }, head, ...caption(cell.caption, "no caption"), chips);
}

function card(item) {
  const picture = item.picture
    ? el("img", { src: item.picture, alt: "", loading: "lazy", decoding: "async" })
    : el("p", {}, item.why || "no picture");
  return el("li", { class: "card", tabindex: "-1", "aria-label": item.key },
    el("div", { class: "thumb" }, picture),
    el("div", { class: "body" },
      el("p", { class: "id" }, el("code", {}, item.key), el("span", {}, item.shard), item.width ? el("span", {}, `${item.width} × ${item.height}`) : null),
      el("div", { class: "cells" },
        ...(data.columns.length > 1 ? [] : item.cells.map(cellOf)),
        el("div", { class: "cell old" }, el("h4", {}, "Original"), ...caption(item.old, "none")),
        ...(data.columns.length > 1 ? item.cells.map(cellOf) : []))));
}

function more() {
  const next = shown.slice(rendered, rendered + CHUNK);
  cards.append(...next.map(card));
  rendered += next.length;
  $("more").parentElement.hidden = rendered >= shown.length;
}

function refresh() {
  const f = settings();
  shown = ordered(data.gallery.filter((item) => matching(item, f)), f);
  cards.replaceChildren();
  rendered = 0;
  more();
  $("count").textContent = `${whole(shown.length)} of ${plural(data.gallery.length, "picture")}`;
}

function show(values) {
  form.reset();
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
  refresh();
  $("gallery").scrollIntoView();
  form.elements.flag.focus({ preventScroll: true });
}

function options(name, entries) {
  form.elements[name].replaceChildren(...entries.map(([value, label]) => el("option", { value }, label)));
}

function step(by) {
  const all = [...cards.children];
  const here = all.findIndex((c) => c.contains(document.activeElement));
  const to = here < 0 ? 0 : here + by;
  if (to >= all.length && rendered < shown.length) { more(); step(by); return; }
  const target = cards.children[Math.max(0, to)];
  if (!target || to >= cards.children.length) return;
  target.focus({ preventScroll: true });
  target.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement.tagName);
  if (event.key === "Escape") { form.reset(); document.activeElement.blur(); }
  else if (typing) return;
  else if (event.key === "/") { event.preventDefault(); form.elements.text.focus(); }
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
});

// ---- the page ---------------------------------------------------------------------------------

function start() {
  const names = data.columns.map((c) => c.label);
  const title = names.length === 1 ? names[0] : names.length === 2 ? names.join(" and ") : `${names.length} columns side by side`;
  $("title").textContent = title;
  document.title = `${title} · recaption report`;
  document.body.classList.add(names.length > 1 ? "many" : "one");
  $("made").textContent = `Made ${new Date(data.made * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC by recaption ${data.version}.`;
  $("summary").append(...data.columns.map(summary));
  $("shapes").append(...shapes());
  for (const node of document.querySelectorAll(".basis")) node.textContent = `Over ${basis()}`;
  $("flags").append(...data.columns.map(flags));
  $(names.length > 1 ? "reasons" : "flags").append(...data.runs.map(reasons).filter((r) => r));
  $("offered").textContent = data.gallery.length >= data.offered
    ? `All ${plural(data.offered, "sample")}, the worst first.`
    : `${whole(data.gallery.length)} of ${plural(data.offered, "sample")}: the worst of every kind, the shortest and longest captions, `
      + "the lowest and highest scores, and others drawn by a hash of their place, the same at every call.";
  const found = (of) => [...new Set(data.gallery.flatMap((item) => item.cells.filter((c) => c).flatMap(of)))];
  options("flag", [["", "any or none"], ["any", "flagged"], ["none", "not flagged"], ...found((c) => c.flags).sort().map((flag) => [`=${flag}`, flag])]);
  options("status", [["", "all"], ...STATES.filter((s) => found((c) => c.status).includes(s)).map((s) => [s, s])]);
  options("column", [["", "any column"], ...names.map((label, i) => [String(i), label])]);
  options("measure", MEASURES);
  options("order", [["bad", "worst first"], ["key", "shard and key"], ...MEASURES.flatMap(([name, label]) => [[`+${name}`, `${label}, low first`], [`-${name}`, `${label}, high first`]])]);
  form.addEventListener("input", refresh);
  form.addEventListener("reset", () => setTimeout(refresh));
  form.addEventListener("submit", (event) => event.preventDefault());
  $("more").addEventListener("click", more);
  new IntersectionObserver((entries) => { if (entries.some((e) => e.isIntersecting) && rendered < shown.length) more(); }, { rootMargin: "600px" }).observe($("more").parentElement);
  refresh();
}

start();
