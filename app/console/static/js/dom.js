// Elements, and how numbers are written. It knows no page.

/** An element: `h("p", {class: "muted", onclick}, "text", child)`. Properties that are null or false are left out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "indeterminate") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function icon(name) {
  const drawing = svg("svg", { "aria-hidden": "true", viewBox: "0 0 24 24" });
  drawing.append(svg("use", { href: `/console/static/icons.svg#${name}` }));
  return drawing;
}

/** A button with an icon. Without a text, `label` is what a screen reader says. */
export function button(text, { icon: name, kind = "", label, ...properties } = {}) {
  return h(
    "button",
    { type: "button", class: `button ${kind}`, "aria-label": text ? null : label, title: text ? null : label, ...properties },
    name && icon(name),
    text,
  );
}

let fields = 0;

/** A labelled field around an input. */
export function field(label, input, help) {
  input.id ||= `field-${++fields}`;
  const hint = help && h("span", { class: "help", id: `${input.id}-help` }, help);
  if (hint) input.setAttribute("aria-describedby", hint.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint);
}

export function check(label, properties) {
  return h("label", { class: "check" }, h("input", { type: "checkbox", ...properties }), h("span", {}, label));
}

export function empty(name, title, text, ...actions) {
  return h("div", { class: "empty" }, icon(name), h("h2", {}, title), h("p", {}, text), ...actions);
}

export function waiting(lines = 3) {
  return h(
    "div",
    { class: "stack", role: "status", "aria-label": "Loading" },
    Array.from({ length: lines }, () => h("div", { class: "skeleton block" })),
  );
}

/** What went wrong, in the server's words, which name the remedy. */
export function problem(error, ...actions) {
  return h("div", { class: "notice bad", role: "alert" }, h("span", {}, error.message || String(error)), ...actions);
}

export function toast(message, kind = "") {
  const note = h("div", { class: `notice toast ${kind}` }, message);
  document.querySelector("#toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}

/** Ask before what cannot be undone. Resolves to whether it was confirmed. */
export function confirmed(title, text, action) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { "aria-labelledby": "confirm-title", onclose: () => (resolve(dialog.returnValue === "yes"), dialog.remove()) },
      h("form", { method: "dialog" },
        h("h2", { id: "confirm-title" }, title), h("p", { class: "muted" }, text),
        h("div", { class: "row" },
          h("button", { class: "button danger", value: "yes" }, action),
          h("button", { class: "button quiet", value: "no", autofocus: true }, "Keep it"))),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** `75` -> `1:15`, `3675` -> `1:01:15`. */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** `75` -> `1 min`, `9000` -> `2 h 30 min`. */
export function span(seconds) {
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value >= 10_000 ? `${(value / 1000).toFixed(1)} s` : `${Math.round(value).toLocaleString("en")} ms`;
}

export function bytes(size) {
  if (size < 1e6) return `${Math.max(1, Math.round(size / 1e3))} kB`;
  return size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(1)} GB`;
}

export function dollars(amount) {
  if (amount === null || amount === undefined) return null;
  return amount < 0.1 ? `$${amount.toFixed(4)}` : `$${amount.toFixed(2)}`;
}

export function when(iso) {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  return date.toLocaleString("en", today ? { hour: "2-digit", minute: "2-digit" } : { dateStyle: "medium" });
}

export function plural(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Offer `blob` as a file. */
export function download(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
