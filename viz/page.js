"use strict";
// What the page does. `data` holds the numbers (see page.py); each <template> holds a picture, whose
// boxes and arrows have the ids that draw_unrolled documents: r0t3 is row 0 at step 3, and so on.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const LEVELS = ["layer", "cell", "op"];
const DECADES = { gradient: 6, value: 2 }; // from the widest arrow to the faintest
const NORM = 0; // of each value: norm, least, mean, greatest
const pictures = [...document.querySelectorAll("template")].map((template) => ({
  template,
  level: template.dataset.level,
  columns: template.dataset.columns.split(" ").map(Number),
  from: +template.dataset.from,
  to: +template.dataset.to,
}));
const [stage, tip, slider, chart] = ["stage", "tip", "step", "chart"].map(byId);
const [from, to, shown] = ["from", "to", "shown"].map(byId);

let level = "cell", step = data.first;
let picture = null; // the one on the stage
let parts = []; // its boxes and arrows: {g, id, ...} as `parse` tells them
let view = null; // what part of it is seen, {x, y, w, h}

function byId(id) {
  return document.getElementById(id);
}

function element(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// -- numbers ----------------------------------------------------------------------------------------

function write(number) {
  if (number === null || number === undefined) return "–";
  if (typeof number === "string" || number === 0) return String(number);
  const size = Math.abs(number);
  const text = size >= 0.001 && size < 10000 ? String(number) : number.toExponential();
  return text.replace("-", "−").replace("e-", "e−").replace("e+", "e");
}

// One of the four numbers of a value at a step: of itself, or of the chosen gradient to it.
function number(key, at, kind = shown.value, statistic = NORM) {
  const series = data.series[key];
  const listed = series && (kind === "value" ? series.value : series.gradient[from.value]);
  return listed?.[statistic]?.[series.whole ? 0 : at - data.first] ?? null;
}

function nameOf(key, at) {
  const { name, whole } = data.series[key];
  return whole ? name : `${name || "result"}⟨${at}⟩`;
}

function end() {
  return data.ends[from.value];
}

function gradientName(what) {
  return `‖∂${end().name.replace(/^Σ.*/, "($&)")}/∂${what}‖`;
}

// What the widest arrow stands for.
function largest() {
  const kind = shown.value;
  const known = Object.entries(data.series).filter(([key]) => /^(r\d+_|x|y)/.test(key));
  const lists = known.map(([, s]) => (kind === "value" ? s.value : s.gradient[from.value])?.[NORM] ?? []);
  return Math.max(0, ...lists.flat().filter((n) => typeof n === "number" && Number.isFinite(n)));
}

function strength(size, most) {
  if (typeof size === "string") return size === "inf" ? 1 : 0;
  if (!size || !most) return 0;
  return Math.min(1, Math.max(0, 1 + Math.log10(size / most) / DECADES[shown.value]));
}

// -- what a box or an arrow stands for --------------------------------------------------------------

// The step of a column: a picture of the middle serves many steps, its columns move with the slider.
function stepOf(column) {
  if (picture.level === "layer") return step;
  const middle = picture.level === "op" ? picture.columns[0] : picture.columns[2];
  const moves = picture.to > picture.from && Math.abs(column - middle) <= 2 &&
    (picture.level === "op" ? picture.columns.length === 1 : picture.from === middle);
  return moves ? column + step - middle : column;
}

function parse(id) {
  const found = /^(?:r(\d+)t(\d+)(?:_(\d+))?|(x)(\d+)|(y\d+)(?:t(\d+))?|(loss)(\d*)|(p\d+)|r(\d+)gap(\d+)|(r(\d+)s(\d+)(start|end))|(r\d+))$/.exec(id);
  if (!found) return null;
  const [, row, column, op, x, xAt, y, yAt, loss, lossAt, p, gapRow, gap, state, stateRow, slot, side, band] = found;
  if (row !== undefined) return { kind: op === undefined ? "cell" : "op", row: +row, at: stepOf(+column), op };
  if (x) return { kind: "x", at: stepOf(+xAt), key: "x" };
  if (y) return { kind: "y", at: yAt === undefined ? step : stepOf(+yAt), key: y, each: yAt !== undefined };
  if (loss) return { kind: "loss", at: lossAt ? stepOf(+lossAt) : null, key: lossAt ? null : "loss" };
  if (p) return { kind: "parameter", key: p };
  if (gapRow !== undefined) return { kind: "gap", row: +gapRow, steps: gapSteps(+gap) };
  if (state) return { kind: side, row: +stateRow, slot: +slot, key: state };
  return { kind: "band", row: +band.slice(1), key: band, at: step };
}

// The first and last step that a gap stands for.
function gapSteps(gap) {
  const before = gap === 0 ? 0 : stepOf(picture.columns[gap - 1]);
  const after = gap < picture.columns.length ? stepOf(picture.columns[gap]) : data.steps + 1;
  return [before + 1, after - 1];
}

// The values that a box holds or an arrow carries, as [key, step].
function carried(part) {
  if (!part.head) {
    if (part.kind === "cell") return data.rows[part.row].slots.map((op) => [`r${part.row}_${op}`, part.at]);
    if (part.kind === "op") return [[`r${part.row}_${part.op}`, part.at]];
    if (part.kind === "end") return [[`r${part.row}_${data.rows[part.row].slots[part.slot]}`, lastOf(part.row)]];
    return part.key && data.series[part.key] ? [[part.key, part.at]] : [];
  }
  const [tail, head] = [parse(part.tail), parse(part.head)];
  if (!tail || !head) return [];
  if (part.slot !== undefined) return carriedState(part, tail, head);
  if (tail.kind === "cell") {
    const { exits, slots } = data.rows[tail.row];
    return [[`r${tail.row}_${exits[0] ?? slots[0]}`, tail.at]];
  }
  if (tail.kind === "band") return [[tail.key, head.at ?? step]];
  return carried(tail);
}

function carriedState({ slot }, tail, head) {
  const row = tail.row ?? head.row;
  const { slots, way } = data.rows[row];
  let at = step;
  if (picture.level === "layer") return [[`r${row}_${slots[slot]}`, at]];
  if (tail.at !== undefined) at = tail.at;
  else if (head.at !== undefined) at = head.at - way;
  else if (head.kind === "end") at = lastOf(row);
  if (tail.kind === "start" || at < 1 || at > data.steps) return carried({ kind: "start", key: `r${row}s${slot}start` });
  return [[`r${row}_${slots[slot]}`, at]];
}

function lastOf(row) {
  return data.rows[row].way > 0 ? data.steps : 1;
}

// -- the picture ------------------------------------------------------------------------------------

function show() {
  const serves = (p) => p.level === level && p.from <= step && step <= p.to;
  const next = pictures.find(serves);
  if (next !== picture) {
    const sameLevel = picture?.level === next.level;
    picture = next;
    const svg = next.template.content.firstElementChild.cloneNode(true);
    const box = svg.viewBox.baseVal;
    svg.whole = { x: box.x, y: box.y, w: box.width, h: box.height };
    svg.removeAttribute("width");
    svg.removeAttribute("height");
    stage.replaceChildren(svg);
    if (!sameLevel || !view) view = { ...svg.whole };
    prepare(svg);
  }
  relabel();
  paint();
  draw();
}

function prepare(svg) {
  parts = [];
  for (const a of svg.querySelectorAll("a")) { // its tooltip is told by ours
    const told = a.getAttribute("xlink:title");
    a.closest(".node, .edge, .cluster").dataset.told = told ?? "";
    a.removeAttribute("xlink:title");
  }
  for (const text of svg.querySelectorAll("text")) text.dataset.written = text.textContent;
  for (const g of svg.querySelectorAll(".node, .edge, .cluster")) {
    const part = { g, id: g.id };
    if (g.classList.contains("edge")) {
      [part.tail, part.head] = g.id.split("--");
      const state = [...g.classList].find((name) => /^s\d+$/.test(name));
      if (state) part.slot = +state.slice(1);
      const path = g.querySelector("path");
      path?.after(element("path", { class: "hit", d: path.getAttribute("d") }));
    } else if (!parse(g.id)) {
      continue; // small print
    }
    parts.push(part);
    g.part = part;
  }
}

// Write the numbers of this step, and say aloud what each part is.
function relabel() {
  const svg = stage.firstElementChild;
  for (const text of svg.querySelectorAll("text[data-written]")) {
    const renumber = (_, n) => `⟨${stepOf(+n)}⟩`;
    text.textContent = text.dataset.written.replace(/⟨(\d+)⟩/g, renumber);
  }
  for (const part of parts) {
    if (part.head) continue;
    Object.assign(part, parse(part.id));
    if (part.kind === "gap") {
      const n = part.steps[1] - part.steps[0] + 1;
      part.g.querySelector("text").textContent = `… ${n} step${n === 1 ? "" : "s"} …`;
    }
    const opens = opensTo(part);
    part.g.tabIndex = 0;
    part.g.classList.toggle("opens", Boolean(opens));
    part.g.setAttribute("role", opens ? "button" : "img");
    part.g.setAttribute("aria-label", titleOf(part) + (opens ? `, opens its ${opens === "cell" ? "steps" : "operations"}` : ""));
    part.g.classList.toggle("looked", part.kind === "cell" && part.at === step && level === "cell");
  }
}

function opensTo(part) {
  if (part.kind !== "cell" || level === "op") return null;
  return level === "layer" ? "cell" : "op";
}

function titleOf(part) {
  if (part.head) return carried(part).map((value) => nameOf(...value)).join(", ");
  if (part.kind === "cell" || part.kind === "band") {
    const row = data.rows[part.row];
    return `${row.title} (${row.where})` + (part.kind === "cell" ? ` at step ${part.at}` : "");
  }
  if (part.kind === "op") {
    const name = data.series[`r${part.row}_${part.op}`]?.name;
    return `${data.rows[part.row].ops[part.op] ?? "op"}${name ? `: ${name}⟨${part.at}⟩` : ""}`;
  }
  if (part.kind === "gap") return `steps ${part.steps[0]} to ${part.steps[1]}, not shown here`;
  if (part.kind === "loss" && part.at !== null) return `the part of step ${part.at} in the loss`;
  return carried(part).map((value) => nameOf(...value)).join(", ");
}

// -- the path of a gradient -------------------------------------------------------------------------

// From which boxes the path starts (the loss) or at which it ends (the input): where their step is
// not shown, at what stands for it.
function boxes(fits, at, through) {
  const all = picture.level === "layer";
  const found = parts.filter((p) => !p.head && fits(p) && (at === null || all || p.at === at || !("at" in p)));
  const gaps = parts.filter((p) => p.kind === "gap" && (at === null || (p.steps[0] <= at && at <= p.steps[1])));
  return new Set([...found, ...(through || !found.length ? gaps : [])].map((p) => p.id));
}

function reach(start, arrows, [near, far]) {
  const found = new Set(start), left = [...start];
  const next = new Map();
  for (const arrow of arrows) next.set(arrow[near], [...(next.get(arrow[near]) ?? []), arrow[far]]);
  while (left.length) {
    for (const id of next.get(left.pop()) ?? []) {
      if (!found.has(id)) left.push(id);
      found.add(id);
    }
  }
  return found;
}

function onPath() {
  const arrows = parts.filter((p) => p.head);
  const { step: at } = end();
  const isLoss = data.series.loss
    ? (p) => p.kind === "loss" && (at === null) === (p.at === null || p.at === undefined)
    : (p) => p.kind === "y";
  let starts = boxes(isLoss, at, at === null);
  if (!starts.size) starts = boxes((p) => p.kind === "loss" || p.kind === "y", null, true);
  const above = reach(starts, arrows, ["head", "tail"]);
  if (to.value === "all") return above;
  const [key, target] = to.value.split(" ");
  const ends = boxes((p) => p.key === key, target ? +target : null, !target && key[0] === "p");
  const below = reach(ends, arrows, ["tail", "head"]);
  return new Set([...above].filter((id) => below.has(id)));
}

function paint() {
  const path = onPath(), most = largest();
  for (const old of stage.querySelectorAll(".flow")) old.remove();
  for (const part of parts) {
    const on = part.head ? path.has(part.tail) && path.has(part.head) : path.has(part.id);
    part.g.classList.toggle("on", on);
    part.g.classList.toggle("off", !on);
    if (!part.head || !on) continue;
    const [value] = carried(part);
    const size = value ? number(...value) : null;
    part.g.style.setProperty("--strength", size === null ? 0.5 : strength(size, most).toFixed(3));
    if (part.slot !== undefined && size !== null) writeFlow(part, size);
  }
  const named = shown.value === "value" ? "‖value‖" : gradientName("·");
  const scale = `${named} up to ${write(most)}, ${DECADES[shown.value]} decades`;
  stage.setAttribute("aria-label", `Graph. Width and strength of the arrows: ${scale}`);
  tell();
  plot();
}

// The norm in small print on the state's arrow: below it for h, above its name for c.
function writeFlow(part, size) {
  const path = part.g.querySelector("path");
  const length = path.getTotalLength();
  const middle = path.getPointAtLength(length / 2), tip = path.getPointAtLength(length);
  const across = picture.level === "cell" || Math.abs(middle.y - tip.y) < 2;
  const { x } = across ? middle : path.getPointAtLength(length * 0.15);
  const y = across ? middle.y : path.getPointAtLength(length * 0.15).y;
  part.g.append(element("text", { class: "flow", x, y: y + (part.slot ? -19 : 11) }, write(size)));
}

// What is chosen, in words.
function tell() {
  const [key, at] = to.value.split(" ");
  let text = `Step ${step} of ${data.steps}. `;
  if (to.value === "all") {
    text += `All that ${end().name} is made from.`;
  } else {
    const what = nameOf(key, +at);
    const size = number(key, +at, "gradient");
    text += size === null
      ? `No gradient was recorded for ${what}: it does not require one.`
      : `${gradientName(what)} = ${write(size)}`;
    if (size === 0) text += `: ${end().name} does not depend on ${what}, or the gradient has vanished.`;
  }
  byId("status").textContent = text;
}

// -- the chart: how the gradient fades over time ----------------------------------------------------

function plot() {
  const kind = shown.value, width = chart.clientWidth || 600, height = chart.clientHeight || 96;
  const [left, right, top, bottom] = [52, 82, 16, height - 6];
  const lines = Object.entries(data.rows).filter(([, row]) => row.way).map(([i, row]) => ({
    row, sizes: range().map((t) => number(`r${i}_${row.slots[0] ?? 0}`, t)),
  }));
  const logs = lines.flatMap((l) => l.sizes).filter((n) => n > 0 && Number.isFinite(n)).map(Math.log10);
  chart.replaceChildren();
  if (!logs.length) return;
  const [high, low] = [Math.ceil(Math.max(...logs)), Math.floor(Math.max(Math.min(...logs), Math.max(...logs) - 30))];
  const x = (t) => left + ((t - data.first) / Math.max(1, data.last - data.first)) * (width - left - right);
  const y = (log) => bottom - ((log - low) / Math.max(1, high - low)) * (bottom - top);
  const title = kind === "value" ? "‖h⟨t⟩‖" : gradientName("h⟨t⟩");
  chart.append(element("text", { x: left, y: 10 }, `${title}, by step t (log scale)`));
  for (const log of new Set([low, high])) {
    chart.append(element("line", { class: "axis", x1: left, x2: width - right, y1: y(log), y2: y(log) }));
    const power = [...String(log)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");
    chart.append(element("text", { x: left - 6, y: y(log) + 4, "text-anchor": "end" }, `10${power}`));
  }
  const colours = ["var(--h)", "var(--c)", "var(--s3)", "var(--s4)"];
  lines.forEach(({ row, sizes }, n) => {
    const look = { stroke: colours[n % 4], "stroke-dasharray": ["none", "7 3", "2 3", "9 3 2 3"][n % 4] };
    let points = [];
    const flush = () => {
      if (points.length === 1) points.push(points[0].replace(/^[^,]+/, (at) => String(+at + 2)));
      if (points.length) chart.append(element("polyline", { points: points.join(" "), ...look }));
      points = [];
    };
    range().forEach((t, i) => {
      if (sizes[i] > 0 && Number.isFinite(sizes[i])) points.push(`${x(t)},${y(Math.max(low, Math.log10(sizes[i])))}`);
      else flush();
    });
    flush();
    if (lines.length > 1) {
      const at = left + 220 + 130 * n;
      if (at + 120 > width) return;
      chart.append(element("polyline", { points: `${at},6 ${at + 22},6`, ...look }));
      chart.append(element("text", { x: at + 28, y: 10 }, `${row.title} ${row.way > 0 ? "→" : "←"} row ${n + 1}`));
    }
  });
  chart.append(element("line", { class: "now", x1: x(step), x2: x(step), y1: top, y2: bottom }));
  chart.setAttribute("aria-label", `${title} at step ${step}: ` + lines.map((l) => write(l.sizes[step - data.first])).join(", "));
}

function range() {
  return Array.from({ length: data.last - data.first + 1 }, (_, i) => data.first + i);
}

// -- what is told of a thing that is pointed at -----------------------------------------------------

function tellAbout(g, x, y) {
  const part = g.part;
  tip.replaceChildren();
  const heading = document.createElement("strong");
  heading.textContent = titleOf(part) || part.g.dataset.told;
  tip.append(heading);
  for (const [key, at] of carried(part)) tip.append(table(key, at));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 6))}px`;
  tip.style.top = `${y + 18 + height > innerHeight ? Math.max(6, y - height - 12) : y + 18}px`;
}

function table(key, at) {
  const made = document.createElement("table");
  made.createCaption().textContent = `${nameOf(key, at)} ${data.series[key].shape}`;
  const row = (head, ...cells) => {
    const line = made.insertRow();
    line.append(document.createElement("th"));
    line.firstChild.textContent = head;
    for (const cell of cells) line.insertCell().textContent = cell;
  };
  row("", "value", `∂${end().name}/∂·`);
  ["norm", "least", "mean", "greatest"].forEach((name, i) => {
    row(name, write(number(key, at, "value", i)), write(number(key, at, "gradient", i)));
  });
  return made;
}

// -- moving about -----------------------------------------------------------------------------------

function draw() {
  stage.firstElementChild.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
}

// By a factor, about a place on the screen; 0 shows everything.
function zoom(factor, clientX, clientY) {
  const svg = stage.firstElementChild;
  if (!factor) {
    view = { ...svg.whole };
  } else {
    const wide = svg.whole.w / 40 / view.w;
    const by = Math.min(1 / wide, Math.max(view.w / (svg.whole.w * 4), factor));
    const box = stage.getBoundingClientRect();
    const point = new DOMPoint(clientX ?? box.x + box.width / 2, clientY ?? box.y + box.height / 2);
    const { x, y } = point.matrixTransform(svg.getScreenCTM().inverse());
    const [px, py] = toView(svg, x, y);
    view = { x: px - (px - view.x) / by, y: py - (py - view.y) / by, w: view.w / by, h: view.h / by };
  }
  tip.hidden = true;
  draw();
}

// A place in the coordinates of the viewBox.
function toView(svg, x, y) {
  return [x, y];
}

function move(dx, dy) {
  const scale = stage.firstElementChild.getScreenCTM().a;
  view.x -= dx / scale;
  view.y -= dy / scale;
  tip.hidden = true;
  draw();
}

function goTo(newLevel, newStep = step, focus = null) {
  level = newLevel;
  step = Math.min(data.last, Math.max(data.first, newStep));
  slider.value = step;
  byId("number").textContent = `${step} of ${data.steps}`;
  for (const button of document.querySelectorAll("nav button")) {
    button.setAttribute("aria-current", String(button.dataset.level === level));
  }
  tip.hidden = true;
  show();
  if (focus) byRow(focus)?.g.focus({ preventScroll: true });
}

function byRow({ row, at }) {
  const same = parts.filter((p) => p.kind === "cell" && p.row === row);
  return same.find((p) => p.at === at) ?? same[0];
}

function open(part) {
  const opens = opensTo(part);
  if (opens) goTo(opens, part.at, { row: part.row, at: part.at });
}

function close() {
  const outer = LEVELS[LEVELS.indexOf(level) - 1];
  const row = document.activeElement?.part?.row ?? 0;
  if (outer) goTo(outer, step, { row, at: step });
}

// -- hands on it ------------------------------------------------------------------------------------

const pointers = new Map();
let dragged = false;
stage.addEventListener("pointerdown", (event) => {
  pointers.set(event.pointerId, event);
  if (pointers.size === 1) dragged = false;
});
addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const [dx, dy] = [event.clientX - before.clientX, event.clientY - before.clientY];
  if (!dragged && Math.hypot(dx, dy) < 5) return;
  dragged = true;
  stage.classList.add("dragging");
  const other = [...pointers.values()].find((p) => p.pointerId !== event.pointerId);
  if (other) {
    const apart = (p) => Math.hypot(p.clientX - other.clientX, p.clientY - other.clientY);
    zoom(apart(event) / Math.max(1, apart(before)), other.clientX, other.clientY);
  } else {
    move(dx, dy);
  }
  pointers.set(event.pointerId, event);
});
for (const kind of ["pointerup", "pointercancel"]) {
  addEventListener(kind, (event) => {
    pointers.delete(event.pointerId);
    stage.classList.remove("dragging");
  });
}
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
}, { passive: false });
const partAt = (event) => event.target.closest?.(".node, .edge, .cluster");
stage.addEventListener("click", (event) => {
  const g = partAt(event);
  if (!dragged && g?.part) open(g.part);
});
stage.addEventListener("mousemove", (event) => {
  const g = partAt(event);
  if (g?.part && !stage.classList.contains("dragging")) tellAbout(g, event.clientX, event.clientY);
  else tip.hidden = true;
});
stage.addEventListener("mouseleave", () => { tip.hidden = true; });
stage.addEventListener("focusin", ({ target }) => {
  if (!target.part || !target.matches(":focus-visible")) return;
  const box = target.getBoundingClientRect();
  tellAbout(target, box.x, box.bottom - 14);
});
stage.addEventListener("focusout", () => { tip.hidden = true; });

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
  const { key } = event;
  const sideways = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
  if (event.shiftKey && sideways) move(60 * sideways[0], 60 * sideways[1]);
  else if (sideways?.[0] && event.target !== slider) goTo(level, step - sideways[0], focused());
  else if (key === "Escape" || key === "Backspace") close();
  else if (key === "+" || key === "=") zoom(1.25);
  else if (key === "-" || key === "−") zoom(0.8);
  else if (key === "0") zoom(0);
  else if ((key === "Enter" || key === " ") && event.target.part) open(event.target.part);
  else return;
  event.preventDefault();
});

// The part that has the focus, so that the next picture can have it in the same place.
function focused() {
  const part = document.activeElement?.part;
  return part?.kind === "cell" ? { row: part.row, at: step } : null;
}

slider.addEventListener("input", () => goTo(level, +slider.value));
for (const choice of [from, to, shown]) choice.addEventListener("change", paint);
for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => goTo(button.dataset.level));
}
for (const button of document.querySelectorAll(".zoom button")) {
  button.addEventListener("click", () => zoom(+button.dataset.zoom));
}
addEventListener("resize", plot);

// -- at the start -----------------------------------------------------------------------------------

function option(select, value, text) {
  select.append(new Option(text, value));
}

data.ends.forEach(({ name }, i) => option(from, i, name));
from.value = data.ends.length - 1; // the last step's: the longest way back
option(to, "all", "everything");
if (data.series.x) for (const t of range()) option(to, `x ${t}`, nameOf("x", t));
for (const key of Object.keys(data.series)) {
  if (/^p\d+$|start$/.test(key)) option(to, key, nameOf(key));
}
to.selectedIndex = 1;
Object.assign(slider, { min: data.first, max: data.last, value: data.first });
goTo("cell", data.first);
