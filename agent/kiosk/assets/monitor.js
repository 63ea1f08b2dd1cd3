import { by, el, known, say, stream, t } from "/ui/postern.js";

const look = { "Approved": "yes", "In Review": "maybe", "Declined": "no" };
const word = { yes: t("common.approved"), maybe: t("common.in_review"), no: t("common.declined") };
const shown = new Set();
let last = null;

function add(r, atTop) {
  if (shown.has(r.id)) return;
  shown.add(r.id);
  by("none").hidden = true;
  const d = r.decision, how = look[d.status] || "no";
  const reasons = d.warnings.filter((w) => w.log_type !== "information").map((w) => w.short_description);
  const li = el("li", {},
    el("span", {}, el("span", { class: "badge", data: { look: how } }, word[how]), r.subject_id ? ` ${r.name || r.subject_id}` : ""),
    el("span", { class: "numbers" }, d.scored ? d.score.toFixed(2) : t("kiosk.monitor.unscored")),
    el("small", {}, [new Date(r.at).toLocaleTimeString(document.documentElement.lang), t("kiosk.monitor.frames", { n: d.frames }), ...reasons].join(" · ")));
  if (atTop) by("results").prepend(li); else by("results").append(li);
  while (by("results").children.length > 20) by("results").lastChild.remove();
}

function rect(face, name) {
  const r = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  for (const [k, v] of Object.entries({ class: name, x: face.box.x, y: face.box.y, width: face.box.w, height: face.box.h })) r.setAttribute(k, v);
  return r;
}

function draw(u) {
  const svg = by("overlay");
  if (u.width) svg.setAttribute("viewBox", `0 0 ${u.width} ${u.height}`);
  svg.replaceChildren(...(u.others || []).map((f) => rect(f, "other")), ...(u.face ? [rect(u.face, "main")] : []));
  say(by("rate"), u.rate_fps ? t("kiosk.monitor.rate", { n: u.rate_fps.toFixed(1) }) : "");
  let text = t(`kiosk.monitor.state.${u.state}`), how = "";
  const finding = (u.findings || [])[0];
  if (u.state === "looking" && finding && known(`kiosk.guide.${finding.code}`)) text = t(`kiosk.guide.${finding.code}`);
  if (u.state === "looking" && u.task) text = t(`kiosk.task.${u.task}`);
  if (u.state === "decided" && last) [how, text] = [look[last.decision.status] || "no", word[look[last.decision.status] || "no"]];
  if (u.problem) text = `${text} (${u.problem})`;
  document.querySelector(".monitor-view").dataset.look = how;
  say(by("state"), text);
}

for (const r of await (await fetch("/results")).json()) add(r, false);
stream("/events", { result(r) { last = r; add(r, true); }, update: draw }, {
  onUp() { by("live").src = `/live.mjpg?${Math.floor(performance.now())}`; },
  onDown() { say(by("state"), t("kiosk.lost.detail")); },
});
