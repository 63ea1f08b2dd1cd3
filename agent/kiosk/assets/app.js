"use strict";

const look = { "Approved": "yes", "In Review": "maybe", "Declined": "no" };
const guidance = {
  NO_FACE: "Look into the camera", SEVERAL_FACES: "One person at a time, please",
  FACE_CUT: "Move into the middle", FACE_TOO_SMALL: "Come closer", FACE_TOO_DARK: "More light, please",
  FACE_TOO_BRIGHT: "Too much light", FACE_BLURRED: "Hold still", FACE_TURNED_AWAY: "Look straight ahead",
};
const tasks = {
  turn_left: "Turn your head to your left, slowly", turn_right: "Turn your head to your right, slowly", blink: "Blink, please",
};
const states = {
  idle: "Step in front of the camera", looking: "Checking…", waiting: "Enter your badge number",
  throttled: "Too many attempts: please use another way", no_camera: "The camera gives no picture", failed: "Out of order: please ask the attendant",
};
const by = (id) => document.getElementById(id);
const stage = document.querySelector(".stage");
const shown = new Set();
let lastResult = null;

function show(result, atTop) {
  if (shown.has(result.id)) return;
  shown.add(result.id);
  by("none").hidden = true;
  const d = result.decision;
  const li = document.createElement("li");
  const status = document.createElement("strong");
  status.textContent = d.status + (result.subject_id ? " · " + result.subject_id : "");
  status.dataset.look = look[d.status] || "no";
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = d.scored ? d.score.toFixed(2) : "no score";
  const why = document.createElement("small");
  const reasons = d.warnings.filter((w) => w.log_type !== "information").map((w) => w.short_description);
  why.textContent = [new Date(result.at).toLocaleTimeString(), result.kind, d.frames + " frames", ...reasons].join(" · ");
  li.append(status, score, why);
  if (atTop) by("results").prepend(li); else by("results").append(li);
  while (by("results").children.length > 20) by("results").lastChild.remove();
}

function rect(face, name) {
  const r = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  r.setAttribute("class", name);
  r.setAttribute("x", face.box.x);
  r.setAttribute("y", face.box.y);
  r.setAttribute("width", face.box.w);
  r.setAttribute("height", face.box.h);
  return r;
}

function draw(u) {
  const svg = by("overlay");
  if (u.width) svg.setAttribute("viewBox", `0 0 ${u.width} ${u.height}`);
  svg.replaceChildren(...(u.others || []).map((f) => rect(f, "other")), ...(u.face ? [rect(u.face, "main")] : []));
  by("rate").textContent = u.rate_fps ? u.rate_fps.toFixed(1) + " frames/s" : "";
}

function say(u) {
  let text = u.problem ? `${states[u.state] || ""} (${u.problem})` : states[u.state] || "";
  let colour = "";
  if (u.state === "looking" && u.findings && u.findings.length) text = guidance[u.findings[0].code] || text;
  if (u.state === "looking" && tasks[u.task]) text = tasks[u.task];
  if (u.state === "decided" && lastResult) {
    const d = lastResult.decision;
    colour = look[d.status] || "no";
    text = { yes: `Welcome, ${lastResult.subject_id}`, maybe: "Please wait for the attendant", no: "Not recognised" }[colour];
  }
  stage.dataset.look = colour;
  if (by("state").textContent !== text) by("state").textContent = text;
}

async function start() {
  const status = await (await fetch("/status")).json();
  by("device").textContent = status.device;
  by("badge").hidden = !status.claims;
  for (const r of await (await fetch("/results")).json()) show(r, false);
  const events = new EventSource("/events");
  events.addEventListener("result", (e) => { lastResult = JSON.parse(e.data); show(lastResult, true); });
  events.addEventListener("update", (e) => { const u = JSON.parse(e.data); draw(u); say(u); });
  events.onerror = () => { stage.dataset.look = "no"; by("state").textContent = "The agent does not answer"; };
  events.onopen = () => { by("live").src = "/live.mjpg?" + Date.now(); };
}

by("badge").addEventListener("submit", async (e) => {
  e.preventDefault();
  const body = new URLSearchParams(new FormData(e.target));
  const answer = await fetch("/claim", { method: "POST", body });
  by("badge-answer").textContent = answer.ok ? "Look into the camera" : (await answer.json()).detail;
  if (answer.ok) e.target.reset();
});

start().catch(() => { by("state").textContent = "The agent does not answer"; });
