import { by, el, known, say, setIcon, t } from "/ui/postern.js";
import { Trouble, open, reduce, shot } from "/hosted/camera.js";
import { final, framed, tell } from "/hosted/parent.js";

const token = decodeURIComponent(location.pathname.split("/").pop());
const wanted = new URLSearchParams(location.search);
const facing = (name, usual) => ({ front: "user", back: "environment" }[wanted.get(name)] || usual);

let state = null, camera = null, finished = "";

// Asking the agent. Offline is waited out; a slow line is told; an error is thrown with
// its status.
class Refused extends Error {
  constructor(status) { super(String(status)); this.status = status; }
}

async function ask(path, { method = "GET", body, slow = 6000, limit = 90000 } = {}) {
  const slowly = setTimeout(() => trouble("hosted.trouble.slow"), slow);
  try {
    const answer = await fetch(path, { method, body, headers: { "Session-Token": token }, signal: AbortSignal.timeout(limit), cache: "no-store", redirect: "error" });
    trouble("");
    if (answer.status === 204) return null;
    if (!answer.ok) throw new Refused(answer.status);
    return await answer.json();
  } finally {
    clearTimeout(slowly);
  }
}

// persist repeats a request until it is answered: a line that breaks loses nothing.
async function persist(path, options) {
  for (let wait = 1000; ; wait = Math.min(wait * 2, 15000)) {
    try {
      return await ask(path, options);
    } catch (e) {
      if (e instanceof Refused && e.status !== 503 && e.status !== 429 && e.status !== 502 && e.status !== 504) throw e;
      trouble(navigator.onLine ? "hosted.trouble.unreachable" : "hosted.trouble.offline");
      await pause(wait);
    }
  }
}

const pause = (ms) => new Promise((done) => {
  const timer = setTimeout(done, ms);
  window.addEventListener("online", () => { clearTimeout(timer); done(); }, { once: true });
});

function trouble(key) {
  by("trouble").hidden = !key;
  if (key) say(by("trouble").querySelector("span"), t(key));
}
window.addEventListener("offline", () => trouble("hosted.trouble.offline"));
window.addEventListener("online", () => trouble(""));

// One screen at a time; its heading takes the focus, so that it is read out.
function screen(name) {
  if (name !== "face" && name !== "document") closeCamera();
  document.body.dataset.screen = name;
  for (const s of document.querySelectorAll("main > [data-screen]")) s.hidden = s.dataset.screen !== name;
  const heading = document.querySelector(`main > [data-screen="${name}"] h1`);
  if (heading) heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function closeCamera() {
  if (camera) camera.close();
  camera = null;
}

const order = () => ["consent", ...["document", "face"].filter((i) => state.inputs.includes(i)), "result"];

function steps(now) {
  const all = order(), at = all.indexOf(now);
  by("steps").replaceChildren(...all.map((name, i) =>
    el("li", { data: { state: i < at || now === "result" ? "done" : "" }, "aria-current": i === at && now !== "result" ? "step" : null }, el("span", { class: "unseen" }, t(`hosted.step.${name}`)))));
}

// go shows what the session awaits now.
function go() {
  const before = document.body.dataset.step;
  const now = !unfinished() ? "result" : !state.consented ? "consent" : state.awaits || "result";
  document.body.dataset.step = now;
  steps(now);
  if (before && before !== now) tell("step_changed", { step: stepName(now), previousStep: stepName(before), sessionId: state.session_id });
  if (now === "consent") consentScreen();
  else if (now === "document") documentScreen();
  else if (now === "face") faceScreen();
  else resultScreen();
}

const unfinished = () => ["Not Started", "In Progress", "Resubmitted"].includes(state.status);
const stepName = (name) => ({ document: "document_front", face: "face" }[name] || name);

function consentScreen() {
  for (const li of document.querySelectorAll("[data-needs]")) li.hidden = !state.inputs.includes(li.dataset.needs);
  screen("consent");
}

by("consent").addEventListener("submit", async (e) => {
  e.preventDefault();
  await guarded(async () => {
    state = await persist("/hosted/consent", { method: "POST" });
    tell("started", { sessionId: state.session_id });
    go();
  });
});

by("decline").addEventListener("click", leave);
by("leave").addEventListener("click", () => tell("close_request"));
function leave() {
  tell("cancelled", { sessionId: state.session_id });
  verdict("declined_consent", "info", "hosted.left");
}

// retry tells what was wrong with the last attempt, in the words of the catalogue.
function retry(section) {
  const box = document.querySelector(`main > [data-screen="${section}"] .retry`);
  box.hidden = !state.tried;
  if (!state.tried) return;
  const risk = state.risks.find((r) => known(`hosted.risk.${r}`));
  const left = state.left === undefined ? state.attempts_left : state.left;
  say(box.querySelector("span"), `${t(risk ? `hosted.risk.${risk}` : "hosted.risk.other")} ${t("hosted.left_attempts", { n: left })}`);
}

// The document: from the camera or from a file.
let documentPicture = null, documentURL = "";
function documentScreen() {
  documentPicture = null;
  showDocument("start");
  retry("document");
  screen("document");
  tell("step_started", { step: "document_front", sessionId: state.session_id });
}

function showDocument(part) {
  by("document-start").hidden = part !== "start";
  by("document-take").hidden = part !== "take";
  by("document-check").hidden = part !== "check";
  by("document-video").hidden = part !== "take";
  by("document-shot").hidden = part !== "check";
  by("document-sign").hidden = part !== "start";
}

by("document-camera").addEventListener("click", () => withCamera(async () => {
  camera = await open(by("document-video"), facing("document_camera", "environment"));
  tell("media_started", { step: "document_front", mediaType: "image" });
  showDocument("take");
  by("document-take").focus();
}));
by("document-take").addEventListener("click", async () => {
  const picture = await shot(by("document-video"), 2000, 0.92);
  closeCamera();
  checkDocument(picture);
});
by("document-file").addEventListener("change", async (e) => {
  const file = e.target.files[0];
  e.target.value = "";
  if (!file) return;
  try {
    checkDocument(await reduce(file, 2000, 0.92));
  } catch {
    failed("hosted.failed.picture");
  }
});
function checkDocument(picture) {
  if (!picture) return;
  documentPicture = picture;
  URL.revokeObjectURL(documentURL);
  documentURL = URL.createObjectURL(picture);
  by("document-shot").src = documentURL;
  showDocument("check");
  by("document-send").focus();
}
by("document-again").addEventListener("click", documentScreen);
by("document-send").addEventListener("click", () => send("document", [documentPicture], false));

// The face: guidance until the picture is good, then several pictures at once.
let looking = 0;
async function faceScreen() {
  retry("face");
  screen("face");
  say(by("guide"), t("hosted.face.starting"));
  by("face-take").hidden = true;
  by("gate").dataset.look = "";
  progress(0);
  tell("step_started", { step: "face", sessionId: state.session_id });
  await withCamera(async () => {
    closeCamera();
    camera = await open(by("face-video"), facing("liveness_camera", "user"));
    camera.ended(() => { if (camera) cameraTrouble("busy"); });
    by("gate").classList.toggle("mirror", facing("liveness_camera", "user") === "user");
    tell("media_started", { step: "face", mediaType: "video" });
    guide();
  });
}

const goodLooks = 2, lookEvery = 350, lookSide = 480;
async function guide() {
  const run = ++looking;
  const manual = setTimeout(() => { if (run === looking) by("face-take").hidden = false; }, 8000);
  let good = 0;
  while (camera && run === looking && document.body.dataset.screen === "face") {
    const from = performance.now();
    const picture = await shot(by("face-video"), lookSide, 0.75);
    let advice = null;
    if (picture) {
      try { advice = await ask("/hosted/look", { method: "POST", body: picture, limit: 8000 }); } catch (e) {
        if (e instanceof Refused && e.status === 403) { clearTimeout(manual); return reload(); }
        if (!(e instanceof Refused)) trouble(navigator.onLine ? "hosted.trouble.unreachable" : "hosted.trouble.offline");
      }
    }
    if (run !== looking || !camera) break;
    if (advice) {
      const finding = advice.findings[0];
      good = finding ? 0 : good + 1;
      say(by("guide"), finding ? t(`hosted.guide.${finding}`) : t("hosted.face.still"));
      progress(Math.min(0.5, good / goodLooks / 2));
      if (good >= goodLooks) { clearTimeout(manual); return capture(true); }
    }
    await new Promise((done) => setTimeout(done, Math.max(0, lookEvery - (performance.now() - from))));
  }
  clearTimeout(manual);
}

function progress(share) {
  document.querySelector("#gate .progress").style.strokeDashoffset = String(1.02 - 1.02 * share);
}

const burst = 6, burstEvery = 180;
async function capture(isAuto) {
  looking++;
  by("face-take").hidden = true;
  say(by("guide"), t("hosted.face.still"));
  const pictures = [];
  for (let i = 0; i < burst && camera; i++) {
    const picture = await shot(by("face-video"), 1280, 0.9);
    if (picture) pictures.push(picture);
    progress(0.5 + (i + 1) / burst / 2);
    await new Promise((done) => setTimeout(done, burstEvery));
  }
  closeCamera();
  await send("face", pictures, isAuto);
}
by("face-take").addEventListener("click", () => capture(false));

async function send(what, pictures, isAuto) {
  if (!pictures.length) return failed("hosted.failed.picture");
  const step = stepName(what);
  tell("media_captured", { step, isAuto });
  tell("verification_submitted", { step, sessionId: state.session_id });
  say(by("wait-title"), t("hosted.checking"));
  say(by("wait-detail"), t("hosted.checking.detail"));
  screen("wait");
  const form = new FormData();
  pictures.forEach((picture, i) => form.append(i ? `image_${i + 1}` : "image", picture, "picture.jpg"));
  await guarded(async () => {
    try {
      await persist(`/v3/session/hosted/${what}/`, { method: "POST", body: form });
    } catch (e) {
      if (!(e instanceof Refused) || e.status !== 409) throw e; // 409: it has arrived before, or time is over
    }
    const before = state;
    state = await persist("/hosted/state");
    if (state.awaits !== before.awaits || !unfinished()) tell("step_completed", { step, sessionId: state.session_id });
    if (state.status !== before.status) tell("status_updated", { status: final(state.status), sessionId: state.session_id });
    go();
  });
}

// guarded shows what went wrong, with a way on.
async function guarded(work) {
  try {
    await work();
  } catch (e) {
    const key = e instanceof Refused ? { 400: "hosted.failed.picture", 403: "hosted.failed.link", 404: "hosted.failed.link", 413: "hosted.failed.size" }[e.status] : "";
    failed(key || "hosted.failed.other");
  }
}
function failed(key) {
  say(by("failed-title"), t("hosted.failed.title"));
  say(by("failed-detail"), t(key));
  tell("error", { error: key.split(".").pop(), step: stepName(document.body.dataset.step || ""), sessionId: state ? state.session_id : undefined });
  screen("failed");
}
by("failed-again").addEventListener("click", reload);

async function withCamera(work) {
  try {
    await work();
  } catch (e) {
    cameraTrouble(e instanceof Trouble ? e.reason : "busy");
  }
}
function cameraTrouble(reason) {
  closeCamera();
  say(by("camera-title"), t(`hosted.camera.${reason}.title`));
  say(by("camera-detail"), t(`hosted.camera.${reason}.detail`));
  by("camera-again").hidden = reason === "insecure";
  tell("error", { error: `camera_${reason}`, step: "face", sessionId: state.session_id });
  screen("camera");
}
by("camera-again").addEventListener("click", go);

// The result. Each status has its words; the SDK hears of it once.
function resultScreen() {
  const look = { Approved: "yes", "In Review": "maybe", Declined: "no" }[state.status] || "info";
  const key = { Approved: "approved", "In Review": "review", Declined: "declined", Expired: "expired", Abandoned: "abandoned" }[state.status] || "review";
  verdict(key, look, `hosted.result.${key}`);
  if (finished !== state.status) {
    finished = state.status;
    tell("completed", { sessionId: state.session_id, status: final(state.status) });
  }
}
function verdict(name, look, key) {
  by("result-sign").dataset.look = look;
  setIcon(by("result-sign").firstElementChild, { yes: "check", maybe: "clock", no: "cross", info: "info" }[look]);
  say(by("result-title"), t(`${key}.title`));
  say(by("result-detail"), t(`${key}.detail`));
  by("result-go").hidden = framed || !state.callback;
  if (state.callback) by("result-go").href = state.callback;
  document.body.dataset.result = name;
  screen("result");
}

for (const id of ["open-phone", "camera-phone"]) by(id).addEventListener("click", () => { by("phone").showModal(); followElsewhere(); });

// While the phone does it, this page follows: it shows the result too.
async function followElsewhere() {
  const from = state.status + state.awaits + state.consented;
  while (by("phone").open) {
    await pause(3000);
    let now = null;
    try { now = await ask("/hosted/state"); } catch { continue; }
    if (now.status + now.awaits + now.consented === from) continue;
    state = now;
    if (unfinished()) continue;
    by("phone").close();
    go();
  }
}

async function reload() {
  say(by("wait-title"), t("hosted.wait"));
  say(by("wait-detail"), "");
  screen("wait");
  await guarded(async () => {
    state = await persist("/hosted/state");
    go();
  });
}

by("leave").hidden = !framed;
await guarded(async () => {
  state = await persist("/hosted/state");
  tell("ready", { sessionId: state.session_id });
  go();
});
