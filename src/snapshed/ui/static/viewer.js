// One image, or two: side by side, swiped, blended, blinking. Every pane shares one zoom and one place.

import { by, make, number, remember, remembered } from "./dom.js";

const LARGEST = 16;
const TINY = 64;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Viewer {
  constructor(address) {
    this.address = address;
    this.panes = by("panes");
    this.mode = remembered("mode", "sides");
    this.side = "head";
    this.amount = 50;
    this.isFit = true;
    this.region = -1;
    this.place = { x: 0, y: 0, scale: 1 };
    this.one = null;
    this.wire();
    this.paint();
  }

  wire() {
    for (const button of document.querySelectorAll("button[data-mode]")) button.addEventListener("click", () => this.use(button.dataset.mode));
    for (const button of document.querySelectorAll("button[data-side]")) button.addEventListener("click", () => this.flip(button.dataset.side));
    by("amount").addEventListener("input", () => this.divide(Number(by("amount").value)));
    by("overlay").setAttribute("aria-pressed", remembered("overlay", "true"));
    by("overlay").addEventListener("click", () => this.toggleOverlay());
    by("colour").value = remembered("colour", "#e6007a");
    by("opacity").value = remembered("opacity", "80");
    by("ground").value = remembered("ground", "check");
    for (const id of ["colour", "opacity", "ground"]) by(id).addEventListener("input", () => { remember(id, by(id).value); this.paint(); });
    by("fit").addEventListener("click", () => this.toggleFit());
    by("in").addEventListener("click", () => this.zoom(1.5));
    by("out").addEventListener("click", () => this.zoom(1 / 1.5));
    by("before").addEventListener("click", () => this.jump(-1));
    by("after").addEventListener("click", () => this.jump(1));
    this.panes.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.panes.addEventListener("pointerdown", (event) => this.grab(event));
    new ResizeObserver(() => { if (this.isFit) this.fit(); else this.apply(); }).observe(this.panes);
  }

  paint() {
    const style = this.panes.style;
    style.setProperty("--mark", by("colour").value);
    style.setProperty("--strength", `${by("opacity").value}%`);
    this.panes.dataset.ground = by("ground").value;
    this.panes.classList.toggle("has-overlay", by("overlay").getAttribute("aria-pressed") === "true");
  }

  toggleOverlay() {
    const on = by("overlay").getAttribute("aria-pressed") !== "true";
    by("overlay").setAttribute("aria-pressed", String(on));
    remember("overlay", String(on));
    this.paint();
  }

  use(mode) {
    this.mode = mode;
    remember("mode", mode);
    this.draw();
  }

  show(one) {
    this.one = one;
    this.region = -1;
    this.side = one.head ? "head" : "base";
    this.isFit = true;
    this.draw();
  }

  get has() { return { base: this.one?.base ?? null, head: this.one?.head ?? null }; }

  // With one side only there is nothing to compare, whatever view was chosen.
  get shown() { return this.has.base && this.has.head ? this.mode : "single"; }

  get size() {
    const { base, head } = this.has;
    return [Math.max(base?.[1] ?? 0, head?.[1] ?? 0) || 1, Math.max(base?.[2] ?? 0, head?.[2] ?? 0) || 1];
  }

  draw() {
    if (!this.one) return;
    const { base, head } = this.has;
    const mode = this.shown;
    for (const button of document.querySelectorAll("button[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
      button.disabled = !(base && head) && button.dataset.mode !== "single";
    }
    by("amount-of").hidden = !["swipe", "onion"].includes(mode);
    by("side-of").hidden = !(["single", "blink"].includes(mode) && base && head);
    for (const id of ["overlay", "colour", "opacity"]) by(id).disabled = !this.one.mask;
    this.panes.dataset.mode = mode;
    this.panes.dataset.dark = String(Boolean(this.one.dark));
    clearInterval(this.beat);
    if (mode === "sides") this.panes.replaceChildren(this.pane(["base"]), this.pane(["head"]));
    else if (mode === "single") this.panes.replaceChildren(this.pane([this.side]));
    else this.panes.replaceChildren(this.pane(["base", "head"]));
    if (mode === "swipe") this.panes.firstElementChild.append(this.handle());
    if (mode === "blink" && !still.matches) this.beat = setInterval(() => this.flip(this.side === "head" ? "base" : "head"), 600);
    this.divide(this.amount);
    this.mirror();
    this.tell();
    if (this.isFit) this.fit(); else this.apply();
  }

  pane(sides) {
    const pane = make("div", { class: "pane" });
    for (const side of sides) pane.append(this.layer(side));
    return pane;
  }

  layer(side) {
    const [width, height] = this.size;
    const picture = this.has[side];
    const name = this.one.title ?? this.one.name;
    const label = side === "base" ? "Base" : "Head";
    const stage = make("div", { class: "canvas", style: { width: `${width}px`, height: `${height}px` } });
    if (!picture) stage.append(make("p", { class: "absent" }, "There is no such image."));
    else if (picture[0] === null) stage.append(make("p", { class: "absent" }, "Withdrawn: its bytes were deleted."));
    else {
      const image = make("img", { src: this.address + picture[0], alt: `${label} of ${name}`, draggable: "false", decoding: "async", style: { width: `${picture[1] || width}px`, height: `${picture[2] || height}px` } });
      image.addEventListener("error", () => image.replaceWith(make("p", { class: "absent" }, "This image cannot be shown.")), { once: true });
      stage.append(image);
    }
    if (this.one.mask && side === "head") {
      const where = `url("${this.address}${this.one.mask}")`;
      stage.append(make("div", { class: "ink", style: { maskImage: where, webkitMaskImage: where } }));
    }
    for (const [index, [left, top, wide, high]] of (this.one.regions ?? []).entries()) {
      stage.append(make("div", { class: "region", "data-region": index, style: { left: `${left}px`, top: `${top}px`, width: `${wide}px`, height: `${high}px` } }));
    }
    return make("div", { class: `layer of-${side}` }, stage, make("span", { class: "side-name" }, label));
  }

  handle() {
    const handle = make("div", { class: "handle", "aria-hidden": "true" });
    handle.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      event.preventDefault();
      handle.setPointerCapture(event.pointerId);
      const move = (moved) => {
        const box = handle.parentElement.getBoundingClientRect();
        this.divide((100 * (moved.clientX - box.left)) / box.width);
      };
      handle.addEventListener("pointermove", move);
      handle.addEventListener("pointerup", () => handle.removeEventListener("pointermove", move), { once: true });
    });
    return handle;
  }

  divide(percent) {
    this.amount = Math.min(Math.max(percent, 0), 100);
    by("amount").value = this.amount;
    this.panes.style.setProperty("--amount", `${this.amount}%`);
    this.panes.style.setProperty("--blend", this.amount / 100);
  }

  // Base or head; where both are seen at once, the key changes how much of each.
  flip(side) {
    if (["swipe", "onion"].includes(this.shown)) { this.divide(this.amount + (side === "head" ? 10 : -10)); return; }
    if (!this.has[side]) return;
    if (this.shown === "sides") this.use("single");
    this.side = side;
    if (this.shown === "single") { this.panes.replaceChildren(this.pane([side])); this.apply(); }
    this.mirror();
  }

  mirror() {
    this.panes.dataset.side = this.side;
    for (const button of document.querySelectorAll("button[data-side]")) button.setAttribute("aria-pressed", String(button.dataset.side === this.side));
  }

  tell() {
    const { base, head } = this.has;
    const told = (picture) => (picture && picture[1] ? `${number(picture[1])} × ${number(picture[2])} px` : "size unknown");
    const differ = base && head && (base[1] !== head[1] || base[2] !== head[2]);
    by("caption").textContent = differ ? `Sizes differ: base ${told(base)}, head ${told(head)}. What only one of them covers is hatched.` : told(head ?? base);
    by("caption").classList.toggle("differs", Boolean(differ));
    const count = this.one.regions?.length ?? 0;
    by("jumps").hidden = count === 0;
    by("where").textContent = this.region < 0 ? `${number(count)} changed` : `${this.region + 1} of ${count}`;
  }

  // --- Zoom and place ---

  get room() {
    const pane = this.panes.firstElementChild;
    return pane ? [pane.clientWidth || 1, pane.clientHeight || 1] : [1, 1];
  }

  fit() {
    const [width, height] = this.size;
    const [wide, high] = this.room;
    const whole = Math.min(wide / width, high / height);
    const isTall = whole < 0.3 && width * 1.5 < height;
    const scale = width <= TINY && height <= TINY ? Math.min(whole, 8) : Math.min(isTall ? wide / width : whole, 1);
    this.place = { scale, x: (wide - width * scale) / 2, y: isTall ? 0 : Math.min((high - height * scale) / 2, 48) };
    this.isFit = true;
    this.apply();
  }

  toggleFit() {
    if (!this.isFit) { this.fit(); return; }
    this.isFit = false;
    this.place = { scale: 1, x: 0, y: 0 };
    this.apply();
  }

  zoom(factor, at) {
    const [wide, high] = this.room;
    const [x, y] = at ?? [wide / 2, high / 2];
    const scale = Math.min(Math.max(this.place.scale * factor, 0.05), LARGEST);
    const ratio = scale / this.place.scale;
    this.place = { scale, x: x - (x - this.place.x) * ratio, y: y - (y - this.place.y) * ratio };
    this.isFit = false;
    this.apply();
  }

  pan(x, y) {
    this.place.x += x;
    this.place.y += y;
    this.isFit = false;
    this.apply();
  }

  // Some of the image stays in view, wherever it is pushed.
  apply() {
    const [width, height] = this.size;
    const [wide, high] = this.room;
    const { scale } = this.place;
    const keep = (place, extent, room) => (extent <= room ? Math.min(Math.max(place, 0), room - extent) : Math.min(Math.max(place, room - extent), 0));
    this.place.x = keep(this.place.x, width * scale, wide);
    this.place.y = keep(this.place.y, height * scale, high);
    const style = this.panes.style;
    style.setProperty("--at", `translate(${this.place.x}px, ${this.place.y}px) scale(${scale})`);
    style.setProperty("--hair", `${2 / scale}px`);
    this.panes.classList.toggle("is-large", scale >= 2);
    by("scale").textContent = `${Math.round(scale * 100)} %`;
    by("fit").textContent = this.isFit ? "1:1" : "Fit";
  }

  jump(step) {
    const regions = this.one?.regions ?? [];
    if (!regions.length) return;
    this.region = this.region < 0 ? (step > 0 ? 0 : regions.length - 1) : (this.region + step + regions.length) % regions.length;
    this.look(this.region);
  }

  look(index) {
    this.region = index;
    const [left, top, width, height] = this.one.regions[index];
    const [wide, high] = this.room;
    const scale = Math.min(Math.max(Math.min(wide / (width + 80), high / (height + 80)), 0.1), 3);
    this.place = { scale, x: wide / 2 - (left + width / 2) * scale, y: high / 2 - (top + height / 2) * scale };
    this.isFit = false;
    this.apply();
    for (const box of this.panes.querySelectorAll(".region")) box.classList.toggle("is-here", box.dataset.region === String(index));
    this.tell();
  }

  wheel(event) {
    const box = this.panes.firstElementChild.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      const x = (event.clientX - box.left) % (box.width + 1);
      this.zoom(Math.exp(-event.deltaY / 300), [x, event.clientY - box.top]);
      return;
    }
    const before = { ...this.place };
    this.pan(-event.deltaX, -event.deltaY);
    // What cannot be moved any further moves the page.
    if (before.x !== this.place.x || before.y !== this.place.y) event.preventDefault();
  }

  grab(event) {
    if (event.button !== 0 || event.target.closest("button")) return;
    let [x, y] = [event.clientX, event.clientY];
    const move = (moved) => {
      this.pan(moved.clientX - x, moved.clientY - y);
      [x, y] = [moved.clientX, moved.clientY];
    };
    this.panes.setPointerCapture(event.pointerId);
    this.panes.classList.add("is-grabbed");
    this.panes.addEventListener("pointermove", move);
    const drop = () => { this.panes.removeEventListener("pointermove", move); this.panes.classList.remove("is-grabbed"); };
    this.panes.addEventListener("pointerup", drop, { once: true });
    this.panes.addEventListener("pointercancel", drop, { once: true });
  }
}
