// Every key of the desk. None while somebody types, in the sheet, or at a slider.

import { by, remember, remembered } from "./dom.js";

const JUMPS = ["changed", "added", "removed", "renamed", "errored", "unchanged"];

export function listen({ list, viewer, choose, decide, undo }) {
  const desk = by("desk");
  const sheet = by("sheet");
  const on = by("keys-on");
  on.checked = remembered("keys", "on") !== "off";
  on.addEventListener("change", () => remember("keys", on.checked ? "on" : "off"));
  by("help").addEventListener("click", () => sheet.showModal());

  const hide = (part) => desk.classList.toggle(`hides-${part}`);
  const keys = {
    j: () => choose(list.step(1)), k: () => choose(list.step(-1)),
    ArrowDown: () => choose(list.step(1)), ArrowUp: () => choose(list.step(-1)),
    Home: () => choose(list.end(-1)), End: () => choose(list.end(1)),
    y: () => decide("approved", false), a: () => decide("approved", false),
    n: () => decide("rejected", false), x: () => decide("rejected", false),
    Y: () => decide("approved", true), A: () => decide("approved", true),
    N: () => decide("rejected", true), X: () => decide("rejected", true),
    u: () => undo(), g: () => list.foldCurrent(),
    s: () => viewer.use("sides"), e: () => viewer.use("single"), w: () => viewer.use("swipe"),
    o: () => viewer.use("onion"), b: () => viewer.use("blink"), d: () => viewer.toggleOverlay(),
    ArrowLeft: () => viewer.flip("base"), ArrowRight: () => viewer.flip("head"),
    ".": () => viewer.jump(1), ",": () => viewer.jump(-1),
    " ": () => viewer.toggleFit(), 0: () => viewer.fit(), "+": () => viewer.zoom(1.5), "=": () => viewer.zoom(1.5), "-": () => viewer.zoom(1 / 1.5),
    "[": () => hide("rail"), "]": () => hide("panel"),
    "/": () => { by("search").focus(); by("search").select(); },
    "?": () => sheet.showModal(),
  };
  const pans = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  JUMPS.forEach((state, index) => { keys[index + 1] = () => choose(list.first(state)); });

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "Escape" && typing) { typing.blur(); return; }
    if (typing || sheet.open || event.altKey || (!on.checked && event.key !== "?")) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "ArrowUp" || event.key === "ArrowDown") { event.preventDefault(); choose(list.end(event.key === "ArrowUp" ? -1 : 1)); }
      return;
    }
    // A button keeps its own keys.
    if ((event.key === " " || event.key === "Enter") && event.target.closest("button, a, summary")) return;
    const act = event.shiftKey && pans[event.key] ? () => viewer.pan(...pans[event.key]) : keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
