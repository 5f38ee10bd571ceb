// The report in the browser. Each section holds a photograph and the data of its viewers, one for each model; a viewer
// shows one target at one depth. Nothing is fetched: heatmaps are decoded from the page itself (see coding.py).
"use strict";

const STEPS = 127, TAIL = 255, NEAR = 3, LARGEST_ZOOM = 16;
const shared = JSON.parse(document.getElementById("shared").textContent);
const tables = Object.fromEntries(Object.entries(shared.cmaps).map(([name, text]) => [name, bytes(text)]));
const viewers = [];
let cmap = shared.cmap;
let blend = "strong";
let smooth = shared.smooth;
let current = null;

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function signed(value) {
  if (!value) return "0";
  const size = Math.abs(value);
  const digits = size >= 1e-4 && size < 1e6 ? Number(size.toPrecision(3)).toString() : size.toExponential(2);
  return (value < 0 ? "−" : "+") + digits;
}

// A map's steps, Int8Array in row order, and |r| of the pixels whose step is ±127, by their position.
async function decoded(map) {
  const stream = new Blob([bytes(map.data)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const { width, height } = map, steps = new Int8Array(width * height), beyond = new Map();
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const left = x ? steps[i - 1] : 0, above = y ? steps[i - width] : 0;
      steps[i] = packed[i] + left + above - (x && y ? steps[i - width - 1] : 0); // modulo 256, as an Int8Array stores
    }
  }
  for (let i = 0, at = steps.length; i < steps.length; i++) {
    if (Math.abs(steps[i]) === STEPS) beyond.set(i, map.scale * (map.largest / map.scale) ** (packed[at++] / TAIL));
  }
  return { steps, beyond };
}

class Viewer {
  constructor(data, photograph, place) {
    this.data = data;
    this.original = { width: photograph.width, height: photograph.height };
    this.target = 0;
    this.depth = 0;
    this.zoom = 1;
    const copy = document.getElementById("viewer").content.cloneNode(true);
    this.root = copy.querySelector("article");
    this.find = (selector) => this.root.querySelector(selector);
    this.canvas = this.find(".layers canvas");
    this.find(".model").textContent = data.model;
    const image = this.find(".layers img");
    image.src = photograph.src;
    image.alt = photograph.alt;
    this.find(".resolution").textContent = data.resolution;
    this.fillTargets();
    this.fillBest();
    this.listen();
    place.append(copy);
    this.choose(0, this.middle());
  }

  // Lines where the map does not hold: outside a box (top, left, bottom, right) in pixels of the photograph.
  hatch(box) {
    const unseen = this.find(".unseen");
    unseen.hidden = !box;
    if (!box) return;
    const [top, left, bottom, right] = box, { width, height } = this.original;
    const [t, b] = [top, bottom].map((y) => `${(100 * y) / height}%`);
    const [l, r] = [left, right].map((x) => `${(100 * x) / width}%`);
    const hole = `${l} ${t}, ${r} ${t}, ${r} ${b}, ${l} ${b}, ${l} ${t}`;
    unseen.style.clipPath = `polygon(evenodd, 0 0, 100% 0, 100% 100%, 0 100%, 0 0, ${hole})`;
  }

  get map() {
    return this.data.targets[this.target].maps[this.depth];
  }

  // What is drawn: the map, or its smoothed version.
  get shown() {
    return (smooth && this.map.smooth) || this.map;
  }

  // The depth that is shown first: the finest of two or three, the second finest of more, which is what shows parts.
  middle() {
    const count = this.data.targets[0].maps.length;
    return count > 3 ? count - 2 : count - 1;
  }

  fillTargets() {
    const select = this.find(".target select");
    for (const { name, score } of this.data.targets) select.add(new Option(`${name}, score ${signed(score)}`));
  }

  fillBest() {
    const body = this.find(".best tbody"), largest = Math.max(...this.data.best.map(([, score]) => Math.abs(score)));
    this.find(".best").hidden = !this.data.best.length;
    const extent = { low: Math.min(0, ...this.data.best.map(([, score]) => score)), high: largest };
    for (const [name, score] of this.data.best) body.append(row(name, "", 0, score, score, extent));
  }

  listen() {
    const depth = this.find(".depth input"), layers = this.find(".layers");
    depth.addEventListener("input", () => this.choose(this.target, depth.valueAsNumber));
    this.find(".target select").addEventListener("change", (event) => {
      this.choose(event.target.selectedIndex, this.depth);
    });
    for (const button of this.root.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.magnify(Number(button.dataset.zoom)));
    }
    layers.addEventListener("pointermove", (event) => this.point(event));
    layers.addEventListener("pointerdown", (event) => this.point(event));
    layers.addEventListener("dblclick", (event) => this.magnify(1, event));
    this.find(".stage").addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return; // scrolls the page, or what is zoomed
      event.preventDefault();
      this.magnify(event.deltaY < 0 ? 1 : -1, event);
    }, { passive: false });
    this.root.addEventListener("pointerenter", () => { current = this; });
    this.root.addEventListener("focusin", () => { current = this; });
  }

  choose(target, depth) {
    this.target = target;
    const maps = this.data.targets[target].maps;
    this.depth = Math.max(0, Math.min(depth, maps.length - 1));
    const map = this.map, slider = this.find(".depth input");
    this.find(".target select").selectedIndex = target;
    slider.max = maps.length - 1;
    slider.value = this.depth;
    slider.hidden = maps.length < 2;
    slider.setAttribute("aria-valuetext", map.depth);
    this.find(".depth output").textContent = map.depth;
    this.find(".words").textContent = map.words;
    this.hatch(map.box);
    this.fillTicks(maps);
    this.fillLedger(map.ledger);
    for (const line of this.root.querySelectorAll(".best tr")) {
      line.classList.toggle("explained", line.dataset.name === this.data.targets[target].name);
    }
    this.draw();
  }

  fillTicks(maps) {
    const ticks = maps.length < 2 ? [] : maps.map((map, i) => {
      const tick = document.createElement("button");
      tick.type = "button";
      tick.tabIndex = -1;
      tick.textContent = map.depth;
      tick.classList.toggle("now", i === this.depth);
      tick.addEventListener("click", () => this.choose(this.target, i));
      return tick;
    });
    this.find(".ticks").replaceChildren(...ticks);
  }

  // Bars that add up: the heatmap's sum begins at 0, each entry where the one before ends, and the last ends at f.
  fillLedger(ledger) {
    const { score, heatmap, ...others } = ledger, kept = Object.entries(others).filter(([, amount]) => amount);
    const lines = [["heatmap", heatmap], ...kept];
    let end = 0;
    const spans = lines.map(([name, amount]) => [name, end, end += amount, amount]);
    spans.push(["score", 0, score, score]);
    const ends = spans.flatMap(([, from, to]) => [from, to]);
    const extent = { low: Math.min(0, ...ends), high: Math.max(0, ...ends) };
    const rows = spans.map(([name, from, to, amount]) =>
      row(name, shared.meanings[name] ?? "", from, to, amount, extent, name === "score" && "total"));
    this.find(".ledger tbody").replaceChildren(...rows);
  }

  async draw() {
    const map = this.shown, note = this.find(".note");
    note.textContent = map.note ?? "";
    note.hidden = !map.note;
    map.decoded ??= decoded(map);
    const { steps } = await map.decoded;
    if (map !== this.shown) return; // another was chosen meanwhile
    const table = tables[cmap], pixels = new ImageData(map.width, map.height);
    for (let i = 0, to = 0; i < steps.length; i++, to += 4) {
      const from = 3 * (steps[i] + STEPS);
      pixels.data[to] = table[from];
      pixels.data[to + 1] = table[from + 1];
      pixels.data[to + 2] = table[from + 2];
      pixels.data[to + 3] = blend === "even" ? 255 : 255 * Math.sqrt(Math.abs(steps[i]) / STEPS);
    }
    this.canvas.width = map.width;
    this.canvas.height = map.height;
    this.canvas.getContext("2d").putImageData(pixels, 0, 0);
    this.canvas.dataset.shown = `${this.target} ${this.depth} ${cmap} ${blend}${map.note ? " smooth" : ""}`;
    this.drawBar(map, table);
  }

  drawBar({ scale, width, height }, table) {
    const pixels = new ImageData(2 * STEPS + 1, 1);
    for (let i = 0; i <= 2 * STEPS; i++) pixels.data.set([...table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
    this.find(".bar canvas").getContext("2d").putImageData(pixels, 0, 0);
    const [low, middle, high] = this.root.querySelectorAll(".bar figcaption span");
    low.textContent = `${signed(-scale)} against`;
    middle.textContent = `score per pixel of ${height} × ${width}`;
    high.textContent = `for ${signed(scale)}`;
  }

  async point(event) {
    const map = this.shown, box = this.canvas.getBoundingClientRect();
    const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
    if (!(across >= 0 && across < 1 && down >= 0 && down < 1)) return;
    const { steps, beyond } = await map.decoded;
    const i = Math.floor(down * map.height) * map.width + Math.floor(across * map.width);
    const value = beyond.has(i) ? Math.sign(steps[i]) * beyond.get(i) : (steps[i] * map.scale) / STEPS;
    const y = Math.floor(down * this.original.height), x = Math.floor(across * this.original.width);
    this.find(".cursor").textContent = `row ${y}, column ${x}: ${signed(value)}`;
  }

  // One step in (1), out (-1) or back to the whole (0), about a point of the picture or its middle.
  magnify(step, about) {
    const stage = this.find(".stage"), layers = this.find(".layers"), before = this.zoom;
    this.zoom = step ? Math.max(1, Math.min(this.zoom * 1.5 ** step, LARGEST_ZOOM)) : 1;
    const frame = stage.getBoundingClientRect();
    const x = about ? about.clientX - frame.left : stage.clientWidth / 2;
    const y = about ? about.clientY - frame.top : stage.clientHeight / 2;
    const left = stage.scrollLeft + x, top = stage.scrollTop + y, ratio = this.zoom / before;
    layers.style.width = `${100 * this.zoom}%`;
    layers.classList.toggle("near", this.zoom >= NEAR);
    stage.scrollTo(left * ratio - x, top * ratio - y);
  }
}

// A line of a table: a name and its explanation, a bar from one value to another, and the amount.
function row(name, meaning, from, to, amount, { low, high }, kind) {
  const line = document.createElement("tr"), head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  if (meaning) head.append(Object.assign(document.createElement("small"), { textContent: meaning }));
  const track = document.createElement("td"), bed = document.createElement("div"), bar = document.createElement("i");
  const place = (value) => (high > low ? (100 * (value - low)) / (high - low) : 0);
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  bed.style.setProperty("--zero", `${place(0)}%`);
  bar.style.left = `${place(Math.min(from, to))}%`;
  bar.style.width = `${place(Math.max(from, to)) - place(Math.min(from, to))}%`;
  bar.className = kind ? "" : amount < 0 ? "against" : "for";
  bed.append(bar);
  track.append(bed);
  const number = Object.assign(document.createElement("td"), { className: "number", textContent: signed(amount) });
  number.dataset.amount = amount;
  line.dataset.name = name;
  if (kind) line.className = kind;
  line.append(head, track, number);
  return line;
}

// Arrow keys turn the depth of the viewer last pointed at, wherever the focus is, but in fields that have use for them.
function pressed(event) {
  const viewer = current ?? viewers[0], field = event.target.closest("input, select");
  if (!viewer || field || event.ctrlKey || event.metaKey || event.altKey) return;
  const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key], zoom = { "+": 1, "-": -1, 0: 0 }[event.key];
  if (turn) viewer.choose(viewer.target, viewer.depth + turn);
  else if (zoom !== undefined) viewer.magnify(zoom);
  else return;
  event.preventDefault();
}

function start() {
  const select = document.getElementById("cmap"), opacity = document.getElementById("opacity");
  const smoothing = document.getElementById("smooth");
  for (const name of Object.keys(tables)) select.add(new Option(name, name, false, name === cmap));
  const redraw = () => {
    cmap = select.value;
    blend = document.getElementById("blend").value;
    smooth = smoothing.checked;
    for (const viewer of viewers) viewer.draw();
  };
  select.addEventListener("change", redraw);
  document.getElementById("blend").addEventListener("change", redraw);
  smoothing.checked = smooth;
  smoothing.addEventListener("change", redraw);
  const fade = () => {
    for (const viewer of viewers) viewer.canvas.style.opacity = opacity.valueAsNumber / 100;
  };
  opacity.addEventListener("input", fade);
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = (root.dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  });
  for (const section of document.querySelectorAll("section:has(.source)")) {
    const source = section.querySelector(".source"), data = section.querySelector("script").textContent;
    const photograph = {
      src: source.src, alt: source.alt,
      width: Number(source.getAttribute("width")), height: Number(source.getAttribute("height")),
    };
    const place = section.querySelector(".viewers");
    for (const viewer of JSON.parse(data).viewers) viewers.push(new Viewer(viewer, photograph, place));
    source.remove();
  }
  const coarse = (viewer) => viewer.data.targets.some(({ maps }) => maps.some((map) => map.smooth));
  smoothing.parentElement.hidden = !viewers.some(coarse);
  fade();
  document.addEventListener("keydown", pressed);
  const contents = document.querySelector("nav");
  if (contents) document.querySelector("main").before(contents);
}

start();
