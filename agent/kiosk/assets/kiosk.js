import { by, el, icon, known, say, setIcon, stream, t } from "/ui/postern.js";
import { notes, view } from "/kiosk/view.js";

const body = document.body;
const flag = (name) => body.dataset[name] === "true";
const state = { up: true, conditions: [], update: null, result: null, resultAt: 0, now: 0, identify: flag("identify"), claims: flag("claims") };
const seen = new Set();
let primed = false; // results that come before the first status are old ones

function show() {
  state.now = performance.now();
  const v = view(state);
  body.dataset.mode = v.mode;
  body.dataset.look = v.look;
  body.dataset.live = String(v.live);
  by("gate").dataset.look = v.look;
  say(by("title"), t(...v.title));
  say(by("detail"), known(v.detail[0]) ? t(...v.detail) : "");
  by("sign").hidden = !v.icon;
  if (v.icon) setIcon(by("sign").firstElementChild, v.icon);
  by("badge").hidden = !v.badge;
  by("other-ways").hidden = !v.ways;
  const path = document.querySelector(".gate-frame .progress");
  path.style.strokeDashoffset = v.look ? "" : String(1.02 - Math.min(1.02, v.progress));
  picture(v.live);
  follow();
  if (v.mode !== "ready" && v.mode !== "start") wake();
  sound(v);
}

// picture fetches the live view only while somebody is there: nothing is encoded for
// an empty entrance.
function picture(on) {
  const img = by("live");
  if (on === !img.hidden) return;
  img.hidden = !on;
  if (on) img.src = `/live.mjpg?${Math.floor(performance.now())}`;
  else img.removeAttribute("src");
}

// follow keeps the face in the middle of the gate, which shows a part of the picture.
function follow() {
  const u = state.update;
  if (!u || !u.face || !u.width) return;
  const x = (u.face.box.x + u.face.box.w / 2) / u.width;
  by("live").style.setProperty("--follow", `${Math.round(Math.max(0, Math.min(1, (x - 0.5) * 1.8 + 0.5)) * 100)}%`);
}

function tell() {
  by("notes").replaceChildren(...notes(state.conditions).map((n) =>
    el("li", { class: "badge", data: { look: "maybe" }, role: "status" }, icon(n.icon), el("span", {}, t(n.key)))));
}

stream("/events", {
  result(r) {
    if (seen.has(r.id)) return;
    seen.add(r.id);
    if (primed) [state.result, state.resultAt] = [r, performance.now()];
    show();
  },
  update(u) {
    if (!state.update || u.state !== state.update.state) wakeFor(u.state);
    state.update = u;
    show();
  },
  status(s) {
    primed = true;
    state.conditions = s.conditions;
    tell();
    show();
  },
}, {
  onUp() { state.up = true; show(); },
  onDown() { state.up = false; primed = false; show(); },
});
setInterval(show, 500);

// The badge: a reader types into the field like a keyboard; so does a person.
const field = by("subject");
by("badge").addEventListener("submit", async (e) => {
  e.preventDefault();
  await claim(field.value.trim());
});

async function claim(subject) {
  say(by("badge-answer"), "");
  let answer;
  try {
    answer = await fetch("/claim", { method: "POST", body: new URLSearchParams({ subject }) });
  } catch {
    say(by("badge-answer"), t("kiosk.badge.unavailable"));
    return;
  }
  field.value = "";
  const key = { 204: "", 400: "kiosk.badge.malformed", 404: "kiosk.badge.unknown" }[answer.status];
  if (key !== "") say(by("badge-answer"), t(key || "kiosk.badge.unavailable"));
  else state.result = null;
  show();
}

document.addEventListener("keydown", (e) => {
  wake();
  if (document.querySelector("dialog[open]") || e.ctrlKey || e.altKey || e.metaKey) return;
  if (e.key === "Escape") { field.value = ""; say(by("badge-answer"), ""); }
  const types = e.key.length === 1 && e.key !== " ";
  if (types && !by("badge").hidden && document.activeElement !== field) field.focus();
});

// Dialogs close by themselves: the next person finds the kiosk as it should be.
for (const [button, dialog] of [["open-privacy", "privacy"], ["open-help", "help"], ["open-keypad", "keypad"]]) {
  by(button).addEventListener("click", () => { by(dialog).showModal(); forget(by(dialog)); });
}
function forget(dialog) {
  let left = 45;
  const touched = () => { left = 45; };
  const tick = setInterval(() => {
    if (--left > 0 && dialog.open) return;
    clearInterval(tick);
    dialog.close();
  }, 1000);
  dialog.addEventListener("keydown", touched);
  dialog.addEventListener("pointerdown", touched);
}

// The keypad on the screen, for touch screens without a reader.
const typed = by("keypad-shown");
by("keys").addEventListener("click", (e) => {
  const key = e.target.closest("button");
  if (!key) return;
  if (key.id === "key-back") typed.textContent = typed.textContent.slice(0, -1);
  else if (key.id === "key-go") { by("keypad").close(); if (typed.textContent) claim(typed.textContent); }
  else if (typed.textContent.length < 32) typed.textContent += key.value;
});
by("keypad").addEventListener("keydown", (e) => {
  if (/^[0-9]$/.test(e.key)) typed.textContent += e.key;
  if (e.key === "Backspace") typed.textContent = typed.textContent.slice(0, -1);
  if (e.key === "Enter") { e.preventDefault(); by("key-go").click(); }
});
by("keypad").addEventListener("close", () => { setTimeout(() => { typed.textContent = ""; }, 0); });

// Screensaver and clock.
const patience = Number(body.dataset.saver) * 1000;
let lastActive = performance.now();
function wake() {
  lastActive = performance.now();
  by("saver").hidden = true;
}
function wakeFor(s) { if (s !== "idle") wake(); }
for (const event of ["pointerdown", "pointermove"]) document.addEventListener(event, wake);
const clockFormat = new Intl.DateTimeFormat(document.documentElement.lang, { hour: "2-digit", minute: "2-digit" });
setInterval(() => {
  const now = clockFormat.format(new Date());
  say(by("clock"), now);
  say(by("saver-clock"), now);
  const idle = ["ready", "start"].includes(body.dataset.mode) && !document.querySelector("dialog[open]");
  if (!idle) lastActive = performance.now();
  if (patience > 0 && idle && performance.now() - lastActive > patience) by("saver").hidden = false;
}, 1000);
setInterval(() => { // nothing stands still on the screen for hours
  const card = by("saver-card");
  card.style.left = `${30 + Math.random() * 40}%`;
  card.style.top = `${30 + Math.random() * 40}%`;
}, 20000);

// Sounds, where the deployer wants them: two short tones that differ in height.
let heard = "", audio;
function sound(v) {
  if (!flag("sounds") || v.mode === heard) return;
  heard = v.mode;
  const tone = { "result-yes": [660, 880], "result-maybe": [520, 520], "result-no": [330, 220] }[v.mode];
  if (!tone) return;
  audio ||= new AudioContext();
  tone.forEach((hertz, i) => {
    const source = audio.createOscillator(), volume = audio.createGain();
    source.frequency.value = hertz;
    volume.gain.setValueAtTime(0.12, audio.currentTime + i * 0.14);
    volume.gain.exponentialRampToValueAtTime(0.001, audio.currentTime + i * 0.14 + 0.13);
    source.connect(volume).connect(audio.destination);
    source.start(audio.currentTime + i * 0.14);
    source.stop(audio.currentTime + i * 0.14 + 0.14);
  });
}
