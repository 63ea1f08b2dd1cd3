// What the kiosk shows, as a function of what it knows. Nothing here touches the page.

// The order in which conditions that close the door are told.
const closing = ["maintenance", "model_missing", "disk_full", "clock_wrong"];

const conditionIcons = { maintenance: "tools", model_missing: "brain", disk_full: "disk", clock_wrong: "clock", offline: "offline", hub_lost: "hub" };

const guideIcons = {
  NO_FACE: "face", SEVERAL_FACES: "people", FACE_CUT: "still", FACE_TOO_SMALL: "closer", FACE_TOO_DARK: "sun", FACE_TOO_BRIGHT: "sun",
  FACE_LOW_CONTRAST: "sun", FACE_BLURRED: "still", FACE_TURNED_AWAY: "face", EYES_CLOSED: "eye", EYES_COVERED: "eye", MOUTH_COVERED: "face", FACE_QUALITY_LOW: "still",
};
const taskIcons = { turn_left: "turn-left", turn_right: "turn-right", blink: "blink" };

const looks = { "Approved": "yes", "In Review": "maybe" };

// How long a result stays at least, and at most while the person stays, in ms.
const shortest = 3500, longest = 9000;

// view of: up (the agent answers), conditions, update, result, resultAt, claimed, now,
// identify, claims.
export function view(s) {
  if (!s.up) return sign("lost", "refresh", "maybe", "kiosk.lost", { ways: true });
  const closed = closing.find((c) => s.conditions.some((k) => k.code === c));
  if (closed) return sign(closed, conditionIcons[closed], "maybe", `kiosk.closed.${closed}`, { ways: true });
  const u = s.update;
  if (!u) return sign("start", "gate", "", "kiosk.start", {});
  if (u.state === "no_camera") return sign("no_camera", "camera-off", "no", "kiosk.no_camera", { ways: true });
  if (u.state === "failed" || u.state === "closed") return sign("failed", "warning", "no", "kiosk.failed", { ways: true });
  if (u.state === "throttled") return sign("throttled", "lock", "no", "kiosk.throttled", { ways: true });
  if (showsResult(s)) return result(s.result);
  if (u.state === "looking" || u.claim && u.face) return looking(u);
  return ready(s, u);
}

function showsResult(s) {
  if (!s.result) return false;
  const age = s.now - s.resultAt;
  return age < shortest || s.update.state === "decided" && age < longest;
}

function sign(mode, icon, look, key, more) {
  return { mode, icon, look, title: [`${key}.title`, {}], detail: [`${key}.detail`, {}], live: false, badge: false, ways: false, progress: 0, ...more };
}

function result(r) {
  const look = looks[r.decision.status] || "no";
  const named = look === "yes" && r.name;
  const key = { yes: named ? "kiosk.result.yes" : "kiosk.result.yes_unnamed", maybe: "kiosk.result.maybe", no: "kiosk.result.no" }[look];
  return {
    mode: `result-${look}`, icon: { yes: "check", maybe: "bell", no: "cross" }[look], look, title: [`${key}.title`, { name: r.name || "" }],
    detail: [`${key}.detail`, {}], live: true, badge: false, ways: look !== "yes", progress: 1,
  };
}

function looking(u) {
  const finding = (u.findings || [])[0];
  let icon = "", title = ["kiosk.looking.title", {}];
  if (finding) [icon, title] = [guideIcons[finding.code] || "face", [`kiosk.guide.${finding.code}`, {}]];
  if (u.task) [icon, title] = [taskIcons[u.task] || "face", [`kiosk.task.${u.task}`, {}]];
  return { mode: "looking", icon, look: "", title, detail: ["kiosk.looking.detail", {}], live: true, badge: false, ways: false, progress: u.progress || 0 };
}

function ready(s, u) {
  if (u.claim) return { mode: "claimed", icon: "face", look: "", title: ["kiosk.looking.title", {}], detail: ["kiosk.claimed.detail", {}], live: true, badge: false, ways: false, progress: 0 };
  const key = s.identify ? "kiosk.walkup" : "kiosk.badge";
  return sign("ready", s.identify ? "face" : "badge", "", key, { badge: s.claims });
}

// notes are the conditions that do not close the door.
export function notes(conditions) {
  return conditions.filter((c) => !c.blocking).map((c) => ({ icon: conditionIcons[c.code] || "info", key: `kiosk.note.${c.code}` }));
}
