"use strict";
const byId = (id) => document.getElementById(id);
const cards = new Map();
let presets = [];
let choices = {};
let live = null;

function send(stream, name, value) {
  byId("error").textContent = "";
  if (live && live.readyState === WebSocket.OPEN) live.send(JSON.stringify({ stream, name, value }));
}

function makeCard(number) {
  const card = byId("stream").content.firstElementChild.cloneNode(true);
  const get = (selector) => card.querySelector(selector);
  card.id = `stream-${number}`;
  const preset = get(".preset");
  for (const [name, title] of presets) {
    const option = new Option(name, name);
    option.title = title;
    preset.add(option);
    if (name === "auto" || name === "general") continue;
    const label = document.createElement("label");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: 1.5, step: 0.05, value: 0 });
    slider.dataset.preset = name;
    slider.addEventListener("change", () => {
      const weights = {};
      for (const other of card.querySelectorAll(".blend input"))
        if (Number(other.value) > 0) weights[other.dataset.preset] = Number(other.value);
      if (Object.keys(weights).length) send(number, "blend", weights);
      else send(number, "preset", "general");
    });
    label.append(name, slider);
    get(".blend").append(label);
  }
  for (const [name, values] of Object.entries(choices)) {
    for (const value of values) get(`.${name}`).add(new Option(value));
    get(`.${name}`).addEventListener("change", (event) => send(number, name, event.target.value));
  }
  preset.addEventListener("change", () => {
    for (const slider of card.querySelectorAll(".blend input")) slider.value = 0;
    send(number, "preset", preset.value);
  });
  get(".wetness").addEventListener("input", (event) => send(number, "wet", Number(event.target.value)));
  get(".bypass").addEventListener("change", (event) => send(number, "bypass", event.target.checked));
  byId("streams").append(card);
  cards.set(number, card);
  return card;
}

function draw(canvas, before, after) {
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const [levels, colour] of [[before, "--before"], [after, "--after"]]) {
    pen.beginPath();
    levels.forEach((level, i) => {
      const x = (i / (levels.length - 1)) * canvas.width;
      const y = Math.min(1, Math.max(0, -level / 90)) * canvas.height;
      if (i) pen.lineTo(x, y);
      else pen.moveTo(x, y);
    });
    pen.strokeStyle = style.getPropertyValue(colour);
    pen.lineWidth = 2;
    pen.stroke();
  }
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function percent(share) {
  return `${(100 * share).toFixed(0)}%`;
}

function show(control, value) {
  if (document.activeElement !== control) control.value = value;
}

function showStream(stream) {
  const card = cards.get(stream.stream) || makeCard(stream.stream);
  const get = (selector) => card.querySelector(selector);
  const parts = stream.latency;
  const ms = (samples) => `${((1000 * samples) / stream.rate_hz).toFixed(0)} ms`;
  get("h2").textContent = `${stream.stream}: ${stream.name || "unnamed"}`;
  const facts = get(".facts");
  const mix = stream.mix_channels ? ` + ${plural(stream.mix_channels, "mix channel")}` : "";
  facts.textContent =
    `${stream.rate_hz} Hz, ${plural(stream.channels, "channel")}${mix}. Using ${stream.now}. ` +
    `Latency ${ms(parts.total)} (${parts.total} samples): window ${ms(parts.window)}, ` +
    `look-ahead ${ms(parts.lookahead)}, chunk ${ms(parts.chunk)}, processing and resampling ${ms(parts.adaptation)}. ` +
    `Load ${stream.load.toFixed(2)} CPU cores. ${plural(stream.blocks, "block")}, ${stream.late} late, ` +
    `${stream.lost} lost.${[stream.trouble, stream.side_chain].filter(Boolean).map((text) => ` ${text}.`).join("")}`;
  facts.classList.toggle("late", stream.late > 0);
  get(".dry").value = stream.dry.peak_db;
  get(".wet").value = stream.wet_level.peak_db;
  draw(get("canvas"), stream.dry.bands_db, stream.wet_level.bands_db);
  const preset = get(".preset");
  if (document.activeElement !== preset) {
    if (![...preset.options].some((option) => option.value === stream.preset))
      preset.add(new Option(stream.preset, stream.preset));
    preset.value = stream.preset;
  }
  show(get(".quality"), stream.quality);
  show(get(".role"), stream.role);
  show(get(".wetness"), stream.wet);
  get(".bypass").checked = stream.bypass;
}

function showAll(update) {
  if (update.presets) ({ presets, choices } = update);
  if (update.error) byId("error").textContent = update.error;
  if (!update.streams) return;
  byId("state").textContent =
    `Version ${update.version}. Model ${update.model}. ` +
    `${update.streams.length} of ${plural(update.carries_streams, "possible stream")} open. ` +
    `Load ${percent(update.load)} of ${plural(update.processors, "CPU core")}.`;
  const open = new Set(update.streams.map((stream) => stream.stream));
  for (const [number, card] of cards) {
    if (!open.has(number)) {
      card.remove();
      cards.delete(number);
    }
  }
  update.streams.forEach(showStream);
  byId("none").hidden = update.streams.length > 0;
}

function connect(retryMs) {
  live = new WebSocket(`ws://${location.host}/live`);
  live.onopen = () => { retryMs = 250; };
  live.onmessage = (event) => showAll(JSON.parse(event.data));
  live.onclose = () => {
    byId("state").textContent = "The bridge does not answer. Retrying.";
    setTimeout(() => connect(Math.min(5000, retryMs * 2)), retryMs);
  };
}

connect(250);
