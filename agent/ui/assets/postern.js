// What all pages share. No text is written here: it comes from the message catalogue
// that the page carries, by key.

const carried = document.getElementById("messages");
const messages = carried ? JSON.parse(carried.textContent) : {};

// t gives the message of a key, with {names} replaced.
export function t(key, values = {}) {
  const text = messages[key];
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// known tells whether there is a message of that key.
export const known = (key) => key in messages;

export const by = (id) => document.getElementById(id);

// say changes a text only when it differs, so that screen readers are not told twice.
export function say(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

// el makes an element from attributes and children; strings become text, never markup.
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "data") Object.assign(node.dataset, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

const svgNames = "http://www.w3.org/2000/svg";

// icon makes one of the symbols of /ui/icons.svg.
export function icon(name, look = "icon") {
  const svg = document.createElementNS(svgNames, "svg");
  svg.setAttribute("class", look);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(svgNames, "use");
  use.setAttribute("href", `/ui/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

// setIcon shows another symbol in an icon that is there.
export function setIcon(svg, name) {
  const use = svg && svg.querySelector("use");
  const href = `/ui/icons.svg#${name}`;
  if (use && use.getAttribute("href") !== href) use.setAttribute("href", href);
}

// stream listens to server-sent events and comes back by itself, later each time. One
// that is silent for longer than the server's beat counts as lost: a connection can
// be dead without anybody saying so.
export function stream(url, handlers, { silence = 15000, onUp = () => {}, onDown = () => {} } = {}) {
  let source, watchdog, retry, wait = 500, ended = false;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, silence);
  };
  const lost = () => {
    clearTimeout(watchdog);
    source.close();
    onDown();
    if (ended) return;
    clearTimeout(retry);
    retry = setTimeout(open, wait * (0.75 + Math.random() / 2));
    wait = Math.min(wait * 2, 10000);
  };
  const open = () => {
    source = new EventSource(url);
    source.onopen = () => { wait = 500; heard(); onUp(); };
    source.onerror = lost;
    source.addEventListener("beat", heard);
    for (const [name, handle] of Object.entries(handlers)) {
      source.addEventListener(name, (e) => { heard(); handle(JSON.parse(e.data)); });
    }
  };
  open();
  return () => { ended = true; clearTimeout(retry); clearTimeout(watchdog); source.close(); };
}
