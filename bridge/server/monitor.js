"use strict";
const byId = (id) => document.getElementById(id);
const cards = new Map();
let presets = [];
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
  preset.addEventListener("change", () => {
    for (const slider of card.querySelectorAll(".blend input")) slider.value = 0;
    send(number, "preset", preset.value);
  });
  get(".quality").addEventListener("change", (event) => send(number, "quality", event.target.value));
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
  facts.textContent =
    `${stream.rate_hz} Hz, ${stream.channels} ch${stream.mix_channels ? ` + ${stream.mix_channels} mix` : ""}; ` +
    `latency ${parts.total} samples = window ${ms(parts.window)} + look-ahead ${ms(parts.lookahead)} + ` +
    `chunk ${ms(parts.chunk)} + adaptation ${ms(parts.adaptation)}; load ${(100 * stream.load).toFixed(0)}%; ` +
    `${stream.blocks} blocks, ${stream.late} late, ${stream.lost} lost; now: ${stream.now}`;
  facts.classList.toggle("late", stream.late > 0);
  get(".dry").value = stream.dry.peak_db;
  get(".wet").value = stream.wet_level.peak_db;
  draw(get("canvas"), stream.dry.bands_db, stream.wet_level.bands_db);
  const preset = get(".preset");
  if (document.activeElement !== preset) {
    if (![...preset.options].some((option) => option.value === stream.preset)) preset.add(new Option(stream.preset, stream.preset));
    preset.value = stream.preset;
  }
  show(get(".quality"), stream.quality);
  show(get(".wetness"), stream.wet);
  get(".bypass").checked = stream.bypass;
}

function showAll(news) {
  if (news.presets) presets = news.presets;
  if (news.error) byId("error").textContent = news.error;
  if (!news.streams) return;
  byId("state").textContent =
    `${news.version}, model ${news.model}; ${news.streams.length} of ${news.carries_streams} streams; ` +
    `load ${(100 * news.load).toFixed(0)}% of ${news.processors} processors`;
  const open = new Set(news.streams.map((stream) => stream.stream));
  for (const [number, card] of cards) {
    if (!open.has(number)) {
      card.remove();
      cards.delete(number);
    }
  }
  news.streams.forEach(showStream);
  byId("none").hidden = news.streams.length > 0;
}

function connect(wait) {
  live = new WebSocket(`ws://${location.host}/live`);
  live.onopen = () => { wait = 250; };
  live.onmessage = (event) => showAll(JSON.parse(event.data));
  live.onclose = () => {
    byId("state").textContent = "the bridge does not answer; trying again";
    setTimeout(() => connect(Math.min(5000, wait * 2)), wait);
  };
}

connect(250);
