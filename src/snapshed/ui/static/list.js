// The list of images: searched, filtered, sorted, grouped, and drawn only as far as it is seen.

import { by, lastPart, make, many, number, remember, remembered, sign } from "./dom.js";

export const STATES = ["errored", "changed", "added", "removed", "renamed", "skipped", "unchanged", "images"];
const ORDER = ["alike", "errored", "changed", "removed", "added", "renamed", "skipped", "unchanged", "images"];
const ROW = 46;
const BEYOND = 6;

export class List {
  constructor(entries, decisions, choose) {
    this.entries = entries;
    this.decisions = decisions;
    this.choose = choose;
    this.folded = new Set(["skipped", "unchanged"]);
    this.only = new Set();
    this.waiting = false;
    this.current = null;
    this.scroller = by("rows");
    this.window = by("window");
    this.words = new Map(entries.map((one) => [one, [one.name, one.title, one.group, one.was, ...(one.tags ?? [])].filter(Boolean).join("\n").toLowerCase()]));
    this.alike = sizes(entries);
    by("sort").value = remembered("sort", "change");
    by("sort").addEventListener("change", () => { remember("sort", by("sort").value); this.arrange(); });
    let asked = 0;
    by("search").addEventListener("input", () => { cancelAnimationFrame(asked); asked = requestAnimationFrame(() => this.arrange()); });
    this.scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(this.scroller);
    this.offerFilters();
    this.arrange();
  }

  offerFilters() {
    const counts = new Map();
    for (const one of this.entries) counts.set(one.state, (counts.get(one.state) ?? 0) + 1);
    const offer = (label, state, count, pressed, act) => {
      const button = make("button", { type: "button", class: `filter is-${state}`, "aria-pressed": String(pressed) }, sign(state), make("span", { class: "number" }, number(count)), ` ${label}`);
      button.addEventListener("click", () => { button.setAttribute("aria-pressed", String(act())); this.arrange(); });
      return button;
    };
    const toggle = (state) => () => { if (!this.only.delete(state)) this.only.add(state); return this.only.has(state); };
    const chips = STATES.filter((state) => counts.has(state) && counts.size > 1).map((state) => offer(state, state, counts.get(state), false, toggle(state)));
    const needed = this.entries.filter((one) => one.needed).length;
    if (needed) {
      this.undecided = make("span", { class: "number" }, "");
      const button = make("button", { type: "button", class: "filter", "aria-pressed": "false" }, sign("look"), this.undecided, " undecided");
      button.addEventListener("click", () => { this.waiting = !this.waiting; button.setAttribute("aria-pressed", String(this.waiting)); this.arrange(); });
      chips.unshift(button);
    }
    by("filters").replaceChildren(...chips);
  }

  waits(one) { return Boolean(one.needed) && !this.decisions()[one.name]; }

  // Which rows there are, whatever is folded; then which of them are on view.
  arrange() {
    const asked = by("search").value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.entries.filter((one) =>
      (this.only.size === 0 || this.only.has(one.state)) && (!this.waiting || this.waits(one)) &&
      asked.every((word) => this.words.get(one).includes(word)));
    const groups = new Map();
    for (const one of found) {
      const key = this.alike.get(one.alike) > 1 ? `alike ${one.alike}` : one.state;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(one);
    }
    const sort = by("sort").value === "name" ? (a, b) => compare(a.name, b.name) : (a, b) => (b.share ?? 0) - (a.share ?? 0) || compare(a.name, b.name);
    for (const members of groups.values()) members.sort(sort);
    const place = ([key, members]) => [ORDER.indexOf(key.split(" ")[0]), key.startsWith("alike") ? -members.length : 0];
    const ordered = [...groups].sort((a, b) => place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1]);
    // Whoever searches or filters wants to see what was found.
    const isAsked = asked.length > 0 || this.only.size > 0 || groups.size === 1;
    this.rows = [];
    this.order = [];
    for (const [key, members] of ordered) {
      const folded = this.folded.has(key) && !isAsked;
      this.rows.push({ head: true, key, members, folded });
      if (folded) continue;
      for (const one of members) this.rows.push({ one, key });
      this.order.push(...members);
    }
    this.window.style.height = `${this.rows.length * ROW}px`;
    by("found").textContent = found.length === this.entries.length ? many(found.length, "image") : `${number(found.length)} of ${many(this.entries.length, "image")}`;
    this.draw();
  }

  draw() {
    if (this.undecided) this.undecided.textContent = number(this.entries.filter((one) => this.waits(one)).length);
    const from = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - BEYOND);
    const to = Math.min(this.rows.length, Math.ceil((this.scroller.scrollTop + this.scroller.clientHeight) / ROW) + BEYOND);
    const focused = this.window.contains(document.activeElement) ? document.activeElement.dataset.row : null;
    const drawn = [];
    for (let index = from; index < to; index += 1) drawn.push(this.row(this.rows[index], index));
    this.window.replaceChildren(...drawn);
    if (focused) this.window.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  row(row, index) {
    const button = row.head ? this.heading(row) : this.image(row.one);
    button.dataset.row = row.head ? `head ${row.key}` : `image ${row.one.name}`;
    return make("li", { class: row.head ? "row is-head" : "row", style: { top: `${index * ROW}px` }, "aria-setsize": this.rows.length, "aria-posinset": index + 1 }, button);
  }

  heading({ key, members, folded }) {
    const isAlike = key.startsWith("alike");
    const left = members.filter((one) => this.waits(one)).length;
    const label = isAlike ? `Same change in ${number(members.length)} images` : `${key[0].toUpperCase()}${key.slice(1)}`;
    const button = make("button", { type: "button", "aria-expanded": String(!folded) },
      make("span", { class: "fold", "aria-hidden": "true" }, folded ? "▸" : "▾"),
      make("span", { class: "name" }, label), make("span", { class: "share" }, left ? `${number(left)} left` : isAlike ? "" : number(members.length)));
    button.addEventListener("click", () => this.fold(key));
    return button;
  }

  image(one) {
    const decision = this.decisions()[one.name];
    const said = decision ? `, ${decision.is}` : one.needed ? ", undecided" : "";
    const button = make("button", {
      type: "button", class: `is-${one.state}`, "aria-current": one === this.current ? "true" : null, title: one.name,
      "aria-label": `${one.title ?? lastPart(one.name)}, ${one.state}${one.percent && one.share ? ` ${one.percent}` : ""}${said}`,
      tabindex: one === this.current || (this.current === null && one === this.order[0]) ? "0" : "-1",
    },
    make("span", { class: "mark" }, sign(one.state)),
    make("span", { class: "name" }, make("b", {}, one.title ?? lastPart(one.name)), make("span", { class: "path" }, one.name)),
    make("span", { class: "share" }, one.share ? one.percent : ""),
    make("span", { class: `tick${decision ? ` is-${decision.is}` : ""}` }, decision ? sign(decision.is === "approved" ? "good" : "reject") : one.needed ? "○" : ""));
    button.addEventListener("click", () => this.choose(one));
    return button;
  }

  fold(key) {
    if (!this.folded.delete(key)) this.folded.add(key);
    this.arrange();
  }

  foldCurrent() {
    const key = this.current && (this.alike.get(this.current.alike) > 1 ? `alike ${this.current.alike}` : this.current.state);
    if (key) this.fold(key);
  }

  show(one) {
    this.current = one;
    const index = this.rows.findIndex((row) => row.one === one);
    if (index >= 0) {
      const top = index * ROW;
      const { scrollTop, clientHeight } = this.scroller;
      if (top < scrollTop + ROW) this.scroller.scrollTop = Math.max(0, top - ROW);
      else if (top + 2 * ROW > scrollTop + clientHeight) this.scroller.scrollTop = top + 2 * ROW - clientHeight;
    }
    this.draw();
  }

  // The image so many steps on, among those that are on view.
  step(count) {
    const at = this.order.indexOf(this.current);
    return this.order[Math.min(Math.max(at < 0 ? 0 : at + count, 0), this.order.length - 1)];
  }

  end(which) { return which < 0 ? this.order[0] : this.order[this.order.length - 1]; }

  first(state) {
    const key = this.rows.find((row) => row.head && (row.key === state || (state === "changed" && row.key.startsWith("alike"))));
    if (key?.folded) this.fold(key.key);
    return this.order.find((one) => one.state === state);
  }

  nextUndecided() {
    const at = this.order.indexOf(this.current);
    const after = [...this.order.slice(at + 1), ...this.order.slice(0, Math.max(at, 0))];
    return after.find((one) => this.waits(one));
  }
}

function sizes(entries) {
  const found = new Map();
  for (const one of entries) if (one.alike) found.set(one.alike, (found.get(one.alike) ?? 0) + 1);
  return found;
}

const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
