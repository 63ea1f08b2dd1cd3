// What the page tells the site that frames it: the events of @didit-protocol/sdk-web,
// to the origins that the deployer has named and to no other.

export const framed = window.parent !== window;

const allowed = JSON.parse(document.body.dataset.origins || "[]");

// targets are the origins to tell: the framing one where it can be known, else each
// that is allowed; a browser delivers only to the one that is there.
function targets() {
  const ancestors = location.ancestorOrigins;
  const known = ancestors && ancestors.length ? ancestors[0] : origin(document.referrer);
  if (!known) return allowed;
  return allowed.includes(known) ? [known] : [];
}

function origin(address) {
  try { return new URL(address).origin; } catch { return ""; }
}

export function tell(type, data = {}) {
  if (!framed) return;
  for (const target of targets()) window.parent.postMessage({ type: `didit:${type}`, data }, target);
}

// final maps a status to the three that the SDK knows.
export const final = (status) => ({ Approved: "Approved", Declined: "Declined" }[status] || "Pending");
