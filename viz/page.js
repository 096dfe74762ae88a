"use strict";
// What the page does. `data` holds the numbers (page.py writes them). Each <template> holds a picture,
// whose boxes and arrows say in data-… what they stand for (marks.py): keys of `data.series`, a step.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const LEVELS = ["layer", "cell", "op"];
const DECADES = 4; // from the widest arrow to the faintest
const STATISTICS = ["norm", "least", "mean", "greatest"];
const STEPS = Array.from({ length: data.last - data.first + 1 }, (_, i) => data.first + i);
const [stage, tip, slider, chart, from, to, shown] =
  ["stage", "tip", "step", "chart", "from", "to", "shown"].map((id) => document.getElementById(id));
const pictures = [...document.querySelectorAll("template")].map(({ content, dataset }) => {
  const [first, last, middle] = [dataset.first, dataset.last, dataset.middle].map(Number);
  return { content, level: dataset.level, first, last, middle };
});

let level, step; // what is looked at
let picture, parts; // what is on the stage, its boxes and arrows
let view; // what is seen of it: {x, y, w, h} in its own points

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// -- numbers ----------------------------------------------------------------------------------------

function write(number) {
  if (number === null) return "–";
  const size = Math.abs(number);
  const plain = typeof number === "string" || size === 0 || (size >= 0.001 && size < 10000);
  return (plain ? String(number) : number.toExponential()).replaceAll("-", "−").replace("e+", "e");
}

// One of the statistics of a value at a step: of itself, or of the chosen gradient.
function measured(key, at, kind = shown.value, statistic = 0) {
  const { value, gradient, whole } = data.series[key];
  const listed = (kind === "value" ? value : gradient[from.value])?.[statistic];
  return listed?.[whole ? 0 : at - data.first] ?? null;
}

const nameOf = (key, at) => (data.series[key].name || "result") + (data.series[key].whole ? "" : `⟨${at}⟩`);
const isNumber = (size) => typeof size === "number" && size > 0;
const end = () => data.ends[from.value];
const derivative = (what) => `∂${end().name.replace(/^Σ.*/, "($&)")}/∂${what}`;

// What the widest arrow stands for: the largest norm that an arrow can show.
function largest() {
  const told = Object.entries(data.series).filter(([key]) => /^(r\d+_|x|y)/.test(key));
  const kept = told.map(([, s]) => (shown.value === "value" ? s.value : s.gradient[from.value])?.[0]);
  return Math.max(0, ...kept.flatMap((sizes) => sizes ?? []).filter(isNumber));
}

const strength = (size, most) => Math.min(1, Math.max(0, 1 + Math.log10(size / most) / DECADES)) || 0;

// -- the picture ------------------------------------------------------------------------------------

// The step of a column. One picture serves many steps: the columns in its middle go with the slider.
function stepOf(column) {
  if (picture.level === "layer") return step;
  const moves = Math.abs(column - picture.middle) <= (picture.level === "op" ? 1 : 2);
  return moves ? column + step - picture.middle : column; // NaN ≤ 1 is false
}

function show(row) {
  const next = pictures.find((p) => p.level === level && p.first <= step && step <= p.last);
  const fresh = picture?.level !== next.level;
  if (next !== picture) {
    picture = next;
    const svg = next.content.querySelector("svg").cloneNode(true);
    svg.removeAttribute("width");
    svg.removeAttribute("height");
    stage.replaceChildren(svg);
    for (const text of svg.querySelectorAll("text")) text.dataset.written = text.textContent;
    parts = [...svg.querySelectorAll("[data-keys], [data-tail], [data-after]")].map(prepared);
    if (fresh) zoom(0);
    else look();
  }
  for (const text of stage.querySelectorAll("text[data-written]")) {
    text.textContent = text.dataset.written.replace(/⟨(\d+)⟩/g, (_, n) => `⟨${stepOf(+n)}⟩`);
  }
  parts.filter((part) => !part.head).forEach(label);
  follow(row, fresh);
  paint();
}

function prepared(g) {
  const { keys, column, row, tail, head, title, after } = g.dataset;
  // A layer that works on all steps at once but does not mix them is a box of its own to each step.
  // At level "layer" one column stands for all steps, and one box does.
  const apart = (id) => picture.level !== "layer" && data.apart.includes(id);
  const own = (id) => apart(id) && column ? `${id}@${column}` : id;
  const part = { g, id: g.id, tail: own(tail), head: own(head), row, title, gap: after !== undefined,
    column: column && +column, cell: /^r\d+t\d+$/.test(g.id), keys: keys?.split(" ").filter(Boolean) ?? [] };
  const path = head && g.querySelector("path");
  path?.after(element("path", { class: "hit", d: path.getAttribute("d") })); // easier to point at
  g.about = part;
  return part;
}

const at = (part) => (part.column === undefined ? step : stepOf(part.column));
const left = ({ g }) => [stepOf(+g.dataset.after) + 1, stepOf(+g.dataset.before) - 1];

// What a part says of itself, aloud and in print.
function titleOf(part) {
  if (part.gap) return `steps ${left(part).join(" to ")}, not shown here`;
  const named = part.keys.map((key) => nameOf(key, at(part))).join(", ");
  if (part.cell) return `${part.title}, step ${at(part)}`;
  if (part.id.startsWith("loss") && part.column) return `the part of step ${at(part)} in the loss`;
  return part.title && part.title !== named ? `${part.title}: ${named}` : named;
}

function label(part) {
  const { g } = part;
  const action = { layer: "opens its steps", cell: "opens its operations", op: "goes back" };
  const opens = part.cell && action[level];
  g.tabIndex = 0;
  g.classList.toggle("opens", Boolean(opens));
  g.classList.toggle("looked", part.cell && level === "cell" && at(part) === step);
  g.setAttribute("role", opens ? "button" : "img");
  g.setAttribute("aria-label", titleOf(part) + (opens ? `: ${opens}` : ""));
  const count = left(part)[1] - left(part)[0] + 1;
  if (part.gap) g.querySelector("text").textContent = `… ${count} step${count === 1 ? "" : "s"} …`;
}

// -- the path of a gradient -------------------------------------------------------------------------

// The boxes where a path starts or ends. Where their step is not shown, those that stand for it; and
// these, too, for what belongs to every step.
function ends(fits, t, everywhere) {
  const here = (p) => picture.level === "layer" || t === null || p.column === undefined || at(p) === t;
  const found = parts.filter((p) => !p.head && fits(p) && here(p));
  const gaps = parts.filter((p) => p.gap && (t === null || (left(p)[0] <= t && t <= left(p)[1])));
  return (everywhere ? [...found, ...gaps] : found.length ? found : gaps).map((p) => p.id);
}

function reach(starts, near, far) {
  const found = new Set(starts);
  const arrows = parts.filter((p) => p.head);
  const own = arrows.flatMap((p) => [p.tail, p.head]).filter((id) => id.includes("@"));
  arrows.push(...own.map((id) => ({ tail: id.split("@")[0], head: id }))); // from its parameters
  for (const id of found) { // a set takes in what is added on the way
    for (const arrow of arrows) if (arrow[near] === id) found.add(arrow[far]);
  }
  return found;
}

function onPath() {
  const t = end().step;
  const [whole, each] = data.loss ? [/^loss$/, /^loss\d/] : [/^y/, /^y\d+t/];
  const above = reach(ends((p) => (t === null ? whole : each).test(p.id), t, t === null), "head", "tail");
  if (to.value === "all") return above;
  const [key, wanted] = to.value.split(" ");
  let starts = ends((p) => p.keys.includes(key), wanted ? +wanted : null, key.startsWith("p"));
  const [, layer] = key.match(/^(r\d+)s\d+start$/) ?? []; // not drawn where the layer is one box
  const box = (p) => p.cell && p.id.startsWith(`${layer}t`);
  if (layer && !starts.length) starts = parts.filter(box).map((p) => p.id);
  const below = reach(starts, "tail", "head");
  return new Set([...above].filter((id) => below.has(id)));
}

function paint() {
  const path = onPath(), most = largest();
  for (const id of path) path.add(id.split("@")[0]); // a layer is on it where one of its steps is
  for (const old of stage.querySelectorAll(".flow")) old.remove();
  for (const part of parts) {
    const size = part.keys.length ? measured(part.keys[0], at(part)) : null;
    const none = /^(x|in|p)\d/.test(part.tail) && size === null && shown.value === "gradient"; // tokens
    const on = part.head ? path.has(part.tail) && path.has(part.head) && !none : path.has(part.id);
    part.g.classList.toggle("on", on);
    part.g.classList.toggle("off", !on);
    if (!on || !part.head) continue;
    part.g.style.setProperty("--strength", size === null ? 0.5 : strength(size, most).toFixed(3));
    if (size !== null && part.g.classList.contains("state")) writeFlow(part, size);
  }
  tell();
  plot();
}

// The norm in small print by the state's arrow: below it for h, above its name for the others.
function writeFlow({ g }, size) {
  const name = g.querySelector("text"), box = g.querySelector("path").getBBox();
  const [x, y] = name ? ["x", "y"].map((key) => +name.getAttribute(key))
    : [box.x + box.width / 2, picture.level === "layer" ? box.y + box.height + 8 : box.y - 5];
  const down = g.classList.contains("s0") ? 17 : name ? -14 : -box.height - 16;
  g.append(element("text", { class: "flow", x, y: y + down }, write(size)));
}

function tell() {
  const [key, t] = to.value.split(" ");
  const all = key === "all", what = all || nameOf(key, t);
  const size = all || measured(key, +t, "gradient");
  let text = `‖${derivative(what)}‖ = ${write(size)}`;
  if (all) text = `Everything that ${end().name} is made from.`;
  if (size === null) text = `No gradient was recorded for ${what}: it does not require one.`;
  if (size === 0) text += `: ${end().name} does not depend on ${what}, or nothing is left of it.`;
  document.getElementById("status").textContent = text;
}

// -- the chart: the gradient of each row's state over time ------------------------------------------

function plot() {
  const width = chart.clientWidth || 600, height = chart.clientHeight || 96;
  const [x0, x1, y0, y1] = [52, width - 104, height - 6, 20];
  const carries = (row) => row.way && row.key in data.series; // one step alone hands on no state
  const lines = data.rows.filter(carries).map((row) => {
    return { ...row, sizes: STEPS.map((t) => measured(row.key, t)) };
  });
  const logs = lines.flatMap(({ sizes }) => sizes.filter(isNumber).map(Math.log10));
  chart.replaceChildren();
  if (!logs.length) return;
  const names = [...new Set(lines.map(({ key }) => nameOf(key, "t")))].join(", ");
  const title = `‖${shown.value === "value" ? names : derivative(names)}‖`;
  const high = Math.ceil(Math.max(...logs)), low = Math.min(high - 1, Math.floor(Math.min(...logs)));
  const x = (t) => x0 + ((t - data.first) / Math.max(1, data.last - data.first)) * (x1 - x0);
  const y = (log) => y0 - ((log - low) / (high - low)) * (y0 - y1);
  chart.append(element("text", { x: x0, y: 10 }, `${title} by step t`));
  for (const log of [low, high]) {
    const power = [...String(log)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");
    chart.append(element("line", { class: "axis", x1: x0, x2: x1, y1: y(log), y2: y(log) }));
    chart.append(element("text", { x: x0 - 6, y: y(log) + 4, "text-anchor": "end" }, `10${power}`));
  }
  lines.forEach(({ title: called, sizes }, n) => {
    const look = { class: `line n${n % 4}` };
    const d = sizes.map((size, i) => { // a point on its own is seen, too
      const [start, dot] = isNumber(sizes[i - 1]) ? ["L", ""] : ["M", "h0.01"];
      return isNumber(size) ? `${start}${x(STEPS[i])} ${y(Math.log10(size))}${dot}` : "";
    }).join("");
    chart.append(element("path", { d, ...look }));
    const legend = x0 + 170 + 150 * n;
    if (lines.length === 1 || legend + 130 > width) return;
    chart.append(element("path", { d: `M${legend} 6h22`, ...look }));
    chart.append(element("text", { x: legend + 28, y: 10 }, `row ${n + 1}: ${called}`));
  });
  chart.append(element("line", { class: "now", x1: x(step), x2: x(step), y1, y2: y0 }));
  const here = lines.map(({ sizes }) => write(sizes[step - data.first])).join(", ");
  chart.setAttribute("aria-label", `${title}, here ${here}`);
}

// -- what is told of a thing that is pointed at -----------------------------------------------------

function tellAbout(part, x, y) {
  const heading = document.createElement("strong");
  heading.textContent = titleOf(part);
  tip.replaceChildren(heading, ...part.keys.map((key) => table(key, at(part))));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
  tip.style.top = `${Math.max(6, y + 18 + height > innerHeight ? y - height - 12 : y + 18)}px`;
}

function table(key, t) {
  const made = document.createElement("table");
  made.createCaption().textContent = `${nameOf(key, t)}  ${data.series[key].shape}`;
  const rows = STATISTICS.map((name, i) =>
    [name, write(measured(key, t, "value", i)), write(measured(key, t, "gradient", i))]);
  for (const cells of [["", "value", derivative("·")], ...rows]) {
    const line = made.insertRow();
    for (const cell of cells) line.insertCell().textContent = cell;
  }
  return made;
}

// -- moving about -----------------------------------------------------------------------------------

function look(changed) {
  view = { ...view, ...changed };
  tip.hidden = true;
  stage.firstElementChild.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
}

// By a factor, about a place on the screen; 0 shows everything.
function zoom(factor, clientX, clientY) {
  const whole = picture.content.querySelector("svg").viewBox.baseVal;
  if (!factor) look({ x: whole.x, y: whole.y, w: whole.width, h: whole.height });
  else {
    const by = Math.min(view.w / whole.width * 40, Math.max(view.w / whole.width / 4, factor));
    const box = stage.getBoundingClientRect();
    const place = new DOMPoint(clientX ?? box.x + box.width / 2, clientY ?? box.y + box.height / 2);
    const { x, y } = place.matrixTransform(stage.firstElementChild.getScreenCTM().inverse());
    look({ x: x - (x - view.x) / by, y: y - (y - view.y) / by, w: view.w / by, h: view.h / by });
  }
}

function move(dx, dy) {
  const { a: scale } = stage.firstElementChild.getScreenCTM();
  look({ x: view.x - dx / scale, y: view.y - dy / scale });
}

// The step that is looked at comes into sight; at another level, large enough to be read.
function follow(row, fresh = false) {
  const looked = parts.filter((p) => p.cell && at(p) === step);
  const { g } = looked.find((p) => p.row === row) ?? looked[0] ?? {};
  if (!g) return;
  const all = stage.getBoundingClientRect(), box = g.getBoundingClientRect();
  const { a: scale } = stage.firstElementChild.getScreenCTM();
  const fits = Math.min(0.9 * all.height / box.height, 0.4 * all.width / box.width, 1.8 / scale);
  const grown = level === "op" ? fits : 0.6 / scale;
  if (fresh && grown > 1) zoom(grown);
  const { x, y, width, height } = g.getBoundingClientRect();
  const hidden = x < all.x || y < all.y || x + width > all.right || y + height > all.bottom;
  if (hidden) move(all.x + (all.width - width) / 2 - x, all.y + (all.height - height) / 2 - y);
}

// Another level or step. What had the focus hands it to what takes its place.
function goTo(newLevel, newStep, row = document.activeElement?.about?.row) {
  level = newLevel;
  step = Math.min(data.last, Math.max(data.first, newStep));
  slider.value = step;
  document.getElementById("number").textContent = `${step} of ${data.steps}`;
  for (const button of document.querySelectorAll("nav button")) {
    button.setAttribute("aria-current", String(button.dataset.level === level));
  }
  const focused = document.activeElement?.about;
  tip.hidden = true;
  show(row);
  const same = parts.filter((p) => p.cell && p.row === row && at(p) === step);
  if (focused) (same[0]?.g ?? stage).focus({ preventScroll: true });
}

// A layer opens its steps, a step its operations; these close again.
const close = () => goTo(LEVELS[Math.max(0, LEVELS.indexOf(level) - 1)], step);

function open(part) {
  if (!part.cell) return;
  if (level === "op") close();
  else goTo(LEVELS[LEVELS.indexOf(level) + 1], at(part), part.row);
}

// -- hands on it ------------------------------------------------------------------------------------

const pointers = new Map();
let dragged = false;
stage.addEventListener("pointerdown", (event) => {
  dragged = pointers.size > 0;
  pointers.set(event.pointerId, event);
});
addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
  if (!dragged && Math.hypot(dx, dy) < 5) return;
  dragged = true;
  const other = [...pointers.values()].find((p) => p.pointerId !== event.pointerId);
  const apart = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY) || 1;
  if (other) zoom(apart(event) / apart(before), other.clientX, other.clientY);
  else move(dx, dy);
  pointers.set(event.pointerId, event);
});
addEventListener("pointerup", (event) => pointers.delete(event.pointerId));
addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
}, { passive: false });
const partAt = (event) => event.target.closest?.(".node, .edge, .cluster")?.about;
stage.addEventListener("click", (event) => !dragged && partAt(event) && open(partAt(event)));
stage.addEventListener("mousemove", (event) => {
  const part = partAt(event);
  if (part && !pointers.size) tellAbout(part, event.clientX, event.clientY);
  else tip.hidden = true;
});
stage.addEventListener("focusin", ({ target }) => {
  const { x, bottom } = target.getBoundingClientRect();
  if (target.about && target.matches(":focus-visible")) tellAbout(target.about, x, bottom - 14);
});
for (const kind of ["mouseleave", "focusout"]) stage.addEventListener(kind, () => { tip.hidden = true; });

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = {
  Escape: close, Backspace: close, "+": () => zoom(1.25), "=": () => zoom(1.25),
  "-": () => zoom(0.8), "−": () => zoom(0.8), 0: () => zoom(0),
  Home: () => goTo(level, data.first), End: () => goTo(level, data.last),
};
addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("select")) return;
  if (key in ARROWS && event.shiftKey) move(-60 * ARROWS[key][0], -60 * ARROWS[key][1]);
  else if (ARROWS[key]?.[0] && target !== slider) goTo(level, step + ARROWS[key][0]);
  else if ((key === "Enter" || key === " ") && target.about) open(target.about);
  else if (key in KEYS) KEYS[key]();
  else return;
  event.preventDefault();
});

slider.addEventListener("input", () => goTo(level, +slider.value));
for (const choice of [from, to, shown]) choice.addEventListener("change", paint);
for (const button of document.querySelectorAll("button")) {
  const { level: wanted, zoom: by } = button.dataset;
  button.addEventListener("click", () => (wanted ? goTo(wanted, step) : zoom(+by)));
}
addEventListener("resize", plot);

// -- at the start: the longest way back -------------------------------------------------------------

data.ends.forEach(({ name }, i) => from.append(new Option(name, i)));
from.value = data.ends.length - 1;
to.append(new Option("everything", "all"));
if (data.series.x) to.append(...STEPS.map((t) => new Option(nameOf("x", t), `x ${t}`)));
const others = Object.keys(data.series).filter((key) => /^p\d+$|start$/.test(key));
const named = others.map((key) => nameOf(key));
to.append(...others.map((key, i) => { // two layers may both begin with an h⟨0⟩
  const row = named.indexOf(named[i]) !== named.lastIndexOf(named[i]) && key.match(/^r(\d+)s/)?.[1];
  const count = row && data.rows.slice(0, +row + 1).filter(({ way }) => way).length;
  return new Option(named[i] + (count ? ` of row ${count}` : ""), key);
}));
to.selectedIndex = Math.max(0, [...to.options].findIndex(({ value }) => { // tokens have no gradient
  const [key, t] = value.split(" ");
  return key !== "all" && measured(key, +t, "gradient") !== null;
}));
Object.assign(slider, { min: data.first, max: data.last });
goTo("cell", data.first);
