// Light and dark: what the system says, until somebody chooses. The console's frame and the talk's have a button for it.

import { h, icon } from "./dom.js";

const control = document.querySelector("#theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return (localStorage.getItem("theme") ?? (prefersDark.matches ? "dark" : "light")) === "dark";
}

function draw() {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
  const dark = isDark();
  control.replaceChildren(icon(dark ? "sun" : "moon"), h("span", {}, dark ? "Light" : "Dark"));
  control.setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
  dispatchEvent(new CustomEvent("theme"));
}

control.addEventListener("click", () => {
  localStorage.setItem("theme", isDark() ? "light" : "dark");
  draw();
});
prefersDark.addEventListener("change", draw);
// Another tab has chosen.
addEventListener("storage", (event) => event.key === "theme" && draw());
draw();
